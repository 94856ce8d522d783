import numpy as np

from keras_bit.core.random import frozen_stream
from keras_bit.pretraining.families import textures
from keras_bit.pretraining.families.fields import plane_waves


def test_a_texture_is_a_nonlinearity_of_its_field():
    rows = textures.classes(frozen_stream(0), textures.KINDS)
    rows["kind"] = np.arange(textures.KINDS)
    parameters = textures.draw(frozen_stream(1), rows)
    field, tint = (np.asarray(plane_waves(8, **parameters[name])) for name in ("field", "tint"))
    clouds, ridges, stripes, patches = field
    _, _, third, fourth = parameters["strength"]
    amount = np.stack(
        [
            0.5 + clouds / 4,
            1 - np.abs(ridges),
            0.5 + np.sin(third * stripes) / 2,
            1 / (1 + np.exp(-4 * fourth * patches)),
        ]
    )
    base, first, second = parameters["colors"][:, :, None, None].swapaxes(0, 1)
    expected = base + amount[..., None] * (first - base)
    expected = expected + (0.5 + tint / 4)[..., None] * (second - base)
    np.testing.assert_allclose(textures.render(parameters, 8), expected, atol=1e-5)
