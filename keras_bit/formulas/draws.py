"""Random parameters of pictures, drawn in NumPy with a stream that is the same everywhere."""

import numpy as np


def stream(*seeds):
    """Returns a `np.random.RandomState` that depends on all of `seeds`, integers from 0.

    RandomState is the one stream that NumPy promises never to change, on any machine.
    """
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seeds)))


def views(random, count, scale=(0.9, 1.6), turn=0.4, shift=0.35, stretch=0.25):
    """Ways to look at a figure: `(count, 2, 3)` matrices and offsets for `fields.plane`.

    Args:
        random: A `np.random.RandomState`.
        count: How many.
        scale: Range of how much of the plane an image shows, drawn on a logarithmic scale.
        turn: Standard deviation of the rotation, in radians.
        shift: Largest shift, as a share of what the image shows.
        stretch: Standard deviation of the logarithm of the aspect ratio, and of the shear.
    """
    size = np.exp(random.uniform(*np.log(scale), count))
    angle = random.normal(0, turn, count)
    aspect = np.exp(random.normal(0, stretch, count) / 2)
    cosine, sine = np.cos(angle), np.sin(angle)
    shear = random.normal(0, stretch, count)
    rotation = np.stack([[cosine, -sine], [sine, cosine]]).transpose(2, 0, 1)
    squeeze = np.zeros((count, 2, 2))
    squeeze[:, 0, 0], squeeze[:, 1, 1], squeeze[:, 0, 1] = aspect, 1 / aspect, shear
    matrix = size[:, None, None] * rotation @ squeeze
    offset = random.uniform(-shift, shift, (count, 2)) * size[:, None]
    return np.concatenate([matrix, offset[:, :, None]], axis=2).astype("float32")


def colours(random, *shape):
    """Colours `(*shape, 3)`, RGB in [0, 1], whose channels go together as in photographs.

    Light and dark vary most, then blue against yellow, then green against magenta: about the
    proportions of the principal components of natural colours (Ruderman, Cronin & Chiao 1998).
    """
    light = random.uniform(0.05, 0.95, (*shape, 1))
    blue = random.normal(0, 0.08, (*shape, 1))
    green = random.normal(0, 0.04, (*shape, 1))
    tint = np.concatenate([-blue - green, -blue + 2 * green, 2 * blue - green], axis=-1)
    vivid = np.exp(random.normal(0, 0.8, (*shape, 1)))
    return np.clip(light + vivid * tint, 0, 1).astype("float32")


def spectrum(random, slope, lowest, highest, angle, spread, waves):
    """Plane waves of random textures, for `fields.waves`.

    Args:
        random: A `np.random.RandomState`.
        slope: Floats (count,): amplitudes fall with frequency to this power, 1 as in photographs.
        lowest, highest: Floats (count,), cycles per picture.
        angle: Floats (count,), the main direction in radians.
        spread: Floats (count,), standard deviation of the directions around it, in radians.
        waves: Number of waves.

    Returns:
        A dict of `frequencies` (count, waves, 2), `phases` and `amplitudes` (count, waves); a sum
        of them has a variance of 1.
    """
    shape = (len(slope), waves)
    low, high = np.log(lowest)[:, None], np.log(highest)[:, None]
    frequency = np.exp(low + (high - low) * random.uniform(0, 1, shape))
    direction = angle[:, None] + spread[:, None] * random.normal(0, 1, shape)
    # Frequencies are spread evenly over octaves; in two dimensions each octave holds more waves.
    amplitude = frequency ** (1 - slope[:, None])
    amplitude /= np.sqrt((amplitude**2).sum(axis=1, keepdims=True) / 2)
    return {
        "frequencies": np.stack(
            [frequency * np.cos(direction), frequency * np.sin(direction)], axis=-1
        ).astype("float32"),
        "phases": random.uniform(0, 2 * np.pi, shape).astype("float32"),
        "amplitudes": amplitude.astype("float32"),
    }


def jittered(random, values, amount):
    """`values` with normal noise of standard deviation `amount`, as float32."""
    return (values + random.normal(0, amount, np.shape(values))).astype("float32")
