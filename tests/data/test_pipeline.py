import functools
import itertools
import os

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow")

from keras_bit.data.cache import cache_size
from keras_bit.data.dataset import ImageDataset
from keras_bit.data.pipeline import cache_splits, make_pipelines, pipelines
from keras_bit.data.resize import resize
from keras_bit.data.sampler import Sampler
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.layers.mixup import MixUp
from tests.processes import run_on_jax
from tests.splits import CountingSplit

pytestmark = pytest.mark.tensorflow

EDGE, CROP, CLASSES = 12, 8, 3


def make_data(train_size=10, test_size=7, edge=EDGE, seed=0):
    """Random images with class ids that go round."""
    rng = np.random.default_rng(seed)
    sides = []
    for size in (train_size, test_size):
        sides += [rng.integers(0, 256, (size, edge, edge, 3), np.uint8), np.arange(size) % CLASSES]
    return ImageDataset.from_arrays(*sides)


def make_rule(batch_size=4, **changes):
    changes = {"resize_edge": EDGE, "crop_size": CROP, **changes}
    return HyperRule(EDGE, 10, batch_size, **changes)


def shared(function):
    """Calls `function` once for the same options, in whatever order: tracing takes a second."""
    made = functools.cache(lambda options: function(**dict(options)))
    return lambda **options: made(tuple(sorted({"mixup_alpha": 0.0, **options}.items())))


@shared
def sides(dtype="float32", mix_in_model=False, **changes):
    """The pipelines of `make_data` and `make_rule`."""
    return pipelines(make_data(), make_rule(**changes), dtype=dtype, mix_in_model=mix_in_model)


def test_multi_hot_labels_are_those_of_their_images():
    rng = np.random.RandomState(0)
    labels = rng.randint(0, 2, (10, 4)).astype(np.uint8)
    images = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None], (10, 12, 12, 3))
    data = ImageDataset.from_arrays(images, labels, images, labels)
    train, test = pipelines(data, make_rule(5, mixup_alpha=0), dtype="uint8")
    for dataset in (train.take(2), test):
        for batch, hot in dataset:
            assert hot.dtype == "float32"
            np.testing.assert_array_equal(hot, labels[batch[:, 0, 0, 0].numpy()])
    train, _ = pipelines(data, make_rule(10, mixup_alpha=0.4), dtype="uint8")
    mixed = next(iter(train))[1].numpy()  # with their reverse, which leaves the sum as it is
    np.testing.assert_allclose(mixed.sum(0), labels.sum(0), rtol=1e-6)
    weight = mixed[(0 < mixed) & (mixed < 1)]
    assert len(set(np.round(np.minimum(weight, 1 - weight), 5))) == 1


def take(dataset, count):
    """Images and labels of `count` batches, each joined along the batch."""
    batches = [tuple(part.numpy() for part in batch) for batch in itertools.islice(dataset, count)]
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


@shared
def first_batches(**options):
    return take(sides(**options)[0], 20)


def take_train(count, **options):
    """`take` of the training side, which is run once: each new iterator compiles again."""
    images, labels = first_batches(**options)
    images_a_batch = len(images) // 20
    return images[: count * images_a_batch], labels[: count * images_a_batch]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def scaled(images):
    """Images in [0, 255] as the model gets them."""
    return np.array(images, np.float32) * np.float32(1 / 255)


def images_of(data):
    return np.stack(list(data.train.map(np.array)))


def expected_batches(steps):
    """The stream before mixing, cut out of the images by plain slices."""
    data, rule = make_data(), make_rule()
    images, sampler = images_of(data), Sampler(data.train_size, rule, 0)
    crops, labels = [], []
    for step in range(steps):
        for row, top, left, flip in zip(sampler.positions(step), *sampler.crops(step), strict=True):
            crop = images[row, top : top + rule.crop_size, left : left + rule.crop_size]
            crops.append(crop[:, ::-1] if flip else crop)
            labels.append(np.eye(CLASSES, dtype=np.float32)[data.train.labels[row]])
    return np.stack(crops), np.stack(labels)


@pytest.mark.parametrize(
    ("dtype", "alpha"),
    [
        ("float32", 0.3),
        ("uint8", 0.3),
        ("float32", 0.0),
        pytest.param("uint8", 0.0, marks=pytest.mark.slow),
    ],
)
def test_elements_have_static_shapes_and_known_length(dtype, alpha):
    import tensorflow as tf

    train, test = sides(dtype=dtype, mixup_alpha=alpha, micro_batch_size=2)
    assert train.element_spec == (
        tf.TensorSpec((2, CROP, CROP, 3), dtype),
        tf.TensorSpec((2, CLASSES), tf.float32),
    )
    assert test.element_spec == (
        tf.TensorSpec((None, CROP, CROP, 3), dtype),
        tf.TensorSpec((None, CLASSES), tf.float32),
    )
    assert train.cardinality() == tf.data.INFINITE_CARDINALITY
    assert test.cardinality() == 4
    for spec, batch in zip(train.element_spec, next(iter(train)), strict=True):
        assert spec.is_compatible_with(batch)


def test_no_thread_tunes_what_is_fixed():
    assert [dataset.options().autotune.enabled for dataset in sides()] == [False, False]


def test_training_images_are_crops_of_the_cached_ones():
    crops, labels = expected_batches(steps=8)
    assert_same(take_train(8, dtype="uint8"), (crops, labels))
    assert_same(take_train(8), (scaled(crops), labels))


def test_every_image_comes_once_an_epoch_in_changing_order():
    data = make_data()
    plain = {"resize_edge": None, "random_crop": False, "random_flip": False}
    stream, labels = take_train(10, dtype="uint8", **plain)
    resized = [resize(image, CROP) for image in images_of(data)]
    numbers = np.array([[np.array_equal(x, image) for image in resized] for x in stream])
    order = numbers.argmax(axis=1).reshape(4, 10)
    assert numbers.sum() == 40
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(10), (4, 1)))
    assert len(np.unique(order, axis=0)) == 4
    np.testing.assert_array_equal(labels.argmax(axis=1), order.ravel() % CLASSES)


def test_flips_are_honored_without_crops():
    options = {"batch_size": 200, "resize_edge": None, "random_crop": False}
    stream, _ = take_train(1, dtype="uint8", **options)
    resized = np.stack([resize(image, CROP) for image in images_of(make_data())])
    plain, flipped = (
        (stream[:, None] == images).all(axis=(2, 3, 4)).any(axis=1)
        for images in (resized, resized[:, :, ::-1])
    )
    assert np.all(plain ^ flipped) and 70 < flipped.sum() < 130


def test_stream_depends_on_the_seed_alone():
    data, rule = make_data(), make_rule(mixup_alpha=0.3)
    first = take_train(6, mixup_alpha=0.3)
    assert_same(take(pipelines(data, rule, seed=0)[0], 6), first)
    assert np.any(take(pipelines(data, rule, seed=4)[0], 6)[0] != first[0])


def test_pipelines_are_two_steps_of_which_the_first_can_be_read():
    data, rule = make_data(), make_rule()
    cached = cache_splits(data, rule, test_edge=20)
    train, test = make_pipelines(cached, data.num_classes, rule, dtype="uint8")
    assert_same(take(train, 3), take_train(3, dtype="uint8"))
    images, labels = take(test, 2)
    assert cached.test.names == data.test.names
    np.testing.assert_array_equal(cached.test.labels, labels.argmax(axis=1))
    np.testing.assert_array_equal(cached.test.take(range(7)), images)
    np.testing.assert_array_equal(cached.train.take([9, 0]), images_of(data)[[9, 0]])


@pytest.mark.parametrize(
    ("changes", "micro_batches"),
    [({"mixup_alpha": 0.0}, 1), ({"mixup_alpha": 0.3, "micro_batch_size": 2}, 2)],
)
def test_initial_step_equals_skipping_that_many_updates(changes, micro_batches):
    whole = take_train(9 * micro_batches, **changes)
    later, _ = pipelines(make_data(), make_rule(**changes), initial_step=5)
    resumed = take(later, 4 * micro_batches)
    assert_same(resumed, [part[5 * 4 :] for part in whole])


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_mixing_is_mixups_with_a_new_weight_each_step(dtype):
    crops, labels = expected_batches(steps=5)
    sampler = Sampler(10, make_rule(mixup_alpha=0.3), 0)
    weights = [float(sampler.weight(step)) for step in range(5)]
    assert len(set(weights)) == 5
    mixed_images, mixed_labels = take_train(5, dtype=dtype, mixup_alpha=0.3)
    scale, tolerance = (1, 0.501) if dtype == "uint8" else (255, 1e-6)
    for step, weight in enumerate(weights):
        batch = slice(4 * step, 4 * step + 4)
        for mixed, plain, bound in (
            (mixed_images, crops / scale, tolerance),
            (mixed_labels, labels, 1e-6),
        ):
            expected = weight * plain[batch] + (1 - weight) * plain[batch][::-1]
            np.testing.assert_allclose(mixed[batch], expected, rtol=0, atol=bound)


@pytest.mark.parametrize(
    ("micro_batch_size", "micro_batches", "options"),
    [
        (2, 2, {"mixup_alpha": 0.0}),
        (2, 2, {"mixup_alpha": 0.3}),
        (2, 3, {"mixup_alpha": 0.3, "batch_size": 6, "dtype": "uint8"}),
        pytest.param(2, 3, {"mixup_alpha": 0.0, "batch_size": 6}, marks=pytest.mark.slow),
        pytest.param(3, 2, {"mixup_alpha": 0.3, "batch_size": 6}, marks=pytest.mark.slow),
    ],
)
def test_micro_batches_joined_equal_the_unsplit_batch(micro_batch_size, micro_batches, options):
    whole = take_train(4, **options)
    split = take_train(4 * micro_batches, micro_batch_size=micro_batch_size, **options)
    assert_same(split, whole)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("uint8", 0.501)])
def test_mixing_in_the_model_gives_what_the_pipeline_gives(dtype, bound):
    mixup = MixUp()
    _, test = sides(dtype=dtype, mixup_alpha=0.3)
    stream = take_train(6, dtype=dtype, mixup_alpha=0.3)
    mixed = [part.reshape(6, 4, *part.shape[1:]) for part in stream]
    unmixed, plain_test = sides(dtype=dtype, mixup_alpha=0.3, mix_in_model=True)
    weights = []
    for images, labels, (inputs, same_labels) in zip(*mixed, unmixed.take(6), strict=True):
        assert inputs["images"].dtype == dtype and inputs["images"].shape == images.shape
        weights.append(inputs["weight"].numpy())
        in_model = np.array(mixup(inputs, training=False))
        np.testing.assert_allclose(in_model, images, rtol=0, atol=bound)
        np.testing.assert_array_equal(same_labels, labels)
    assert np.ptp(weights, axis=1).max() == 0 and len(np.unique(weights)) == 6
    for (images, labels), (inputs, same_labels) in zip(test, plain_test, strict=True):
        np.testing.assert_array_equal(np.array(mixup(inputs)), images)
        np.testing.assert_array_equal(same_labels, labels)


def test_nothing_to_mix_in_the_model():
    images, labels = take_train(4, mixup_alpha=0.0, micro_batch_size=2)
    train, _ = sides(mix_in_model=True, mixup_alpha=0.0, micro_batch_size=2)
    inputs, same_labels = zip(*train.take(4), strict=True)
    assert_same((np.concatenate([i["images"] for i in inputs]),), (images,))
    assert_same((np.concatenate(same_labels),), (labels,))
    assert all(np.all(i["weight"] == 1) for i in inputs)


def test_mixing_in_the_model_needs_whole_batches(two_replicas):
    data = make_data()
    with pytest.raises(
        ValueError, match=r"`mix_in_model` needs whole batches.* micro_batch_size=2"
    ):
        pipelines(data, make_rule(mixup_alpha=0.3, micro_batch_size=2), mix_in_model=True)
    if keras.backend.backend() != "jax":
        with pytest.raises(ValueError, match=r"needs whole batches.* shard=\(1, 2\), backend"):
            pipelines(data, make_rule(mixup_alpha=0.3), mix_in_model=True, shard=(1, 2))
    if keras.backend.backend() == "tensorflow":
        unmixed = sides(mixup_alpha=0.3, dtype="uint8", mix_in_model=True)
        # Keras 3.12 turns all errors of its first, symbolic call into a RuntimeError.
        errors = (ValueError, RuntimeError)
        with two_replicas.scope(), pytest.raises(errors, match="mixed as a whole"):
            fit(mixing_model(), *unmixed)


def test_float_and_uint8_agree():
    floats, _ = take_train(5, mixup_alpha=0.3)
    integers, _ = take_train(5, mixup_alpha=0.3, dtype="uint8")
    assert floats.dtype == np.float32 and integers.dtype == np.uint8
    np.testing.assert_array_equal(np.rint(floats * np.float32(255)), integers)


def test_mixed_white_is_never_more_than_white():
    white = np.full((4, EDGE, EDGE, 3), 255, np.uint8)
    data = ImageDataset.from_arrays(white, [0, 1, 0, 1], white, [0, 1, 0, 1])
    images, _ = take(pipelines(data, make_rule(mixup_alpha=1.0))[0], 60)
    assert images.max() == 1.0 and images.min() > 0.999999


@pytest.mark.parametrize(("test_edge", "edge"), [(None, CROP), (EDGE, EDGE), (20, 20)])
def test_test_side_is_resized_and_nothing_else(test_edge, edge):
    data = make_data()
    _, test = pipelines(data, make_rule(mixup_alpha=0.3), test_edge=test_edge)
    batches = list(test)
    assert [len(images) for images, _ in batches] == [4, 3]
    for _ in range(2):
        images, labels = take(test, 2)
        expected = [resize(image, edge) for image in data.test.map(np.array)]
        np.testing.assert_array_equal(images, scaled(expected))
        np.testing.assert_array_equal(labels, np.eye(CLASSES)[data.test.labels])


def test_test_side_comes_in_micro_batches_as_uint8():
    _, test = sides(dtype="uint8", mixup_alpha=0.3, micro_batch_size=2)
    assert [images.shape[0] for images, _ in test] == [2, 2, 2, 1]
    assert next(iter(test))[0].dtype == "uint8"


def make_split_data(**options):
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 256, (2, 6, 10, 14, 3), np.uint8)
    sides = [CountingSplit(side, labels=range(6), **options) for side in (train, test)]
    return ImageDataset(*sides, tuple("abcdef"), (10, 14))


def test_unreadable_images_never_come():
    data = make_split_data(broken=(0, 3))
    with pytest.warns(UserWarning, match="2 of 6 .* could not be read") as caught:
        rule = make_rule(random_crop=False, random_flip=False, resize_edge=None)
        train, test = pipelines(data, rule, dtype="uint8")
    assert [warning.filename for warning in caught] == [__file__] * 2
    for dataset, count, split in ((train, 2, data.train), (test, 1, data.test)):
        images, labels = take(dataset, count)
        numbers = labels.argmax(axis=1)  # class ids number the images here
        np.testing.assert_array_equal(np.sort(numbers), np.repeat([1, 2, 4, 5], count))
        expected = [resize(split.images[number], CROP) for number in numbers]
        np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("alpha", [0.0, pytest.param(0.3, marks=pytest.mark.slow)])
def test_a_cache_on_disk_gives_the_same_as_memory_and_is_used_again(tmp_path, alpha):
    data, rule = make_split_data(), make_rule(mixup_alpha=alpha)
    train, test = pipelines(data, rule)
    in_memory = take(train, 5), take(test, 2)
    for _ in range(2):
        train, test = pipelines(data, rule, tmp_path)
        assert_same(take(train, 5), in_memory[0])
        assert_same(take(test, 2), in_memory[1])
    assert (data.train.decoded, data.test.decoded) == (12, 12)
    pipelines(data, rule.replace(resize_edge=EDGE + 1), tmp_path)
    assert (data.train.decoded, data.test.decoded) == (18, 12)


def resident_bytes():
    """Anonymous memory of this process: what is not backed by a file."""
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="tells memory use on Linux")
def test_an_epoch_over_a_cache_on_disk_holds_little_of_it_in_memory(tmp_path):
    def epochs(count, edge):
        """Those of two pipelines, the second of which finds the cache; the last is kept."""
        images = np.broadcast_to(np.uint8(7), (count, edge, edge, 3))
        splits = CountingSplit(images), CountingSplit(images[:8])
        data = ImageDataset(*splits, ("a", "b"), (edge, edge))
        rule = make_rule(resize_edge=edge, crop_size=16)
        for _ in range(2):
            train, test = pipelines(data, rule, tmp_path, dtype="uint8")
            for crops, _ in train.take(count // rule.batch_size):
                assert np.all(crops == 7)
        assert data.train.decoded == count
        return train, test

    epochs(count=40, edge=32)  # TensorFlow makes its threads
    before = resident_bytes()
    count, edge = 400, 320
    assert cache_size(count, edge) > 120e6
    kept = epochs(count, edge)
    assert resident_bytes() - before < 30e6
    del kept


def small_model():
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="sgd", loss=loss, metrics=["accuracy"])
    return model


def mixing_model():
    """`small_model` behind a layer that mixes bytes."""
    inputs = {
        "images": keras.Input((CROP, CROP, 3), dtype="uint8", name="images"),
        "weight": keras.Input((), dtype="float32", name="weight"),
    }
    mixed = keras.layers.Rescaling(1 / 255)(MixUp()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(mixed)))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="sgd", loss=loss)
    return model


def fit(model, train, test):
    return model.fit(
        train, validation_data=test, steps_per_epoch=5, epochs=2, shuffle=False, verbose=0
    )


def test_fit_takes_both_sides():
    model = small_model()
    history = fit(model, *sides(mixup_alpha=0.3, micro_batch_size=2)).history
    assert len(history["loss"]) == len(history["val_loss"]) == 2
    assert model.optimizer.iterations == 10


def test_a_model_that_mixes_learns_what_one_fed_mixed_images_learns():
    def losses(model, **options):
        model.set_weights([np.full(w.shape, 0.01) for w in model.get_weights()])
        history = fit(model, *sides(mixup_alpha=0.3, **options)).history
        return history["loss"] + history["val_loss"]

    in_model = losses(mixing_model(), dtype="uint8", mix_in_model=True)
    model = small_model()
    model.build((None, CROP, CROP, 3))
    np.testing.assert_allclose(in_model, losses(model), rtol=1e-4)


@pytest.mark.slow
def test_two_replicas_train_as_one(two_replicas):
    def trained():
        keras.utils.set_random_seed(0)
        model = small_model()
        history = fit(model, *sides(mixup_alpha=0.3)).history
        return model.get_weights(), history["val_loss"]

    weights, losses = trained()
    with two_replicas.scope():
        split_weights, split_losses = trained()
    np.testing.assert_allclose(split_losses, losses, rtol=1e-5)
    for one, other in zip(weights, split_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_keras_on_jax_trains_and_an_interrupted_program_ends():
    # Batches in preparation must not keep the interpreter from ending.
    script = """
        import keras
        from tests.data.test_pipeline import (
            fit, make_data, make_rule, mixing_model, pipelines, sides, small_model
        )

        train, test = sides(mixup_alpha=0.3, micro_batch_size=2)
        print(len(fit(small_model(), train, test).history["val_loss"]))
        train, test = sides(mixup_alpha=0.3, dtype="uint8", mix_in_model=True)
        print(len(fit(mixing_model(), train, test).history["val_loss"]))
        data = make_data(train_size=100, edge=256)
        rule = make_rule(64, resize_edge=256, crop_size=224, mixup_alpha=0.3)
        iterator = iter(pipelines(data, rule)[0])
        next(iterator)
        raise KeyboardInterrupt
        """
    done = run_on_jax(script)
    assert done.stdout == "2\n2\n" and "KeyboardInterrupt" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "`dtype` must be one of .* Received: dtype='float16'"),
        ({"seed": -1}, "`seed` must .* Received: seed=-1"),
        ({"initial_step": -1}, "`initial_step` must .* Received: initial_step=-1"),
        ({"initial_step": 1.5}, "`initial_step` must .* Received: initial_step=1.5"),
        ({"test_edge": 0}, "`test_edge` must .* Received: test_edge=0"),
        ({"mix_in_model": "no"}, "`mix_in_model` must .* Received: mix_in_model='no'"),
        ({"mix_in_model": 2}, "`mix_in_model` must .* Received: mix_in_model=2"),
        ({"cache_dir": ""}, '`cache_dir` must name a folder. Received: cache_dir=""'),
    ],
)
def test_invalid_arguments_are_refused_before_any_work(options, message):
    data = make_split_data()
    with pytest.raises(ValueError, match=message):
        pipelines(data, make_rule(), **options)
    assert data.train.decoded == data.test.decoded == 0


def test_a_cache_folder_must_be_a_path():
    data = make_split_data()
    for function in (pipelines, cache_splits):
        with pytest.raises(TypeError, match="`cache_dir` must be the path .* cache_dir=3"):
            function(data, make_rule(), 3)
    assert data.train.decoded == data.test.decoded == 0


def test_numpy_numbers_are_taken():
    first = take_train(3, dtype="uint8")
    options = {"seed": np.int64(0), "initial_step": np.int32(0), "mix_in_model": np.bool_(False)}
    train, _ = pipelines(make_data(), make_rule(), dtype="uint8", test_edge=np.uint8(9), **options)
    assert_same(take(train, 3), first)


def test_what_is_no_image_dataset_is_refused():
    import tensorflow as tf

    images = np.zeros((4, EDGE, EDGE, 3), np.uint8)
    dataset = tf.data.Dataset.from_tensor_slices((images, [0, 1, 0, 1]))
    for function in (pipelines, cache_splits):
        with pytest.raises(TypeError, match=r"Received: a tf.data.Dataset. Use .*from_tf_data\("):
            function(dataset, make_rule())


def test_a_wrong_data_set_or_rule_is_named():
    data, rule = make_data(), make_rule()
    with pytest.raises(TypeError, match="`data` must be"):
        pipelines(rule, data)
    with pytest.raises(TypeError, match="`rule` must be a keras_bit.HyperRule. Received: 64"):
        pipelines(data, 64)
