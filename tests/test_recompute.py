import keras
import numpy as np
import pytest
from keras import ops

from keras_bit import BiTBackbone, BiTClassifier
from tests.conftest import as_numpy

NETWORK = {"depth": (1, 2, 1, 1), "width": 0.25}
CLASSES = 3


def classifiers(randomize, **options):
    """Two equal networks, of which the second recomputes."""
    models = [
        BiTClassifier(BiTBackbone(**NETWORK, remat=remat, **options), CLASSES) for remat in (0, 1)
    ]
    randomize(models[0])
    models[1].set_weights(models[0].get_weights())
    return models


def batch(rng, count=2):
    images = rng.uniform(0, 1, (count, 40, 40, 3)).astype("float32")
    return images, np.eye(CLASSES, dtype="float32")[np.arange(count) % CLASSES]


def gradients(model, images, labels, compiled):
    """Of the loss with respect to every trainable variable, by name."""

    def loss_of(logits):
        return ops.mean(ops.categorical_crossentropy(labels, logits, from_logits=True))

    if keras.backend.backend() == "jax":
        import jax

        def loss(trainable, fixed):
            return loss_of(model.stateless_call(trainable, fixed, images)[0])

        variables = model.trainable_variables, model.non_trainable_variables
        function = jax.jit(jax.grad(loss)) if compiled else jax.grad(loss)
        found = function(*([variable.value for variable in part] for part in variables))
    else:
        import tensorflow as tf

        def gradient():
            with tf.GradientTape() as tape:
                value = loss_of(model(images))
            return tape.gradient(value, [v.value for v in model.trainable_variables])

        found = (tf.function(gradient) if compiled else gradient)()
    return {
        variable.path: as_numpy(ops.cast(value, "float32"))
        for variable, value in zip(model.trainable_variables, found, strict=True)
    }


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_gradients_are_those_without(rng, randomize, policy, compiled):
    plain, lean = classifiers(randomize, dtype=policy)
    images, labels = batch(rng)
    # The second call finds what the first has traced, which on JAX must not be used again.
    for _ in range(2):
        expected = gradients(plain, images, labels, compiled)
        found = gradients(lean, images, labels, compiled)
    for (name, a), b in zip(expected.items(), found.values(), strict=True):
        assert np.abs(a).max() > 0, name
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-4 * np.abs(a).max(), err_msg=name)


@pytest.mark.parametrize("options", [{"jit_compile": False}, {"jit_compile": True}])
def test_training_goes_the_same_way(rng, randomize, options):
    models = classifiers(randomize)
    images, labels = batch(rng)
    losses = []
    for model in models:
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse", **options)
        losses.append([float(model.train_on_batch(images, labels)) for _ in range(4)])
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_frozen_parts_stay_and_the_others_train(rng, randomize):
    _, model = classifiers(randomize)
    model.backbone.root_block.trainable = model.backbone.blocks[1].trainable = False
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.train_on_batch(*batch(rng))
    for variable, a, b in zip(model.variables, before, model.get_weights(), strict=True):
        frozen = "root_block" in variable.path or "block2" in variable.path
        assert np.array_equal(a, b) == frozen, variable.path


def test_it_is_saved_and_does_not_outlive_folding(rng, randomize, reload_model):
    plain, lean = classifiers(randomize)
    images, _ = batch(rng)
    np.testing.assert_allclose(as_numpy(lean(images)), as_numpy(plain(images)), rtol=1e-5)
    loaded = reload_model(lean)
    assert loaded.backbone.remat and loaded.backbone.blocks[0].remat
    np.testing.assert_array_equal(as_numpy(loaded(images)), as_numpy(lean(images)))
    folded = lean.backbone.fold()
    assert not folded.remat
    features = as_numpy(lean.backbone(images))
    np.testing.assert_allclose(as_numpy(folded(images)), features, rtol=1e-4, atol=1e-5)
    assert BiTBackbone.from_preset("f-r14x0.5", remat=True).remat


def test_the_stages_make_a_functional_model(rng):
    backbone = BiTBackbone(**NETWORK, remat=True)
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, backbone.stages(inputs))
    images, _ = batch(rng)
    for name, feature in backbone.stages(images).items():
        np.testing.assert_array_equal(as_numpy(model(images)[name]), as_numpy(feature))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="XLA's account of memory")
def test_xla_needs_less_memory(rng, randomize):
    import jax

    def temporary(model, count):
        def loss(trainable, images):
            return ops.mean(ops.square(model.stateless_call(trainable, [], images)[0]))

        images = jax.ShapeDtypeStruct((count, 96, 96, 3), "float32")
        weights = [variable.value for variable in model.trainable_variables]
        compiled = jax.jit(jax.grad(loss)).lower(weights, images).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    per_image = [(temporary(m, 6) - temporary(m, 2)) / 4 for m in classifiers(randomize)]
    assert per_image[1] < 0.75 * per_image[0]


@pytest.mark.tensorflow
def test_tensorflow_keeps_less(rng, randomize):
    """Counts the values that the tape of an eager step holds on to."""
    import gc

    import tensorflow as tf

    def kept(model):
        images = tf.constant(batch(rng, 4)[0])
        gc.collect()
        with tf.GradientTape() as tape:
            value = ops.mean(model(images))
            gc.collect()
            maps = [x for x in gc.get_objects() if isinstance(x, tf.Tensor) and x.ndim == 4]
            held = {id(x): int(tf.size(x)) for x in maps if x.shape[0] == 4}
        assert tape.gradient(value, model.trainable_variables[0].value) is not None
        return sum(held.values())

    plain, lean = classifiers(randomize)
    assert kept(lean) < 0.5 * kept(plain)
