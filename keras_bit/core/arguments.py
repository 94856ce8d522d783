"""Checks of arguments that several modules share."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np


def is_number(value: Any) -> bool:
    """Whether `value` is a finite real number; True and False are none."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        return real and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def check_integer(name: str, value: Any, minimum: int) -> int:
    """Returns `value` as an int; raises where it is not an integer of at least `minimum`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < minimum:
        raise ValueError(
            f"`{name}` must be an integer of at least {minimum}. Received: {name}={value!r}"
        )
    return int(value)


def check_seed(name: str, value: Any) -> int:
    """Returns `value` as an int; raises where it is no seed that Keras and NumPy take."""
    seed = check_integer(name, value, minimum=0)
    if seed >= 2**32:
        raise ValueError(f"`{name}` must be below 2**32. Received: {name}={seed}")
    return seed


def check_positive_number(name: str, value: Any) -> float:
    """Returns `value` as a float; raises where it is not a positive finite number."""
    if not is_number(value) or value <= 0:
        raise ValueError(f"`{name}` must be a positive finite number. Received: {name}={value!r}")
    return float(value)


def check_maps(shape: Sequence[int | None]) -> None:
    """Raises where a layer's input is not known to be maps with channels."""
    if len(shape) != 4 or shape[-1] is None:
        raise ValueError(
            "`inputs` must be of shape (batch, height, width, channels), with a known number of "
            f"channels. Received: input_shape={tuple(shape)}"
        )


def check_boolean(name: str, value: Any) -> bool:
    """Returns `value`, True, False, 1 or 0, as a bool; raises for others, such as the text "no"."""
    if not isinstance(value, (numbers.Integral, np.bool_)) or value not in (0, 1):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}")
    return bool(value)
