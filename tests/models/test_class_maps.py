import keras
import numpy as np
import pytest

from keras_bit import BiTBackbone, BiTClassifier, ZeroInitHead, fold
from tests import oracle
from tests.conftest import as_numpy

UNITS = (1, 2, 1, 1)
CLASSES = 5


@pytest.fixture
def classifier(randomize):
    def make(**options):
        model = BiTClassifier(BiTBackbone(UNITS, 0.25, **options), CLASSES)
        randomize(model)
        return model

    return make


def images(rng, height=70, width=45):
    return rng.uniform(0, 1, (2, height, width, 3)).astype("float32")


def close(actual, expected, precision):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(as_numpy(actual), expected, atol=precision * scale, rtol=0)


@pytest.mark.parametrize("size, positions", [((32, 32), (1, 1)), ((70, 45), (3, 2))])
def test_maps_are_those_of_the_oracle_and_their_means_the_logits(classifier, rng, size, positions):
    model, batch = classifier(), images(rng, *size)
    weights = {name: as_numpy(value) for name, value in model.backbone.named_weights().items()}
    features = oracle.backbone(
        batch * 2.0 - 1, weights, UNITS, lambda channels: min(32, channels // 2)
    )
    kernel, bias = (as_numpy(value).astype("float64") for value in model.head.weights)
    maps = model.class_maps(batch)
    assert tuple(maps.shape) == (2, *positions, CLASSES)
    assert keras.backend.standardize_dtype(maps.dtype) == "float32"
    close(maps, features @ kernel + bias, 1e-4)
    close(as_numpy(maps).mean(axis=(1, 2)), as_numpy(model(batch)), 1e-5)


def test_classes_of_all_images_or_of_each(classifier, rng):
    model, batch = classifier(), images(rng)
    maps = as_numpy(model.class_maps(batch))
    np.testing.assert_array_equal(as_numpy(model.class_maps(batch, [3, 0])), maps[..., [3, 0]])
    own = as_numpy(model.class_maps(batch, [[3, 0], [1, 4]]))
    np.testing.assert_array_equal(own, np.stack([maps[0][..., [3, 0]], maps[1][..., [1, 4]]]))
    predicted = keras.ops.argmax(model(batch), axis=-1)[:, None]
    top = as_numpy(model.class_maps(batch, predicted)).mean(axis=(1, 2, 3))
    close(top, as_numpy(model(batch)).max(axis=-1), 1e-5)


def test_maps_of_a_symbolic_input_make_a_model(classifier, rng):
    model, batch = classifier(), images(rng)
    inputs = keras.Input((None, None, 3))
    mapped = keras.Model(inputs, model.class_maps(inputs, [2, 1]))
    close(mapped.predict(batch, verbose=0), as_numpy(model.class_maps(batch, [2, 1])), 1e-4)


def test_a_folded_model_has_the_same_maps(classifier, rng):
    model, batch = classifier(), images(rng)
    close(fold(model).class_maps(batch), as_numpy(model.class_maps(batch)), 1e-4)


@pytest.mark.parametrize(
    "policy, rounding",
    [("mixed_bfloat16", 2**-8), pytest.param("mixed_float16", 2**-10, marks=pytest.mark.slow)],
)
def test_maps_in_mixed_precision(classifier, rng, policy, rounding):
    exact, batch = classifier(), images(rng)
    model = BiTClassifier(BiTBackbone(UNITS, 0.25, dtype=policy), CLASSES)
    model.set_weights(exact.get_weights())
    maps = model.class_maps(batch)
    assert keras.backend.standardize_dtype(maps.dtype) == "float32"
    # Pooled features are rounded to the compute dtype on their way to the logits, maps are not.
    pooled = as_numpy(keras.ops.cast(model.backbone(batch), "float32"))
    bound = rounding * pooled @ np.abs(as_numpy(model.head.kernel)) + 1e-4
    assert (np.abs(as_numpy(maps).mean(axis=(1, 2)) - as_numpy(model(batch))) <= bound).all()
    close(maps, as_numpy(exact.class_maps(batch)), 0.15)


def test_nothing_is_dropped(rng, randomize):
    model = BiTClassifier(BiTBackbone(UNITS, 0.25), ZeroInitHead(CLASSES, dropout=0.5, seed=1))
    randomize(model.backbone)
    model.head.kernel.assign(rng.normal(size=model.head.kernel.shape))
    batch = images(rng)
    expected = as_numpy(model(batch, training=False))
    close(as_numpy(model.class_maps(batch)).mean(axis=(1, 2)), expected, 1e-5)


def test_bad_arguments(classifier, rng):
    batch = images(rng)
    with pytest.raises(ValueError, match="`pooling` must be \"avg\".*pooling='max'"):
        classifier(pooling="max").class_maps(batch)
    for classes in ([5], [-1], [0.5], [], 3, [[[0]]]):
        with pytest.raises(ValueError, match="`classes` must be class ids below 5.*Received"):
            classifier().class_maps(batch, classes)
