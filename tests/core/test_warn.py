import contextlib
import inspect

import pytest

from keras_bit.core.warn import warn_caller


def warner(module):
    """A context manager that warns on entry, as if it stood in a module of this name."""
    namespace = {"__name__": module, "contextlib": contextlib, "warn_caller": warn_caller}
    lines = ["@contextlib.contextmanager", "def warn():", "    warn_caller('careful')", "    yield"]
    exec("\n".join(lines), namespace)
    return namespace["warn"]


@pytest.mark.parametrize(
    ("module", "points_here"),
    [
        ("keras_bit", True),
        ("keras_bit.data.cache", True),
        ("keras.src.callbacks", True),
        ("keras_bit_tools", False),
    ],
)
def test_a_warning_points_at_the_first_line_outside_the_package(module, points_here):
    with pytest.warns(UserWarning, match="^careful$") as caught:
        line = inspect.currentframe().f_lineno + 1
        with warner(module)():
            pass
    (warning,) = caught
    expected = (__file__, line) if points_here else ("<string>", 3)
    assert (warning.filename, warning.lineno) == expected
