import dataclasses

import pytest

import keras_bit
from keras_bit.weights.presets import find_preset

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


def test_presets_are_all_released_networks():
    table = keras_bit.presets()
    architectures = {"r50x1", "r101x1", "r50x3", "r101x3", "r152x2", "r152x4"}
    tuned = {f"m-{a}/ilsvrc2012_classification" for a in architectures}
    plain = {f"{series}-{a}" for series in "sm" for a in architectures}
    assert set(table) == plain | tuned
    for name, preset in table.items():
        assert preset.name == name and preset.license == "Apache-2.0"
        assert preset.parameters == count_parameters(preset.depth, preset.width), name
        assert name.split("/")[0].endswith(f"r{preset.depth}x{preset.width}")
        assert preset.pretraining.startswith("ILSVRC" if name[0] == "s" else "ImageNet-21k")
        assert ("fine-tuned" in preset.pretraining) == (name in tuned)


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
    ],
)
def test_urls(name, file):
    url = f"https://storage.googleapis.com/bit_models/{file}"
    assert keras_bit.presets()[name].url == url


@pytest.mark.parametrize("name", keras_bit.presets())
def test_every_name_and_its_authors_spelling_are_found(name):
    preset = keras_bit.presets()[name]
    authors = preset.url.rpartition("/")[2].removesuffix(".npz")
    for spelling in (name, name.upper(), f" {name} ", authors, authors.lower()):
        assert find_preset(spelling) == preset


def test_the_table_can_be_changed_by_nobody():
    keras_bit.presets().clear()
    assert len(keras_bit.presets()) == 18
    with pytest.raises(dataclasses.FrozenInstanceError):
        find_preset("m-r50x1").depth = 101


@pytest.mark.parametrize("name", ["l-r50x1", "BiT-L-R152x4", "BiT-L", "L"])
def test_the_network_that_was_never_released(name):
    with pytest.raises(ValueError, match=f"`name` asks for BiT-L.*name='{name}'.*m-r152x4"):
        find_preset(name)


@pytest.mark.parametrize(
    "name, meant",
    [
        ("m-r50x2", "m-r50x"),
        ("m_r101x1", "m-r101x1"),
        ("BiT-M-R50x1-ILSVRC", "m-r50x1"),
        ("s-r152x44", "s-r152x4"),
        ("", ""),
        (50, ""),
    ],
)
def test_a_near_miss_names_the_nearest(name, meant):
    with pytest.raises(ValueError, match=f"`name` must.*Did you mean '{meant}") as error:
        find_preset(name)
    assert repr(name) in str(error.value)
