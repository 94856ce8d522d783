"""How other processes of Python are started."""

import os
import sys


def import_environment() -> dict[str, str]:
    """Returns the environment in which another Python imports what this one does.

    With `-m` and `-c` it would look into the working directory first, where a file of the user's
    may have the name of a library. (Python 3.10 still does.)
    """
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
