"""Random parameters of images, drawn in NumPy."""

import numpy as np


def views(random, count, scale=(0.9, 1.6), turn=0.4, shift=0.35, stretch=0.25):
    """Draws affine maps (count, 2, 3) from image coordinates, for `fields.coordinates`.

    `scale` is the range of how much of the plane is shown, `shift` the largest offset as a share of
    that; rotation (radians), shear and log aspect ratio have deviations of `turn` and `stretch`.
    """
    size = np.exp(random.uniform(*np.log(scale), (count, 1, 1)))
    turned = size * rotations(random.normal(0, turn, count))
    aspect = np.exp(random.normal(0, stretch, count) / 2)
    squeeze = np.zeros((count, 2, 2))
    squeeze[:, 0, 0], squeeze[:, 1, 1] = aspect, 1 / aspect
    squeeze[:, 0, 1] = random.normal(0, stretch, count)
    offset = size * random.uniform(-shift, shift, (count, 2, 1))
    return np.concatenate([turned @ squeeze, offset], axis=2).astype("float32")


def rotations(angles: np.ndarray) -> np.ndarray:
    """Returns the rotation matrices (count, 2, 2) of `angles` (count,), in radians."""
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.stack([[cosine, -sine], [sine, cosine]]).transpose(2, 0, 1)


def colors(random: np.random.RandomState, *shape: int) -> np.ndarray:
    """Draws RGB colors (*shape, 3) in [0, 1] whose channels are correlated as in photographs.

    Lightness varies most, then blue against yellow, then green against magenta: about the
    proportions of the principal components of natural colors (Ruderman, Cronin & Chiao 1998).
    """
    light = random.uniform(0.05, 0.95, (*shape, 1))
    blue, green = (random.normal(0, deviation, (*shape, 1)) for deviation in (0.08, 0.04))
    tint = np.concatenate([-blue - green, -blue + 2 * green, 2 * blue - green], axis=-1)
    saturation = np.exp(random.normal(0, 0.8, (*shape, 1)))
    return np.clip(light + saturation * tint, 0, 1).astype("float32")


def spectrum(random, count, waves, low, high, slope=1.0, angle=0.0, spread=2.0):
    """Draws plane waves whose sum has a variance of 1, for `fields.plane_waves`.

    From `low` on, arguments are numbers or (count,): the range of frequencies in cycles per image;
    the power of the frequency with which amplitudes fall, 1 as in photographs; and mean and
    deviation of the direction in radians.
    """
    shape = (count, waves)
    low, high, slope, angle, spread = (
        np.reshape(value, (-1, 1)) for value in (np.log(low), np.log(high), slope, angle, spread)
    )
    frequency = np.exp(low + (high - low) * random.uniform(0, 1, shape))
    direction = angle + spread * random.normal(0, 1, shape)
    # Frequencies are spread evenly over octaves; in two dimensions each octave holds more waves.
    amplitude = frequency ** (1 - slope)
    amplitude /= np.sqrt((amplitude**2).sum(axis=1, keepdims=True) / 2)
    frequencies = [frequency * np.cos(direction), frequency * np.sin(direction)]
    return {
        "frequencies": np.stack(frequencies, axis=-1).astype("float32"),
        "phases": random.uniform(0, 2 * np.pi, shape).astype("float32"),
        "amplitudes": amplitude.astype("float32"),
    }


def jitter(random: np.random.RandomState, values: np.ndarray, amount: float) -> np.ndarray:
    """Returns float32 `values` with normal noise of standard deviation `amount`."""
    return (values + random.normal(0, amount, np.shape(values))).astype("float32")
