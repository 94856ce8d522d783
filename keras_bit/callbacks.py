"""The callback that makes `fit` last exactly as long as BiT-HyperRule says."""

import contextlib
import copy
import math
import warnings

import keras

from keras_bit.checks import check_integer
from keras_bit.hyperrule import HyperRule

DEFAULT_EPOCHS = 10


class fit_hyperrule(keras.callbacks.Callback):
    """Ends `fit` after exactly `rule.schedule_length` optimizer updates.

    Used with `**` it hands `fit` its `epochs`, `steps_per_epoch` and `callbacks`:

    ```python
    model.compile(optimizer=rule.optimizer(), loss=..., metrics=["accuracy"])
    model.fit(train, validation_data=test, **keras_bit.fit_hyperrule(rule))
    ```

    An epoch is then a tenth of the schedule, or `steps_per_epoch` steps, and Keras validates after
    each; a last epoch may be shorter. As a plain callback (put it first, so that the others see
    its logs) it leaves the epochs to you and ends training at the end of the schedule.

    Updates are counted by `optimizer.iterations`, so that a run that is continued or restored ends
    where an uninterrupted one would, whatever `steps_per_execution`, gradient accumulation, and
    whether the data set repeats. A data set that runs dry before `steps_per_epoch` makes shorter
    and more epochs. (That is why the `epochs` handed to `fit` is only an upper bound, one for
    every step; the progress bar shows the planned number.) Each epoch's logs get
    `learning_rate`, which History, CSVLogger and TensorBoard then show.

    Args:
        rule: A `keras_bit.HyperRule`.
        steps_per_epoch: Steps of `fit` between validations: forward and backward passes, of which
            `rule.accumulation_steps` make an update. Default: a tenth of the schedule, rounded
            up to whole updates.
        callbacks: Further callbacks for `**`, such as `keras.callbacks.EarlyStopping`.

    Raises:
        ValueError: If an argument is of the wrong kind; from `fit`, before the first step, if its
            own `epochs` and `steps_per_epoch` would end training before the schedule does, or
            if gradient accumulation meets several replicas (Keras cannot do both).

    Warns when the compiled optimizer does not follow the rule's schedule, when its accumulation is
    not the rule's, and when the schedule had ended before the first step.
    """

    def __init__(self, rule, steps_per_epoch=None, callbacks=()):
        super().__init__()
        if not isinstance(rule, HyperRule):
            raise ValueError(f"`rule` must be a keras_bit.HyperRule. Received: rule={rule!r}")
        self.rule = rule
        if steps_per_epoch is None:
            updates = math.ceil(rule.schedule_length / DEFAULT_EPOCHS)
            steps_per_epoch = updates * rule.accumulation_steps
        self.steps_per_epoch = check_integer("steps_per_epoch", steps_per_epoch, minimum=1)
        self.callbacks = _as_list(callbacks)

    def keys(self):
        """The arguments that `**` hands to `fit`."""
        return ("epochs", "steps_per_epoch", "callbacks")

    def __getitem__(self, key):
        if key == "epochs":
            return self._total_steps()
        if key == "steps_per_epoch":
            return self.steps_per_epoch
        if key == "callbacks":
            return [self, *self.callbacks]
        raise KeyError(key)

    def __deepcopy__(self, memo):
        # keras-tuner copies callbacks for every trial; the model of the last one stays behind.
        return type(self)(self.rule, self.steps_per_epoch, copy.deepcopy(self.callbacks, memo))

    @property
    def planned_epochs(self):
        """The number of epochs where the data set does not run dry within one."""
        return math.ceil(self._total_steps() / self.steps_per_epoch)

    def set_params(self, params):
        super().set_params(params)
        if params.get("epochs") == self["epochs"] and params.get("steps") == self.steps_per_epoch:
            # Keras shares this dict among all callbacks; the progress bar comes last.
            params["epochs"] = self.planned_epochs
            self._epochs = self["epochs"]
        else:
            self._epochs = params.get("epochs")

    def on_train_begin(self, logs=None):
        self._optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        self._accumulation = getattr(self._optimizer, "gradient_accumulation_steps", None) or 1
        self._functions = {self.model.steps_per_execution: self.model.train_function}
        self._duration_checked = False
        _refuse_accumulation_on_replicas(self.model, self._accumulation)
        if self._accumulation != self.rule.accumulation_steps:
            _warn(
                f"The rule splits a batch into {self.rule.accumulation_steps} passes, the compiled "
                f"optimizer accumulates {self._accumulation}. Compile with `rule.optimizer()`."
            )
        if not _follows(self._optimizer, self.rule):
            _warn(
                "The compiled optimizer does not follow the rule's learning-rate schedule. "
                "Compile with `rule.optimizer()`, or give yours `learning_rate=rule.schedule()`."
            )

    def on_epoch_begin(self, epoch, logs=None):
        # Counted here and not at every batch: a GPU need not wait for it, and on JAX the
        # optimizer's variables hold their values only between epochs.
        self._remaining_steps = self._remaining_updates() * self._accumulation
        self._ending = False
        if not self._duration_checked:
            self._check_duration(epoch)
            self._duration_checked = True

    def on_train_batch_begin(self, batch, logs=None):
        # All is decided before the step: Keras looks at `stop_training` after it, and a hook at
        # the end of a batch would keep Keras from running callbacks beside the training.
        remaining = self._remaining_steps - batch
        left_of_epoch = (self.params.get("steps") or math.inf) - batch
        steps = min(self.model.steps_per_execution, remaining, left_of_epoch)
        if remaining <= steps < left_of_epoch:
            self._ending = self.model.stop_training = True
        self._run_steps(steps)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["learning_rate"] = float(keras.ops.cast(self._optimizer.learning_rate, "float32"))
        if self._remaining_updates() <= 0:
            self.model.stop_training = True
        elif self._ending:
            # Data ran dry, or float16 gradients overflowed and an update was left out.
            self.model.stop_training = False

    def on_train_end(self, logs=None):
        self._run_steps(self.model.steps_per_execution)
        missing = self._remaining_updates()
        if missing > 0 and not self.model.stop_training:
            _warn(
                f"Training ended {missing} updates before the end of the schedule. Raise `epochs`, "
                "or use `fit(..., **fit_hyperrule(rule))`."
            )

    def _total_steps(self):
        return self.rule.schedule_length * self.rule.accumulation_steps

    def _remaining_updates(self):
        done = int(keras.ops.cast(self._optimizer.iterations, "int32"))
        return self.rule.schedule_length - done

    def _check_duration(self, epoch):
        if self._remaining_steps <= 0:
            _warn(
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

    def _run_steps(self, steps):
        """Makes Keras's next call run `steps` steps, where it would run `steps_per_execution`."""
        if steps not in self._functions:
            self._functions[steps] = _train_function(self.model, steps)
        self.model.train_function = self._functions[steps]


def _warn(message):
    # The frames between here and the user's `fit` differ from one Keras version to the next.
    warnings.warn(message, stacklevel=2)


def _train_function(model, steps):
    if steps <= 0:
        return _no_step
    with _steps_per_execution(model, steps):
        model.make_train_function(force=True)
        function = model.train_function

    def run(*args):
        # Keras reads the number while it traces or runs the function.
        with _steps_per_execution(model, steps):
            return function(*args)

    return run


def _no_step(*state_and_iterator):
    """Stands in for Keras's function: on JAX it takes and returns the training state as well."""
    *state, _ = state_and_iterator
    return ({}, *state) if state else {}


@contextlib.contextmanager
def _steps_per_execution(model, steps):
    whole, model.steps_per_execution = model.steps_per_execution, steps
    try:
        yield
    finally:
        model.steps_per_execution = whole


def _follows(optimizer, rule):
    schedule = getattr(optimizer, "_learning_rate", None)
    if not callable(schedule):
        return False
    edges = (0, rule.warmup_steps, *rule.boundaries, rule.schedule_length)
    updates = {update for edge in edges for update in (edge // 2, edge, edge + 1)}
    steps = sorted(update * rule.accumulation_steps for update in updates)
    return all(
        math.isclose(float(schedule(step)), float(rule.schedule()(step)), rel_tol=1e-5)
        for step in steps
    )


def _refuse_accumulation_on_replicas(model, accumulation):
    strategy = getattr(model, "distribute_strategy", None)
    replicas = strategy.num_replicas_in_sync if strategy is not None else 1
    if accumulation > 1 and replicas > 1:
        raise ValueError(
            "`micro_batch_size` cannot be combined with a tf.distribute strategy of several "
            f"replicas: Keras does not accumulate gradients there. Received: {replicas} replicas, "
            f"{accumulation} passes per update. Leave `micro_batch_size` out: replicas split the "
            "batch already."
        )


def _as_list(callbacks):
    if isinstance(callbacks, keras.callbacks.Callback):
        return [callbacks]
    callbacks = list(callbacks or ())
    strangers = [c for c in callbacks if not isinstance(c, keras.callbacks.Callback)]
    if strangers:
        raise ValueError(
            "`callbacks` must hold keras.callbacks.Callback objects only. "
            f"Received: callbacks with {strangers[0]!r}"
        )
    return callbacks
