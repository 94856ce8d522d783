import numpy as np
import pytest

from keras_bit.core.arguments import check_boolean, check_integer, check_positive_number


def test_integers():
    assert check_integer("n", np.int64(3), minimum=3) == 3
    for bad in (2, 3.0, "3", True, None, float("nan")):
        with pytest.raises(ValueError, match="`n` must be an integer of at least 3. Received: n="):
            check_integer("n", bad, minimum=3)


def test_positive_numbers():
    assert check_positive_number("x", np.float32(0.5)) == 0.5
    for bad in (0, -1, "1", True, None, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`x` must be a positive finite number. Received: x="):
            check_positive_number("x", bad)


def test_booleans():
    for value in (True, False, np.bool_(True), 0, np.int64(1)):
        assert check_boolean("flag", value) is bool(value)
    for bad in ("no", "false", "", None, 2, -1, 1.0, float("nan"), [], np.array([True, False])):
        with pytest.raises(ValueError, match="`flag` must be True or False. Received: flag="):
            check_boolean("flag", bad)
