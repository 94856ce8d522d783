"""Checks of arguments that several modules share."""

import math
import numbers
from typing import Any


def check_integer(name: str, value: Any, minimum: int) -> int:
    """Returns `value` as an int; raises where it is not an integer of at least `minimum`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < minimum:
        raise ValueError(
            f"`{name}` must be an integer of at least {minimum}. Received: {name}={value!r}"
        )
    return int(value)


def check_positive_number(name: str, value: Any) -> float:
    """Returns `value` as a float; raises where it is not a positive finite number."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise ValueError(f"`{name}` must be a positive finite number. Received: {name}={value!r}")
    return float(value)
