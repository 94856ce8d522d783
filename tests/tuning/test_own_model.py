import inspect
import re
import textwrap

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

import keras_bit
from keras_bit import HyperBiT
from tests.conftest import as_numpy

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.usefixtures("undrawn")]


@pytest.fixture
def two_heads():
    """The class in the documentation, with a smaller backbone."""
    blocks = re.findall(r"```python\n(.*?)```", inspect.getdoc(HyperBiT), re.S)
    [code] = [block for block in blocks if "class TwoHeads" in block]
    code = code.replace('.from_preset("f-r14x0.5")', "((1, 1, 1, 1), width=0.125)")
    names = {"keras": keras, "keras_bit": keras_bit, "tf": tf}
    exec(textwrap.dedent(code), names)
    return names["TwoHeads"]


@pytest.fixture
def digits():
    data = keras_bit.digits(examples_per_class=4)
    sizes = {"schedule_length": 8, "resize_edge": 36, "crop_size": 32}
    return data, keras_bit.HyperRule(data.image_size, data.train_size, 8, **sizes)


@pytest.mark.exhaustive
def test_the_example_runs_under_hyperband(two_heads, digits, tmp_path):
    runs = []

    class Spy(two_heads):
        def fit(self, hp, model, *args, **kwargs):
            start = int(as_numpy(model.optimizer.iterations))
            momentum = [as_numpy(v) for v in model.optimizer.variables if "momentum" in v.path]
            history = super().fit(hp, model, *args, **kwargs)
            runs.append((hp.values, start, int(as_numpy(model.optimizer.iterations)), momentum))
            assert {"digit_loss", "is_odd_loss", "val_is_odd_loss"} <= history.history.keys()
            return history

    space = keras_tuner.HyperParameters()
    space.Fixed("schedule_factor", 1.0)
    tuner = keras_tuner.Hyperband(
        Spy(*digits, epochs=2),
        "val_loss",
        max_epochs=2,
        factor=2,
        directory=tmp_path,
        hyperparameters=space,
        seed=1,
    )
    tuner.search(verbose=0)
    assert {t.status for t in tuner.oracle.trials.values()} == {"COMPLETED"}
    assert {values["rate"] for values, *_ in runs} <= {0.0, 0.2}
    ends = {(v["tuner/initial_epoch"], v["tuner/epochs"]): (a, b) for v, a, b, _ in runs}
    assert ends == {(0, 1): (0, 4), (1, 2): (4, 8), (0, 2): (0, 8)}
    [(*_, momentum)] = [run for run in runs if run[1] == 4]
    assert any(np.abs(values).max() > 0 for values in momentum)


def test_search_takes_it_too(two_heads, digits):
    hypermodel = two_heads(*digits, epochs=1)
    space = {"rate": 1.0, "length": 1.0, "mixup": (0.0, 0.1)}
    options = {"objective": "val_digit_loss", "trials": 2, "repeats": 2, "verbose": 0}
    with pytest.raises(ValueError, match="`objective` must name a metric.*'val_digit_los'"):
        keras_bit.search(
            hypermodel, **{**options, "objective": keras_tuner.Objective("val_digit_los", "min")}
        )
    options["objective"] = keras_tuner.Objective("val_digit_loss", "min")
    result = keras_bit.search(hypermodel, space=space, **options)
    assert [t.status for t in result.trials] == ["completed"] * 2
    assert all("rate" in trial.values for trial in result.trials)
    assert result.direction == "min" and result.objective == "val_digit_loss"


def test_tensorboard_shows_hyperparameters(quick, data, rule, tmp_path):
    callback = keras.callbacks.TensorBoard(tmp_path / "logs", write_graph=False)
    options = {"epochs": 1, "trials": 2, "repeats": 2, "verbose": 0, "callbacks": [callback]}
    keras_bit.search(data, rule, space=["mixup"], **options)
    folders = {path.name for path in (tmp_path / "logs").iterdir()}
    assert folders == {"0000", "0001"} | {f"000{n}-{seed}" for n in (0, 1) for seed in (1, 2)}
    alphas = set()
    for path in sorted((tmp_path / "logs").glob("000?/execution0/events.*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag.endswith("session_start_info"):
                    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

                    content = value.metadata.plugin_data.content
                    start = HParamsPluginData.FromString(content).session_start_info
                    alphas.add(start.hparams["mixup_alpha"].number_value)
    assert alphas == {0.0, 0.1}
