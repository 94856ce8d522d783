import keras
import numpy as np
import pytest

from keras_bit import MixUp
from tests.conftest import ON_TORCH, as_numpy, not_on_torch

LABELS = np.eye(6, 5, dtype="float32")


def images_of(rng, dtype="float32", count=6):
    return rng.uniform(0, 255, (count, 4, 5, 3)).astype(dtype)


def draw_many(mixup, count):
    """Weights for the seeds (7, 0), (7, 1), ... in one compiled run."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        draw = tf.function(lambda seeds: tf.map_fn(mixup.draw_weight, seeds, tf.float32))
        return draw(tf.stack([tf.fill([count], 7), tf.range(count)], 1)).numpy()
    if ON_TORCH:
        seeds = np.stack([np.full(count, 7), np.arange(count)], axis=1)
        weights = [mixup.draw_weight(seed) for seed in keras.ops.array(seeds, "int32")]
        return as_numpy(keras.ops.stack(weights))
    steps = keras.ops.arange(count, dtype="int32")
    seeds = keras.ops.stack([keras.ops.full_like(steps, 7), steps], axis=1)
    return as_numpy(keras.ops.vectorized_map(mixup.draw_weight, seeds))


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0])
def test_weights_follow_the_beta_distribution(alpha):
    weights = draw_many(MixUp(alpha), 5_000)
    assert weights.dtype == np.float32
    assert np.isfinite(weights).all() and weights.min() >= 0 and weights.max() <= 1
    variance = 1 / (4 * (2 * alpha + 1))  # of Beta(alpha, alpha); its mean is 1/2
    error = np.sqrt(variance / len(weights))
    assert abs(weights.mean() - 0.5) < 4 * error
    # The variance of a sample variance is at most (1/16 - variance**2) / n on [0, 1].
    assert abs(weights.var() - variance) < 4 * np.sqrt((1 / 16 - variance**2) / len(weights))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_weights_are_the_same_under_every_precision_policy(policy):
    expected = draw_many(MixUp(0.1), 50)
    keras.config.set_dtype_policy(policy)
    weights = draw_many(MixUp(0.1), 50)
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights, expected)


def test_a_weight_is_a_pure_function_of_a_given_seed():
    mixup = MixUp(0.4)
    pairs = [(0, 0), (0, 1), (1, 0)]
    first, second = (
        [float(mixup.draw_weight(keras.ops.array(pair, "int32"))) for pair in pairs]
        for _ in range(2)
    )
    assert first == second and len(set(first)) == 3


@not_on_torch
def test_a_graph_draws_the_weights_of_eager_mode():
    if keras.backend.backend() == "tensorflow":
        from tensorflow import function as compile_
    else:
        from jax import jit as compile_
    mixup = MixUp(0.2)
    seeds = [keras.ops.array((5, step), "int32") for step in range(20)]
    weights = [
        [float(draw(s)) for s in seeds] for draw in (mixup.draw_weight, compile_(mixup.draw_weight))
    ]
    np.testing.assert_allclose(*weights, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
def test_mixes_with_the_reversed_batch(rng, dtype):
    images, weights = images_of(rng, dtype), rng.uniform(size=6).astype("float32")
    mixed, labels, sample_weights = MixUp().mix(images, LABELS, 0.3, weights)
    exact = images.astype("float64")
    np.testing.assert_allclose(
        as_numpy(mixed), 0.3 * exact + 0.7 * exact[::-1], rtol=2e-3 if dtype == "float16" else 1e-5
    )
    np.testing.assert_allclose(as_numpy(labels), 0.3 * LABELS + 0.7 * LABELS[::-1], rtol=1e-6)
    np.testing.assert_allclose(
        as_numpy(sample_weights), 0.3 * weights + 0.7 * weights[::-1], rtol=1e-5
    )
    assert as_numpy(mixed).dtype == (np.float32 if dtype == "uint8" else dtype)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float32", "float16"])
def test_one_hot_labels_of_any_type(rng, dtype):
    _, labels = MixUp(1.0, seed=0)(images_of(rng), LABELS.astype(dtype))
    labels = as_numpy(labels).astype("float64")
    assert 0.01 < labels[0].max() < 0.99
    np.testing.assert_allclose(labels.sum(axis=1), LABELS.sum(1) * labels[0, 0], atol=1.0)


def test_one_weight_for_the_whole_batch(rng):
    images, labels = MixUp(1.0, seed=3)(images_of(rng), LABELS)
    weight = as_numpy(labels)[0, 0]
    expected_images, expected_labels = MixUp().mix(
        images_of(np.random.default_rng(0)), LABELS, weight
    )
    np.testing.assert_allclose(as_numpy(labels), as_numpy(expected_labels), atol=1e-6)
    np.testing.assert_allclose(as_numpy(images), as_numpy(expected_images), rtol=1e-4)


def test_gives_back_the_form_it_got(rng):
    images, weights = images_of(rng), np.ones(6, "float32")
    mixup = MixUp(1.0)
    assert isinstance(mixup((images, LABELS)), tuple)
    assert len(mixup((images, LABELS, weights))) == 3
    assert len(mixup(images, LABELS, sample_weight=weights)) == 3
    data = {"images": images, "labels": LABELS, "sample_weight": weights}
    assert set(mixup(data)) == set(data)
    mixed = mixup({**data, "sample_weight": None})
    assert set(mixed) == set(data) and mixed["sample_weight"] is None


def test_changes_nothing_outside_of_training(rng):
    images = images_of(rng, "uint8")
    out, labels = MixUp(1.0)((images, LABELS), training=False)
    np.testing.assert_array_equal(as_numpy(out), images)
    np.testing.assert_array_equal(as_numpy(labels), LABELS)
    assert as_numpy(out).dtype == np.uint8


def test_same_seed_same_mixes_other_ones_in_every_epoch(rng):
    images = images_of(rng)

    def epochs():
        mixup = MixUp(0.4, seed=7)
        return [as_numpy(mixup(images, LABELS)[1]) for _ in range(3)]

    first, second = epochs(), epochs()
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first[0], first[1]) and not np.allclose(first[1], first[2])


def test_inside_a_model(rng, reload_model):
    inputs = keras.Input((4, 5, 3)), keras.Input((5,))
    model = keras.Model(inputs, MixUp(0.4, seed=2)(inputs))
    batch = [images_of(rng), LABELS]
    np.testing.assert_array_equal(model.predict(batch, verbose=0)[0], batch[0])
    assert not np.allclose(as_numpy(model(batch, training=True)[0]), batch[0])
    loaded = reload_model(model)
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    np.testing.assert_array_equal(loaded.predict(batch, verbose=0)[0], batch[0])


@pytest.mark.tensorflow
def test_compiled_equals_eager(rng):
    import tensorflow as tf

    images = images_of(rng)
    eager, compiled = MixUp(0.4, seed=5), MixUp(0.4, seed=5)
    function = tf.function(lambda x, y: compiled(x, y))
    for _ in range(3):
        expected = eager(tf.constant(images), tf.constant(LABELS))
        for a, b in zip(function(images, LABELS), expected, strict=True):
            np.testing.assert_allclose(as_numpy(a), as_numpy(b), rtol=1e-4, atol=1e-4)


@pytest.mark.tensorflow
def test_compiled_by_xla(rng):
    import tensorflow as tf

    # XLA has a random generator of its own, so that the weights are others than without it.
    images = images_of(rng)

    def three_batches():
        mixup = MixUp(0.4, seed=5)
        function = tf.function(lambda x, y: mixup(x, y), jit_compile=True)
        return [function(images, LABELS) for _ in range(3)]

    weights = [float(labels[0, 0]) for _, labels in three_batches()]
    assert len(set(weights)) == 3
    for weight, (mixed, labels) in zip(weights, three_batches(), strict=True):
        expected = MixUp().mix(images, LABELS, weight)
        np.testing.assert_allclose(as_numpy(mixed), as_numpy(expected[0]), rtol=1e-4)
        np.testing.assert_allclose(as_numpy(labels), as_numpy(expected[1]), atol=1e-6)


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_inside_tf_data(rng, dtype):
    import tensorflow as tf

    images = images_of(rng, dtype)
    plain = tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(3)

    def two_epochs():
        dataset = plain.map(MixUp(0.4, seed=9))
        return [[y.numpy() for _, y in dataset] for _ in range(2)]

    first, second = two_epochs(), two_epochs()
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first[0], first[1])
    dictionaries = plain.map(lambda x, y: {"images": x, "labels": y}).map(MixUp(0.4, seed=9))
    np.testing.assert_array_equal([d["labels"].numpy() for d in dictionaries], first[0])


@pytest.mark.tensorflow
def test_refuses_ragged_batches_in_tf_data(rng):
    import tensorflow as tf

    signature = (tf.TensorSpec((None, 4, 5, 3)), tf.TensorSpec((None, 5)))
    dataset = tf.data.Dataset.from_generator(
        lambda: iter([(images_of(rng), LABELS[:4])]), output_signature=signature
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="same batch size"):
        list(dataset.map(MixUp(0.4)))


@pytest.mark.tensorflow
@pytest.mark.parametrize("labels", [np.arange(6), LABELS])
def test_refuses_unknown_shapes(rng, labels):
    import tensorflow as tf

    def load(index):
        return tf.py_function(lambda i: (images[int(i)], labels[int(i)]), [index], dtypes)

    images, dtypes = images_of(rng), ("float32", labels.dtype)
    dataset = tf.data.Dataset.range(6).map(load).batch(6)
    with pytest.raises(ValueError, match="(?s)known number of dimensions.*set_shape"):
        dataset.map(MixUp(0.4))


@pytest.mark.parametrize("alpha", [0, -0.1, float("nan"), float("inf"), "0.1", None])
def test_refuses_bad_alpha(alpha):
    with pytest.raises(ValueError, match="`alpha` must be a positive.*Received"):
        MixUp(alpha)


def test_refuses_what_cannot_be_mixed(rng):
    images = images_of(rng)
    with pytest.raises(ValueError, match="(?s)`labels` must be one-hot.*one_hot"):
        MixUp()(images, np.arange(6))
    column = r"class ids .*shape=\(6, 1\), dtype=uint8.*one_hot"  # as Keras's CIFAR has them
    with pytest.raises(ValueError, match=column):
        MixUp()(images, np.arange(6, dtype="uint8")[:, None])
    MixUp()(images, np.ones((6, 1), "float32"))  # one output, whose labels can be mixed
    with pytest.raises(ValueError, match="`labels` must be a tensor.*a dict"):
        MixUp()(images, {"one": LABELS})
    with pytest.raises(ValueError, match="same batch size"):
        MixUp()(images, LABELS[:4])
    with pytest.raises(ValueError, match="`sample_weight` must have the same batch size"):
        MixUp()((images, LABELS, np.ones(5)))
    with pytest.raises(ValueError, match="`images` must be a batch"):
        MixUp()(images[0], LABELS)
    with pytest.raises(ValueError, match="`labels` must be given"):
        MixUp()(images)
    with pytest.raises(ValueError, match="must hold `images`"):
        MixUp()({"images": images, "labels": LABELS, "boxes": LABELS})
    together = {"images": images, "labels": LABELS}, {"images": images, "weight": LABELS}
    for parts in (*together, (images, LABELS), [images, images]):
        with pytest.raises(ValueError, match="(?s)must be in a dict.*not beside it.*MixUp.mix"):
            MixUp()(parts, np.ones(6))
    with pytest.raises(ValueError, match="`images` must be a tensor.*a tuple"):
        MixUp()(((images, images), LABELS))
    with pytest.raises(ValueError, match="Received: 4 parts"):
        MixUp()((images, LABELS, np.ones(6), np.ones(6)))
