"""The training of one trial."""

import contextlib
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import keras_tuner
import numpy as np

from keras_bit.checkpoints.callback import Checkpoint
from keras_bit.checkpoints.files import remove_checkpoints
from keras_bit.core.device import is_out_of_memory
from keras_bit.core.files import check_room
from keras_bit.core.keras_internals import (
    inner_optimizer,
    learning_rate_schedule,
    updates_of,
)
from keras_bit.core.text import first_line
from keras_bit.core.warn import warn_caller
from keras_bit.hyperrule.callback import as_callbacks, fit_hyperrule
from keras_bit.training.memory import FLOAT32_SIZE
from keras_bit.training.progress import Progress

if TYPE_CHECKING:
    from keras_bit.tuning.hypermodel import HyperBiT

LOGGED = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "updates")


class BestEpoch(keras.callbacks.Callback):
    """Saves the model at the best epoch, as keras-tuner's own callback does, but whole or not.

    Args:
        objective: A `keras_tuner.Objective`.
        path: The file; `None` to keep nothing.
        original: keras-tuner's callback, whose best value is that of all executions of a trial.

    Attributes:
        best: The objective's best value.
        written: Bytes that have been written.
    """

    def __init__(self, objective: Any, path: pathlib.Path | None, original: Any = None) -> None:
        super().__init__()
        self.objective = objective
        self.path = path
        self._original = original
        before = getattr(original, "best_value", math.inf)
        self.best: float | None = before if math.isfinite(before) else None
        self.written = 0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        if not self.objective.has_value(logs):
            check_objective(self.objective, logs)
        value = float(self.objective.get_value(logs))
        if not math.isfinite(value):
            raise FloatingPointError(f"The objective {self.objective.name!r} has become {value}.")
        if self.best is None or self.objective.better_than(value, self.best):
            self.best = value
            if self._original is not None:
                self._original.best_value = value
            self._save()

    def _save(self):
        if self.path is None:
            return
        variables = [*self.model.variables, *self.model.optimizer.variables]
        size = FLOAT32_SIZE * sum(math.prod(variable.shape) for variable in variables)
        check_room(self.path.parent, size, "The model of a trial")
        temporary = self.path.with_name(f".part.{self.path.name}")  # Keras looks at the ending.
        try:
            self.model.save_weights(temporary)
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self.written += self.path.stat().st_size


def check_objective(objective: Any, names: Sequence[str] | dict) -> None:
    """Raises keras-tuner's FatalValueError where there are no values of an objective."""
    wanted = getattr(objective, "name_to_direction", [objective.name])
    missing = [name for name in wanted if name not in names]
    if missing:
        raise keras_tuner.errors.FatalValueError(
            f"`objective` must name a metric of the model, one of {', '.join(sorted(names))}. "
            f"Received: objective={missing[0]!r}"
        )


class TrialRun:
    """Trains one trial of a `HyperBiT`, with checkpoints in the trial's folder.

    Args:
        hypermodel: The `HyperBiT`.
        hp: Its hyperparameters.
        seed: Of order and augmentation.
        epochs: Epochs of this run, at most those of `hypermodel`; fewer shorten the schedule.
        callbacks: Further callbacks.
        verbose: As in `fit`.
        folder: For the checkpoints; there are none by default.
        best: `BestEpoch`, if the best epoch is to be saved.

    Attributes:
        rule: The `keras_bit.HyperRule` of the run, its schedule shortened to `epochs`.
        history: Dict of lists, with one value an epoch; as far as the run came.
        test: The test batches, as `keras_bit.pipelines` makes them.
    """

    def __init__(
        self,
        hypermodel: "HyperBiT",
        hp: keras_tuner.HyperParameters,
        seed: int,
        epochs: int,
        callbacks: Sequence[keras.callbacks.Callback],
        verbose: bool | int | str,
        folder: pathlib.Path | None = None,
        best: BestEpoch | None = None,
    ) -> None:
        self.hypermodel = hypermodel
        self.hp = hp
        self.seed = seed
        self.verbose = verbose
        self.folder = folder
        self.history: dict[str, list] = {}
        self.test: Any = None
        self._callbacks = as_callbacks(callbacks)
        self._best = best
        self._progress = Progress()
        self._whole = hypermodel.rule_for(hp)
        self.rule = self._whole.shortened(epochs / hypermodel.epochs)

    def train(self, model: keras.Model) -> keras.callbacks.History:
        """Trains a model of `HyperBiT.build` and returns the history."""
        hypermodel, rule = self.hypermodel, self.rule
        optimizer = inner_optimizer(model)
        learning_rate_schedule(optimizer).assign(rule)
        done = updates_of(optimizer)  # Hyperband: by the trial that it continues
        checkpoint = self._checkpoint(done)
        step = done + (checkpoint.initial_step if checkpoint else 0)
        train, self.test = hypermodel.make_data(self.hp, rule, self.seed, step)
        updates_per_epoch = math.ceil(self._whole.schedule_length / hypermodel.epochs)
        ours = [checkpoint, self._progress, *self._callbacks, self._best]
        callbacks = [callback for callback in ours if callback is not None]
        arguments = fit_hyperrule(rule, updates_per_epoch * rule.accumulation_steps, callbacks)
        model.history = None  # Keras may fail before it makes another
        try:
            # `train` is shuffled already: with `shuffle=True` Keras would warn that it cannot.
            history = model.fit(
                train,
                validation_data=self.test,
                initial_epoch=done // updates_per_epoch,
                shuffle=False,
                verbose=self.verbose,
                **arguments,
            )
        finally:
            self.history = dict(getattr(model.history, "history", {}))
            if checkpoint:
                checkpoint.close()
        if checkpoint:
            remove_checkpoints(checkpoint.folder)
        return history

    def summary(self) -> dict[str, Any]:
        """Returns what there is to tell of the run, for JSON."""
        return {
            "seed": self.seed,
            "seconds": round(self._progress.seconds, 2),
            "updates": max(self.history.get("updates", [0]), default=0),
            "history": self.history,
            "written": self._best.written if self._best else 0,
        }

    def _checkpoint(self, done):
        if self.folder is None:
            return None
        of_user = [callback for callback in self._callbacks if not hasattr(callback, "tuner")]
        settings = {
            "rule": self.rule.decisions(),
            "values": self.hp.values,
            "data": self.hypermodel.data_settings(self.rule),
            "updates before": done,
            "callbacks": [type(callback).__name__ for callback in of_user],
        }
        best = [self._best] if self._best else []
        checkpoint = Checkpoint(
            # Each execution of a trial has its own.
            self.folder / f"checkpoints-{self.seed}",
            callbacks=[self._progress, *of_user, *best],
            settings=settings,
            verbose=self.verbose not in (0, False),
        )
        try:
            checkpoint.check_settings()
        except ValueError as error:  # keras-tuner numbers the trials of every search from 0
            warn_caller(f"The trial in {self.folder} starts again. {error}")
            remove_checkpoints(checkpoint.folder)
            return self._checkpoint(done)
        return checkpoint


class TunerCallbacks:
    """The callbacks that keras-tuner hands to `HyperModel.fit`.

    Args:
        callbacks: Those of the user, and keras-tuner's own two.

    Attributes:
        folder: The trial's folder, or `None` without keras-tuner.
        best: `BestEpoch` in place of keras-tuner's callback, or `None`.
        others: List of the others.
        has_users: Whether some of them are the user's.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        self.folder: pathlib.Path | None = None
        self.best: BestEpoch | None = None
        self.others = []
        self.has_users = False
        self._oracle: Any = None
        for callback in as_callbacks(callbacks):
            if type(callback).__name__ == "SaveBestEpoch":
                path = pathlib.Path(callback.filepath)
                self.best = BestEpoch(callback.objective, path, callback)
                continue
            self.others.append(callback)
            if hasattr(callback, "tuner") and hasattr(callback, "trial"):
                self._oracle = callback.tuner.oracle
                self.folder = pathlib.Path(callback.tuner.get_trial_dir(callback.trial.trial_id))
            else:
                self.has_users = True

    def check(self, epochs: int, names: Sequence[str] | None) -> None:
        """Raises keras-tuner's FatalValueError where the search cannot come to its end.

        Args:
            epochs: Of the `HyperBiT`.
            names: The metrics that there will be, if they are known.
        """
        if self._oracle is None:
            return
        most = getattr(self._oracle, "max_epochs", None)  # of Hyperband
        if most is not None and most > epochs:
            raise keras_tuner.errors.FatalValueError(
                "`max_epochs` of Hyperband must not exceed `epochs` of HyperBiT. Received: "
                f"max_epochs={most} with HyperBiT(epochs={epochs}). Make the tuner again with "
                f"max_epochs={epochs} and `overwrite=True`: a project that is there keeps its own."
            )
        if names and not self.has_users:
            check_objective(self._oracle.objective, names)


def right_images(model: keras.Model, test: Any) -> str:
    """Which test images a model has right, as a string of 0 and 1.

    Args:
        model: The model.
        test: `tf.data.Dataset` or `keras.utils.PyDataset` of images, one-hot labels and perhaps
            weights, which are 0 where an image fills up a batch.
    """
    is_py_dataset = isinstance(test, keras.utils.PyDataset)
    batches = map(test.__getitem__, range(len(test))) if is_py_dataset else iter(test)
    labels, counted = [], []
    for _, of_batch, *weights in batches:
        labels.append(np.asarray(of_batch).argmax(1))
        counted.append(np.asarray(weights[0]) > 0 if weights else np.ones(len(of_batch), bool))
    is_right = model.predict(test, verbose=0).argmax(1) == np.concatenate(labels)
    return "".join(map(str, is_right[np.concatenate(counted)].astype(int)))


def check_fit_arguments(args: tuple, kwargs: dict, epochs: int | None, most: int) -> None:
    """Raises where `search` of a tuner was given what a `HyperBiT` brings itself."""
    if args or kwargs:
        raise keras_tuner.errors.FatalValueError(
            "`search` takes `callbacks`, `verbose` and `epochs` only: HyperBiT brings the data "
            f"and the steps. Received: {len(args)} unnamed values, and {sorted(kwargs)}"
        )
    if epochs is not None and not 1 <= epochs <= most:
        raise keras_tuner.errors.FatalValueError(
            "`epochs` of `search`, and `max_epochs` of Hyperband, must not exceed `epochs` of "
            f"HyperBiT. Received: epochs={epochs} with HyperBiT(epochs={most})"
        )


@contextlib.contextmanager
def failed_trial() -> Iterator[None]:
    """Turns what a trial alone is to blame for into keras-tuner's FailedTrialError.

    A FatalRuntimeError, which ends the search, comes of an OSError.
    """
    try:
        yield
    except FloatingPointError as error:
        raise keras_tuner.errors.FailedTrialError(str(error)) from error
    except OSError as error:  # such as a full disk, on which every further trial would fail
        raise keras_tuner.errors.FatalRuntimeError(str(error)) from error
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(str(error)) or type(error).__name__
        raise keras_tuner.errors.FailedTrialError(
            f"The trial ran out of memory ({reason}). A smaller `micro_batch_size` or `crop_size` "
            "of the rule needs less."
        ) from error
