"""Warnings that point at the code of the user."""

import inspect
import warnings

_SKIPPED = ("keras_bit", "keras", "contextlib")  # packages whose code calls this one's


def warn_caller(message: str) -> None:
    """Warns with the line of the first caller outside of this package and Keras."""
    frame, level = inspect.currentframe(), 1
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in _SKIPPED:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
