"""What the callback needs of Keras beyond its public interface, and why.

- `Model.train_function` and `make_train_function`: Keras makes one function that runs
  `steps_per_execution` steps at once. A schedule whose length is not a multiple of that, or that
  ends within an epoch, needs calls that run fewer steps, or none.
- `LossScaleOptimizer.inner_optimizer`: the optimizer that counts updates under mixed_float16.
- `Optimizer._learning_rate`: the schedule itself; `learning_rate` is only its current value.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


def inner_optimizer(model: Any) -> Any:
    """Returns the optimizer of a compiled model, without the loss scaling around it."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def learning_rate_schedule(optimizer: Any) -> Any:
    """Returns the schedule of an optimizer, or `None` where its rate is a number."""
    schedule = getattr(optimizer, "_learning_rate", None)
    return schedule if callable(schedule) else None


class TrainFunctions:
    """Functions of a compiled model that run a given number of training steps, made when needed.

    Args:
        model: A `keras.Model` in `fit`, whose own function runs `steps_per_execution` steps.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._functions = {model.steps_per_execution: model.train_function}

    def use(self, steps: int | None = None) -> None:
        """Makes Keras's next call run `steps` steps; without it, `steps_per_execution`."""
        steps = self._model.steps_per_execution if steps is None else steps
        if steps not in self._functions:
            self._functions[steps] = _make_train_function(self._model, steps)
        self._model.train_function = self._functions[steps]


def _make_train_function(model: Any, steps: int) -> Callable:
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
def _steps_per_execution(model: Any, steps: int) -> Iterator[None]:
    whole, model.steps_per_execution = model.steps_per_execution, steps
    try:
        yield
    finally:
        model.steps_per_execution = whole
