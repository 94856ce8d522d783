"""Runs on several devices, and in several processes."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_bit
from keras_bit.core.distribution import replicas
from keras_bit.training import distribution
from tests.processes import FAST_COMPILING, ROOT
from tests.training.test_run import colors

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("undrawn")]

# Wide enough and large enough: with two channels a group and 1x1 maps, rounding is all one sees.
NETWORK = {"depth": (1, 1, 1, 1), "width": 1 / 4}
RULE = {
    "batch_size": 8,
    "schedule_length": 12,
    "resize_edge": 72,
    "crop_size": 64,
    "mixup_alpha": 0.2,
    "steps_per_epoch": 4,
}


def fine_tune(output=None, callbacks=(), **changes):
    """A run whose 13 validation images two devices cannot share evenly."""
    data = keras_bit.ImageDataset.from_arrays(*colors(48), *colors(13, 1))
    options = {**NETWORK, **RULE, **changes}
    return keras_bit.fine_tune(data, **options, output=output, callbacks=callbacks, verbose=0)


def assert_same_run(one, other, rtol, atol):
    """Compares histories, metrics and weights, given as what `outcome_of` returns."""
    assert one["updates"] == other["updates"]
    np.testing.assert_allclose(one["val_accuracy"], other["val_accuracy"], rtol=1e-6)
    for name in ("loss", "val_loss", "final_loss"):
        np.testing.assert_allclose(one[name], other[name], rtol=rtol, err_msg=name)
    for mine, theirs in zip(one["weights"], other["weights"], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=atol)


def outcome_of(result):
    history = {k: result.history[k] for k in ("loss", "val_loss", "val_accuracy", "updates")}
    weights = [weight.tolist() for weight in result.model.get_weights()]
    return {**history, "final_loss": result.metrics["loss"], "weights": weights}


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}, "NUM_PROCESSES=2 with the backend tensorflow"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "KERAS_BACKEND=jax"),
        ({"TF_CONFIG": "{}"}, "MultiWorkerMirroredStrategy.*Received: TF_CONFIG"),
    ],
)
def test_several_processes_need_jax(variables, message, monkeypatch):
    distribution.join_processes()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match=message):
            distribution.join_processes()


@pytest.mark.parametrize("name, value", [("JOB_ADDRESSES", "a:1"), ("PROCESS_ID", "1")])
def test_the_number_of_processes_must_not_be_missing(name, value, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    with pytest.raises(ValueError, match="NUM_PROCESSES.* must be the address"):
        distribution.join_processes()
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match=f"Received: .*{name}={value} without .*NUM_PROCESSES"):
        distribution.join_processes()


@pytest.mark.parametrize("addresses, index", [("", "0"), ("127.0.0.1:1", "2"), ("a:1,b:1", "one")])
def test_what_keras_reads_is_checked(addresses, index, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for name, value in (
        ("JOB_ADDRESSES", addresses),
        ("NUM_PROCESSES", "2"),
        ("PROCESS_ID", index),
    ):
        monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    with pytest.raises(ValueError, match=f"must be the address.*{re.escape(repr(index))}"):
        distribution.join_processes()


def test_all_gpus_are_used(monkeypatch, two_replicas):
    import tensorflow as tf

    cpus = tf.config.list_logical_devices("CPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda device_type: cpus)
    with distribution.all_devices():
        assert replicas() == len(cpus) == 2
        plan = keras_bit.plan(keras_bit.digits(examples_per_class=2), batch_size=32, verbose=0)
        assert plan.devices == 2 and plan.memory.images == 16
        with pytest.raises(ValueError, match="`micro_batch_size` cannot be combined.*2 replicas"):
            keras_bit.plan(keras_bit.digits(examples_per_class=2), micro_batch_size=16)
        assert "2 devices, each like" in str(plan)
    assert replicas() == 1
    one = tf.distribute.MirroredStrategy(cpus[:1])
    with one.scope(), distribution.all_devices():
        assert replicas() == 1, "the strategy that was chosen stays"


def test_memory_grows_before_gpus_are_listed_which_initializes_them(monkeypatch):
    import tensorflow as tf

    calls = []
    monkeypatch.setattr(distribution, "set_memory_growth", lambda: calls.append("growth"))
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _: calls.append("list") or [])
    with distribution.all_devices():
        assert calls == ["growth", "list"]


def test_multi_worker_strategies_are_refused():
    import tensorflow as tf

    data = keras_bit.digits(examples_per_class=2)
    with tf.distribute.MultiWorkerMirroredStrategy().scope():
        for use in (keras_bit.plan, keras_bit.HyperBiT, keras_bit.search):
            with pytest.raises(ValueError, match="on JAX only.*such a strategy. Set KERAS_BACKEND"):
                use(data)


def test_a_lost_process_is_explained(monkeypatch):
    error = RuntimeError("UNAVAILABLE: connection reset\nmore")
    with pytest.raises(RuntimeError, match="^UNAVAILABLE"), distribution.explain_lost_process():
        raise error
    two = distribution.processes().__class__(1, 2)
    monkeypatch.setattr(distribution, "processes", lambda: two)
    with pytest.raises(
        ConnectionError, match=r"another process.*\(process 1 of 2: UNAVAIL.*reset\)$"
    ):
        with distribution.explain_lost_process():
            raise error
    with pytest.raises(ValueError, match="^other$"), distribution.explain_lost_process():
        raise ValueError("other")


@pytest.mark.slow
def test_two_replicas_of_tensorflow_are_as_one(two_replicas):
    one = fine_tune()
    keras.backend.clear_session(free_memory=False)
    with two_replicas.scope():
        two = fine_tune()
    # Sums of the two halves of a batch are rounded once more.
    assert_same_run(outcome_of(two), outcome_of(one), rtol=1e-4, atol=1e-5)


SCRIPT = """
import json, os, pathlib, sys
import keras
from keras_bit.core.distribution import processes
from keras_bit.training.distribution import join_processes
from tests.training.test_distribution import Slow, fine_tune, outcome_of

join_processes()
output, slow, micro = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
if os.environ.get("ONE_DEVICE"):
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=["cpu:0"]))
print("begun", flush=True)
steps = 32 // micro  # of 4 updates
result = fine_tune(output, [Slow(slow)], micro_batch_size=micro, steps_per_epoch=steps)
path = pathlib.Path(f"{output}-{processes().index}.json")
path.write_text(json.dumps(outcome_of(result)))  # a pipe would fill up
"""
PATIENCE = 240  # seconds for a run of several processes, which trace and compile beside each other


class Slow(keras.callbacks.Callback):
    """Makes steps long enough to be interrupted; every epoch leaves a checkpoint."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(self.seconds)


def start(output, *, slow=0.0, micro=8, **environment):
    """A run on JAX in another process; what one of them has compiled, the next need not."""
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(output.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **environment,
        "XLA_FLAGS": f"{FAST_COMPILING} {environment.get('XLA_FLAGS', '')}",
    }
    arguments = [sys.executable, "-c", SCRIPT, str(output), str(slow), str(micro)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(arguments, cwd=ROOT, env=environment, text=True, **pipes)


@contextlib.contextmanager
def two_processes(output, **options):
    """A run on JAX in two other processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"JOB_ADDRESSES": f"127.0.0.1:{port}", "NUM_PROCESSES": "2"}
    pair = [
        start(
            output,
            **{f"KERAS_DISTRIBUTION_{k}": v for k, v in {**variables, "PROCESS_ID": i}.items()},
            **options,
        )
        for i in ("0", "1")
    ]
    try:
        yield pair
    finally:
        for process in pair:
            process.kill()
            process.communicate()


def result_of(process, output, index=0):
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(pathlib.Path(f"{output}-{index}.json").read_text())


def wait_for_checkpoint(output, update):
    """Returns when a checkpoint of this update or a later one has been written."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for path in output.glob("unfinished/checkpoints/checkpoint-*/manifest.json"):
            with contextlib.suppress(OSError, ValueError):
                if json.loads(path.read_text())["content"]["update"] >= update:
                    return
        time.sleep(0.05)
    raise TimeoutError(f"no checkpoint of update {update} in {output}")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_devices_and_processes_of_jax_are_as_one_and_resume(tmp_path):
    runs = {
        tmp_path / "one": {"ONE_DEVICE": "1"},
        tmp_path / "two": {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "micro": 4},
    }
    started = [start(output, **options) for output, options in runs.items()]
    one, two = map(result_of, started, runs)
    assert_same_run(two, one, rtol=1e-3, atol=1e-4)
    output = tmp_path / "processes"
    with two_processes(output, slow=0.5) as (first, second):
        wait_for_checkpoint(output, 4)
        second.kill()
        killed = time.monotonic()
        _, errors = first.communicate(timeout=PATIENCE)
        assert first.returncode != 0 and time.monotonic() - killed < 60
        assert "another process failed" in errors, errors[-3000:]
    with two_processes(output, slow=0.5) as (first, second):
        wait_for_checkpoint(output, 8)
        second.send_signal(signal.SIGTERM)
        stopped = [process.communicate(timeout=PATIENCE) for process in (first, second)]
        assert [process.returncode for process in (first, second)] == [143, 143], stopped
    with two_processes(output) as pair:
        results = [result_of(process, output, index) for index, process in enumerate(pair)]
    assert results[0] == results[1], "each process has the whole result"
    assert_same_run(results[0], one, rtol=1e-3, atol=1e-4)
    assert (output / "report.html").exists() and not (output / "unfinished").exists()
