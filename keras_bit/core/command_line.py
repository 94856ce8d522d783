"""Whether this process is the command `keras-bit`, or the list of examples.

A command imports Keras where it needs it, so that `--help` answers at once, and without the
messages of TensorFlow's start; every other program gets it with the package.
"""

import pathlib
import sys

_MODULES = ("keras_bit", "keras_bit.examples")


def started_as_command() -> bool:
    """Whether Python was started as `keras-bit`, or with `-m` and one of the `_MODULES`."""
    is_script = pathlib.Path(*sys.argv[:1]).stem == "keras-bit"
    return is_script or sys.orig_argv[1:3] in [["-m", module] for module in _MODULES]
