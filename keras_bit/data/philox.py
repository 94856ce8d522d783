"""The random numbers of TensorFlow's stateless Philox generator, in NumPy."""

import numpy as np

LOW = np.uint64(2**32 - 1)
# Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": Philox4x32 of 10 rounds.
ROUNDS = 10
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
SEED_KEY = np.uint64(0x3EC8F720), np.uint64(0x02461E29)  # TensorFlow's, to scramble seeds


def random_words(seed: tuple[int, int], count: int) -> np.ndarray:
    """Random bits, uint32 `(count,)`, that are a pure function of two integers of 64 bits.

    They are those of which `tf.random.stateless_uniform(..., seed, alg="philox")` makes its
    numbers.

    Example:

    >>> from keras_bit.data.philox import floats, random_words
    >>> floats(random_words((1, 2), 2))
    array([0.8440604 , 0.19204533], dtype=float32)
    """
    first, second = (np.array([number % 2**64], np.uint64) for number in seed)
    halves = [first & LOW, first >> 32, second & LOW, second >> 32]
    *key, high, highest = _scramble(halves, SEED_KEY)
    numbers = np.arange(-(-count // 4), dtype=np.uint64)
    blocks = _scramble([numbers, np.zeros_like(numbers), high, highest], key)
    return np.stack(np.broadcast_arrays(*blocks), 1).astype(np.uint32).ravel()[:count]


def floats(words: np.ndarray) -> np.ndarray:
    """Multiples of 2^-23 in [0, 1), float32, of as many random words."""
    return (words & np.uint32(2**23 - 1)).astype(np.float32) * np.float32(2**-23)


def integers(words: np.ndarray) -> np.ndarray:
    """Integers over the whole range of int64, each of two random words."""
    pairs = words.astype(np.uint64)
    return (pairs[0::2] | pairs[1::2] << np.uint64(32)).view(np.int64)


def _scramble(counter, key):
    """Four words of output for each counter of four words, all held as uint64."""
    a, b, c, d = counter
    left, right = key
    for _ in range(ROUNDS):
        first, second = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = second >> 32 ^ b ^ left, second & LOW, first >> 32 ^ d ^ right, first & LOW
        left, right = left + KEY_STEPS[0] & LOW, right + KEY_STEPS[1] & LOW
    return a, b, c, d
