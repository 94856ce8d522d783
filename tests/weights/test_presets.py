import dataclasses

import pytest

import keras_bit
from keras_bit.weights.npz import read_npz
from keras_bit.weights.presets import EMBEDDED, find_preset, further_places

UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def count_parameters(depth, width):
    """Counted by hand: kernels of the convolutions, and two numbers a channel for each norm."""
    total = 7 * 7 * 3 * 64 * width
    channels = 64 * width
    for block, units in enumerate(UNITS[depth]):
        mid = 64 * width * 2**block
        for unit in range(units):
            total += channels * mid + 9 * mid * mid + mid * 4 * mid
            total += 2 * (channels + mid + mid)
            total += channels * 4 * mid if unit == 0 else 0
            channels = 4 * mid
    return total + 2 * channels


ARCHITECTURES = {"r50x1", "r101x1", "r50x3", "r101x3", "r152x2", "r152x4"}


def released():
    table = keras_bit.presets()
    del table[EMBEDDED]
    return table


def test_presets_are_all_released_networks_and_ours():
    table = released()
    features = {f"{series}-{a}" for series in "sm" for a in ARCHITECTURES}
    tuned = {f"{name}/ilsvrc2012_classification" for name in features}
    large = {f"m-{a}/imagenet21k_classification" for a in ARCHITECTURES}
    distilled = {"r50x1_224", "r50x1_160", "r152x2_t_224", "r152x2_t_384"}
    distilled |= {f"r152x2_t_{task}128" for task in ("flowers", "pet", "food", "sun")}
    vtab = {name for name in table if name.startswith("vtab/")}
    others = features | tuned | large | {f"distill/{name}" for name in distilled}
    assert set(table) == others | vtab
    assert len(vtab) == 5 * 19 * 3  # as the authors' README counts them
    for name, preset in table.items():
        assert preset.name == name and preset.license == "Apache-2.0"
        assert f"r{preset.depth}x{preset.width}" in name
    for name in features:
        assert table[name].url == table[f"{name}/{HEAD_OF[name[0]]}_classification"].url


HEAD_OF = {"s": "ilsvrc2012", "m": "imagenet21k"}


@pytest.mark.parametrize("name", [*sorted(f"m-{a}" for a in ARCHITECTURES), "distill/r152x2_t_224"])
def test_parameters_are_counted(name):
    preset = find_preset(name)
    assert preset.parameters == count_parameters(preset.depth, preset.width)


def test_the_network_of_this_package_is_what_the_table_says():
    preset = find_preset(EMBEDDED)
    assert EMBEDDED == f"f-r{2 + 3 * sum(preset.depth)}x{preset.width}"
    assert preset.url is None and preset.path.stat().st_size < 6e6
    arrays = read_npz(preset.path)
    assert sum(arrays[name].size for name in arrays) == preset.parameters
    with pytest.raises(ValueError, match="`width` must be omitted"):
        keras_bit.BiTBackbone.from_preset(EMBEDDED, width=1)
    backbone = keras_bit.BiTBackbone.from_preset(EMBEDDED)
    assert backbone.count_params() == preset.parameters
    assert (backbone.depth, backbone.width) == (preset.depth, preset.width)


def test_the_network_of_this_package_has_no_head():
    with pytest.raises(ValueError, match="head"):
        keras_bit.BiTClassifier.from_preset(EMBEDDED)


@pytest.mark.parametrize(
    "name, classes, size",
    [
        ("s-r101x1", 1000, 224),
        ("m-r50x1", 21843, 224),
        ("m-r152x2/ilsvrc2012_classification", 1000, 480),
        ("distill/r50x1_160", 1000, 160),
        ("distill/r152x2_t_384", 1000, 384),
        ("distill/r152x2_t_flowers128", 102, 128),
        ("distill/r152x2_t_pet128", 37, 128),
        ("distill/r152x2_t_food128", 101, 128),
        ("distill/r152x2_t_sun128", 397, 128),
        ("vtab/m-r50x1-run2-cifar100", 100, 128),
        ("vtab/m-r101x3-run0-sun397", 397, 480),
    ],
)
def test_heads_and_sizes(name, classes, size):
    preset = find_preset(name)
    assert (preset.num_classes, preset.image_size) == (classes, size)


def test_other_forms_of_the_same_weights():
    preset = find_preset("m-r50x1/ilsvrc2012_classification")
    assert preset.hub == "https://tfhub.dev/google/bit/m-r50x1/ilsvrc2012_classification/1"
    assert preset.kaggle == "google/bit/tensorFlow2/m-r50x1-ilsvrc2012-classification"
    assert preset.timm == "resnetv2_50x1_bit.goog_in21k_ft_in1k"
    assert preset.hugging_face == "google/bit-50"
    assert (preset.accuracy, preset.accuracy_source) == (80.68, "authors' README")
    # R152x2 came after the modules of the hub, and BiT-S is not in timm.
    assert find_preset("distill/r152x2_t_224").accuracy == 83.0
    assert find_preset("distill/r152x2_t_384").accuracy == 84.3
    assert find_preset("m-r152x2").hub is None and find_preset("s-r50x1").timm is None
    assert find_preset("vtab/m-r50x1-run0-dtd").kaggle is None


HF, KAGGLE = "hf://timm/resnetv2", "kaggle://google/bit/tensorFlow2"


@pytest.mark.parametrize(
    "name, places",
    [
        # With the head, which the module that is called as the preset has not.
        (
            "m-r50x1",
            [
                f"{HF}_50x1_bit.goog_in21k/model.safetensors",
                f"{KAGGLE}/m-r50x1-imagenet21k-classification",
            ],
        ),
        (
            "m-r50x1/ilsvrc2012_classification",
            [
                f"{HF}_50x1_bit.goog_in21k_ft_in1k/model.safetensors",
                "hf://google/bit-50",
                f"{KAGGLE}/m-r50x1-ilsvrc2012-classification",
            ],
        ),
        ("s-r101x3", [f"{KAGGLE}/s-r101x3-ilsvrc2012-classification"]),
        ("m-r152x2", [f"{HF}_152x2_bit.goog_in21k/model.safetensors"]),
        (
            "distill/r50x1_160",
            ["https://tfhub.dev/sayakpaul/distill_bit_resnet50x1_160_classification/1"],
        ),
        (EMBEDDED, []),
        ("vtab/m-r50x1-run0-dtd", []),
        ("distill/r152x2_t_pet128", []),
    ],
)
def test_further_places(name, places):
    assert list(further_places(find_preset(name))) == places


@pytest.mark.parametrize("series", ["s-", "m-"])
def test_presets_are_in_the_order_of_size(series):
    sizes = [p.parameters for name, p in keras_bit.presets().items() if name.startswith(series)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    "name, file",
    [
        ("s-r50x1", "BiT-S-R50x1.npz"),
        ("m-r152x4", "BiT-M-R152x4.npz"),
        ("m-r101x3/ilsvrc2012_classification", "BiT-M-R101x3-ILSVRC2012.npz"),
        ("m-r101x3/imagenet21k_classification", "BiT-M-R101x3.npz"),
        ("distill/r50x1_224", "distill/R50x1_224.npz"),
        ("distill/r152x2_t_384", "distill/R152x2_T_384.npz"),
        ("distill/r152x2_t_pet128", "distill/R152x2_T_pet128.npz"),
        ("vtab/m-r50x1-run0-caltech101", "vtab/BiT-M-R50x1-run0-caltech101.npz"),
        ("vtab/m-r152x4-run2-clevr-count", "vtab/BiT-M-R152x4-run2-clevr-count.npz"),
    ],
)
def test_urls(name, file):
    url = f"https://storage.googleapis.com/bit_models/{file}"
    assert keras_bit.presets()[name].url == url


@pytest.mark.parametrize("spell", [str, str.upper, lambda name: f" {name} "])
def test_every_name_is_found(spell):
    for name, preset in keras_bit.presets().items():
        assert find_preset(spell(name)) == preset


@pytest.mark.parametrize(
    "spelling, name",
    [
        ("BiT-M-R50x1", "m-r50x1"),
        ("BiT-S-R152x4", "s-r152x4"),
        ("BiT-M-R101x3-ILSVRC2012", "m-r101x3/ilsvrc2012_classification"),
        ("bit-m-r101x3-ilsvrc2012", "m-r101x3/ilsvrc2012_classification"),
        ("distill/R50x1_224", "distill/r50x1_224"),
        ("vtab/BiT-M-R50x1-run0-svhn", "vtab/m-r50x1-run0-svhn"),
    ],
)
def test_the_authors_spelling(spelling, name):
    assert find_preset(spelling).name == name


def test_the_table_can_be_changed_by_nobody():
    keras_bit.presets().clear()
    assert len(keras_bit.presets()) == 324
    with pytest.raises(dataclasses.FrozenInstanceError):
        find_preset("m-r50x1").depth = 101


@pytest.mark.parametrize("name", ["l-r50x1", "BiT-L-R152x4", "BiT-L", "L"])
def test_the_network_that_was_never_released(name):
    with pytest.raises(ValueError, match=f"`name` asks for BiT-L.*name='{name}'.*m-r152x4"):
        find_preset(name)


@pytest.mark.parametrize(
    "name, meant",
    [
        ("m-r50x2", "Did you mean 'm-r50x"),
        ("m-r50", "Did you mean 'm-r50x1'"),
        ("m_r101x1", "Did you mean 'm-r101x1"),
        ("BiT-M-R50x1-ILSVRC", "Did you mean 'm-r50x1"),
        ("s-r152x44", "Did you mean 's-r152x4"),
        ("nope", "`keras-bit presets` lists"),
        ("", "lists"),
        (50, "lists"),
    ],
)
def test_a_near_miss_names_the_nearest(name, meant):
    with pytest.raises(ValueError, match=f"`name` must.*{meant}") as error:
        find_preset(name)
    assert repr(name) in str(error.value)
