"""A small classifier, whose classes differ from image to image, and images for it."""

import keras
import numpy as np
import pytest

import keras_bit


def make_classifier(classes=3, **options):
    """Random weights of the smallest network, and a head that tells images apart."""
    backbone = keras_bit.BiTBackbone((1, 1, 1, 1), width=0.125, **options)
    model = keras_bit.BiTClassifier(backbone, classes)
    shape = model.head.kernel.shape
    model.head.kernel.assign(np.random.default_rng(5).normal(size=shape))
    return model


@pytest.fixture(scope="session")
def classifier():
    return make_classifier()


@pytest.fixture
def images():
    """Uniform colors with some noise: random ones would all look alike to a network."""
    rng = np.random.default_rng(1)
    colors = rng.integers(20, 235, (24, 1, 1, 3))
    return (colors + rng.integers(-20, 20, (24, 48, 40, 3))).astype(np.uint8)


@pytest.fixture
def functional():
    """A functional model for images of 32x32 pixels that ends with a softmax."""
    inputs = keras.Input((32, 32, 3))
    return keras.Model(inputs, keras.layers.Softmax()(make_classifier()(inputs)))
