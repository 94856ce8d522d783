"""What callbacks and searches need of Keras beyond its public interface, and why.

- `Model.train_function` and `make_train_function`: Keras makes one function that runs
  `steps_per_execution` steps at once. A schedule whose length is not a multiple of that, or that
  ends within an epoch, needs calls that run fewer steps, or none.
  A resumed epoch has steps that are done, whose batches a stand-in of that function drops.
- `Model._initial_epoch`: where `fit` begins, which callbacks may still decide.
- `Model._compile_metrics`, `Model._compile_loss`, `Model._symbolic_build`: Keras creates the
  variables of metrics and optimizers within the first step, which TensorFlow then traces twice,
  and which is too late to restore them.
- `Optimizer._iterations`: counts steps where `iterations` counts updates.
- `Optimizer.apply`: its graph in TensorFlow counts a step that finds no more data as well.
- `LossScaleOptimizer.inner_optimizer`: the optimizer that counts updates under mixed_float16.
- `Optimizer._learning_rate`: the schedule itself; `learning_rate` is only its current value.
"""

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops


def inner_optimizer(model: Any) -> Any:
    """Returns the optimizer of a compiled model, without the loss scaling around it."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def updates_of(optimizer: Any) -> int:
    """Returns how many updates an optimizer has made."""
    return int(ops.cast(optimizer.iterations, "int32"))  # of all replicas' variables, one


def accumulation_steps(optimizer: Any) -> int:
    """Returns how many steps of `fit` make an update of an optimizer."""
    return getattr(optimizer, "gradient_accumulation_steps", None) or 1


def count_steps_with_data(optimizer: Any) -> None:
    """Makes an optimizer count a step when it has gradients, and not one that finds no more data.

    TensorFlow's graph would count it at once, beside reading the data.
    """
    if keras.backend.backend() == "tensorflow":
        # A method, and no function: a copy of the optimizer gets one of its own.
        optimizer.apply = types.MethodType(_apply_with_data, optimizer)


def _apply_with_data(optimizer, grads, trainable_variables=None):
    import tensorflow as tf

    grads = list(grads)
    # The last is that of the head, which is there first: no update waits for it.
    with tf.control_dependencies([grad for grad in grads[-1:] if grad is not None]):
        return type(optimizer).apply(optimizer, grads, trainable_variables)


def learning_rate_schedule(optimizer: Any) -> Any:
    """Returns the schedule of an optimizer, or `None` where its rate is a number or a function."""
    schedule = getattr(optimizer, "_learning_rate", None)
    is_schedule = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    return schedule if is_schedule else None


class SkippedSteps:
    """Stands in for Keras's train function while a resumed epoch is at steps that are done.

    It drops their batches and then puts the function back.

    Args:
        model: A compiled `keras.Model`.
        steps: Number of the epoch's first steps that are done.
        before: Number of batches to drop before those of these steps.
        logs: What each of them returns.
        prepare: Called with the first batch, unless Keras has built the model by then (on JAX).
    """

    def __init__(
        self,
        model: Any,
        steps: int,
        before: int,
        logs: dict[str, Any],
        prepare: Callable[[Any], None],
    ) -> None:
        self.steps = steps
        self.function = real_train_function(model)
        self._model = model
        self._left = steps
        self._before = before
        self._logs = logs
        self._prepare: Callable[[Any], None] | None = prepare
        model.train_function = self

    def __call__(self, *state_and_batches: Any) -> Any:
        *state, batches = state_and_batches
        batches = iter(batches)  # On PyTorch it is a list of one.
        steps = min(self._left, self._model.steps_per_execution)
        try:
            for _ in range(self._before + steps):
                batch = next(batches)
                if self._prepare and not state:
                    self._prepare(batch)
                    self._prepare = None
        except BaseException:
            self.end()
            raise
        self._before = 0
        self._left -= steps
        if not self._left:
            self.end()
        return (self._logs, *state) if state else self._logs

    def end(self) -> None:
        """Puts Keras's function back."""
        if self._model.train_function is self:
            self._model.train_function = self.function


def skipped_steps(model: Any) -> int:
    """Returns how many of the first steps of the epoch that begins are done already."""
    function = model.train_function
    return function.steps if isinstance(function, SkippedSteps) else 0


def end_skipping(model: Any) -> None:
    """Puts Keras's train function back where an epoch has run out of data to skip."""
    if isinstance(model.train_function, SkippedSteps):
        model.train_function.end()


def real_train_function(model: Any) -> Any:
    """Returns Keras's train function, or what stands for fewer steps of it."""
    function = model.train_function
    while isinstance(function, SkippedSteps | _FirstSteps):
        function = function.function
    return function


def batches_of_call(model: Any) -> int:
    """Returns how many batches a call of the train function takes."""
    function = real_train_function(model)
    return function.steps if isinstance(function, _FewerSteps) else model.steps_per_execution


def start_at_epoch(model: Any, epoch: int | None) -> None:
    """Makes the `fit` that begins start with this epoch; `None` for the one that it was given."""
    model._initial_epoch = epoch


def build_from_batch(model: Any, batch: Any) -> None:
    """Creates all variables that the first step of `fit` would, for batches such as this one."""
    loss, outputs = model._compile_loss, getattr(model, "outputs", None) or []
    # Of several outputs it counts each loss. Metrics may make variables when they are first called.
    if not has_metrics(model) or not (loss is None or loss.built or len(outputs) == 1):
        model._symbolic_build(data_batch=batch)


def build_optimizer(model: Any) -> None:
    """Creates the variables of a compiled model's optimizer."""
    # A subclassed model that was built, but never called, has no variables yet.
    if model.built and model.trainable_variables and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def build_metrics(model: Any, batch: Any) -> None:
    """Creates the variables of a model's metrics without calling it, if it has one output.

    With several outputs nothing is done, nor where a subclass has steps or metrics of its own:
    these may be called with other labels than those of the data.

    Args:
        model: A compiled `keras.Model`.
        batch: What `fit` gets of the data, as tensors or as `tf.TensorSpec`s.
    """
    outputs = getattr(model, "outputs", None) or []
    if has_metrics(model) or len(outputs) != 1 or not _has_steps_of_keras(model):
        return
    _, labels, _ = keras.utils.unpack_x_y_sample_weight(batch)
    if not hasattr(labels, "shape"):
        return
    labels, outputs = (keras.KerasTensor(x.shape, x.dtype) for x in (labels, outputs[0]))
    model._compile_metrics.build(labels, outputs)


def _has_steps_of_keras(model):
    names = ("train_step", "compute_metrics")
    return all(getattr(type(model), name) is getattr(keras.Model, name) for name in names)


def has_metrics(model: Any) -> bool:
    """Whether there is nothing left to create for the metrics of a compiled model."""
    return model._compile_metrics is None or model._compile_metrics.built


def is_between_updates(optimizer: Any) -> bool:
    """Whether the optimizer's accumulated gradients are those of no step."""
    steps = accumulation_steps(optimizer)
    return steps == 1 or int(ops.cast(optimizer._iterations, "int32")) % steps == 0


class TrainFunctions:
    """Functions of a compiled model that run a given number of training steps, made when needed.

    Args:
        model: A `keras.Model` in `fit`, whose own function runs `steps_per_execution` steps.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._whole = real_train_function(model)
        if isinstance(self._whole, _FewerSteps):  # of a `fit` that has failed
            self._whole = self._whole.whole
        self._functions = {model.steps_per_execution: self._whole}

    def use(self, steps: int | None = None) -> None:
        """Makes Keras's next call run `steps` steps; without it, `steps_per_execution`."""
        if skipped_steps(self._model):
            return
        steps = self._model.steps_per_execution if steps is None else steps
        if steps not in self._functions:
            self._functions[steps] = _FewerSteps(self._model, steps, self._whole)
        function = self._functions[steps]
        if isinstance(function, _FewerSteps):
            function.is_wanted = True
        if not has_metrics(self._model):
            function = _FirstSteps(self._model, function)
        self._model.train_function = function


class _FirstSteps:
    """A train function before whose first call the metrics' variables are created."""

    def __init__(self, model: Any, function: Any) -> None:
        self.function = function
        self._model = model

    def __call__(self, *state_and_batches: Any) -> Any:
        # Of TensorFlow's iterators; on JAX and PyTorch Keras has built all by now.
        build_metrics(self._model, getattr(state_and_batches[-1], "element_spec", None))
        return self.function(*state_and_batches)


class _FewerSteps:
    """A train function that runs `steps` steps at its next call.

    Where it is called again without being wanted, in the `fit` after one that has failed, `whole`
    takes its place.
    """

    def __init__(self, model: Any, steps: int, whole: Any) -> None:
        self.steps = steps
        self.whole = whole
        self.is_wanted = False
        self._model = model
        if steps > 0:
            with _steps_per_execution(model, steps):
                model.make_train_function(force=True)
                self._function = model.train_function

    def __call__(self, *state_and_batches: Any) -> Any:
        if not self.is_wanted:
            self._model.train_function = self.whole
            return self.whole(*state_and_batches)
        self.is_wanted = False
        if self.steps > 0:
            # Keras reads the number while it traces or runs the function.
            with _steps_per_execution(self._model, self.steps):
                return self._function(*state_and_batches)
        *state, _ = state_and_batches
        return ({}, *state) if state else {}  # On JAX it takes and returns the state as well.


@contextlib.contextmanager
def _steps_per_execution(model: Any, steps: int) -> Iterator[None]:
    whole, model.steps_per_execution = model.steps_per_execution, steps
    try:
        yield
    finally:
        model.steps_per_execution = whole
