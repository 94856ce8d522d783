import itertools

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from keras_bit.data.sampler import Crops, Sampler, crop_batch
from keras_bit.hyperrule.rule import HyperRule

pytestmark = pytest.mark.tensorflow


def make_sampler(count=10, batch_size=4, seed=0, **changes):
    rule = HyperRule(32, count, batch_size, **{"resize_edge": 12, "crop_size": 8, **changes})
    return Sampler(count, rule, seed)


def take(dataset, count):
    return [batch.numpy() for batch in itertools.islice(dataset, count)]


def test_order_is_a_permutation_of_its_own_for_each_epoch_and_seed():
    orders = [make_sampler(100, seed=seed).order(epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order.numpy()) == list(range(100)) for order in orders)
    assert len({tuple(order.numpy()) for order in orders}) == 4
    np.testing.assert_array_equal(make_sampler(100).order(0), orders[0])


def test_order_gives_every_permutation_the_same_chance():
    import tensorflow as tf

    epochs = 2400
    orders = take(tf.data.Dataset.range(epochs).map(make_sampler(4).order), epochs)
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    chi_square = np.sum((counts - epochs / 24) ** 2 / (epochs / 24))
    assert len(counts) == 24
    assert chi_square < 49.7  # 23 degrees of freedom: exceeded once in a thousand


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (8, 4), (3, 8)])
def test_positions_hold_every_image_once_an_epoch(count, batch_size):
    epochs = 8
    batches = take(make_sampler(count, batch_size).positions(0), epochs * count // batch_size)
    stream = np.concatenate(batches).reshape(-1, count)
    np.testing.assert_array_equal(np.sort(stream, axis=1), np.tile(np.arange(count), (epochs, 1)))
    assert len(np.unique(stream, axis=0)) > 1


@pytest.mark.parametrize("step", [1, 2, 5, 23])
def test_positions_from_a_step_equal_those_after_skipping(step):
    sampler = make_sampler()
    np.testing.assert_array_equal(
        take(sampler.positions(step), 6), take(sampler.positions(0), step + 6)[step:]
    )


def test_crops_are_uniform_over_the_whole_range():
    tops, lefts, flips = (values.numpy() for values in make_sampler(batch_size=20_000).crops(3))
    for offsets in (tops, lefts):
        counts = np.bincount(offsets)
        assert len(counts) == 5  # 12 - 8 and both ends
        np.testing.assert_allclose(counts, 4000, atol=250)  # four standard deviations
    assert abs(flips.mean() - 0.5) < 0.015
    assert abs(np.corrcoef([tops, lefts, flips]) - np.eye(3)).max() < 0.03


def test_crops_are_a_pure_function_of_seed_and_step():
    import tensorflow as tf

    sampler = make_sampler(batch_size=64)
    again = make_sampler(batch_size=64)
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
    assert not np.any(crops)


def test_crops_take_chooses_by_index():
    crops = make_sampler(batch_size=8).crops(0)
    for all_values, chosen in zip(crops, crops.take([5, 0]), strict=True):
        np.testing.assert_array_equal(chosen, all_values.numpy()[[5, 0]])


def test_weight_seeds_differ_by_step_and_seed():
    seeds = [make_sampler(seed=seed).weight_seed(step) for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(seed.numpy()) for seed in seeds}) == 4
    np.testing.assert_array_equal(make_sampler(seed=1).weight_seed(1), seeds[-1])


def crop_by_hand(images, rows, crops, size):
    results = []
    for row, top, left, flip in zip(rows, *crops, strict=True):
        crop = images[row, top : top + size, left : left + size]
        results.append(crop[:, ::-1] if flip else crop)
    return np.stack(results)


@pytest.mark.parametrize("eager", [True, False])
def test_crop_batch_equals_slices(rng, eager):
    import tensorflow as tf

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
    orders = {tuple(make_sampler(100, seed=seed).order(0).numpy()) for seed in seeds}
    assert len(orders) == 4


@pytest.mark.parametrize("seed", [-1, 0.5, None, True])
def test_invalid_seeds_are_refused(seed):
    with pytest.raises(ValueError, match=r"`seed` must .* Received: seed="):
        make_sampler(seed=seed)
