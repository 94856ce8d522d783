import functools
import itertools
import json

import keras
import numpy as np
import pytest

import keras_bit
from keras_bit.data.augment import Augment
from keras_bit.data.dataset import ImageDataset
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.layers.mixup import MixUp
from tests.conftest import as_numpy
from tests.data.test_resize import bilinear
from tests.processes import run_on_jax

EDGE, CROP = 12, 8


def make_rule(**changes):
    return HyperRule(16, 50_000, 4, **{"resize_edge": EDGE, "crop_size": CROP, **changes})


def make_images(count=5, height=10, width=14, dtype="uint8", seed=0):
    shape = count, height, width, 3
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8).astype(dtype)


def expected_crops(images, tops, lefts, flips):
    """Resized, cropped and flipped by plain slices, in float64."""
    resized = [bilinear(image.astype(np.float64), EDGE) for image in images]
    draws = zip(*map(as_numpy, (tops, lefts, flips)), strict=True)
    return np.stack([slices(*each) for each in zip(resized, draws, strict=True)])


def slices(resized, draw):
    top, left, flip = draw
    crop = resized[top : top + CROP, left : left + CROP]
    return crop[:, ::-1] if flip else crop


def assert_close(found, expected, atol=1e-3):
    assert as_numpy(found).dtype == np.float32
    np.testing.assert_allclose(as_numpy(found), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("shape", [(10, 14), (40, 30), (12, 12), (1, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "float64"])
def test_applied_draws_are_slices_of_the_resized_image(shape, dtype):
    images = make_images(5, *shape, dtype)
    crops = (
        np.array([0, 4, 2, 0, 4], np.int32),
        np.array([4, 0, 3, 0, 4], np.int32),
        np.array([False, True, True, True, False]),
    )
    found = Augment(make_rule()).apply(*map(keras.ops.convert_to_tensor, (images, *crops)))
    assert_close(found, expected_crops(images, *crops))


def test_a_call_applies_what_is_drawn():
    images, layer, twin = make_images(), Augment(make_rule(), seed=3), Augment(make_rule(), seed=3)
    for _ in range(3):
        assert_close(layer(images), expected_crops(images, *twin.draw(5)))


def test_images_of_a_batch_have_places_of_their_own():
    tops, lefts, flips = map(as_numpy, Augment(make_rule(), seed=0).draw(1_000))
    assert tops.shape == lefts.shape == flips.shape == (1_000,)
    assert tops.dtype == lefts.dtype == np.int32 and flips.dtype == np.bool_
    assert len({*zip(tops, lefts, flips, strict=True)}) == 50  # 5 x 5 places, flipped or not


def chi_square(values, categories):
    """Pearson's statistic against equal shares."""
    counts = np.bincount(values, minlength=categories)
    assert len(counts) == categories
    expected = len(values) / categories
    return ((counts - expected) ** 2 / expected).sum()


def test_places_and_flips_are_uniform_and_independent():
    tops, lefts, flips = map(as_numpy, Augment(make_rule(), seed=1).draw(20_000))
    # Of 10,000 right samplers one would exceed the bound: quantile 0.9999 of chi-square with
    # categories - 1 degrees of freedom, from `scipy.stats.chi2.ppf(0.9999, categories - 1)`.
    for values, categories, bound in [
        (tops, 5, 23.6),
        (lefts, 5, 23.6),
        (flips.astype(int), 2, 15.2),
        (tops * 5 + lefts, 25, 59.3),
        (tops * 2 + flips, 10, 33.8),
        (lefts * 2 + flips, 10, 33.8),
    ]:
        assert chi_square(values, categories) < bound


def test_places_reach_both_ends_of_large_images():
    rule = HyperRule(512, 50_000, 4)
    tops, lefts, _ = map(as_numpy, Augment(rule, seed=0).draw(5_000))
    for values in (tops, lefts):  # 33 places: one is missed with probability 33 * (32/33)**5000
        assert set(values) == set(range(33))


def test_a_draw_is_a_pure_function_of_a_given_seed():
    layer = Augment(make_rule())
    pairs = [keras.ops.array(pair, "int32") for pair in ((0, 0), (0, 1), (1, 0))]
    first, second = ([np.stack(layer.draw(9, pair)).tolist() for pair in pairs] for _ in range(2))
    assert first == second and len({str(draws) for draws in first}) == 3


def test_same_seed_same_crops_other_ones_in_every_epoch():
    images = make_images()

    def epochs():
        layer = Augment(make_rule(), seed=7)
        return [as_numpy(layer(images)) for _ in range(3)]

    first, second = epochs(), epochs()
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[1], first[2])
    assert not np.array_equal(first[0], as_numpy(Augment(make_rule(), seed=8)(images)))


def test_without_random_crop_images_are_only_flipped():
    rule, images = HyperRule(16, 50_000, 4, crop_size=CROP, random_crop=False), make_images(64)
    tops, lefts, flips = map(as_numpy, Augment(rule, seed=0).draw(64))
    assert not tops.any() and not lefts.any() and 15 < flips.sum() < 49
    found = as_numpy(Augment(rule, seed=0)(images))
    resized = np.stack([bilinear(image.astype(np.float64), CROP) for image in images])
    expected = np.where(flips[:, None, None, None], resized[:, :, ::-1], resized)
    assert_close(found, expected)


def test_without_flips_images_are_only_cropped():
    rule = make_rule(random_flip=False)
    assert not as_numpy(Augment(rule, seed=0).draw(500)[2]).any()
    tops = as_numpy(Augment(rule, seed=0).draw(500)[0])
    np.testing.assert_array_equal(tops, as_numpy(Augment(make_rule(), seed=0).draw(500)[0]))


def test_outside_of_training_images_are_only_resized():
    images = make_images(dtype="float32")
    expected = [bilinear(image.astype(np.float64), CROP) for image in images]
    layer = Augment(make_rule())
    for _ in range(2):
        assert_close(layer(images, training=False), expected)
    assert_close(layer(images[2], training=False), expected[2])


@pytest.mark.tensorflow
@pytest.mark.parametrize("random_crop", [True, False])
def test_the_test_path_is_that_of_the_pipelines_to_rounding(random_crop):
    images, labels = make_images(6), np.arange(6) % 3
    resize_edge = EDGE if random_crop else None
    rule = make_rule(random_crop=random_crop, resize_edge=resize_edge)
    data = ImageDataset.from_arrays(images, labels, images, labels)
    _, test = keras_bit.pipelines(data, rule, dtype="uint8")
    expected = np.concatenate([batch.numpy() for batch, _ in test])
    found = as_numpy(Augment(rule)(images, training=False))
    assert np.abs(found - expected).max() <= 0.5 + 1e-3
    assert np.abs(found - expected).max() > 0.1  # it is not rounded itself


def test_single_images_are_batches_of_one():
    images = make_images()
    single, batch = (Augment(make_rule(), seed=2) for _ in range(2))
    for image in images:
        found = as_numpy(single(image))
        assert found.shape == (CROP, CROP, 3)
        np.testing.assert_array_equal(found, as_numpy(batch(image[None]))[0])


def test_labels_pass_through():
    images, layer = make_images(), Augment(make_rule(), seed=0)
    out, labels = layer(images, np.arange(5))
    np.testing.assert_array_equal(as_numpy(labels), np.arange(5))
    assert "int" in str(labels.dtype) and as_numpy(out).shape == (5, CROP, CROP, 3)
    boxes = {"a": np.ones((5, 4), "float32"), "b": (np.zeros(5, "uint8"),)}
    _, labels = layer(images, boxes, training=False)
    np.testing.assert_array_equal(as_numpy(labels["a"]), boxes["a"])
    np.testing.assert_array_equal(as_numpy(labels["b"][0]), boxes["b"][0])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_images_are_float32_under_every_policy(policy):
    images = make_images()
    expected = as_numpy(Augment(make_rule(), seed=0)(images))
    keras.config.set_dtype_policy(policy)
    np.testing.assert_array_equal(as_numpy(Augment(make_rule(), seed=0)(images)), expected)
    assert expected.dtype == np.float32
    assert Augment(make_rule())(keras.Input((9, 9, 3))).dtype == "float32"


def make_model(seed=5):
    inputs = keras.Input((None, None, 3), dtype="uint8"), keras.Input((3,), dtype="int32")
    return keras.Model(inputs, Augment(make_rule(), seed=seed)(*inputs))


def test_inside_a_model(reload_model):
    model, batch = make_model(), [make_images(), np.eye(5, 3, dtype="int32")]
    images, labels = model.outputs
    assert (images.shape, images.dtype) == ((None, CROP, CROP, 3), "float32")
    assert (labels.shape, labels.dtype) == ((None, 3), "int32")
    resized = as_numpy(Augment(make_rule())(batch[0], training=False))
    loaded = reload_model(model)
    for each in (model, loaded):
        found, same = each.predict(batch, verbose=0)
        assert_close(found, resized)
        np.testing.assert_array_equal(same, batch[1])
    twin = Augment(make_rule(), seed=5)
    expected = expected_crops(batch[0], *twin.draw(5))
    assert_close(model(batch, training=True)[0], expected)
    assert loaded.layers[-1].rule == make_rule() and loaded.layers[-1].seed == 5


def test_in_fit():
    model = keras.Sequential(
        [keras.Input((10, 14, 3)), Augment(make_rule()), keras.layers.Flatten()]
        + [keras.layers.Dense(2)]
    )
    model.compile(optimizer="sgd", loss="mse")
    images = make_images(dtype="float32") / 255
    history = model.fit(images, np.ones((5, 2)), epochs=2, batch_size=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert model.predict(images, verbose=0).shape == (5, 2)


def test_config():
    layer = Augment(make_rule(random_flip=False), seed=np.int64(4), name="crops")
    config = json.loads(json.dumps(layer.get_config()))
    again = Augment.from_config(config)
    assert again.rule == layer.rule and again.rule.given == layer.rule.given
    assert (again.seed, again.name) == (4, "crops") and type(layer.seed) is int
    assert again.get_config() == layer.get_config()
    images = make_images()
    np.testing.assert_array_equal(as_numpy(again(images)), as_numpy(layer(images)))
    assert Augment.from_config(Augment(make_rule()).get_config()).seed is None


def test_output_shapes():
    layer = Augment(make_rule())
    assert layer.compute_output_shape((10, 14, 3)) == (CROP, CROP, 3)
    assert layer.compute_output_shape((None, None, None, 3)) == (None, CROP, CROP, 3)
    shapes = layer.compute_output_shape((7, 10, 14, 3), (7, 5))
    assert shapes == ((7, CROP, CROP, 3), (7, 5))


@pytest.mark.parametrize("seed", [-1, 0.5, "0", True])
def test_refuses_bad_seeds(seed):
    with pytest.raises(ValueError, match="`seed` must be an integer"):
        Augment(make_rule(), seed=seed)


@pytest.mark.parametrize("rule", [None, 224, {"resize_edge": 12}])
def test_refuses_what_is_no_rule(rule):
    with pytest.raises(TypeError, match="`rule` must be a keras_bit.HyperRule.*Received"):
        Augment(rule)


@pytest.mark.parametrize("shape", [(10, 14), (10, 14, 1), (5, 10, 14, 4), (2, 5, 10, 14, 3)])
def test_refuses_what_is_no_rgb_image(shape):
    with pytest.raises(ValueError, match="`images` must be RGB images.*Received: images.shape="):
        Augment(make_rule())(np.zeros(shape, "uint8"))


def test_refuses_what_is_no_tensor():
    for images in ({"images": make_images()}, [make_images()], "photo.jpg"):
        with pytest.raises(TypeError, match="`images` must be a tensor.*Received"):
            Augment(make_rule())(images)


@pytest.mark.tensorflow
def test_refuses_ragged_batches():
    import tensorflow as tf

    ragged = tf.RaggedTensor.from_tensor(make_images())
    with pytest.raises(TypeError, match="RaggedTensor.*before `batch`"):
        Augment(make_rule())(ragged)


def labeled(images, labels=None):
    import tensorflow as tf

    labels = np.arange(len(images)) if labels is None else labels
    return tf.data.Dataset.from_tensor_slices((images, labels))


def in_tf_data(images, layer, batch=None):
    """Two epochs of a layer in `Dataset.map`; the labels number the images."""
    dataset = labeled(images)
    dataset = (dataset.batch(batch) if batch else dataset).map(layer)
    epochs = []
    for _ in range(2):
        parts = [(as_numpy(x), y.numpy()) for x, y in dataset]
        join = np.concatenate if batch else np.stack
        epochs.append(join([x for x, _ in parts]))
        np.testing.assert_array_equal(np.hstack([y for _, y in parts]), np.arange(len(images)))
    return epochs


@pytest.mark.tensorflow
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_inside_tf_data(batch, dtype):
    images = make_images(9, dtype=dtype)
    first, second = in_tf_data(images, Augment(make_rule(), seed=9), batch)
    assert first.shape == (9, CROP, CROP, 3) and first.dtype == np.float32
    np.testing.assert_array_equal(
        in_tf_data(images, Augment(make_rule(), seed=9), batch), [first, second]
    )
    assert not np.array_equal(first, second)
    every = all_crops(images)
    for epoch in (first, second):
        pairs = zip(every, epoch, strict=True)
        found = [np.abs(crops - image).max(axis=(1, 2, 3)) for crops, image in pairs]
        assert np.max(np.min(found, axis=1)) < 1e-3
        assert len({np.argmin(distances) for distances in found}) > 4


def all_crops(images):
    """The 50 crops of each image."""
    draws = list(itertools.product(range(5), range(5), [False, True]))
    resized = [bilinear(image.astype(np.float64), EDGE) for image in images]
    return [np.stack([slices(image, draw) for draw in draws]) for image in resized]


@pytest.mark.tensorflow
@pytest.mark.parametrize("shape", [None, (None, None, None), (None, None, 3)])
def test_images_of_several_sizes_and_unknown_shape(shape):
    import tensorflow as tf

    images = [make_images(1, height, width)[0] for height, width in ((10, 14), (5, 4), (30, 9))]
    signature = tf.TensorSpec(shape, tf.uint8), tf.TensorSpec((), tf.int64)
    source = tf.data.Dataset.from_generator(
        lambda: zip(images, range(3), strict=True), output_signature=signature
    )
    dataset = source.map(Augment(make_rule(), seed=0))
    assert dataset.element_spec[0] == tf.TensorSpec((CROP, CROP, 3), tf.float32)
    for crops, (found, _) in zip(all_crops(images), dataset.batch(3).unbatch(), strict=True):
        assert np.abs(crops - as_numpy(found)).max(axis=(1, 2, 3)).min() < 1e-3
    test = source.map(functools.partial(Augment(make_rule()), training=False)).batch(3)
    assert test.element_spec[0].shape.as_list() == [None, CROP, CROP, 3]
    expected = [bilinear(image.astype(np.float64), CROP) for image in images]
    assert_close(next(iter(test))[0], expected)


@pytest.mark.tensorflow
def test_wrong_images_of_unknown_shape_are_refused():
    import tensorflow as tf

    for shape in ((5, 6, 1), (5, 6), (2, 5, 6, 3)):
        dataset = tf.data.Dataset.from_generator(
            lambda shape=shape: iter([np.zeros(shape, "uint8")]),
            output_signature=tf.TensorSpec(None, tf.uint8),
        )
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected shape|not compatible"):
            list(dataset.map(Augment(make_rule())))


@pytest.mark.tensorflow
def test_mixup_follows_after_batch():
    images, labels = make_images(8), np.eye(8, dtype="float32")
    rule = make_rule(mixup_alpha=0.4)
    augmented = labeled(images, labels).map(Augment(rule, seed=1)).batch(4, drop_remainder=True)
    mixed = augmented.map(MixUp(rule.mixup_alpha, seed=2))
    assert mixed.element_spec[0].shape == (4, CROP, CROP, 3)
    plain = labeled(images, labels).map(Augment(rule, seed=1)).batch(4)
    weights = []
    for step, ((found, soft), (crops, _)) in enumerate(zip(mixed, plain, strict=True)):
        weight = float(soft[0, 4 * step])  # the share that the first image keeps of itself
        weights.append(weight)
        expected = weight * as_numpy(crops) + (1 - weight) * as_numpy(crops)[::-1]
        assert_close(found, expected)
    assert len(set(weights)) == 2


@pytest.mark.tensorflow
def test_compiled_equals_eager():
    import tensorflow as tf

    images = tf.constant(make_images())
    eager, compiled = Augment(make_rule(), seed=5), Augment(make_rule(), seed=5)
    function = tf.function(lambda x: compiled(x), autograph=False)
    for _ in range(3):
        assert_close(function(images), as_numpy(eager(images)))


@pytest.mark.tensorflow
def test_compiled_by_xla():
    import tensorflow as tf

    # XLA has a random generator of its own, so that the crops are others than without it.
    images = make_images()

    def three_batches():
        layer = Augment(make_rule(), seed=5)
        function = tf.function(lambda x: layer(x), jit_compile=True, autograph=False)
        return [as_numpy(function(tf.constant(images))) for _ in range(3)]

    first, second = three_batches(), three_batches()
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])
    for batch in first:
        for crops, image in zip(all_crops(images), batch, strict=True):
            assert np.abs(crops - image).max(axis=(1, 2, 3)).min() < 1e-3


@pytest.mark.tensorflow
@pytest.mark.slow
def test_keras_on_jax():
    script = """
        import keras, numpy as np
        import tests.data.test_augment as tests

        tests.test_applied_draws_are_slices_of_the_resized_image((10, 14), "uint8")
        tests.test_a_call_applies_what_is_drawn()
        tests.test_places_and_flips_are_uniform_and_independent()
        tests.test_outside_of_training_images_are_only_resized()
        tests.test_the_test_path_is_that_of_the_pipelines_to_rounding(True)
        tests.test_inside_tf_data(None, "uint8")
        tests.test_inside_tf_data(3, "float32")
        tests.test_images_of_several_sizes_and_unknown_shape(None)
        tests.test_mixup_follows_after_batch()
        tests.test_refuses_ragged_batches()
        tests.test_in_fit()
        batch = tests.make_images(), np.eye(5, 3, dtype="int32")
        print(*(part.shape for part in tests.make_model().predict(batch, verbose=0)))
        """
    done = run_on_jax(script)
    assert done.stdout == "(5, 8, 8, 3) (5, 3)\n", done.stderr
