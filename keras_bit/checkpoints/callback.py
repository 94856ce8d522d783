"""A callback that saves all that a run needs to resume exactly where it was."""

import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import keras

from keras_bit.checkpoints.environment import environment, restore_random_state
from keras_bit.checkpoints.files import BackgroundWriter, Saved, newest_checkpoint
from keras_bit.checkpoints.interval import EVERY_SECONDS, SaveInterval
from keras_bit.checkpoints.settings import (
    as_json,
    check_epochs,
    check_same_start,
    differences,
    fit_settings,
    list_differences,
    number_as_rate,
    refuse,
)
from keras_bit.checkpoints.signals import StopSignals
from keras_bit.checkpoints.state import plain_state, restore_states, states_of
from keras_bit.checkpoints.variables import Metrics, arrays_of, assign, named_arrays
from keras_bit.core.arguments import check_integer, check_positive_number
from keras_bit.core.distribution import processes
from keras_bit.core.files import check_folder_name
from keras_bit.core.keras_internals import (
    SkippedSteps,
    accumulation_steps,
    batches_of_call,
    build_from_batch,
    build_optimizer,
    end_skipping,
    inner_optimizer,
    is_between_updates,
    skipped_steps,
    start_at_epoch,
    updates_of,
)
from keras_bit.core.text import announce
from keras_bit.core.warn import warn_caller
from keras_bit.hyperrule.callback import as_callbacks


class Checkpoint(keras.callbacks.Callback):
    """Saves the state of training, and resumes from it: the result is that of one run to the end.

    Stands beside `keras_bit.fit_hyperrule` or alone in any `model.fit`, with every backend:

    ```python
    import tempfile

    folder = tempfile.mkdtemp()
    x, y = np.ones((8, 3), "float32"), np.ones((8, 2), "float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    checkpoint = keras_bit.Checkpoint(folder, every=2)
    model.fit(x, y, batch_size=2, epochs=2, shuffle=False, callbacks=[checkpoint], verbose=0)
    ```

    When the same program runs again, after a crash or a kill, `fit` begins where the newest
    checkpoint was made: weights, optimizer and its momentum, random states of the layers, metrics
    and history are restored, epochs keep their boundaries and validations, and the batches that
    the interrupted epoch has had are dropped. A program that has come to its end trains no more.
    Saves are made between two whole updates, never within an accumulation; on SIGTERM and Ctrl-C,
    after the step under way, at once.

    A data set that each epoch reads again must give the same batches again: arrays need
    `shuffle=False`. An endless one must start where the resumed epoch does, which `initial_step`
    tells:

    ```python
    data = keras_bit.digits(examples_per_class=2)
    rule = keras_bit.HyperRule(data.image_size, data.train_size, batch_size=4)
    checkpoint = keras_bit.Checkpoint(folder + "/digits")
    train, test = keras_bit.pipelines(data, rule, initial_step=checkpoint.initial_step)
    ```

    (Of another data set, `skip` as many batches.) On a CPU the resumed run gives the very bits of
    an uninterrupted one, with the same processor, versions and settings of oneDNN; a difference
    between them is warned of. On GPUs some operations of TensorFlow and of XLA add numbers in an
    order that is not fixed, so that two runs differ in their last bits, resumed or not, unless
    `tf.config.experimental.enable_op_determinism()` or XLA's `--xla_gpu_deterministic_ops=true`
    is set.

    Args:
        folder: Folder of the checkpoints, each a folder of its own: `arrays.safetensors`, and
            `manifest.json` with the length and crc32c of the file. A new one takes its name when
            it lies on the disk whole. A damaged one is named and the one before it used. Of several
            processes of `jax.distributed` the first writes; all must find the same folder there.
        every: Optimizer updates between two saves. By default a save is made every
            `every_seconds`, and after every epoch.
        keep: Number of checkpoints that are kept.
        every_seconds: Seconds between two saves where `every` is not given; saves are fewer where
            they would hold training up for more than 5 % of the time. The state is copied to
            memory, and written in a thread.
        callbacks: Callbacks of the same `fit` whose numbers and weights are saved and restored
            as well, such as `keras.callbacks.EarlyStopping` (what it waits for, the best value,
            the best weights).
        settings: What JSON can hold that must be the same when the run resumes, such as
            `{"rule": rule.decisions(), "data": data.train.fingerprint, "seed": 0}`. Shapes of
            the weights, settings of the optimizer and steps of an epoch are compared anyway. (A
            learning rate that is a number is restored instead, and a difference warned of.)
        verbose: Whether to print from where training resumes.

    Attributes:
        initial_step: Optimizer updates that were made before the first epoch that `fit` is going
            to run; 0 without a checkpoint.

    Raises:
        ValueError: If an argument is out of range; from `fit`, if the checkpoint is that of
            another model or other settings, or the model has not been built.
        NotADirectoryError: If `folder` is a file.

    Warns where a save fails (a full disk, say), and training continues; where a checkpoint is
    damaged; and where `fit` resumes after the first epoch though `initial_step` was not asked for.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        every: int | None = None,
        keep: int = 2,
        *,
        every_seconds: float = EVERY_SECONDS,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        settings: dict[str, Any] | None = None,
        verbose: bool | int | str = True,
    ) -> None:
        super().__init__()
        self.folder = check_folder_name(folder, "folder")
        self.every = None if every is None else check_integer("every", every, minimum=1)
        self.keep = check_integer("keep", keep, minimum=1)
        self.every_seconds = check_positive_number("every_seconds", every_seconds)
        self.callbacks = as_callbacks(callbacks)
        self.settings = as_json(settings or {})
        self.verbose = verbose
        self._found: Saved | None = None
        self._is_searched = False
        self._is_positioned = False
        # Of the `fit` under way.
        self._resumed: Saved | None = None  # until its first epoch begins
        self._signals: Any = None
        self._writer: Any = None
        self._interval: Any = None
        self._optimizer: Any = None
        self._fit: dict[str, Any] = {}  # what of it must be the same when the run resumes
        self._rate: float | None = None  # that it began with, if it is a number
        self._begun_with: list[dict[str, Any]] = []  # the callbacks' attributes
        self._epoch = 0
        self._batch = 0  # of the epoch, the next
        self._batches_before = 0  # that the epochs before this one took
        self._is_in_step = False
        self._at_end_of_steps: Metrics | None = None
        self._random_state: list[Any] = []  # to restore where the steps that are done end
        self._states: tuple = ()  # of callbacks, the same
        self._within: Saved | None = None  # saved after its epoch had begun
        self._is_finite = True  # the loss of the last epoch

    @property
    def initial_step(self) -> int:
        """Updates before the first epoch that `fit` is going to run."""
        self._is_positioned = True
        saved = self.find()
        return saved.content["batches_before"] // saved.content["accumulation"] if saved else 0

    def find(self) -> Saved | None:
        """Returns the newest undamaged checkpoint in the folder, looked for once before `fit`."""
        if not self._is_searched:
            self.wait()
            self._found, self._is_searched = newest_checkpoint(self.folder), True
        return self._found

    def check_settings(self) -> None:
        """Raises where the checkpoint found was made with other `settings`; `fit` does so too."""
        if saved := self.find():
            refuse(saved.path, differences(saved.content["settings"], self.settings))

    def on_train_begin(self, logs: dict | None = None) -> None:
        model = self.model
        if self._signals is not None:  # of a `fit` that has failed
            self.close()
        self._optimizer = inner_optimizer(model)
        if not model.built:
            raise ValueError(
                "`Checkpoint` needs a model that has been built before `fit`. Received: "
                f"{model.name}. Give it a keras.Input, or call it on a batch."
            )
        build_optimizer(model)
        self._fit = fit_settings(model, self.params.get("steps"), self.callbacks)
        self._rate = number_as_rate(self._optimizer)
        self._epoch = self._batch = self._batches_before = 0
        self._is_in_step, self._at_end_of_steps, self._begun_with = False, None, []
        self._states, self._within, self._is_finite = (), None, True
        self._resumed = self.find()
        check_same_start(self.folder, self._resumed)
        check_epochs(self.params.get("steps"), self._accumulation, self._is_positioned)
        self._random_state = arrays_of(self._resumed, "random") if self._resumed else []
        if self._resumed:
            self._resume(self._resumed)
        self._interval = SaveInterval(self.every, self.every_seconds, self._batches_of_run)
        self._writer = BackgroundWriter(self.folder, self.keep)
        self._signals = StopSignals(model)
        self._signals.install()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch
        start_at_epoch(self._model, None)  # Should this `fit` fail, the next begins as it is told.
        self._restore_beside()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        if self._within is not None:
            # Callbacks have begun the epoch a second time, and may have changed the learning rate.
            assign(self.model.optimizer.variables, "optimizer", self._within)
            self._within = None
        if not skipped_steps(self._model):  # not `self.model`, which would update them
            self._batch, self._is_in_step = batch, False
            self._restore_at_step()
            self._save_if_due()
            self._is_in_step = True
        elif self._signals.received:
            self._stop()  # The checkpoint is the newest state there is.

    def on_test_begin(self, logs: dict | None = None) -> None:
        if self._signals is None:
            return  # `evaluate` by itself
        # All steps of the epoch are done; validation is going to use the metrics again.
        self._finish_steps()
        self._restore_at_step()
        self._at_end_of_steps = Metrics.of(self.model)
        self._save_in_validation()

    def on_test_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        if self._signals is not None and self._signals.received:
            self._save_in_validation()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._finish_steps()
        self._is_finite = math.isfinite((logs or {}).get("loss", 0.0))
        self._batches_before += self._batch
        self._epoch, self._batch, self._at_end_of_steps = epoch + 1, 0, None

    def on_train_end(self, logs: dict | None = None) -> None:
        has_trained = self._resumed is None
        self._restore_beside()
        if has_trained and self._is_finite:
            self._save(is_complete=bool(self.model.stop_training), is_within=False)
        if self._signals.received:  # in the last step, or after it
            self._stop()
        self.close()

    def wait(self) -> None:
        """Waits until what has been saved is written."""
        if self._writer is not None:
            self._writer.wait()

    def close(self) -> None:
        """Waits until everything is written; for callers of a `fit` that fails."""
        self._end()
        if self._signals is not None:
            self._signals.remove()
            self._signals = None

    def _resume(self, saved):
        """Restores what must be there before the first epoch begins."""
        content, model, here = saved.content, self.model, environment()
        self.check_settings()
        before, now = (each["backend"].split()[0] for each in (content["environment"], here))
        refuse(saved.path, differences(before, now, "backend"))
        refuse(saved.path, differences(content["fit"], self._fit))
        assign(model.variables, "model", saved)
        assign(model.optimizer.variables, "optimizer", saved)
        self._epoch, self._batch = content["epoch"], content["batch"]
        self._batches_before = content["batches_before"]
        start_at_epoch(model, sys.maxsize if content["is_complete"] else self._epoch)
        if self._batch:
            self._skip(saved)
        if content["is_complete"]:
            announce(
                f"Training had come to its end after update {content['update']:,}, at "
                f"{saved.path}: nothing is trained. Remove {self.folder} to train again.",
                self.verbose,
            )
            return
        given, self._rate = self._rate, content.get("learning_rate", self._rate)
        if given not in (self._rate, number_as_rate(self._optimizer)):
            warn_caller(
                f"Training resumes with the learning rate of {saved.path}, which began with "
                f"{self._rate}. Received: an optimizer with learning_rate={given}, which is not "
                "used. Choose another folder to begin with it, or set it in a callback."
            )
        announce(f"Resuming after update {content['update']:,}, from {saved.path}.", self.verbose)
        if self._batches_before and not self._is_positioned:
            warn_caller(
                f"Training resumes with epoch {self._epoch + 1}, the data set with its first "
                "batch. That is right where each epoch reads it again; else let it begin with "
                "`pipelines(..., initial_step=checkpoint.initial_step)`, or `skip` those batches."
            )
        if others := differences(content["environment"], here):
            warn_caller(
                "The resumed run may differ from an uninterrupted one in its last bits: "
                f"{list_differences(others)}."
            )

    def _skip(self, saved):
        """Drops the batches that the epoch has had."""

        def restore_metrics(batch):
            build_from_batch(self.model, batch)
            assign(self.model.metrics_variables, "metrics", saved)

        # An epoch that begins within an update: its `initial_step` is where that update began.
        begun = self._batches_before % self._accumulation if self._is_positioned else 0
        SkippedSteps(self.model, self._batch, begun, saved.content["logs"], restore_metrics)

    def _restore_beside(self):
        """Restores what has been reset since `on_train_begin`: metrics, history, callbacks."""
        if not self._begun_with:
            self._begun_with = [plain_state(callback) for callback in self.callbacks]
        saved, self._resumed = self._resumed, None
        self._forget_found()
        if saved is None:
            return
        content = saved.content
        self._within = saved if content.get("is_within") else None
        history = self.model.history
        history.epoch = list(content["history_epochs"])
        history.history = {name: list(values) for name, values in content["history"].items()}
        self._states = (content["callbacks"], saved.arrays)
        restore_states(self.callbacks, *self._states)
        metrics = self.model.metrics_variables
        if self._batch and len(metrics) == len(arrays_of(saved, "metrics")):  # else not built yet
            assign(metrics, "metrics", saved)

    def _restore_at_step(self):
        """Restores what the steps that were skipped may have changed."""
        restore_random_state(self._random_state)
        if self._states:
            restore_states(self.callbacks, *self._states)
            self._states = ()

    @property
    def _batches_of_run(self):
        return self._batches_before + self._batch

    @property
    def _accumulation(self):
        return accumulation_steps(self._optimizer)

    def _finish_steps(self):
        """Counts the last call of the epoch; one that found no more data counts as well."""
        if self._is_in_step:
            self._batch += batches_of_call(self.model)
        self._is_in_step = False
        end_skipping(self.model)

    def _save_if_due(self):
        """Saves between two updates where it is time to, and heeds a signal."""
        asked = self._signals.ask_to_stop()
        if (asked or self._is_due()) and is_between_updates(self._updated_optimizer()):
            self._save(is_complete=False)
            if asked:
                self._stop()

    def _save_in_validation(self):
        # Keras's SwapEMAWeights has put averages in the place of weights: wait until it is over.
        if not self._optimizer.use_ema:
            self._save_if_due()

    def _updated_optimizer(self):
        """The optimizer: on JAX `self.model` brings all variables up to date."""
        return inner_optimizer(self.model)

    def _is_due(self):
        counts = self._batches_of_run, self._accumulation, self._batch > 0
        return self._is_first and self._writer.is_idle() and self._interval.is_due(*counts)

    @property
    def _is_first(self):
        """Whether this is the process that saves: it has all of the state."""
        return processes().index == 0

    def _save(self, is_complete, is_within=True):
        if not self._is_first:
            return
        started = time.monotonic()
        model = self.model
        # At an epoch's first step they are reset, and TensorFlow may not have built them.
        metrics = self._at_end_of_steps or (Metrics.of(model) if self._batch else Metrics())
        states, arrays_of_callbacks = states_of(self.callbacks, self._begun_with)
        arrays = {
            **named_arrays(model.variables, "model"),
            **named_arrays(model.optimizer.variables, "optimizer"),
            **metrics.arrays,
            **arrays_of_callbacks,
        }
        self._writer.write(arrays, self._content(metrics.logs, states, is_complete, is_within))
        self._forget_found()
        self._interval.end_save(self._batches_of_run, started)

    def _content(self, logs, states, is_complete, is_within):
        """All of a checkpoint that is no array; `states` are those of the callbacks."""
        history = self.model.history
        content = {
            "settings": self.settings,
            "fit": self._fit,
            "learning_rate": self._rate,
            "environment": environment(),
            "epoch": self._epoch,
            "batch": self._batch,
            "batches_before": self._batches_before,
            "accumulation": self._accumulation,
            "update": updates_of(self._optimizer),
            "is_complete": is_complete,
            "is_within": is_within,
            "logs": logs,
            "history": history.history,
            "history_epochs": history.epoch,
            "callbacks": states,
        }
        return as_json(content, "history")

    def _stop(self):
        """Ends the program as the signal asked, when the checkpoint lies on the disk.

        Training continues where the program has a handler of its own, which returns.
        """
        signals, update = self._signals, updates_of(self._updated_optimizer())
        is_skipping = skipped_steps(self.model) > 0
        self._writer.wait()
        message = f"Stopped after update {update:,} by {signals.name}."
        if is_skipping or self._writer.path:
            message += f" The same call resumes there, from {self.folder}."
        try:
            signals.act()
        except BaseException:
            self.close()
            announce(message, self.verbose)
            raise
        signals.received = None

    def _end(self):
        """Waits until everything is written, and leaves the model as it was."""
        if self._writer is not None:
            self._writer.close()
            start_at_epoch(self.model, None)
            end_skipping(self.model)
        self._forget_found()

    def _forget_found(self):
        """Lets `find` look again: another `fit` resumes from what is there then."""
        self._found, self._is_searched = None, False
