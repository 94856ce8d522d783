"""What users compile and how their `fit` fails, beyond the runs of `test_callback.py`."""

import pathlib
import signal
import warnings

import keras
import ml_dtypes
import numpy as np
import pytest

from keras_bit import Checkpoint, fit_hyperrule
from keras_bit.checkpoints.files import newest_checkpoint, write_checkpoint
from keras_bit.checkpoints.state import restore_states, states_of
from tests.checkpoints.runs import (
    Interrupt,
    Interrupted,
    X,
    Y,
    endless_batches,
    make_model,
    make_rule,
    outcome,
    train,
)
from tests.conftest import not_on_torch


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Training resumes with epoch")
        yield


def test_metrics_may_be_arrays(tmp_path):
    _, history = train(tmp_path, metrics=[keras.metrics.F1Score()])
    saved = newest_checkpoint(tmp_path).content["history"]
    np.testing.assert_array_equal(saved["f1_score"], history.history["f1_score"])


def test_metrics_that_are_built_late_resume(tmp_path):
    def run(folder, *interruptions):
        return train(folder, *interruptions, metrics=[keras.metrics.F1Score(average="macro")])

    expected = outcome(*run(None))
    with pytest.raises(Interrupted):
        run(tmp_path, Interrupt(22))
    keras.backend.clear_session(free_memory=False)
    assert outcome(*run(tmp_path)) == expected


def test_several_outputs_without_metrics_resume(tmp_path):
    def run(folder, *interruptions):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((3,))
        outputs = {name: keras.layers.Dense(2, name=name)(inputs) for name in ("a", "b")}
        model = keras.Model(inputs, outputs)
        model.compile("sgd", {"a": "mse", "b": "mae"})
        checkpoint = Checkpoint(folder, 1, verbose=False)
        history = model.fit(
            X, {"a": Y, "b": -Y}, batch_size=4, epochs=3, shuffle=False, verbose=0,
            callbacks=[checkpoint, *interruptions],
        )  # fmt: skip
        return model, history

    expected = outcome(*run(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        run(tmp_path / "other", Interrupt(13))
    assert outcome(*run(tmp_path / "other")) == expected


def fit(model, checkpoint, *interruptions, epochs=5):
    """Saves after every update: on a slow disk, one that is still written would skip the next."""
    written = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: checkpoint.wait()
    )
    return model.fit(
        X, Y, batch_size=4, epochs=epochs, shuffle=False, verbose=0,
        callbacks=[checkpoint, written, *interruptions],
    )  # fmt: skip


def test_a_fit_that_fails_changes_no_later_one(tmp_path):
    model = make_model(make_rule(), optimizer="sgd")
    checkpoint = Checkpoint(tmp_path, 1, verbose=False)
    for update in (13, 31):  # in the second epoch, and in the fourth
        with pytest.raises(Interrupted):
            fit(model, checkpoint, Interrupt(update))
        assert checkpoint.initial_step == 9 * (update // 9)
    assert fit(model, checkpoint).epoch == [0, 1, 2, 3, 4]
    assert int(model.optimizer.iterations) == 45

    with pytest.raises(Interrupted):  # resumed, and failed
        fit(make_model(make_rule(), optimizer="sgd"), checkpoint, Interrupt(60), epochs=8)
    failed = make_model(make_rule(), optimizer="sgd")
    with pytest.raises(Interrupted):
        fit(failed, checkpoint, Interrupt(65), epochs=8)
    assert failed.fit(X, Y, epochs=2, verbose=0).epoch == [0, 1]
    checkpoint.close()


def test_a_signal_in_another_fit_of_the_model_acts_at_once(tmp_path):
    model = make_model(make_rule(), optimizer="sgd")
    checkpoint = Checkpoint(tmp_path, 1, verbose=False)
    with pytest.raises(Interrupted):
        fit(model, checkpoint, Interrupt(5))

    def send(batch, logs):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the signal is ignored")

    once = keras.callbacks.LambdaCallback(on_train_batch_begin=send)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, verbose=0, callbacks=[once])
    checkpoint.close()


class OwnFit(keras.Sequential):
    def fit(self, x, y, callbacks):
        listeners = keras.callbacks.CallbackList(callbacks, model=self, steps=9, epochs=1)
        listeners.on_train_begin()
        listeners.on_epoch_begin(0)
        for step in range(9):
            listeners.on_train_batch_begin(step)
            self.train_on_batch(x[4 * step : 4 * step + 4], y[4 * step : 4 * step + 4])
            listeners.on_train_batch_end(step)
        listeners.on_epoch_end(0)
        listeners.on_train_end()


def test_a_fit_of_ones_own(tmp_path):
    model = OwnFit([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse", jit_compile=keras.backend.backend() == "jax")
    model.history = keras.callbacks.History()
    model.history.epoch = []
    model.fit(X, Y, callbacks=[Checkpoint(tmp_path, verbose=False)])
    assert newest_checkpoint(tmp_path).content["update"] == 9


def test_what_settings_cannot_hold():
    with pytest.raises(ValueError, match="`settings` must hold what JSON can.*type PosixPath"):
        Checkpoint("folder", settings={"data": pathlib.PosixPath("images")})


@not_on_torch
def test_fewer_steps_of_a_fit_that_failed_are_not_those_of_the_next():
    rule = make_rule(6)
    model = make_model(rule, steps_per_execution=4)
    arguments = fit_hyperrule(rule, 6, [Interrupt(6, "test")])
    with pytest.raises(Interrupted):
        model.fit(endless_batches(4), validation_data=(X, Y), shuffle=False, verbose=0, **arguments)
    before = int(model.optimizer.iterations)
    model.fit(X[:32], Y[:32], batch_size=4, verbose=0)
    assert int(model.optimizer.iterations) == before + 8
    model.fit(endless_batches(4), shuffle=False, verbose=0, epochs=1, steps_per_epoch=4)
    assert int(model.optimizer.iterations) == before + 12


def test_arrays_of_callbacks_keep_their_type(tmp_path):
    early = keras.callbacks.EarlyStopping()
    early.best_weights = [np.ones(3, ml_dtypes.bfloat16), np.ones(2, "float32")]
    states, arrays = states_of([early], [{}])
    write_checkpoint(tmp_path, arrays, {"callbacks": states}, keep=1)
    saved = newest_checkpoint(tmp_path)
    other = keras.callbacks.EarlyStopping()
    restore_states([other], saved.content["callbacks"], saved.arrays)
    for ours, theirs in zip(other.best_weights, early.best_weights, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


class Unsaved(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.01


def test_a_schedule_that_cannot_be_saved_is_refused_before_training(tmp_path):
    model = make_model(make_rule(), optimizer=keras.optimizers.SGD(Unsaved()))
    with pytest.raises(ValueError, match="`Checkpoint` needs an optimizer.*`get_config`"):
        fit(model, Checkpoint(tmp_path))
    assert int(model.optimizer.iterations) == 0
