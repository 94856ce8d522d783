import numpy as np
import pytest

from keras_bit import BiTBackbone
from keras_bit.weights.architecture import Architecture, architecture_of
from tests.weight_files import ROOT, as_weight_arrays, random_arrays


@pytest.mark.parametrize(
    "depth, width, name",
    [
        ((1, 3, 2, 1), 0.125, "R1-3-2-1x0.125"),
        ((1, 1, 1, 1), 1, "R1-1-1-1x1"),
        (50, 0.125, "R50x0.125"),
        (101, 0.0625, "R101x0.0625"),
    ],
)
def test_depth_and_width_are_read_off_the_shapes(depth, width, name):
    shapes = BiTBackbone(depth, width).weight_shapes()
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    found = architecture_of(as_weight_arrays(arrays))
    assert found == (depth, width) and type(found.width) is type(width)
    assert str(found) == name


def test_the_authors_names():
    assert str(Architecture(152, 4)) == "R152x4"


def test_arrays_of_something_else(rng):
    other = {"conv1/kernel": rng.normal(size=(3, 3)), "conv1/bias": rng.normal(size=3)}
    with pytest.raises(ValueError, match="must hold a BiT network.*a test with 2 other.*conv1/bi"):
        architecture_of(as_weight_arrays(other))


def test_half_a_network(rng):
    arrays = random_arrays(rng)
    three = {n: a for n, a in arrays.items() if not n.startswith("block4/")}
    with pytest.raises(ValueError, match=r"whole BiT network.*\[1, 1, 1, 0\] units"):
        architecture_of(as_weight_arrays(three))
    flat = {**arrays, ROOT: arrays[ROOT].reshape(-1)}
    with pytest.raises(ValueError, match="root kernel of shape"):
        architecture_of(as_weight_arrays(flat))
