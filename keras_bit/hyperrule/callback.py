"""The callback that makes `fit` last exactly as long as BiT-HyperRule says."""

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_bit.core.arguments import check_integer
from keras_bit.core.keras_internals import (
    TrainFunctions,
    accumulation_steps,
    build_optimizer,
    count_steps_with_data,
    inner_optimizer,
    learning_rate_schedule,
    skipped_steps,
    updates_of,
)
from keras_bit.core.warn import warn_caller
from keras_bit.hyperrule.rule import HyperRule

DEFAULT_EPOCHS = 10
_LOSSES = {"loss": "training loss", "val_loss": "validation loss"}


def fit_hyperrule(
    rule: HyperRule,
    steps_per_epoch: int | None = None,
    callbacks: keras.callbacks.Callback | Sequence[keras.callbacks.Callback] | None = (),
) -> "HyperRuleCallback":
    """Returns the callback that ends `fit` after exactly `rule.schedule_length` updates.

    Used with `**` it hands `fit` its `epochs`, `steps_per_epoch` and `callbacks`:

    ```python
    rule = keras_bit.HyperRule(image_size=32, dataset_size=64, batch_size=8, schedule_length=20)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(optimizer=rule.optimizer(), loss="mse")
    train = tf.data.Dataset.from_tensors((tf.ones((8, 3)), tf.ones((8, 2)))).repeat()
    model.fit(train, verbose=0, **keras_bit.fit_hyperrule(rule))
    ```

    An epoch is then a tenth of the schedule, or `steps_per_epoch` steps, and Keras validates after
    each; a last epoch may be shorter. As a plain callback (put it first, so that the others see
    its logs) it leaves the epochs to you and ends training at the end of the schedule.

    Updates are counted by `optimizer.iterations`, so that a resumed run ends where an
    uninterrupted one would, whatever `steps_per_execution`, gradient accumulation, and whether the
    data set repeats. A data set that runs out of data before `steps_per_epoch` makes shorter
    and more epochs. (That is why the `epochs` handed to `fit` is only an upper bound, one for
    every step; the progress bar shows the planned number.) Each epoch's logs get
    `learning_rate`, which History, CSVLogger and TensorBoard then show.

    Args:
        rule: A `keras_bit.HyperRule`.
        steps_per_epoch: Steps of `fit` between validations: forward and backward passes, of which
            `rule.accumulation_steps` make an update. Default: a tenth of the schedule, rounded
            up to whole updates.
        callbacks: Further callbacks for `**`, such as `keras.callbacks.EarlyStopping`.

    Returns:
        A `HyperRuleCallback`.

    Raises:
        ValueError: If an argument is of the wrong kind; from `fit`, before the first step, if its
            own `epochs` and `steps_per_epoch` would end training before the schedule does, or
            if gradient accumulation meets several replicas (Keras cannot do both).
        FloatingPointError: From `fit`, within the epoch, if the loss becomes infinite or NaN, or
            after a validation whose loss is.

    Warns when the compiled optimizer does not follow the rule's schedule, when its accumulation is
    not the rule's, when the schedule had ended before the first step, and when epochs without a
    batch end training. (A Python generator must be endless: of one that has ended Keras gives the
    first batches again and again.)
    """
    return HyperRuleCallback(rule, steps_per_epoch, callbacks)


class HyperRuleCallback(keras.callbacks.Callback):
    """What `fit_hyperrule` returns: a callback, and a mapping of arguments for `fit`.

    Args:
        rule, steps_per_epoch, callbacks: As for `fit_hyperrule`.
    """

    # Keras may run the end of a batch in a thread beside the training, which then waits for the
    # loss in place of the training itself.
    async_safe = True

    def __init__(self, rule: HyperRule, steps_per_epoch: int | None, callbacks: Any) -> None:
        super().__init__()
        if not isinstance(rule, HyperRule):
            raise ValueError(f"`rule` must be a keras_bit.HyperRule. Received: rule={rule!r}")
        self.rule = rule
        self.steps_per_epoch = default_steps_per_epoch(rule)
        if steps_per_epoch is not None:
            self.steps_per_epoch = check_integer("steps_per_epoch", steps_per_epoch, minimum=1)
        self.callbacks = as_callbacks(callbacks)
        # Of the `fit` under way.
        self._epochs: int | None = None
        self._optimizer: Any = None
        self._accumulation = 1
        self._functions: Any = None
        self._remaining_steps = 0
        self._first_update = 0
        self._is_ending = False
        self._is_first_epoch = True
        self._empty_epochs = 0

    def keys(self) -> tuple[str, ...]:
        """The arguments that `**` hands to `fit`."""
        return ("epochs", "steps_per_epoch", "callbacks")

    def __getitem__(self, key: str) -> Any:
        if key == "epochs":
            return self._total_steps()
        if key == "steps_per_epoch":
            return self.steps_per_epoch
        if key == "callbacks":
            return [self, *self.callbacks]
        raise KeyError(key)

    def __deepcopy__(self, memo: dict) -> "HyperRuleCallback":
        # keras-tuner copies callbacks for every trial; the model of the last one stays behind.
        return type(self)(self.rule, self.steps_per_epoch, copy.deepcopy(self.callbacks, memo))

    @property
    def planned_epochs(self) -> int:
        """The number of epochs where the data set does not run out of data within one."""
        return math.ceil(self._total_steps() / self.steps_per_epoch)

    def set_params(self, params: dict) -> None:
        super().set_params(params)
        self._epochs = params.get("epochs")
        if self._epochs == self["epochs"] and params.get("steps") == self.steps_per_epoch:
            # Keras shares this dict among all callbacks; the progress bar comes last.
            params["epochs"] = self.planned_epochs

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._optimizer = inner_optimizer(self.model)
        self._accumulation = accumulation_steps(self._optimizer)
        build_optimizer(self.model)
        count_steps_with_data(self._optimizer)
        self._functions = TrainFunctions(self.model)
        self._is_first_epoch, self._empty_epochs = True, 0
        strategy = getattr(self.model, "distribute_strategy", None)
        if strategy is not None:
            refuse_accumulation(self._accumulation, strategy.num_replicas_in_sync)
        if self._accumulation != self.rule.accumulation_steps:
            warn_caller(
                f"The rule makes an update of {self.rule.accumulation_steps} accumulation steps, "
                f"the compiled optimizer accumulates {self._accumulation}. Compile with "
                "`rule.optimizer()`."
            )
        if not _follows(self._optimizer, self.rule):
            warn_caller(
                "The compiled optimizer does not follow the rule's learning-rate schedule. "
                "Compile with `rule.optimizer()`, or give yours `learning_rate=rule.schedule()`."
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # Counted here and not at every batch: a GPU need not wait for it, and on JAX the
        # optimizer's variables hold their values only between epochs.
        skipped = skipped_steps(self.model)
        self._remaining_steps = self._remaining_updates() * self._accumulation + skipped
        self._first_update = self.rule.schedule_length - self._remaining_steps // self._accumulation
        self._is_ending = False
        self._empty_epochs += 1
        if self._is_first_epoch:
            self._check_duration(epoch)
            self._is_first_epoch = False

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        # All is decided before the step: Keras looks at `stop_training` after it, before a thread
        # has run the end of the batch.
        remaining = self._remaining_steps - batch
        left_of_epoch = (self.params.get("steps") or math.inf) - batch
        # Not `self.model`, which on JAX brings all variables up to date.
        steps = min(self._model.steps_per_execution, remaining, left_of_epoch)
        if remaining <= steps < left_of_epoch:
            self._is_ending = self.model.stop_training = True
        self._functions.use(steps)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._empty_epochs = 0
        self._check_losses(logs, self._first_update + math.ceil((batch + 1) / self._accumulation))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        remaining = self._remaining_updates()
        self._check_losses(logs, self.rule.schedule_length - remaining)
        rate = getattr(self._optimizer, "learning_rate", None)  # none of a MultiOptimizer
        if logs is not None and rate is not None:
            logs["learning_rate"] = float(keras.ops.cast(rate, "float32"))
        if remaining <= 0:
            self.model.stop_training = True
        elif self._empty_epochs > 1:  # after one Keras begins with the data again
            self._end_without_data(epoch, remaining)
        elif self._is_ending:
            # Data ran out, or float16 gradients overflowed and an update was skipped.
            self.model.stop_training = False

    def on_train_end(self, logs: dict | None = None) -> None:
        self._functions.use()
        missing = self._remaining_updates()
        if missing > 0 and not self.model.stop_training:
            warn_caller(
                f"Training ended {missing} updates before the end of the schedule. Raise `epochs`, "
                "or use `fit(..., **fit_hyperrule(rule))`."
            )

    def _end_without_data(self, epoch, remaining):
        """Ends training where as many epochs without a step would follow as updates are left."""
        self.model.stop_training = True
        warn_caller(
            f"Training ended {remaining} updates before the end of the schedule: epoch {epoch + 1} "
            "found no batch. Give data that can be read again, such as a keras.utils.PyDataset, or "
            "a tf.data.Dataset with `repeat()`, and at least one batch of it."
        )

    def _check_losses(self, logs, update):
        """Raises where a loss is not finite."""
        for name, loss in _LOSSES.items():
            if name in (logs or {}) and not math.isfinite(value := logs[name]):
                raise FloatingPointError(
                    f"The {loss} has become {value} by update {update:,}. Likely causes: images "
                    "outside of the model's `value_range` (0 to 255 where it is (0, 1), say), or "
                    f"too large a learning rate, {self.rule.learning_rate:g} at its highest; "
                    "`warmup=True` of the rule helps as well."
                )

    def _total_steps(self):
        return self.rule.schedule_length * self.rule.accumulation_steps

    def _remaining_updates(self):
        return self.rule.schedule_length - updates_of(self._optimizer)

    def _check_duration(self, epoch):
        if self._remaining_steps <= 0:
            warn_caller(
                f"The schedule of {self.rule.schedule_length} updates had ended before the first "
                "step: `optimizer.iterations` says so. No update is made."
            )
        steps = self.params.get("steps")
        if steps and (self._epochs - epoch) * steps < self._remaining_steps:
            raise ValueError(
                "`epochs` and `steps_per_epoch` must last to the end of the rule's schedule, "
                f"{self._remaining_steps} steps from here. Received: epochs={self._epochs}, "
                f"steps_per_epoch={steps}, starting with epoch {epoch}. Use "
                "`fit(..., **fit_hyperrule(rule))`, or at least "
                f"epochs={epoch + math.ceil(self._remaining_steps / steps)}."
            )


def default_steps_per_epoch(rule: HyperRule) -> int:
    """Returns a tenth of the schedule in steps of `fit`, rounded up to whole updates."""
    return math.ceil(rule.schedule_length / DEFAULT_EPOCHS) * rule.accumulation_steps


def _follows(optimizer, rule):
    schedule = learning_rate_schedule(optimizer)
    if schedule is None:
        return False
    edges = (0, rule.warmup_steps, *rule.boundaries, rule.schedule_length)
    updates = {update for edge in edges for update in (edge // 2, edge, edge + 1)}
    steps = sorted(update * rule.accumulation_steps for update in updates)
    return all(
        math.isclose(float(schedule(step)), float(rule.schedule()(step)), rel_tol=1e-5)
        for step in steps
    )


def refuse_accumulation(accumulation: int, replicas: int) -> None:
    """Raises where an update has several steps and a `tf.distribute` strategy several replicas."""
    if accumulation > 1 and replicas > 1:
        raise ValueError(
            "`micro_batch_size` cannot be combined with a tf.distribute strategy of several "
            f"replicas: Keras does not accumulate gradients there. Received: {replicas} replicas, "
            f"{accumulation} accumulation steps per update. Replicas split the batch already: "
            'remove `micro_batch_size`, or give "auto" beside a rule that has one. Or train on '
            "one GPU (CUDA_VISIBLE_DEVICES=0)."
        )


def as_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    """Returns one callback or several as a list; raises where one is none."""
    if isinstance(callbacks, keras.callbacks.Callback) or not isinstance(callbacks, Iterable):
        callbacks = () if callbacks is None else (callbacks,)
    callbacks = list(callbacks)
    strangers = [c for c in callbacks if not isinstance(c, keras.callbacks.Callback)]
    if strangers:
        raise ValueError(
            "`callbacks` must hold keras.callbacks.Callback objects only. "
            f"Received: callbacks with {strangers[0]!r}"
        )
    return callbacks
