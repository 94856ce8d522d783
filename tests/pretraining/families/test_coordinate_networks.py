import numpy as np

from keras_bit.core.random import frozen_stream
from keras_bit.pretraining.families import coordinate_networks


def test_a_network_is_sines_of_sums(identity_view):
    rows = coordinate_networks.classes(frozen_stream(0), 1)
    parameters = coordinate_networks.draw(frozen_stream(1), rows)
    parameters |= {"view": identity_view}
    edge = (np.arange(4) + 0.5) / 2 - 1
    x, y = np.meshgrid(edge, edge)
    features = np.stack([x, y, np.hypot(x, y), x * y], axis=-1)
    for kernel, bias in zip(parameters["kernels"], parameters["biases"], strict=True):
        features = np.sin(features @ kernel[0] + bias[0])
    base, first, second = parameters["colors"][0]
    amounts = 0.5 + 0.5 * features
    expected = base + amounts[..., :1] * (first - base) + amounts[..., 1:] * (second - base)
    found = coordinate_networks.render(parameters, 4)[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)
