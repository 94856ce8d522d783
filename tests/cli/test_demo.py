import types

import pytest

import keras_bit
from keras_bit.cli.main import main
from keras_bit.weights.presets import EMBEDDED

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize(
    "options, weights, network",
    [
        ([], "weights from synthetic images", {"preset": EMBEDDED}),
        (
            ["--from-scratch"],
            "random weights",
            {"preset": None, "depth": (1, 1, 1, 1), "width": 0.5},
        ),
    ],
)
def test_the_demo_is_a_shortened_rule_on_digits(
    monkeypatch, capsys, tmp_path, options, weights, network
):
    seen = {}

    def fine_tune(data, **settings):
        seen.update(settings, data=data)
        metrics = {"accuracy": 0.5, "validation_images": 359, "best_update": 1}
        metrics["training_seconds"] = 1.0
        return types.SimpleNamespace(metrics=metrics, output=tmp_path)

    monkeypatch.setattr(keras_bit, "fine_tune", fine_tune)
    arguments = ["demo", "--output", str(tmp_path / "demo"), "--seed", "3", *options]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    plan = seen["plan"]
    assert f"a small BiT with {weights}" in out
    assert {name: getattr(plan, name) for name in network} == network
    assert plan.rule.schedule_length < 500 and plan.seed == 3
    assert seen["data"].train_size + seen["data"].test_size == 1797
    assert f"Report: {tmp_path / 'report.html'}" in out and "Accuracy 50.00%" in out
