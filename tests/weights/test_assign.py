import numpy as np
import pytest

from keras_bit import BiTBackbone
from keras_bit.weights.assign import assign_strictly
from tests.conftest import as_numpy
from tests.weight_files import SMALL, as_weight_arrays, random_arrays


@pytest.fixture
def arrays(rng):
    return random_arrays(rng)


def values(backbone):
    return {name: as_numpy(v).copy() for name, v in backbone.named_weights().items()}


def test_every_array_arrives_at_its_variable(arrays):
    backbone = BiTBackbone(**SMALL)
    assign_strictly(backbone.named_weights(), as_weight_arrays(arrays))
    for name, value in values(backbone).items():
        np.testing.assert_array_equal(value, arrays[name], err_msg=name)


def test_other_float_types_are_converted(arrays):
    backbone = BiTBackbone(**SMALL)
    half = {name: array.astype("float16") for name, array in arrays.items()}
    assign_strictly(backbone.named_weights(), as_weight_arrays(half))
    for name, value in values(backbone).items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, half[name].astype("float32"), err_msg=name)


def without(arrays, name):
    return {n: array for n, array in arrays.items() if n != name}


LAST = "group_norm/beta"


@pytest.mark.parametrize(
    "fault, spoil",
    [
        (f"missing: {LAST} (512,)", lambda arrays: without(arrays, LAST)),
        ("unknown: extra (2, 3)", lambda arrays: {**arrays, "extra": np.ones((2, 3))}),
        (
            f"shape: {LAST} is (1, 512), must be (512,)",
            lambda arrays: {**arrays, LAST: arrays[LAST][None]},
        ),
    ],
)
def test_nothing_is_assigned_where_one_does_not_fit(arrays, fault, spoil):
    backbone = BiTBackbone(**SMALL)
    before = values(backbone)
    with pytest.raises(ValueError, match="Received: the file, with 1 faults") as error:
        assign_strictly(backbone.named_weights(), as_weight_arrays(spoil(arrays), "the file"))
    assert fault in str(error.value)
    for name, value in values(backbone).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
