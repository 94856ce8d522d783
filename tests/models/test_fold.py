import keras
import numpy as np
import pytest

from keras_bit import BiTBackbone, BiTClassifier, ZeroInitHead, fold
from tests.conftest import as_numpy


@pytest.fixture
def backbone(randomize):
    backbone = BiTBackbone((1, 1, 1, 1), width=1 / 16)
    backbone.build((None, None, None, 3))
    randomize(backbone)
    return backbone


@pytest.fixture
def images(rng):
    return rng.uniform(0, 1, (2, 40, 40, 3)).astype("float32")


def sequential(backbone):
    return keras.Sequential([backbone, keras.layers.Dense(4), keras.layers.Softmax()])


def sequential_with_input(backbone):
    return keras.Sequential([keras.Input((None, None, 3)), backbone, ZeroInitHead(3)])


def functional(backbone):
    one, two = keras.Input((40, 40, 3)), keras.Input((40, 40, 3))
    features = keras.ops.abs(backbone(one)) - backbone(two)
    outputs = [keras.layers.Dense(4, name="a")(features), keras.layers.Dense(2)(features)]
    return keras.Model([one, two], outputs)


def nested(backbone):
    inputs = keras.Input((40, 40, 3))
    inner = sequential_with_input(backbone)
    head = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    return keras.Model(inputs, head(inner(inputs)))


def classifier(backbone):
    return BiTClassifier(backbone, 5)


@keras.saving.register_keras_serializable("tests")
class DoubledSequential(keras.Sequential):
    def call(self, images, training=None, mask=None):
        return 2 * super().call(images, training=training, mask=mask)


def doubled_after(backbone):
    return keras.Sequential(
        [keras.Input((40, 40, 3)), backbone, DoubledSequential([keras.layers.Dense(3)])]
    )


def backbones_of(model):
    """All backbones of a model, also of models inside it."""
    found = []
    for layer in model.layers:
        if isinstance(layer, BiTBackbone):
            found.append(layer)
        elif isinstance(layer, keras.Model):
            found += backbones_of(layer)
    return found


@pytest.mark.parametrize(
    "make", [sequential, sequential_with_input, functional, nested, classifier, doubled_after]
)
def test_gives_the_same_outputs(backbone, images, randomize, reload_model, make):
    model = make(backbone)
    inputs = [images, images[::-1].copy()] if make is functional else images
    model(inputs)
    for layer in model.layers:
        if layer is not backbone:
            randomize(layer)
    folded = fold(model)
    expected, found = keras.tree.flatten(model(inputs)), keras.tree.flatten(folded(inputs))
    assert all(np.ptp(as_numpy(value)) > 0 for value in expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(as_numpy(ours), as_numpy(theirs), rtol=1e-4, atol=1e-5)
    assert [part.standardize for part in backbones_of(folded)] == [False]
    assert [part.standardize for part in backbones_of(model)] == [True]
    loaded = keras.tree.flatten(reload_model(folded)(inputs))
    for ours, theirs in zip(loaded, found, strict=True):
        np.testing.assert_array_equal(as_numpy(ours), as_numpy(theirs))


def test_shares_no_weight_with_the_model(backbone, images):
    model = classifier(backbone)
    folded = fold(model)
    before = as_numpy(folded(images))
    for weight in model.weights:
        weight.assign(weight + 1.0)
    np.testing.assert_array_equal(as_numpy(folded(images)), before)


@pytest.mark.parametrize("make", [sequential_with_input, classifier])
def test_is_compiled_where_the_model_is(backbone, images, make):
    model = make(backbone)
    assert not fold(model).compiled
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"])
    labels = np.eye(model.output_shape[-1], dtype="float32")[[0, 1]]
    found = fold(model).evaluate(images, labels, verbose=0, return_dict=True)
    assert found == pytest.approx(model.evaluate(images, labels, verbose=0, return_dict=True))


def test_folds_a_backbone_alone(backbone, images):
    folded = fold(backbone)
    assert isinstance(folded, BiTBackbone) and not folded.standardize
    np.testing.assert_allclose(as_numpy(folded(images)), as_numpy(backbone(images)), rtol=1e-4)


class OfItsOwn(keras.Model):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def call(self, images):
        return self.backbone(images)


class Doubled(BiTClassifier):
    def call(self, images, training=None, mask=None):
        return 2 * super().call(images, training=training, mask=mask)


def test_refuses_what_it_cannot_fold(backbone):
    doubled = Doubled(backbone, 3), DoubledSequential([backbone, ZeroInitHead(3)])
    assert isinstance(fold(doubled_after(backbone)).layers[-1], DoubledSequential)
    for model in (OfItsOwn(backbone), *doubled, keras.layers.Dense(1), "model"):
        with pytest.raises(ValueError, match="`model` must be.*Received"):
            fold(model)
    with pytest.raises(ValueError, match="`model` must have a BiTBackbone.*dense"):
        fold(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="dense")]))


def adapted(backbone):
    normalization = keras.layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(3, 2, (8, int(2048 * backbone.width))))
    return keras.Sequential(
        [
            keras.Input((40, 40, 3)),
            keras.layers.Lambda(lambda images: 1 - images),
            keras.Sequential([keras.layers.Lambda(lambda images: images / 2)]),
            backbone,
            normalization,
            keras.layers.Dense(2),
        ]
    )


@pytest.mark.tensorflow  # which `Normalization` needs on every backend
def test_layers_that_were_adapted_stay_so(backbone, images):
    model = adapted(backbone)
    folded = fold(model)
    expected = as_numpy(model(images))
    np.testing.assert_allclose(as_numpy(folded(images)), expected, rtol=1e-4, atol=1e-5)


def own(labels, outputs):
    return keras.ops.mean((labels - outputs) ** 2)


class Unsaved(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.01


@pytest.mark.parametrize(
    ("compiled", "said"),
    [({"loss": own}, "'own'"), ({"optimizer": keras.optimizers.SGD(Unsaved())}, "Unsaved")],
)
def test_what_keras_cannot_find_leaves_the_copy_uncompiled(backbone, images, compiled, said):
    model = sequential_with_input(backbone)
    model.compile(**compiled)
    with pytest.warns(UserWarning, match=f"The folded model is not compiled.*{said}"):
        folded = fold(model)
    assert model.compiled and not folded.compiled
    np.testing.assert_allclose(as_numpy(folded(images)), as_numpy(model(images)), rtol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_kernels_are_stored_in_the_compute_dtype(randomize, images, tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    model = BiTClassifier(BiTBackbone((1, 1, 1, 1), width=1 / 16), 5)
    randomize(model)
    folded = fold(model)
    kernels = {w.dtype for w in folded.backbone.weights if w.name == "kernel"}
    assert kernels == {policy.removeprefix("mixed_")}
    assert all(w.dtype == "float32" for w in folded.backbone.weights if w.name != "kernel")
    # The same numbers as of float32 kernels that are cast at each call: the same bits.
    cast = [conv.effective_kernel() for _, conv, _ in model.backbone._convs()]
    for expected, (_, conv, _) in zip(cast, folded.backbone._convs(), strict=True):
        np.testing.assert_array_equal(as_numpy(conv.kernel), expected.astype(conv.kernel.dtype))
    outputs = as_numpy(folded(images))
    folded.save(tmp_path / "folded.keras")
    loaded = keras.saving.load_model(tmp_path / "folded.keras")
    np.testing.assert_array_equal(as_numpy(loaded(images)), outputs)
    read = BiTClassifier.from_weights(tmp_path / "folded.keras", standardize=False)
    np.testing.assert_array_equal(as_numpy(read(images)), outputs)


def test_is_not_trained(backbone, images):
    model = fold(classifier(backbone))
    assert [weight.name for weight in model.trainable_weights] == ["kernel", "bias"]  # the head's
    before = model.backbone.get_weights()
    model.compile(keras.optimizers.SGD(1.0), keras.losses.CategoricalCrossentropy(from_logits=True))
    model.fit(images, np.eye(5, dtype="float32")[:2], epochs=2, verbose=0)
    for value, array in zip(before, model.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(array, value)


def test_files_of_folded_weights(backbone, images, tmp_path):
    folded = fold(classifier(backbone))
    with pytest.raises(ValueError, match="standardize=False. Save it before `fold`"):
        folded.save_npz(tmp_path / "folded.npz")
    classifier(backbone).save_npz(tmp_path / "whole.npz")
    with pytest.raises(ValueError, match="`standardize=False` needs kernels.*whole.npz.*`fold`"):
        BiTClassifier.from_preset(tmp_path / "whole.npz", standardize=False)
    other = BiTClassifier(BiTBackbone((1, 1, 1, 1), 1 / 16, kernel_epsilon=0.5), 5)
    fold(other).save(tmp_path / "other.keras")  # with variances far below 1
    read = BiTClassifier.from_preset(tmp_path / "other.keras", standardize=False)
    np.testing.assert_array_equal(as_numpy(read(images)), as_numpy(fold(other)(images)))
