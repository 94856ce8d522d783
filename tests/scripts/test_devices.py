"""The examples that train on several devices and in several processes."""

import concurrent.futures
import functools
import socket

import keras
import numpy as np
import pytest

import keras_bit
from tests.processes import FAST_COMPILING
from tests.scripts.conftest import run_in_child, short_rule

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]
UPDATES = 4  # Keras on JAX compiles for the better part of a minute


def test_several_gpus(run, pets, monkeypatch, two_replicas):
    import tensorflow as tf

    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: two_replicas)
    result = run("several_gpus", pets)
    assert result.model.distribute_strategy.num_replicas_in_sync == 2
    backbone, head = keras.saving.load_model("photos.keras").layers
    assert backbone.compute_dtype == "bfloat16" and head.compute_dtype == "float32"
    assert {weight.dtype for weight in backbone.weights} == {"float32"}
    assert result.model.evaluate(result.test, verbose=0, return_dict=True)["accuracy"] > 0.5


def run_on_jax(name, pets, folder, flags="", **environment):
    """What an example prints."""
    environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{FAST_COMPILING} {flags}"}
    result = run_in_child(UPDATES, name, pets, cwd=folder, **environment)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_several_gpus_on_jax(pets, tmp_path):
    two_devices = "--xla_force_host_platform_device_count=2"
    output = run_on_jax("several_gpus", pets, tmp_path, two_devices)
    assert output.endswith("\n16 images, 2 devices\n")
    backbone, _ = keras.saving.load_model(tmp_path / "photos.keras").layers
    assert backbone.compute_dtype == "bfloat16"


@pytest.fixture
def weights_of_one_process(pets, monkeypatch):
    """What the same data, rule and network give here, on TensorFlow."""
    rule = functools.partialmethod(short_rule, schedule_length=UPDATES)
    monkeypatch.setattr(keras_bit.HyperRule, "__init__", rule)
    data = keras_bit.image_folder(pets)
    rule = keras_bit.HyperRule.for_preset("f-r14x0.5", data.image_size, data.train_size)
    train, _ = keras_bit.pipelines(data, rule)
    model = keras_bit.BiTClassifier(keras_bit.BiTBackbone.from_preset("f-r14x0.5"), 2)
    keras_bit.compile_classifier(model, rule.optimizer())
    model.fit(train, verbose=0, **keras_bit.fit_hyperrule(rule))
    return model.get_weights()


def test_jax_processes(pets, tmp_path, weights_of_one_process):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    variables = {"JOB_ADDRESSES": address, "NUM_PROCESSES": "2"}

    def process(index):
        given = {**variables, "PROCESS_ID": str(index)}
        environment = {f"KERAS_DISTRIBUTION_{name}": value for name, value in given.items()}
        return run_on_jax("jax_processes", pets, tmp_path, **environment)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        outputs = list(pool.map(process, range(2)))
    for index, output in enumerate(outputs):
        assert f"Process {index} of 2, 2 devices\n" in output
        assert output.endswith("\n8 images, 2 devices\n")
    saved = keras.saving.load_model(tmp_path / "photos.keras").get_weights()
    for ours, theirs in zip(saved, weights_of_one_process, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
