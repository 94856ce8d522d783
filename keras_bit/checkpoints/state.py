"""The state of callbacks: their numbers and their arrays."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

_PLAIN = (bool, int, float, str, type(None))


def plain_state(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Returns the public attributes of a callback that are numbers, strings or `None`.

    The arguments of its constructor are none of them: Keras turns the sign of `min_delta` around
    when training begins, for one.
    """
    arguments = inspect.signature(type(callback)).parameters
    values = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in vars(callback).items()
        if not name.startswith("_") and name not in arguments
    }
    return {name: value for name, value in values.items() if isinstance(value, _PLAIN)}


def state_of(
    callback: keras.callbacks.Callback, begun_with: dict[str, Any], prefix: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns what has changed of a callback since training began, as JSON and arrays.

    The first are those of its `plain_state` that are not as in `begun_with`, and the lengths of
    its lists of arrays; the second these arrays, by `prefix/attribute/index`.
    """
    plain = {
        name: value
        for name, value in plain_state(callback).items()
        if name not in begun_with or begun_with[name] != value
    }
    lists = {
        name: value
        for name, value in vars(callback).items()
        if isinstance(value, list) and value and _are_arrays(value)
    }
    arrays = {
        f"{prefix}/{name}/{i}": np.array(array, order="C")
        for name, values in lists.items()
        for i, array in enumerate(values)
    }
    lengths = {name: len(values) for name, values in lists.items()}
    return {"plain": plain, "lengths": lengths}, arrays


def restore_state(
    callback: keras.callbacks.Callback,
    state: dict[str, Any],
    arrays: Mapping[str, np.ndarray],
    prefix: str,
) -> None:
    """Gives a callback what `state_of` returned."""
    for name, value in state["plain"].items():
        setattr(callback, name, value)
    for name, length in state["lengths"].items():
        setattr(callback, name, [arrays[f"{prefix}/{name}/{i}"] for i in range(length)])


def _are_arrays(values):
    return all(isinstance(value, np.ndarray) for value in values)
