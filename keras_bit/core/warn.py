"""Warnings that point at the code of the user."""

import inspect
import warnings

_SKIPPED = ("keras_bit", "contextlib")  # whose frames stand between those of this package


def warn_caller(message: str) -> None:
    """Warns with the line of the first caller outside of this package."""
    frame, level = inspect.currentframe(), 1
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in _SKIPPED:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
