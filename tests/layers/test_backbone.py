import math

import keras
import numpy as np
import pytest

from keras_bit import BiTBackbone, BiTClassifier, GroupNorm, ZeroInitHead, fold
from keras_bit.layers.group_norm import choose_groups
from tests import oracle
from tests.conftest import ON_TORCH, as_numpy

SMALL = {"depth": (1, 1, 1, 1), "width": 1 / 16}


def images_of(rng, count=2, edges=(40, 40)):
    return rng.uniform(0, 1, (count, *edges, 3)).astype("float32")


def expected_features(backbone, images, units, groups=choose_groups):
    weights = {name: as_numpy(v) for name, v in backbone.named_weights().items()}
    return oracle.backbone(images * 2.0 - 1.0, weights, units, groups)


def relative_difference(a, b):
    return np.abs(as_numpy(a) - b).max() / np.abs(b).max()


@pytest.mark.slow
@pytest.mark.parametrize("edges", [(97, 70), (64, 64)])
def test_r50x1_equals_the_numpy_oracle(rng, randomize, edges):
    backbone = BiTBackbone(50, 1, pooling=None)
    backbone.build((None, None, None, 3))
    randomize(backbone)
    images = images_of(rng, 1, edges)
    expected = expected_features(backbone, images, (3, 4, 6, 3), groups=lambda channels: 32)
    assert relative_difference(backbone(images), expected) < 1e-4


@pytest.mark.parametrize(
    "depth, width, parameters, arrays",
    [
        (50, 1, 23_500_352, 151),
        (101, 1, 42_492_480, 304),
        (50, 3, 211_174_080, 151),
        (101, 3, 381_789_888, 304),
        (152, 2, 232_238_208, 457),
        (152, 4, 928_340_224, 457),
    ],
)
def test_parameter_counts(depth, width, parameters, arrays):
    shapes = BiTBackbone(depth, width).weight_shapes()
    assert sum(map(math.prod, shapes.values())) == parameters
    assert len(shapes) == arrays


@pytest.mark.parametrize("depth, width", [((1, 2, 1, 1), 0.5), (50, 0.125)])
def test_weight_shapes_are_those_that_are_built(depth, width):
    shapes = BiTBackbone(depth, width).weight_shapes()
    backbone = BiTBackbone(depth, width)
    built = backbone.named_weights()
    assert shapes == {name: tuple(variable.shape) for name, variable in built.items()}
    assert backbone.count_params() == sum(map(math.prod, shapes.values()))
    assert len(backbone.trainable_weights) == len(shapes)


@pytest.mark.parametrize(
    "depth, width",
    [
        ((1, 1, 1, 1), 1 / 16),
        ((1, 2, 1, 1), 0.5),
        ((1, 1, 2, 1), 3 / 16),
        pytest.param((1, 1, 1, 1), 0.75, marks=pytest.mark.slow),
        pytest.param((1, 1, 2, 1), 1, marks=pytest.mark.slow),
    ],
)
def test_small_nets_equal_the_numpy_oracle(rng, randomize, depth, width):
    backbone = BiTBackbone(depth, width, pooling=None)
    backbone.build((None, None, None, 3))
    randomize(backbone)
    images = images_of(rng, 2, (33, 50))
    out = keras.Sequential([backbone]).predict(images, verbose=0)
    assert out.shape == (2, 2, 2, 2048 * width)
    assert backbone.compute_output_shape(images.shape) == out.shape
    assert relative_difference(out, expected_features(backbone, images, depth)) < 1e-4


def test_stages(rng):
    backbone = BiTBackbone((2, 1, 1, 1), 0.25, pooling=None)
    images = images_of(rng, 2, (70, 64))
    stages = backbone.stages(images)
    assert {name: tuple(x.shape) for name, x in stages.items()} == {
        "stem": (2, 18, 16, 16),
        "block1": (2, 18, 16, 64),
        "block2": (2, 9, 8, 128),
        "block3": (2, 5, 4, 256),
        "block4": (2, 3, 2, 512),
        "norm": (2, 3, 2, 512),
    }
    np.testing.assert_array_equal(as_numpy(stages["norm"]), as_numpy(backbone(images)))
    x = images * 2 - 1
    weights = {name: as_numpy(v) for name, v in backbone.named_weights().items()}
    kernel = oracle.standardize(weights["root_block/standardized_conv2d/kernel"])
    stem = oracle.patches(oracle.pad(oracle.convolve(oracle.pad(x, 3), kernel, 2), 1), 3, 2)
    np.testing.assert_allclose(as_numpy(stages["stem"]), stem.max(axis=(-1, -2)), atol=1e-3)


def test_stages_make_a_functional_model(rng, reload_model):
    backbone = BiTBackbone(**SMALL, frozen=["root_block", "block2"])
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, backbone.stages(inputs))
    images = images_of(rng)
    loaded = reload_model(model)
    outputs = loaded(images)
    for name, feature in backbone.stages(images).items():
        np.testing.assert_array_equal(as_numpy(outputs[name]), as_numpy(feature))
    frozen = [layer.name for layer in loaded.layers if not layer.trainable]
    assert frozen == ["root_block", "block2"]


@pytest.mark.parametrize("pooling, reduce", [("avg", np.mean), ("max", np.max)])
def test_pooling(rng, pooling, reduce):
    images = images_of(rng)
    backbone = BiTBackbone(**SMALL, pooling=pooling)
    features = as_numpy(backbone.stages(images)["norm"])
    np.testing.assert_allclose(as_numpy(backbone(images)), reduce(features, (1, 2)), atol=1e-5)
    assert backbone.compute_output_shape((None, None, None, 3)) == (None, 128)


def test_value_ranges_agree(rng):
    images = rng.integers(0, 256, (2, 40, 40, 3), dtype="uint8")
    unit = images.astype("float32") / 255
    reference = BiTBackbone(**SMALL)
    reference.build(images.shape)
    expected = as_numpy(reference(unit))
    for value_range, scaled in (
        ((0, 255), images),
        ([0, 255], images.astype("float32")),
        ((0, 255), images.astype("int32")),
        ((-1, 1), unit * 2 - 1),
        ((0.0, 1.0), unit),
    ):
        backbone = BiTBackbone(**SMALL, value_range=value_range)
        backbone.build(images.shape)
        backbone.set_weights(reference.get_weights())
        np.testing.assert_allclose(as_numpy(backbone(scaled)), expected, rtol=2e-4, atol=1e-5)


def test_bytes_in_a_unit_range_are_an_error(rng):
    images = rng.integers(0, 256, (2, 40, 40, 3), dtype="uint8")
    for value_range in ((0, 1), (-1, 1)):
        backbone = BiTBackbone(**SMALL, value_range=value_range)
        with pytest.raises(ValueError, match="integer type need `value_range=\\(0, 255\\)`"):
            backbone(images)
        with pytest.raises(ValueError, match="integer type"):
            backbone(keras.Input((40, 40, 3), dtype="uint8"))
        # Sequential casts bytes to float before the layer sees them.
        model = keras.Sequential([backbone, ZeroInitHead(2)])
        with pytest.raises(ValueError, match="must lie in `value_range"):
            model(images)
    model.compile(loss="mse")
    if ON_TORCH:  # where `fit` and `predict` are eager as well
        with pytest.raises(ValueError, match="must lie in `value_range"):
            model.predict(images, verbose=0)
    else:
        assert np.isnan(model.predict(images, verbose=0)).all()
    assert np.isfinite(model.predict(images / np.float32(255), verbose=0)).all()


@pytest.mark.parametrize("pooling", ["avg", "max", None])
@pytest.mark.parametrize("stray", [200.0, -9.0, np.nan, np.inf])
def test_one_unfit_image_spoils_its_own_output_only(rng, pooling, stray, monkeypatch):
    images = images_of(rng, 4)
    backbone = BiTBackbone(**SMALL, pooling=pooling)
    model = keras.Sequential([backbone])
    expected = model.predict(images, verbose=0)
    images[2, 7, 3, 1] = stray
    if ON_TORCH:
        # As code that is compiled or exported, which cannot look at values.
        monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    out = model.predict(images, verbose=0)
    monkeypatch.undo()
    assert np.isnan(out[2]).all()
    np.testing.assert_array_equal(np.delete(out, 2, 0), np.delete(expected, 2, 0))
    with pytest.raises(ValueError, match="must lie in `value_range=\\(0, 1\\)`"):
        backbone.stages(images)


@pytest.mark.parametrize(
    "images, message",
    [
        (np.linspace(0, 255, 3072), "Received: values from 0 to 255. Pass `value_range=\\(0, 255"),
        (np.linspace(-2.1, 2.6, 3072), "from -2.1 to 2.6. They look standardized.* std . mean"),
        (np.full(3072, np.nan), "Remove the images that hold NaN"),
        (np.full(3072, np.inf), "from inf to inf. Remove the images that hold NaN or infinite"),
    ],
)
def test_the_error_fits_the_images(images, message):
    with pytest.raises(ValueError, match=message):
        BiTBackbone(**SMALL)(images.reshape(1, 32, 32, 3).astype("float32"))


def test_16_bit_images_are_refused():
    backbone = BiTBackbone(**SMALL, value_range=(0, 255))
    with pytest.raises(ValueError, match="from 0 to 65535. .* divide 16-bit images by 257"):
        backbone(np.linspace(0, 65535, 3072).reshape(1, 32, 32, 3).astype("uint16"))


def test_images_below_32_pixels_are_refused_by_all(rng):
    small = images_of(rng, 2, (31, 40))
    built = BiTBackbone(**SMALL)
    built.build((None, None, None, 3))
    classifier = BiTClassifier(BiTBackbone(**SMALL), 3)
    model = keras.Sequential([keras.Input((None, None, 3)), BiTBackbone(**SMALL)])
    for layer in (BiTBackbone(**SMALL), built, built.stages, classifier, model, fold(built)):
        with pytest.raises(ValueError, match="at least 32 pixels high and wide"):
            layer(small)
    with pytest.raises(ValueError, match="at least 32 pixels"):
        classifier.predict(small, verbose=0)


@pytest.mark.tensorflow
def test_sizes_that_compiled_code_learns_late_give_nan(rng):
    import tensorflow as tf

    backbone = BiTBackbone(**SMALL)
    backbone.build((None, None, None, 3))
    signature = [tf.TensorSpec((None, None, None, 3))]
    compiled = tf.function(lambda images: backbone(images), input_signature=signature)
    for size, is_fit in (((32, 33), True), ((40, 31), False)):
        assert np.isfinite(compiled(images_of(rng, 2, size))).all() == is_fit


def train(model, images, labels, **options):
    model.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return model.fit(images, labels, batch_size=len(images), epochs=3, verbose=0).history["loss"]


@pytest.mark.slow
def test_every_array_of_r50x1_trains(rng):
    backbone = BiTBackbone(50, 1)
    model = keras.Sequential([backbone, ZeroInitHead(3)])
    model.build((None, 32, 32, 3))
    before = {name: as_numpy(v).copy() for name, v in backbone.named_weights().items()}
    assert len(before) == 151
    train(model, images_of(rng, 3, (32, 32)), np.eye(3, dtype="float32"))
    for name, variable in backbone.named_weights().items():
        assert np.abs(as_numpy(variable) - before[name]).max() > 0, name


def test_frozen_parts_stay(rng, reload_model):
    backbone = BiTBackbone(**SMALL)
    model = keras.Sequential([backbone, ZeroInitHead(3)])
    model.build((None, 40, 40, 3))
    backbone.root_block.trainable = False
    backbone.blocks[0].trainable = False
    before = {name: as_numpy(v).copy() for name, v in backbone.named_weights().items()}
    train(model, images_of(rng, 3), np.eye(3, dtype="float32"))
    for name, variable in backbone.named_weights().items():
        moved = np.abs(as_numpy(variable) - before[name]).max() > 0
        assert moved != name.startswith(("root_block/", "block1/")), name
    loaded = reload_model(model).layers[-2]
    assert loaded.get_config()["frozen"] == ["root_block", "block1"]
    assert len(loaded.trainable_weights) == len(backbone.trainable_weights)
    assert len(BiTBackbone(**SMALL, frozen=["group_norm"]).stages(images_of(rng))) == 6


@pytest.mark.parametrize("argument", [{"trainable": False}, {"frozen": ["block1/unit01/a"]}])
def test_what_the_constructor_freezes_is_not_trained(rng, reload_model, argument):
    backbone = BiTBackbone(**SMALL, **argument)
    model = keras.Sequential([keras.Input((40, 40, 3)), backbone, ZeroInitHead(3)])
    before = {name: as_numpy(v).copy() for name, v in backbone.named_weights().items()}
    train(model, images_of(rng, 3), np.eye(3, dtype="float32"))
    for name, variable in backbone.named_weights().items():
        moved = np.abs(as_numpy(variable) - before[name]).max() > 0
        is_frozen = "trainable" in argument or name.startswith("block1/unit01/a/")
        is_projection = "a/proj" in name  # which is the unit's and not the part's
        assert moved != (is_frozen and not (is_projection and "frozen" in argument)), name
    loaded = reload_model(model)
    assert len(loaded.trainable_weights) == len(model.trainable_weights)
    if "trainable" in argument:
        backbone.trainable = True
        assert len(model.trainable_weights) == len(model.weights)


def test_frozen_norms_and_stages_stay_frozen(rng, reload_model):
    backbone = BiTBackbone(**SMALL, frozen=["root_block"])
    for layer in backbone._flatten_layers():
        layer.trainable = layer.trainable and not isinstance(layer, GroupNorm)
    images = keras.Input((40, 40, 3))
    model = keras.Sequential([images, backbone, ZeroInitHead(3)])
    assert "block1/unit01/a/group_norm" in backbone.get_config()["frozen"]
    assert len(reload_model(model).trainable_weights) == len(model.trainable_weights)
    frozen = ["root_block", "block1/unit01", "block2/unit01/a/group_norm"]
    parts = keras.Model(images, BiTBackbone(**SMALL, frozen=frozen).stages(images)["norm"])
    assert len(reload_model(parts).trainable_weights) == len(parts.trainable_weights)


def test_save_and_load(rng, randomize, reload_model):
    backbone = BiTBackbone((1, 2, 1, 1), 1 / 16, value_range=(-1, 1), pooling="max")
    model = keras.Sequential([keras.Input((None, None, 3)), backbone, ZeroInitHead(4)])
    randomize(model)
    images = images_of(rng)
    loaded = reload_model(model)
    np.testing.assert_array_equal(as_numpy(loaded(images)), as_numpy(model(images)))
    assert loaded.layers[-2].get_config() == backbone.get_config()


def test_save_and_load_weights(rng, randomize, tmp_path):
    models = [keras.Sequential([keras.Input((40, 40, 3)), BiTBackbone(**SMALL)]) for _ in range(2)]
    randomize(models[0])
    models[0].save_weights(tmp_path / "small.weights.h5")
    models[1].load_weights(tmp_path / "small.weights.h5")
    images = images_of(rng)
    np.testing.assert_array_equal(as_numpy(models[1](images)), as_numpy(models[0](images)))


@pytest.mark.parametrize("policy, tolerance", [("mixed_bfloat16", 0.1), ("mixed_float16", 0.02)])
def test_mixed_precision(rng, policy, tolerance):
    images, labels = images_of(rng, 4), np.eye(4, dtype="float32")
    full = BiTBackbone(**SMALL)
    full.build(images.shape)
    keras.config.set_dtype_policy(policy)
    backbone = BiTBackbone(**SMALL)
    model = keras.Sequential([backbone, ZeroInitHead(4)])
    model.build(images.shape)
    backbone.set_weights(full.get_weights())
    out = backbone(images)
    assert keras.backend.standardize_dtype(out.dtype) == policy.removeprefix("mixed_")
    expected = as_numpy(full(images))
    difference = as_numpy(keras.ops.cast(out, "float32")) - expected
    assert np.abs(difference).max() / np.abs(expected).max() < tolerance
    assert all(v.dtype == "float32" for v in backbone.weights)
    assert keras.backend.standardize_dtype(model(images).dtype) == "float32"
    losses = train(model, images, labels)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "options", [{"run_eagerly": True}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)]
)
def test_eager_and_xla_train_as_the_graph_does(rng, options):
    images, labels = images_of(rng, 3), np.eye(3, dtype="float32")
    models = [keras.Sequential([BiTBackbone(**SMALL), ZeroInitHead(3)]) for _ in range(2)]
    for model in models:
        model.build(images.shape)
    models[1].set_weights(models[0].get_weights())
    losses = [
        train(models[0], images, labels, jit_compile=False),
        train(models[1], images, labels, **options),
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def convs_of(backbone):
    yield backbone.root_block.conv
    for unit in (unit for block in backbone.blocks for unit in block.units):
        yield from (unit.a.conv, unit.b.conv, unit.c.conv)
        if unit.proj is not None:
            yield unit.proj


def test_fold_is_equal_and_standardizes_no_more(rng, randomize, reload_model):
    backbone = BiTBackbone((1, 2, 1, 1), 0.25, pooling="max", value_range=(0, 255))
    backbone.build((None, None, None, 3))
    randomize(backbone)
    images = 255 * images_of(rng)
    folded = backbone.fold()
    # Folded kernels are rounded once, from float64; the others are off by some 1e-6.
    np.testing.assert_allclose(
        as_numpy(folded(images)), as_numpy(backbone(images)), rtol=1e-5, atol=2e-5
    )
    assert folded.trainable_weights == [] and len(folded.weights) == len(backbone.weights)
    convs = list(convs_of(folded))
    assert len(convs) == sum(name.endswith("kernel") for name in folded.named_weights())
    for conv in convs:
        kernel = as_numpy(conv.kernel)
        np.testing.assert_array_equal(
            as_numpy(conv.effective_kernel()), kernel, err_msg=conv.kernel.path
        )
        np.testing.assert_allclose(kernel.std(axis=(0, 1, 2)), 1, rtol=1e-3)
    model = keras.Sequential([keras.Input((None, None, 3)), folded])
    loaded = reload_model(model)
    np.testing.assert_array_equal(as_numpy(loaded(images)), as_numpy(folded(images)))


@pytest.mark.tensorflow
def test_size_may_change_between_calls(rng):
    model = keras.Sequential([keras.Input((None, None, 3)), BiTBackbone(**SMALL)])
    for edges in ((32, 32), (45, 61), (64, 48)):
        images = images_of(rng, 1, edges)
        out = model.predict(images, verbose=0)
        np.testing.assert_allclose(out, as_numpy(model.layers[-1](images)), atol=1e-4)


@pytest.mark.tensorflow
@pytest.mark.slow
def test_trains_under_mirrored_strategy_as_alone(rng, two_replicas):
    images, labels = images_of(rng, 4), np.eye(4, dtype="float32")
    with two_replicas.scope():
        mirrored = keras.Sequential([BiTBackbone(**SMALL), ZeroInitHead(4)])
        mirrored.build(images.shape)
        mirrored.compile(keras.optimizers.SGD(0.05), "categorical_crossentropy")
    alone = keras.Sequential([BiTBackbone(**SMALL), ZeroInitHead(4)])
    alone.build(images.shape)
    alone.set_weights(mirrored.get_weights())
    alone.compile(keras.optimizers.SGD(0.05), "categorical_crossentropy")
    for model in (mirrored, alone):
        model.fit(images, labels, batch_size=4, epochs=1, shuffle=False, verbose=0)
    for a, b in zip(mirrored.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"depth": 49}, "depth"),
        ({"depth": (1, 2, 3)}, "depth"),
        ({"depth": (1, 2, 3, 0)}, "depth"),
        ({"depth": "50"}, "depth"),
        ({"width": 0}, "width"),
        ({"width": 0.3}, "width"),
        ({"width": "1"}, "width"),
        ({"depth": (1, 1, 1, 10**9)}, "depth"),
        ({"depth": (1, 1, 1, True)}, "depth"),
        ({"depth": 0}, "depth"),
        ({"depth": {}}, "depth"),
        ({"width": True}, "width"),
        ({"width": 10**9}, "width"),
        ({"width": float("nan")}, "width"),
        ({"remat": "no"}, "remat"),
        ({"standardize": "false"}, "standardize"),
        ({"value_range": (0, 2)}, "value_range"),
        ({"value_range": 255}, "value_range"),
        ({"pooling": "mean"}, "pooling"),
        ({"frozen": ["block5"]}, "frozen"),
        ({"frozen": "block1"}, "frozen"),
    ],
)
def test_refuses_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        BiTBackbone(**{**SMALL, **arguments})


@pytest.mark.parametrize("shape", [(2, 31, 40, 3), (2, 40, 40, 1), (40, 40, 3), (2, 3, 40, 40)])
def test_refuses_bad_images(shape):
    with pytest.raises(ValueError, match="`images` must"):
        BiTBackbone(**SMALL)(np.zeros(shape, "float32"))
