"""What version 0.1.0 saved before its modules moved loads still: `saved` holds a file of every
class that can be saved, the outputs that it gave, and a run folder.
"""

import json

import keras
import numpy as np
import pytest

import keras_bit
from keras_bit.hyperrule import SGD
from tests.conftest import as_numpy
from tests.processes import run_python
from tests.saved_files import SAVED, needs_their_keras


@pytest.fixture(scope="module")
def outputs():
    with np.load(SAVED / "outputs.npz") as arrays:
        return dict(arrays)


@needs_their_keras
@pytest.mark.parametrize("name", ["classifier", "sequential", "layers", "root_block"])
def test_saved_models_give_their_outputs(name, outputs):
    model = keras.models.load_model(SAVED / f"{name}.keras")
    found = as_numpy(model(outputs[f"{name}/x"]))
    # On another processor sums have another order.
    np.testing.assert_allclose(found, outputs[f"{name}/y0"], rtol=1e-4, atol=1e-5)


@needs_their_keras
def test_a_saved_classifier_trains_on():
    model = keras.models.load_model(SAVED / "classifier.keras")
    assert isinstance(model, keras_bit.BiTClassifier)
    backbone = model.backbone
    assert (backbone.depth, backbone.width, backbone.pooling) == ((1, 1, 1, 1), 0.0625, "max")
    assert (backbone.remat, backbone.kernel_epsilon) == (True, 1e-8)
    assert backbone.get_config()["frozen"] == ["root_block"]
    rule = keras_bit.HyperRule(32, 50_000, 8, micro_batch_size=4, warmup=True, schedule_length=20)
    optimizer = model.optimizer
    assert type(optimizer) is SGD and int(optimizer.iterations) == 3
    assert optimizer.get_config() == rule.optimizer().get_config() | {"name": optimizer.name}
    with np.load(SAVED / "outputs.npz") as arrays:
        momentum = arrays["classifier/momentum"]
    np.testing.assert_array_equal(as_numpy(optimizer.variables[-1]), momentum)


def test_mixup_keeps_its_seed():
    layer = keras.models.load_model(SAVED / "mixup.keras").layers[-1]
    assert isinstance(layer, keras_bit.MixUp) and (layer.alpha, layer.seed) == (0.4, 2)


@needs_their_keras
@pytest.mark.tensorflow
def test_predict_takes_the_run_folder():
    # In a process of its own, where nothing has registered the classes of the model.
    command = ("-m", "keras_bit", "predict", SAVED / "run", SAVED / "run" / "image.png", "--json")
    result = run_python(*command)
    assert result.returncode == 0, result.stderr
    ((prediction,), expected) = json.loads(result.stdout), SAVED / "run" / "expected.json"
    found = {each["class"]: each["probability"] for each in prediction["predictions"]}
    assert found == pytest.approx(json.loads(expected.read_text()), rel=1e-3)
    rule = json.loads((SAVED / "run" / "rule.json").read_text())
    assert keras_bit.HyperRule.from_config(rule["config"]).schedule_length == 20
