from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from keras_bit import BiTBackbone, BiTClassifier
from tests.conftest import as_numpy, not_on_torch

NETWORK = {"depth": (1, 2, 1, 1), "width": 1 / 16}
CLASSES = 3


def classifiers(randomize, **options):
    """Two equal networks, of which the second recomputes its activations."""
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
    elif keras.backend.backend() == "torch":
        import torch

        variables = [variable.value for variable in model.trainable_variables]
        found = torch.autograd.grad(loss_of(model(images)), variables)
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


@pytest.mark.parametrize(
    "policy, compiled",
    [
        ("float32", True),
        pytest.param("mixed_bfloat16", False, marks=pytest.mark.tensorflow),
        pytest.param("float32", False, marks=(pytest.mark.slow, pytest.mark.tensorflow)),
        pytest.param("mixed_bfloat16", True, marks=(pytest.mark.slow, pytest.mark.tensorflow)),
    ],
)
def test_the_gradients_equal_those_without(rng, randomize, policy, compiled):
    plain, remat = classifiers(randomize, dtype=policy)
    images, labels = batch(rng)
    if keras.backend.backend() == "jax":
        import jax

        jax.eval_shape(remat, images)  # a first trace, which must not be used again
    expected = gradients(plain, images, labels, compiled)
    found = gradients(remat, images, labels, compiled)
    for (name, a), b in zip(expected.items(), found.values(), strict=True):
        assert np.abs(a).max() > 0, name
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-4 * np.abs(a).max(), err_msg=name)


@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=(pytest.mark.slow, not_on_torch))]
)
def test_training_equals_that_without(rng, randomize, jit_compile):
    images, labels = batch(rng)
    on_jax = keras.backend.backend() == "jax"  # which without jit would compile every operation
    losses = []
    for model, jit in zip(classifiers(randomize), (on_jax, on_jax or jit_compile), strict=True):
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse", jit_compile=jit)
        model.optimizer.build(model.trainable_variables)  # or the first step is traced twice
        losses.append([float(model.train_on_batch(images, labels)) for _ in range(3)])
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


def test_it_is_saved_and_ends_with_folding(rng, randomize, reload_model):
    plain, remat = classifiers(randomize)
    images, _ = batch(rng)
    np.testing.assert_allclose(as_numpy(remat(images)), as_numpy(plain(images)), rtol=1e-5)
    loaded = reload_model(remat)
    assert loaded.backbone.remat and loaded.backbone.blocks[0].remat
    np.testing.assert_array_equal(as_numpy(loaded(images)), as_numpy(remat(images)))
    folded = remat.backbone.fold()
    assert not folded.remat
    features = as_numpy(remat.backbone(images))
    np.testing.assert_allclose(as_numpy(folded(images)), features, rtol=1e-4, atol=1e-5)
    assert BiTBackbone.from_preset("f-r14x0.5", remat=True).remat


def test_the_stages_make_a_functional_model(rng):
    backbone = BiTBackbone(**NETWORK, remat=True)
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, backbone.stages(inputs))
    images, _ = batch(rng)
    for name, feature in backbone.stages(images).items():
        np.testing.assert_array_equal(as_numpy(model(images)[name]), as_numpy(feature))


def saved_by_jax(model, images):
    """Number of values in the activations that the backward pass is given."""
    import jax

    def call(weights):
        return model.stateless_call(weights, [], images)[0]

    _, backward = jax.vjp(call, [variable.value for variable in model.trainable_variables])
    saved = {id(value): value for value in jax.tree.leaves(backward)}.values()
    return sum(value.size for value in saved if value.ndim == 4 and len(value) == len(images))


def saved_by_tensorflow(model, images):
    """Number of values in the activations that a graph's backward part takes from the forward."""
    import tensorflow as tf

    def gradient(upstream):
        variables = [variable.value for variable in model.trainable_variables]
        with tf.GradientTape() as tape:
            logits = model(images)
        return tape.gradient(logits, variables, output_gradients=upstream)

    shape = tf.TensorSpec((len(images), CLASSES))
    graph = tf.function(gradient).get_concrete_function(shape).graph
    backward, saved = {graph.inputs[0].op}, {}
    for operation in graph.get_operations():  # each follows its inputs
        if backward & {*operation.control_inputs, *(x.op for x in operation.inputs)}:
            backward.add(operation)
            saved |= {id(x): x for x in operation.inputs if x.op not in backward}
    shapes = [x.shape for x in saved.values() if x.shape.rank == 4 and x.shape[0] == len(images)]
    return sum(shape.num_elements() for shape in shapes)


def saved_by_torch(model, images):
    """Number of values in the activations that autograd saves, or that are recomputed from."""
    import torch

    saved = {}

    def save(x):
        saved[x.data_ptr()] = x
        return x

    checkpoint = torch.utils.checkpoint.checkpoint
    saving = mock.patch.object(
        torch.utils.checkpoint, "checkpoint", lambda f, x, **kw: checkpoint(f, save(x), **kw)
    )
    with saving, torch.autograd.graph.saved_tensors_hooks(save, lambda x: x):
        model(images)
    return sum(x.numel() for x in saved.values() if x.ndim == 4 and len(x) == len(images))


def test_the_forward_pass_saves_fewer_activations(rng):
    backends = {"jax": saved_by_jax, "tensorflow": saved_by_tensorflow, "torch": saved_by_torch}
    saved_by = backends[keras.backend.backend()]
    images = ops.convert_to_tensor(batch(rng, 5)[0])
    units = (1, 3, 2, 1)
    backbones = [BiTBackbone(units, 0.25, remat=remat) for remat in (False, True)]
    plain, remat = (saved_by(BiTClassifier(backbone, CLASSES), images) for backbone in backbones)
    edges = (40, 10, 10, 5, 3, 2)  # of images, and of what goes into each block and the last norm
    channels = (3, 16, 64, 128, 256, 512)
    image, _, *inputs = (c * edge**2 for c, edge in zip(channels, edges, strict=True))
    stem = 16 * 10**2
    # Inputs of the first unit of each block, and of its other units; not those of the first block.
    units_inputs = [64 * 10**2, 2 * 128 * 5**2, 128 * 5**2, 256 * 3**2, 256 * 3**2]
    last = 512 * 2**2  # into the last norm
    assert remat == pytest.approx(5 * (image + stem + sum(units_inputs) + last), rel=0.1)
    assert plain > 3 * (remat - 5 * image)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="needs XLA's memory analysis")
def test_xla_needs_less_memory():
    """It must not merge what is recomputed with what was computed first."""
    import jax

    def temporary(remat):
        model = BiTClassifier(BiTBackbone((1, 6, 1, 1), 0.125, remat=remat), CLASSES)

        def loss(weights, images):
            return ops.mean(model.stateless_call(weights, [], images)[0])

        images = jax.ShapeDtypeStruct((16, 64, 64, 3), "float32")
        weights = [variable.value for variable in model.trainable_variables]
        compiled = jax.jit(jax.grad(loss)).lower(weights, images).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(remat=True) < 0.7 * temporary(remat=False)
