"""Whether this process is the command `keras-bit`.

The command imports Keras where it needs it, so that `--help` answers at once, and without the
messages of TensorFlow's start; every other program gets it with the package.
"""

import pathlib
import sys


def started_as_command() -> bool:
    """Whether Python was started as `keras-bit` or `python -m keras_bit`."""
    is_script = pathlib.Path(*sys.argv[:1]).stem == "keras-bit"
    return is_script or sys.orig_argv[1:3] == ["-m", "keras_bit"]
