"""The state of callbacks: their numbers and their arrays."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

_PLAIN = (bool, int, float, str, type(None))


def plain_state(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Returns the public attributes of a callback that are numbers, strings or `None`.

    Arguments of Keras's own callbacks are none of them: in the first epoch it turns the sign of
    `min_delta` around, for one.
    """
    of_keras = [base for base in type(callback).__mro__ if base.__module__.startswith("keras.")]
    arguments = {name for base in of_keras for name in inspect.signature(base).parameters}
    values = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in vars(callback).items()
        if not name.startswith("_") and name not in arguments
    }
    return {name: value for name, value in values.items() if isinstance(value, _PLAIN)}


def states_of(
    callbacks: Sequence[keras.callbacks.Callback], begun_with: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Returns what has changed of callbacks since training began, as JSON and arrays.

    The first are, for each callback, those of its `plain_state` that are not as in `begun_with`,
    and the dtypes in its lists of arrays; the second these arrays.
    """
    states: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for i, (callback, before) in enumerate(zip(callbacks, begun_with, strict=True)):
        plain = {
            name: value
            for name, value in plain_state(callback).items()
            if name not in before or before[name] != value
        }
        lists = {
            name: value
            for name, value in vars(callback).items()
            if isinstance(value, list) and value and _are_arrays(value)
        }
        for name, values in lists.items():
            for j, array in enumerate(values):
                arrays[_key(i, name, j)] = np.array(array, order="C")
        dtypes = {name: [str(array.dtype) for array in values] for name, values in lists.items()}
        states.append({"plain": plain, "dtypes": dtypes})
    return states, arrays


def restore_states(
    callbacks: Sequence[keras.callbacks.Callback],
    states: Sequence[dict[str, Any]],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Gives callbacks what `states_of` returned."""
    for i, (callback, state) in enumerate(zip(callbacks, states, strict=True)):
        for name, value in state["plain"].items():
            setattr(callback, name, value)
        for name, dtypes in state["dtypes"].items():
            # In the file bfloat16 and the like are integers.
            values = [arrays[_key(i, name, j)].view(dtype) for j, dtype in enumerate(dtypes)]
            setattr(callback, name, values)


def _key(number, name, index):
    return f"callbacks/{number}/{name}/{index}"


def _are_arrays(values):
    return all(isinstance(value, np.ndarray) for value in values)
