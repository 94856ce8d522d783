"""Short runs of a small model that can be interrupted, for processes of the tests' own too."""

import itertools
import math
import sys
import warnings

import keras
import numpy as np

from keras_bit import Checkpoint, HyperRule, fit_hyperrule

X = np.random.default_rng(0).normal(size=(36, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(36, 2)).astype("float32")


def batch(size, index):
    rows = np.arange(index * size, (index + 1) * size) % len(X)
    return X[rows], Y[rows]


def endless_batches(size, first=0):
    """Batches from the one with the number `first` on, going round."""
    return (batch(size, index) for index in itertools.count(first))


class Batches(keras.utils.PyDataset):
    """The batches that an epoch reads again."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def __len__(self):
        return math.ceil(len(X) / self.size)

    def __getitem__(self, index):
        return batch(self.size, index)


class Interrupted(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    """Calls `action`, by default raises, at the first batch from an update on."""

    def __init__(self, update, during="train", action=None):
        super().__init__()
        self._update = update
        self._during = during
        self._action = action

    def _act(self):
        if int(self.model.optimizer.iterations) >= self._update:
            if self._action is None:
                raise Interrupted
            self._action()

    def on_train_batch_begin(self, batch, logs=None):
        if self._during == "train":
            self._act()

    def on_test_batch_begin(self, batch, logs=None):
        if self._during == "test":
            self._act()


def make_rule(length=43, accumulation=1):
    return HyperRule(32, 36, 4, micro_batch_size=4 // accumulation, schedule_length=length)


def make_model(rule, optimizer=None, **options):
    """A model with a layer that draws random numbers, and metrics that TensorFlow builds late."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(8, "relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
        ]
    )
    is_jax = keras.backend.backend() == "jax"  # where all else runs one operation at a time
    options = {"jit_compile": is_jax, "metrics": ["mae"], **options}
    model.compile(optimizer or rule.optimizer(), "mse", **options)
    return model


def train(
    folder,
    *interruptions,
    rule=None,
    endless=True,
    callbacks=(),
    every=3,
    steps=None,
    close=True,
    **options,
):
    """One run of `fit`, with checkpoints if there is a folder: weights, history and model."""
    keras.utils.set_random_seed(0)
    rule = rule or make_rule()
    model = make_model(rule, **options)
    first, checkpoints = 0, []
    if folder is not None:
        checkpoint = Checkpoint(folder, every, callbacks=callbacks, verbose=False)
        checkpoints = [checkpoint]
        first = checkpoint.initial_step * rule.accumulation_steps if endless else 0
    size = rule.micro_batch_size
    data = endless_batches(size, first) if endless else Batches(size)
    if not endless:
        steps = 13 * rule.accumulation_steps  # more than the data have
    arguments = fit_hyperrule(rule, steps, [*callbacks, *checkpoints, *interruptions])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*ran out of data")
        warnings.filterwarnings("ignore", message="Training resumes with epoch")
        try:
            history = model.fit(
                data, validation_data=(X, Y), validation_batch_size=12, shuffle=False, verbose=0,
                **arguments,
            )  # fmt: skip
        finally:
            for checkpoint in checkpoints if close else ():
                checkpoint.close()
    return model, history


def outcome(model, history):
    """All that two equal runs have in common, to the bit."""
    arrays = [*model.variables, *model.optimizer.variables]
    state = [np.asarray(keras.ops.convert_to_numpy(array)).tolist() for array in arrays]
    return {"history": history.history, "epochs": history.epoch, "state": state}


if __name__ == "__main__":
    # The folder, what to send itself, and when.
    import os
    import signal

    folder, name, update, during = sys.argv[1:]

    def send():
        os.kill(os.getpid(), getattr(signal, name))

    train(folder, Interrupt(int(update), during, send))
