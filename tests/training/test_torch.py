"""Whole runs with Keras on PyTorch, and what is refused there."""

import json

import keras
import pytest

from keras_bit.training import distribution
from tests.processes import run_python

SCRIPT = """
import json, pathlib, sys

import keras
import keras_bit
import numpy as np

OUTPUT, FILE = sys.argv[1:]
OPTIONS = dict(
    depth=(1, 1, 1, 1), width=0.25, crop_size=32, batch_size=8, micro_batch_size=4, dropout=0.3,
    schedule_length=12, steps_per_epoch=8, mixup_alpha=0.2, weight_decay=0.01, verbose=0,
)


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.update:
            raise KeyboardInterrupt


images = np.random.default_rng(0).integers(0, 256, (40, 40, 40, 3), "uint8")
labels = np.arange(40) % 3
data = keras_bit.ImageDataset.from_arrays(images[:32], labels[:32], images[32:], labels[32:])


def run(output, update=None, **changes):
    interrupt = Interrupt()
    interrupt.update = update
    try:
        return keras_bit.fine_tune(data, output=output, callbacks=[interrupt], **OPTIONS, **changes)
    except KeyboardInterrupt:
        assert update is not None


def outcome(result):
    return result.history, [w.tolist() for w in result.model.get_weights()]


whole = run(None)
keras_bit.training.run.Checkpoint.__init__.__kwdefaults__["every_seconds"] = 1e-9
for update in (3, 6, 11):
    assert run(OUTPUT, update) is None
resumed = run(OUTPUT, resume=True)
remat = run(None, remat=True)
pathlib.Path(FILE).write_text(json.dumps({
    "equal": outcome(resumed) == outcome(whole),
    "losses": [whole.history["loss"], remat.history["loss"]],
    "updates": resumed.history["updates"],
    "metrics": json.loads(pathlib.Path(OUTPUT, "metrics.json").read_text()),
    "micro_batch": keras_bit.largest_micro_batch(whole.model, whole.rule, verbose=0),
}))
"""


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_run_resumes_to_the_bit_and_remat_changes_nothing(tmp_path):
    pytest.importorskip("torch")
    output, file = tmp_path / "run", tmp_path / "found.json"
    # With more threads PyTorch's wait for each other, for minutes where other tests run as well.
    variables = {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    done = run_python("-c", SCRIPT, output, file, **variables)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found["equal"]
    assert found["updates"] == [4, 8, 12]
    whole, remat = found["losses"]
    assert remat == pytest.approx(whole, rel=1e-4)
    assert found["metrics"]["devices"] == "cpu:0"
    assert found["metrics"]["keras"].endswith(" on torch")
    assert found["micro_batch"] == 8
    assert (output / "report.html").exists() and not (output / "unfinished").exists()


@pytest.fixture
def torch(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    return pytest.importorskip("torch")


def test_several_processes_are_refused(torch, monkeypatch):
    distribution.join_processes()
    monkeypatch.setenv("WORLD_SIZE", "2")  # what torchrun sets
    with pytest.raises(ValueError, match="on JAX only.*WORLD_SIZE=2 with the backend torch"):
        distribution.join_processes()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    with pytest.raises(ValueError, match="Received: a process group of 3"):
        with distribution.all_devices():
            pass


def test_that_one_of_several_gpus_is_used_is_said(torch, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(distribution, "runs_on_cpu", lambda: False)
    monkeypatch.setattr(distribution, "device_names", lambda: ["cuda:0"])
    with pytest.warns(UserWarning, match="trains on one device, cuda:0, of the 4 here"):
        with distribution.all_devices():
            pass
