import json

import numpy as np
import pytest

from keras_bit import Evaluation
from keras_bit.evaluation import RunOutputs

SEVERAL = RunOutputs(True, 2.0, (0.25, 0.75))


def test_what_is_written_is_read_again(tmp_path):
    for outputs in (SEVERAL, RunOutputs(temperature=1.7), RunOutputs(True)):
        outputs.write(tmp_path)
        assert RunOutputs.read(tmp_path, classes=2) == outputs
    assert [path.name for path in tmp_path.iterdir()] == ["outputs.json"]


def test_a_run_of_an_earlier_version_has_a_softmax(tmp_path):
    assert RunOutputs.read(tmp_path, classes=2) == RunOutputs()
    np.testing.assert_allclose(RunOutputs().probabilities([[0, np.log(3)]]), [[0.25, 0.75]])


def test_probabilities_and_decisions():
    logits = [[2 * np.log(3), 2 * np.log(3)], [-2 * np.log(3), 0]]
    np.testing.assert_allclose(SEVERAL.probabilities(logits), [[0.75, 0.75], [0.25, 0.5]])
    above = np.add(logits, 1e-6)  # on the thresholds, versions of SciPy round otherwise
    assert SEVERAL.decide(above).tolist() == [[1, 1], [1, 0]]
    assert RunOutputs(True).decide(logits).tolist() == [[1, 1], [0, 1]]
    assert RunOutputs().decide([[1, 2], [3, 0]]).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [0.5, 3.0, 100.0])
def test_another_temperature_decides_as_before(rng, temperature):
    logits = rng.normal(0, 4, (1000, 2))
    changed = SEVERAL.with_temperature(temperature)
    assert changed.temperature == temperature and changed.thresholds != SEVERAL.thresholds
    np.testing.assert_array_equal(changed.decide(logits), SEVERAL.decide(logits))
    assert RunOutputs().with_temperature(3.0) == RunOutputs(temperature=3.0)


def test_fitting_lowers_the_loss_and_keeps_the_decisions(rng):
    labels = (rng.uniform(size=(200, 2)) < 0.4).astype(int)
    logits = 5 * (labels - 0.5 + rng.normal(size=labels.shape))
    before = Evaluation(labels, logits, ("cat", "dog"), outputs=SEVERAL)
    after = Evaluation(labels, logits, ("cat", "dog"), outputs=SEVERAL.fit_temperature(before))
    assert after.metrics["loss"] < before.metrics["loss"] - 0.01
    np.testing.assert_array_equal(after.predictions, before.predictions)


@pytest.mark.parametrize(
    "content",
    ["", "3", "[]", "{}", '{"multi_label": true}', "[" * 10_000,
     '{"multi_label": 3, "temperature": 1, "thresholds": null}',
     '{"multi_label": true, "temperature": 0, "thresholds": null}',
     '{"multi_label": true, "temperature": NaN, "thresholds": null}',
     '{"multi_label": true, "temperature": 1, "thresholds": [0.5, 2]}',
     '{"multi_label": true, "temperature": 1, "thresholds": [0.5, "a"]}',
     '{"multi_label": true, "temperature": 1, "thresholds": 0.5}',
     '{"multi_label": false, "temperature": 1, "thresholds": [0.5, 0.5]}'],
)  # fmt: skip
def test_whatever_else_stands_in_the_file_the_error_names_it(tmp_path, content):
    (tmp_path / "outputs.json").write_text(content)
    with pytest.raises(ValueError, match="`MODEL` must hold the JSON of.*outputs.json") as error:
        RunOutputs.read(tmp_path, classes=2, name="MODEL")
    assert "\n" not in str(error.value)


def test_thresholds_of_other_classes_name_both_files(tmp_path):
    RunOutputs(multi_label=True, thresholds=(0.5,)).write(tmp_path)
    with pytest.raises(ValueError, match="1 thresholds in .*outputs.json, and 2 names in .*names"):
        RunOutputs.read(tmp_path, classes=2)


def test_thresholds_of_validation_images_are_those_of_the_run():
    labels, logits = [[0, 1], [0, 0], [1, 0]], [[-3.0, 2.0], [-1.0, -2.0], [0.0, -2.0]]
    evaluation = Evaluation(labels, logits, ("cat", "dog"))
    outputs = RunOutputs.of(evaluation)
    low, high = 1 / (1 + np.e), 0.5
    assert outputs == evaluation.outputs and len(outputs.thresholds) == 2
    assert outputs.thresholds[0] == pytest.approx((low + high) / 2)
    assert json.loads(json.dumps(outputs.thresholds)) == list(outputs.thresholds)
    assert RunOutputs.of(Evaluation([0], [[1.0, 0]], "ab")) == RunOutputs()
