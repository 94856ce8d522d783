"""That all implementations do the same work, and that theory counts it rightly."""

import numpy as np
import pytest

from benchmarks.harness.cases import CLASSES, REAL, SMALL, Case
from benchmarks.implementations.registry import (
    BFLOAT16,
    HAS_TIMM,
    IMPLEMENTATIONS,
    find,
    plain_name,
)


@pytest.fixture(autouse=True)
def omit_what_compiles_for_minutes(request):
    compiled = "torch.compile" in request.node.name
    if compiled and not request.config.getoption("--full"):
        pytest.skip("PyTorch compiles for minutes what is compared uncompiled; --full runs it")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS["forward"])
def test_implementations_compute_the_same_features(implementation, expected_features):
    found = _start("forward", implementation)()
    np.testing.assert_allclose(found, expected_features, rtol=0, atol=1e-3)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS["training step"])
def test_implementations_take_the_same_training_steps(implementation, expected_losses):
    step = _start("training step", implementation)
    assert [step() for _ in range(3)] == pytest.approx(expected_losses, rel=1e-3)


@pytest.mark.parametrize("implementation", BFLOAT16["forward"])
def test_features_in_bfloat16_are_the_same_but_for_rounding(implementation, expected_features):
    found = _start("forward", implementation)()
    # Each of a dozen layers rounds to 8 bits, by some 0.2 %.
    error = np.linalg.norm(found - expected_features) / np.linalg.norm(expected_features)
    assert 1e-4 < error < 0.05


@pytest.mark.parametrize("implementation", BFLOAT16["training step"])
def test_training_in_bfloat16_is_the_same_but_for_rounding(implementation, expected_losses):
    step = _start("training step", implementation)
    assert [step() for _ in range(3)] == pytest.approx(expected_losses, rel=0.02)


@pytest.fixture(scope="module")
def expected_features():
    features = _start("forward", plain_name("forward"))()
    assert np.ptp(features) > 0.1
    return features


@pytest.fixture(scope="module")
def expected_losses():
    step = _start("training step", plain_name("training step"))
    losses = [step() for _ in range(3)]
    assert losses[0] == pytest.approx(np.log(CLASSES)) and losses[2] < 0.99 * losses[0]
    return losses


def _start(work, name):
    return find(work, name).prepare()(work, SMALL, SMALL.weights())


def test_shapes_of_the_network():
    import keras_bit

    for case in (SMALL, REAL, Case((1, 2, 1, 1), 64, 1, width=2)):
        assert case.shapes() == keras_bit.BiTBackbone(case.units, case.width).weight_shapes()


@pytest.mark.skipif(not HAS_TIMM, reason="needs torch and timm")
@pytest.mark.parametrize("edge", [64, 75])
def test_operations_of_the_network(edge):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.implementations.timm_network import timm

    case = SMALL._replace(edge=edge)
    network = timm(case, case.weights())
    with FlopCounterMode(display=False) as forward:
        features = network(torch.zeros(1, 3, edge, edge))
    with FlopCounterMode(display=False) as backward:
        features.sum().backward()
    assert case.operations("forward") == forward.get_total_flops()
    total = forward.get_total_flops() + backward.get_total_flops()
    assert case.operations("training step") == total
