"""What a save of the training state costs, beside Keras's own callbacks.

`keras.callbacks.OrbaxCheckpoint` takes part where `orbax-checkpoint` is installed.
"""

import importlib.util
import itertools
import tempfile

import keras
import numpy as np

import keras_bit
from benchmarks.harness.interleaved import InterleavedRun, Round
from benchmarks.harness.tables import OWN
from keras_bit.hyperrule import SGD
from keras_bit.models.classifier import compile_classifier

SMALL, REAL = ((1, 1, 1, 1), 0.5), (50, 1)


def make_model(network):
    model = keras_bit.BiTClassifier(keras_bit.BiTBackbone(*network), 10)
    compile_classifier(model, SGD(0.003, momentum=0.9))
    model.train_on_batch(np.zeros((1, 32, 32, 3), "float32"), np.eye(1, 10))
    model.history = keras.callbacks.History()
    model.history.epoch = []
    return model


def begin(callback, network):
    """Returns a callback as it is when `fit` has begun."""
    callback.set_params({"steps": 10**6, "epochs": 1, "verbose": 0})
    callback.set_model(make_model(network))
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    return callback


def ours(network, waits):
    """Saves before every step; `waits` until all is written, or until training continues."""
    checkpoint = keras_bit.Checkpoint(tempfile.mkdtemp(), every=1, verbose=False)
    begin(checkpoint, network)
    steps = itertools.count(1)

    def save():
        checkpoint.on_train_batch_begin(next(steps))
        if waits:
            checkpoint.wait()

    return Round(lambda: None, save, checkpoint.wait)


def backup_and_restore(network):
    callback = begin(keras.callbacks.BackupAndRestore(tempfile.mkdtemp() + "/backup"), network)
    return Round(lambda: None, lambda: callback.on_epoch_end(0, {}))


def orbax(network, waits):
    callback = keras.callbacks.OrbaxCheckpoint(tempfile.mkdtemp(), save_on_background=not waits)
    begin(callback, network)
    epochs = itertools.count()

    def save():
        callback.on_epoch_end(next(epochs), {})

    return Round(lambda: None, save, callback.wait_until_finished)


def implementations(network):
    found = {
        f"{OWN}, until training continues": lambda: ours(network, waits=False),
        f"{OWN}, until it is on the disk": lambda: ours(network, waits=True),
        "BackupAndRestore": lambda: backup_and_restore(network),
    }
    if importlib.util.find_spec("orbax"):
        found["OrbaxCheckpoint, until training continues"] = lambda: orbax(network, waits=False)
        found["OrbaxCheckpoint, until it is on the disk"] = lambda: orbax(network, waits=True)
    return found


def interleaved_runs(full):
    network = REAL if full else SMALL
    title = "saves of the training state, each counted as an image, R{}x{}".format(*network)
    return [InterleavedRun(title, 1, 15 if full else 3, implementations(network))]


def test_checkpoint(interleaved_run, implementation, report):
    report(interleaved_run, implementation)
