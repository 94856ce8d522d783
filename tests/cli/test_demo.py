import pytest

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
def test_the_demo_runs_the_rule_that_suits_it_on_digits(
    fake_fine_tune, capsys, tmp_path, options, weights, network
):
    arguments = ["demo", "--output", str(tmp_path / "demo"), "--seed", "3", *options]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    plan = fake_fine_tune["plan"]
    assert f"a small BiT with {weights}" in out
    assert {name: getattr(plan, name) for name in network} == network
    assert "suits f-r14x0.5" in str(plan) and not plan.rule.random_flip and plan.seed == 3
    data = fake_fine_tune["data"]
    assert data.train_size + data.test_size == 1797
    assert f"Report: {tmp_path / 'report.html'}" in out and "Accuracy 50.00%" in out
    assert main(["demo", "--output", str(tmp_path / "demo"), "--seed", "-1"]) == 2
    assert capsys.readouterr().out == ""
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
