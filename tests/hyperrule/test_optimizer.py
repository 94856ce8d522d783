import keras
import numpy as np
import pytest

from keras_bit.hyperrule.optimizer import SGD
from tests.conftest import not_on_torch

STEPS = 5


def trained(optimizer, x, y, layers=None, **compilation):
    """Weights and momenta after a few steps of training."""
    keras.utils.set_random_seed(0)
    layers = layers or [keras.layers.Dense(4, activation="relu"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype), *layers])
    model.compile(optimizer, "mse", **compilation)
    for _ in range(STEPS):
        model.train_on_batch(x, y)
    found = [*model.get_weights(), *(np.array(v) for v in optimizer.variables)]
    assert all(np.isfinite(array).all() for array in found)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.0},
        {"momentum": 0.9, "weight_decay": 0.1, "clipnorm": 0.5, "use_ema": True},
        {"momentum": 0.9, "gradient_accumulation_steps": 2},
    ],
)
@pytest.mark.parametrize(
    "compilation",
    [
        {"jit_compile": False},
        pytest.param({"jit_compile": True}, marks=not_on_torch),
        {"run_eagerly": True},
    ],
)
def test_trains_as_keras_does(rng, options, compilation):
    x, y = rng.normal(size=(8, 5)).astype("float32"), rng.normal(size=(8, 3)).astype("float32")
    expected = trained(keras.optimizers.SGD(0.1, **options), x, y, **compilation)
    found = trained(SGD(0.1, **options), x, y, **compilation)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_sparse_gradients_are_left_to_keras(rng):
    x, y = np.array([[0], [2], [2], [5]], "int32"), rng.normal(size=(4, 3)).astype("float32")

    def layers():
        embedding = keras.layers.Embedding(7, 4)
        return [embedding, keras.layers.Flatten(), keras.layers.Dense(3)]

    expected = trained(keras.optimizers.SGD(0.1, momentum=0.9), x, y, layers())
    found = trained(SGD(0.1, momentum=0.9), x, y, layers())
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


@pytest.mark.tensorflow
def test_float16_with_a_scaled_loss(rng):
    x, y = rng.normal(size=(8, 5)).astype("float32"), rng.normal(size=(8, 3)).astype("float32")

    def layers():
        return [keras.layers.Dense(3, dtype="mixed_float16")]

    def scaled(optimizer):
        return keras.optimizers.LossScaleOptimizer(optimizer)

    expected = trained(scaled(keras.optimizers.SGD(0.1, momentum=0.9)), x, y, layers())
    found = trained(scaled(SGD(0.1, momentum=0.9)), x, y, layers())
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)


@pytest.mark.tensorflow
def test_two_replicas_train_as_one(rng, two_replicas):
    x, y = rng.normal(size=(8, 5)).astype("float32"), rng.normal(size=(8, 3)).astype("float32")

    def weights(make):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
        model.compile(make(0.1, momentum=0.9), "mse")
        model.fit(x, y, batch_size=8, epochs=STEPS, shuffle=False, verbose=0)
        return model.get_weights()

    with two_replicas.scope():
        found = weights(SGD)
    for a, b in zip(weights(keras.optimizers.SGD), found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


@pytest.mark.tensorflow
def test_an_update_is_one_operation_for_each_array():
    import tensorflow as tf

    optimizer = SGD(0.1, momentum=0.9)
    variables = [keras.Variable(np.ones((3, size), "float32")) for size in (1, 2)]
    optimizer.build(variables)

    @tf.function
    def update(gradients):
        optimizer.apply(gradients, variables)

    gradients = [tf.ones_like(variable) for variable in variables]
    operations = update.get_concrete_function(gradients).graph.get_operations()
    names = [operation.type for operation in operations]
    assert names.count("ResourceApplyKerasMomentum") == 2
    assert sum(name.startswith("Assign") for name in names) == 1  # the count of iterations


def test_a_saved_model_goes_on_where_it_was(rng, tmp_path):
    x, y = rng.normal(size=(8, 5)).astype("float32"), rng.normal(size=(8, 3)).astype("float32")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile(SGD(0.1, momentum=0.9), "mse")
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is SGD
    for either in (model, loaded):
        either.train_on_batch(x, y)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-7)
