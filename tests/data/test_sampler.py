import itertools
import threading

import numpy as np
import pytest
from scipy import stats

from keras_bit.data import sampler as sampler_module
from keras_bit.data.philox import random_words
from keras_bit.data.sampler import Crops, Sampler, crop_batch
from keras_bit.hyperrule.rule import HyperRule


def make_sampler(count=10, batch_size=4, seed=0, sampler=Sampler, **changes):
    rule = HyperRule(32, count, batch_size, **{"resize_edge": 12, "crop_size": 8, **changes})
    return sampler(count, rule, seed)


def on_tensorflow(*args, **changes):
    from keras_bit.data.tf_sampler import TensorFlowSampler

    return make_sampler(*args, sampler=TensorFlowSampler, **changes)


ORDER = [35, 76, 33, 11, 39, 95, 24, 18]  # of 100 images, in epoch 0 under seed 0


def take(dataset, count):
    return [batch.numpy() for batch in itertools.islice(dataset, count)]


def test_random_words_are_philox():
    # The known answers of the authors' Random123 for a key of zeros, and the words of the block
    # that TensorFlow scrambles a seed to, which are its key and counter.
    from keras_bit.data.philox import _scramble

    zeros = [np.zeros(1, np.uint64)] * 4
    words = [f"{int(word[0]):08x}" for word in _scramble(zeros, (np.uint64(0), np.uint64(0)))]
    assert words == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    assert random_words((1, 2), 9)[:5].tolist() == random_words((1, 2), 5).tolist()


@pytest.mark.tensorflow
@pytest.mark.parametrize("count", [1, 3, 4, 1001])
def test_random_numbers_are_those_of_tensorflow(rng, count):
    import tensorflow as tf

    from keras_bit.data.philox import floats, integers

    for seed in rng.integers(-(2**63), 2**63, (5, 2)):
        for dtype, bounds, found in [
            (tf.float32, {}, floats(random_words(tuple(seed.tolist()), count))),
            (tf.int64, {"minval": None}, integers(random_words(tuple(seed.tolist()), 2 * count))),
        ]:
            expected = tf.random.stateless_uniform(
                (count,), seed, dtype=dtype, maxval=None, alg="philox", **bounds
            )
            assert found.dtype == expected.dtype.as_numpy_dtype
            np.testing.assert_array_equal(found, expected)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("count", "batch_size", "alpha", "seed"),
    [(10, 4, 0.1, 0), (3, 8, 2.0, 2**70), (999, 64, 0.3, 5)],
)
def test_draws_are_those_of_the_tensorflow_sampler(count, batch_size, alpha, seed):
    sampler, other = (
        make(count, batch_size, seed, mixup_alpha=alpha) for make in (make_sampler, on_tensorflow)
    )
    for step in (1, 2, 123_456):
        (expected,) = take(other.stream(step), 1)
        np.testing.assert_array_equal(sampler.positions(step), expected)
        for values, expected in zip(sampler.crops(step), other.crops(step), strict=True):
            assert values.dtype == expected.dtype.as_numpy_dtype
            np.testing.assert_array_equal(values, expected)
    weights = [(sampler.weight(step), other.weight(step).numpy()) for step in range(12)]
    assert all(weight.dtype == np.float32 and weight == same for weight, same in weights)
    assert len(set(weights)) > 6


def test_order_is_a_permutation_of_its_own_for_each_epoch_and_seed():
    orders = [make_sampler(100, seed=seed).order(epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(make_sampler(100).order(0), orders[0])
    # What it was when it was TensorFlow's: a run of then resumes with its images.
    assert orders[0][:8].tolist() == ORDER


def test_orders_are_sorted_once_and_only_two_are_kept(monkeypatch):
    calls = []
    argsort = np.argsort
    monkeypatch.setattr(np, "argsort", lambda *a, **k: calls.append(a) or argsort(*a, **k))
    sampler = make_sampler(100)
    threads = [threading.Thread(target=sampler.order, args=(0,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    for epoch in (1, 2, 1):
        sampler.order(epoch)
    assert len(calls) == 3 and len(sampler._orders) == 2


def test_order_gives_every_permutation_the_same_chance():
    epochs = 2400
    sampler = make_sampler(4)
    orders = [sampler.order(epoch) for epoch in range(epochs)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    chi_square = np.sum((counts - epochs / 24) ** 2 / (epochs / 24))
    assert len(counts) == 24
    assert chi_square < 49.7  # 23 degrees of freedom: exceeded once in a thousand


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (8, 4), (3, 8)])
def test_positions_hold_every_image_once_an_epoch(count, batch_size):
    epochs = 8
    sampler = make_sampler(count, batch_size)
    batches = [sampler.positions(step) for step in range(epochs * count // batch_size)]
    stream = np.concatenate(batches).reshape(-1, count)
    np.testing.assert_array_equal(np.sort(stream, axis=1), np.tile(np.arange(count), (epochs, 1)))
    assert len(np.unique(stream, axis=0)) > 1


@pytest.mark.tensorflow
@pytest.mark.parametrize("step", [1, 2, 5, 23])
def test_the_stream_from_a_step_equals_that_after_skipping(step):
    sampler = on_tensorflow()
    np.testing.assert_array_equal(
        take(sampler.stream(step), 6), take(sampler.stream(0), step + 6)[step:]
    )


def test_crops_are_uniform_over_the_whole_range():
    tops, lefts, flips = make_sampler(batch_size=20_000).crops(3)
    for offsets in (tops, lefts):
        counts = np.bincount(offsets)
        assert len(counts) == 5  # 12 - 8 and both ends
        np.testing.assert_allclose(counts, 4000, atol=250)  # four standard deviations
    assert abs(flips.mean() - 0.5) < 0.015
    assert abs(np.corrcoef([tops, lefts, flips]) - np.eye(3)).max() < 0.03


@pytest.mark.tensorflow
def test_crops_are_a_pure_function_of_seed_and_step():
    import tensorflow as tf

    sampler = make_sampler(batch_size=64)
    again = on_tensorflow(batch_size=64)
    in_graph = tf.data.Dataset.range(5).map(lambda step: tuple(again.crops(step)))
    for step, traced in reversed(list(enumerate(in_graph))):
        for first, second in zip(sampler.crops(step), traced, strict=True):
            np.testing.assert_array_equal(first, second)
    others = [sampler.crops(1), make_sampler(batch_size=64, seed=1).crops(0)]
    for other in others:
        for first, second in zip(sampler.crops(0), other, strict=True):
            assert np.any(first != second)


def test_crops_without_random_crop_and_flip_leave_images_as_they_are():
    changes = {"resize_edge": None, "random_crop": False, "random_flip": False}
    crops = make_sampler(batch_size=100, **changes).crops(0)
    assert not any(map(np.any, crops))


def test_crops_take_chooses_by_index():
    crops = make_sampler(batch_size=8).crops(0)
    for all_values, chosen in zip(crops, crops.take([5, 0]), strict=True):
        np.testing.assert_array_equal(chosen, all_values[[5, 0]])


def test_weights_differ_by_step_and_seed():
    weights = [
        make_sampler(seed=seed, mixup_alpha=1.0).weight(step) for seed in (0, 1) for step in (0, 1)
    ]
    assert len(set(weights)) == 4
    assert make_sampler(seed=1, mixup_alpha=1.0).weight(1) == weights[-1]


@pytest.mark.parametrize("alpha", [0.5, 1.0, 5.0])
def test_weights_are_of_the_beta_distribution(alpha):
    sampler = make_sampler(mixup_alpha=alpha)
    weights = np.array([sampler.weight(step) for step in range(1000)])
    np.testing.assert_array_equal(weights * 2**16, np.round(weights * 2**16))
    smeared = weights + np.random.default_rng(0).uniform(-0.5, 0.5, 1000) / 2**16
    assert stats.kstest(np.clip(smeared, 0, 1), stats.beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.3, 1.0, 5.0])
def test_a_weight_is_the_quantile_rounded_to_a_step(monkeypatch, alpha):
    sampler = make_sampler(mixup_alpha=alpha)

    def weight_of(uniform):
        monkeypatch.setattr(sampler_module, "floats", lambda words: [np.float32(uniform)])
        return sampler.weight(0)

    for uniform in (np.linspace(0, 1, 101)[:-1] + 0.0021).astype(np.float32).tolist():
        quantile = stats.beta(alpha, alpha).ppf(uniform)
        assert weight_of(uniform) == np.round(quantile * 2**16) / 2**16
    assert 0 <= weight_of(0) <= weight_of(1 - 2**-23) <= 1


@pytest.mark.slow
@pytest.mark.tensorflow
def test_weights_are_those_of_earlier_versions_rounded():
    import tensorflow as tf

    from keras_bit.layers.mixup import MixUp

    sampler, mixup = on_tensorflow(mixup_alpha=0.1), MixUp(0.1)
    for step in range(20):
        seed = sampler._uniform(sampler.weight_key, step, (2,), tf.int32)
        # TensorFlow Probability's quantile is off by up to 7e-7.
        assert abs(float(mixup.draw_weight(seed)) - sampler.weight(step)) < 2**-17 + 1e-6


def crop_by_hand(images, rows, crops, size):
    results = []
    for row, top, left, flip in zip(rows, *crops, strict=True):
        crop = images[row, top : top + size, left : left + size]
        results.append(crop[:, ::-1] if flip else crop)
    return np.stack(results)


def test_crop_batch_equals_slices(rng):
    images = rng.integers(0, 256, (5, 9, 11, 3), np.uint8)
    rows = np.array([4, 0, 0, 2])
    crops = Crops(np.array([0, 3, 1, 3]), np.array([5, 0, 2, 5]), np.array([0, 1, 0, 1]) == 1)
    cropped = crop_batch(images, rows, crops, 6)
    assert cropped.dtype == np.uint8
    np.testing.assert_array_equal(cropped, crop_by_hand(images, rows, crops, 6))


@pytest.mark.tensorflow
@pytest.mark.parametrize("eager", [True, False])
def test_crop_batch_of_tensors_equals_slices(rng, eager):
    import tensorflow as tf

    from keras_bit.data.tf_sampler import crop_batch

    images = rng.integers(0, 256, (5, 9, 11, 3), np.uint8)
    rows = np.array([4, 0, 0, 2])
    crops = Crops(np.array([0, 3, 1, 3]), np.array([5, 0, 2, 5]), np.array([0, 1, 0, 1]) == 1)

    def crop(rows, *crops):
        return crop_batch(tf.constant(images), rows, Crops(*crops), 6)

    if eager:
        cropped = crop(rows, *crops)
    else:
        dataset = tf.data.Dataset.from_tensors((rows, *crops)).map(crop)
        assert dataset.element_spec.shape[1:] == (6, 6, 3)
        cropped = next(iter(dataset))
    np.testing.assert_array_equal(cropped, crop_by_hand(images, rows, crops, 6))


def test_seeds_of_any_size_are_told_apart():
    seeds = (0, 2**32, 2**64, 2**70)
    orders = {tuple(make_sampler(100, seed=seed).order(0)) for seed in seeds}
    assert len(orders) == 4


@pytest.mark.parametrize("seed", [-1, 0.5, None, True])
def test_invalid_seeds_are_refused(seed):
    with pytest.raises(ValueError, match=r"`seed` must .* Received: seed="):
        make_sampler(seed=seed)
