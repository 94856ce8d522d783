"""That all contenders do the same work, and that theory counts it rightly."""

import numpy as np
import pytest

from benchmarks.cases import CLASSES, Case
from benchmarks.contenders import CONTENDERS, HAS_TIMM
from benchmarks.test_network import REAL, SMALL


@pytest.mark.parametrize("contender", CONTENDERS["forward"])
def test_contenders_compute_the_same_features(contender, expected_features):
    found = _start("forward", contender)()
    np.testing.assert_allclose(found, expected_features, rtol=0, atol=1e-3)


@pytest.mark.parametrize("contender", CONTENDERS["training step"])
def test_contenders_take_the_same_training_steps(contender, expected_losses):
    step = _start("training step", contender)
    assert [step() for _ in range(3)] == pytest.approx(expected_losses, rel=1e-3)


@pytest.fixture(scope="module")
def expected_features():
    features = _start("forward", "plain Keras 3")()
    assert np.ptp(features) > 0.1
    return features


@pytest.fixture(scope="module")
def expected_losses():
    step = _start("training step", "plain Keras 3")
    losses = [step() for _ in range(3)]
    assert losses[0] == pytest.approx(np.log(CLASSES)) and losses[2] < 0.99 * losses[0]
    return losses


def _start(work, name):
    return CONTENDERS[work][name].prepare()(work, SMALL, SMALL.weights())


def test_shapes_of_the_network():
    import keras_bit

    for case in (SMALL, REAL, Case((1, 2, 1, 1), 64, 1, width=2)):
        assert case.shapes() == keras_bit.BiTBackbone(case.units, case.width).weight_shapes()


@pytest.mark.skipif(not HAS_TIMM, reason="needs torch and timm")
@pytest.mark.parametrize("edge", [64, 75])
def test_operations_of_the_network(edge):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.timm_network import timm

    case = SMALL._replace(edge=edge)
    network = timm(case, case.weights())
    with FlopCounterMode(display=False) as forward:
        features = network(torch.zeros(1, 3, edge, edge))
    with FlopCounterMode(display=False) as backward:
        features.sum().backward()
    assert case.operations("forward") == forward.get_total_flops()
    total = forward.get_total_flops() + backward.get_total_flops()
    assert case.operations("training step") == total
