import pathlib
import signal

import keras
import keras_tuner
import numpy as np
import pytest
from keras_tuner.src.engine.tuner_utils import SaveBestEpoch

from keras_bit import HyperBiT
from keras_bit.tuning.trial_run import BestEpoch, TunerCallbacks, right_images
from tests.conftest import as_numpy
from tests.tuning.conftest import UPDATES

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("undrawn")]


class Weights(HyperBiT):
    """Notes how every trial ended."""

    ends: list = []

    def fit(self, hp, model, *args, **kwargs):
        history = super().fit(hp, model, *args, **kwargs)
        self.ends.append((history.history, [as_numpy(v) for v in model.variables]))
        return history


class Stop(keras.callbacks.Callback):
    """Interrupts a search once, as Ctrl-C does."""

    step = 0

    def on_train_batch_end(self, batch, logs=None):
        Stop.step -= 1
        if Stop.step == 0:
            signal.raise_signal(signal.SIGINT)


class Weighted(keras.utils.PyDataset):
    """Five images in batches of two, the last filled up with one that does not count."""

    labels = np.eye(2, dtype="float32")[[0, 1, 0, 1, 1, 0]]
    weights = np.array([1, 1, 1, 1, 1, 0], "float32")

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(2 * index, 2 * index + 2)
        return (
            np.eye(2, dtype="float32")[[0, 1, 1, 1, 0, 1]][rows],
            self.labels[rows],
            self.weights[rows],
        )


def test_images_that_fill_up_a_batch_are_not_counted():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
    assert right_images(model, Weighted()) == "11010"


def search(hypermodel, folder, callbacks=(), **options):
    options = {"max_trials": 2, "seed": 1, **options}
    tuner = keras_tuner.RandomSearch(hypermodel, "val_accuracy", directory=folder, **options)
    tuner.search(callbacks=list(callbacks), verbose=0)
    return tuner


@pytest.mark.slow
def test_an_interrupted_trial_resumes(quick, data, rule, tmp_path):
    Weights.ends = whole = []
    search(Weights(data, rule, epochs=3), tmp_path / "whole", [Stop()])
    Weights.ends = resumed = []
    Stop.step = 17
    hypermodel = Weights(data, rule, epochs=3)  # as in a notebook, where it lives on
    with pytest.raises(KeyboardInterrupt):
        search(hypermodel, tmp_path / "killed", [Stop()])
    [checkpoints] = tmp_path.glob("killed/*/trial_*/checkpoints-0")
    tuner = search(hypermodel, tmp_path / "killed", [Stop()])
    assert not checkpoints.exists()
    assert len(whole) == len(resumed) == 2
    for (history, variables), (expected, others) in zip(resumed, whole, strict=True):
        assert history == expected
        for variable, other in zip(variables, others, strict=True):
            np.testing.assert_array_equal(variable, other)
    scores = sorted(trial.score for trial in tuner.oracle.trials.values())
    assert scores == sorted(max(history["val_accuracy"]) for history, _ in whole)


@pytest.mark.slow
def test_checkpoints_of_other_values_are_dropped(quick, data, rule, tmp_path):
    Stop.step = 3
    with pytest.raises(KeyboardInterrupt):
        search(HyperBiT(data, rule, epochs=2), tmp_path, [Stop()], max_trials=1)
    Stop.step = 3
    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="again.*learning_rate"):
        search(HyperBiT(data, rule, epochs=2), tmp_path, [Stop()], max_trials=1, seed=2)
    with pytest.warns(UserWarning, match="starts again.*callbacks"):
        tuner = search(HyperBiT(data, rule, epochs=2), tmp_path, max_trials=1, seed=2)
    assert tuner.oracle.trials["0"].status == "COMPLETED"


@pytest.mark.parametrize(
    "objective, callbacks",
    [("val_acc", ()), ("val_acc", (keras.callbacks.TerminateOnNaN(),))],
)
def test_a_misspelled_objective_ends_the_search(quick, data, rule, tmp_path, objective, callbacks):
    tuner = keras_tuner.RandomSearch(
        HyperBiT(data, rule, epochs=5), objective, max_trials=3, directory=tmp_path
    )
    epochs = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(epoch))
    message = "`objective` must name a metric.*val_accuracy.*Received: objective='val_acc'"
    with pytest.raises(keras_tuner.errors.FatalValueError, match=message):
        tuner.search(callbacks=[*callbacks, note] if callbacks else None or [], verbose=0)
    assert len(epochs) <= 1


def test_a_hyperband_of_more_epochs_ends_at_once(quick, data, rule, tmp_path):
    tuner = keras_tuner.Hyperband(HyperBiT(data, rule), "val_accuracy", directory=tmp_path)
    message = "`max_epochs` of Hyperband.*max_epochs=100 with HyperBiT.epochs=10.*max_epochs=10"
    with pytest.raises(keras_tuner.errors.FatalValueError, match=message):
        tuner.search(verbose=0)
    assert len(tuner.oracle.trials) == 1


class Bad(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["val_accuracy"] = np.nan


def test_an_objective_that_is_not_finite_fails_the_trial(quick, data, rule, tmp_path):
    tuner = search(HyperBiT(data, rule, epochs=2), tmp_path, [Bad()], max_trials=1)
    [trial] = tuner.oracle.trials.values()
    assert trial.status == "FAILED"
    assert "objective 'val_accuracy' has become nan" in trial.message


@pytest.mark.slow
def test_a_trial_with_weights_beyond_all_numbers_does_not_win(data, rule, tmp_path):
    space = keras_tuner.HyperParameters()
    space.Choice("learning_rate_factor", [1.0, 1e30])
    for name in ("schedule_factor", "mixup_alpha"):
        space.Fixed(name, 1.0 if name == "schedule_factor" else 0.0)
    hypermodel = HyperBiT(data, rule, depth=(1, 1, 1, 1), width=0.125, epochs=2)
    tuner = keras_tuner.GridSearch(
        hypermodel, "val_loss", directory=tmp_path, hyperparameters=space
    )
    tuner.search(callbacks=[keras.callbacks.TerminateOnNaN()], verbose=0)
    trials = {
        trial.hyperparameters["learning_rate_factor"]: trial
        for trial in tuner.oracle.trials.values()
    }
    assert trials[1.0].status == "COMPLETED" and trials[1e30].status == "FAILED"
    assert tuner.get_best_hyperparameters()[0]["learning_rate_factor"] == 1.0


def best_epoch(path, quick_model):
    callback = BestEpoch(keras_tuner.Objective("val_loss", "min"), path)
    callback.set_model(quick_model)
    return callback


@pytest.fixture
def small_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


def test_the_best_epoch_is_kept_whole(small_model, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.weights.h5"
    callback = best_epoch(path, small_model)
    callback.on_epoch_end(0, {"val_loss": 2.0})
    first = path.read_bytes()
    callback.on_epoch_end(1, {"val_loss": 3.0})
    assert path.read_bytes() == first and callback.written == len(first)

    def fail(model, where):
        pathlib.Path(where).write_bytes(b"half")
        raise OSError("full")

    monkeypatch.setattr(keras.Sequential, "save_weights", fail)
    with pytest.raises(OSError, match="full"):
        callback.on_epoch_end(2, {"val_loss": 1.0})
    assert path.read_bytes() == first and list(tmp_path.iterdir()) == [path]


def test_the_best_of_all_executions_is_kept(small_model, tmp_path):
    path = tmp_path / "checkpoint.weights.h5"
    objective = keras_tuner.Objective("val_loss", "min")
    original = SaveBestEpoch(objective, str(path))
    written = []
    for loss in (2.0, 3.0, 1.0):  # keras-tuner hands the same callback to each execution
        best = TunerCallbacks([original]).best
        best.set_model(small_model)
        best.on_epoch_end(0, {"val_loss": loss})
        written.append(best.written > 0)
    assert written == [True, False, True]


def test_a_full_disk_is_seen_before_the_best_epoch_is_written(small_model, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("keras_bit.core.files.shutil.disk_usage", lambda folder: usage)
    callback = best_epoch(tmp_path / "checkpoint.weights.h5", small_model)
    with pytest.raises(OSError, match="The model of a trial takes.*10 bytes free"):
        callback.on_epoch_end(0, {"val_loss": 2.0})


@pytest.mark.slow
def test_updates_and_rates_are_in_the_history(quick, data, rule, tmp_path):
    Weights.ends = []
    search(Weights(data, rule, epochs=2), tmp_path, max_trials=1)
    [(history, _)] = Weights.ends
    assert history["updates"][-1] in (UPDATES / 2, UPDATES, UPDATES * 2)
