import functools

import keras
import numpy as np
import pytest

import keras_bit
from keras_bit.exporters.source import Source
from tests.exporters.conftest import make_classifier

pytestmark = pytest.mark.tensorflow


def source_of(model, value_range=None, data=None):
    return Source.of(model, value_range, data)


def test_a_model_is_read_off(classifier, functional):
    source = source_of(classifier)
    assert (source.size, source.value_range, source.gives) == ((None, None), (0, 1), "logits")
    source = source_of(functional)
    assert (source.size, source.value_range, source.gives) == ((32, 32), (0, 1), "probabilities")
    whole = keras.Sequential(
        [make_classifier(value_range=(-1, 1)), keras.layers.Activation("sigmoid")]
    )
    source = source_of(whole)
    assert (source.value_range, source.gives) == ((-1, 1), "probabilities")
    images = keras.Input((32, 32, 3))
    for activation in (keras.activations.softmax, keras.ops.softmax, keras.ops.sigmoid):
        ends = keras.Model(images, activation(make_classifier()(images)))
        assert source_of(ends).gives == "probabilities", activation
    layer = keras.layers.Activation(keras.ops.softmax)
    assert source_of(keras.Sequential([make_classifier(), layer])).gives == "probabilities"
    features = keras.Sequential(
        [keras.Input((None, None, 3)), keras_bit.BiTBackbone((1, 1, 1, 1), 0.125)]
    )
    assert source_of(features).gives == "features"


def test_a_softmax_that_hides_is_noticed(images):
    inputs = keras.Input((48, 40, 3))
    shares = keras.layers.Softmax()(make_classifier()(inputs))
    model = keras.Model(inputs, keras.layers.Activation("linear", name="last")(shares))
    for probabilities in (True, False):
        with pytest.raises(ValueError, match="'last' hides a softmax"):
            source_of(model).predict(images, probabilities)


def test_a_single_logit_has_a_sigmoid(images):
    backbone = keras_bit.BiTBackbone((1, 1, 1, 1), 0.125)
    head = keras_bit.ZeroInitHead(1)
    model = keras.Sequential([keras.Input((48, 40, 3)), backbone, head])
    head.bias.assign([2.0])
    source = source_of(model)
    assert source.activation(probabilities=True) == "sigmoid"
    shares = source.predict(images, probabilities=True)
    np.testing.assert_allclose(shares, 1 / (1 + np.exp(-2)), rtol=1e-6)
    assert source.decide(shares, probabilities=True).all()


def test_a_range_that_the_backbone_contradicts_is_refused(classifier):
    with pytest.raises(ValueError, match=r"`value_range` must be that of.*\(0, 1\), or omitted"):
        source_of(classifier, (0, 255))
    assert source_of(classifier, (0, 1)).value_range == (0, 1)


def test_what_comes_before_the_backbone_decides_the_range():
    inputs = keras.Input((32, 32, 3))
    classifier = make_classifier()
    for scaled in (keras.layers.Rescaling(1 / 255)(inputs), inputs / 255.0):
        model = keras.Model(inputs, classifier(scaled))
        with pytest.raises(ValueError, match="`value_range` must be given"):
            source_of(model)
        assert source_of(model, (0, 255)).value_range == (0, 255)


def test_other_precisions_become_float32():
    model = make_classifier(dtype="mixed_bfloat16")
    twin = source_of(model).model
    dtypes = {layer.compute_dtype for layer in twin._flatten_layers()}
    assert dtypes == {"float32"} and model.backbone.compute_dtype == "bfloat16"
    for weight, copy in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(copy, weight)


def test_the_twin_in_float32_keeps_what_was_adapted_and_needs_no_compiling():
    normalization = keras.layers.Normalization(dtype="mixed_bfloat16")
    normalization.adapt(np.random.default_rng(0).normal(0.5, 0.2, (8, 32, 32, 3)))
    classifier = make_classifier(dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((32, 32, 3)), normalization, classifier])
    unsaved = functools.partial(keras.losses.mean_squared_error)  # Keras cannot save it.
    model.compile(loss=unsaved)
    twin = source_of(model, (0, 1)).model
    copy = twin.layers[0]
    np.testing.assert_allclose(np.ravel(copy.mean), normalization.adapt_mean, rtol=1e-6)
    assert copy.compute_dtype == "float32" and not twin.compiled


def test_a_model_in_float32_is_not_copied(classifier):
    assert source_of(classifier).model is classifier
    classifier.compile(loss="mse")
    assert source_of(classifier).model is classifier


def test_data_name_the_classes_of_a_model(classifier, images):
    labels = np.arange(24) % 3
    data = keras_bit.ImageDataset.from_arrays(images, labels, label_names=("a", "b", "c"))
    source = source_of(classifier, data=data)
    assert source.label_names == ("a", "b", "c") and source.activation(True) == "softmax"
    data = keras_bit.ImageDataset.from_arrays(images, labels % 2)
    with pytest.raises(ValueError, match="`data` must have the 3 classes of the model"):
        source_of(classifier, data=data)


def test_several_labels_are_decided_one_by_one(classifier, images):
    labels = np.random.default_rng(0).integers(0, 2, (24, 3))
    data = keras_bit.ImageDataset.from_arrays(images, labels, multi_label=True)
    source = source_of(classifier, data=data)
    assert source.activation(True) == "sigmoid" and source.activation(False) is None
    np.testing.assert_array_equal(source.decide(np.array([[-1.0, 0.5, 2]]), False), [[0, 1, 1]])
    np.testing.assert_array_equal(source.decide(np.array([[0.4, 0.6, 0.5]]), True), [[0, 1, 1]])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: 3, "`model_or_run` must be"),
        (lambda: keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]), "BiTBackbone"),
        (lambda: keras.Sequential([keras_bit.BiTBackbone((1, 1, 1, 1), 0.125)]), "must be built"),
        (
            lambda: keras.Sequential(
                [keras.Input((32, 32, 3)), keras_bit.BiTBackbone((1, 1, 1, 1), 0.125, pooling=None)]
            ),
            "one row for each",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        source_of(make())
