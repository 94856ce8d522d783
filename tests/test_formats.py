import functools
import pickle
import zipfile

import keras
import numpy as np
import pytest

from keras_bit import BiTBackbone
from keras_bit.layers.group_norm import choose_groups
from keras_bit.weights.formats import architecture_of, read_weights
from tests import oracle
from tests.conftest import as_numpy

SMALL = {"depth": (1, 1, 1, 1), "width": 0.25}
ROOT = "root_block/standardized_conv2d/kernel"


@functools.cache
def shapes_of(depth, width):
    return {n: tuple(v.shape) for n, v in BiTBackbone(depth, width).named_weights().items()}


def random_arrays(rng, depth=SMALL["depth"], width=SMALL["width"]):
    """Arrays of a network, under the names of `BiTBackbone.named_weights`."""
    return {
        name: rng.normal(1 if name.endswith("gamma") else 0, 0.3, shape).astype("float32")
        for name, shape in shapes_of(depth, width).items()
    }


def released(arrays, name_of=lambda name, number: f"resnet/{name}", head=True):
    """The same arrays as the authors store them: other names, norms of rank 4, and a head."""
    stored = {}
    for number, (name, array) in enumerate(arrays.items()):
        is_norm = name.endswith(("gamma", "beta"))
        stored[name_of(name, number)] = array.reshape(1, 1, 1, -1) if is_norm else array
    if head:
        features = arrays["group_norm/gamma"].size
        stored[name_of("head/conv2d/kernel", 900)] = np.ones((1, 1, features, 7), "float32")
        stored[name_of("head/conv2d/bias", 901)] = np.ones(7, "float32")
    return stored


def numbered(name, number):
    """As in the files whose layers were numbered through: `standardized_conv2d_17`."""
    for layer in ("standardized_conv2d", "group_norm", "conv2d"):
        if f"/{layer}/" in f"/{name}":
            return f"resnet/{name.replace(f'{layer}/', f'{layer}_{number}/')}"
    raise AssertionError(name)


def save_npz(path, arrays, **options):
    np.savez(path, **released(arrays, **options))
    return path


@pytest.fixture
def arrays(rng):
    return random_arrays(rng)


@pytest.fixture
def images(rng):
    return rng.uniform(0, 1, (2, 45, 40, 3)).astype("float32")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"head": False},
        {"name_of": numbered},
        {"name_of": lambda name, number: name},
        {"name_of": lambda name, number: f"resnet/{name}:0"},
    ],
)
def test_the_spellings_of_the_authors_files(arrays, tmp_path, options):
    read = read_weights(save_npz(tmp_path / "small.npz", arrays, **options))
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == np.float32


def test_numbered_names_are_really_numbered(arrays):
    names = list(released(arrays, name_of=numbered))
    assert "resnet/root_block/standardized_conv2d_0/kernel" in names
    assert all(any(digit in name.split("/")[-2] for digit in "0123456789") for name in names)


@pytest.mark.parametrize("name_of", [numbered, lambda name, number: f"resnet/{name}"])
@pytest.mark.parametrize("depth, width", [((1, 1, 1, 1), 0.25), ((1, 2, 1, 1), 0.5)])
def test_from_weights_equals_the_numpy_oracle(rng, images, tmp_path, depth, width, name_of):
    arrays = random_arrays(rng, depth, width)
    path = save_npz(tmp_path / "net.npz", arrays, name_of=name_of)
    backbone = BiTBackbone.from_weights(path, pooling=None)
    assert (backbone.depth, backbone.width) == (depth, width)
    expected = oracle.backbone(images * 2.0 - 1.0, arrays, depth, choose_groups)
    difference = np.abs(as_numpy(backbone(images)) - expected).max()
    assert difference / np.abs(expected).max() < 1e-4


def test_from_weights_equals_keras_own_weights_file(rng, images, tmp_path, randomize):
    model = keras.Sequential([keras.Input((None, None, 3)), BiTBackbone(**SMALL)])
    randomize(model)
    model.save_weights(tmp_path / "small.weights.h5")
    arrays = {name: as_numpy(v) for name, v in model.layers[-1].named_weights().items()}
    through_npz = BiTBackbone.from_weights(str(save_npz(tmp_path / "small.npz", arrays)))
    through_h5 = keras.Sequential([keras.Input((None, None, 3)), BiTBackbone(**SMALL)])
    through_h5.load_weights(tmp_path / "small.weights.h5")
    np.testing.assert_array_equal(as_numpy(through_npz(images)), as_numpy(through_h5(images)))


def test_a_released_architecture_is_known_by_its_depth(rng, tmp_path):
    arrays = random_arrays(rng, 50, 0.125)
    backbone = BiTBackbone.from_weights(save_npz(tmp_path / "r50.npz", arrays))
    assert (backbone.depth, backbone.width) == (50, 0.125)


def test_arguments_of_the_layer_are_passed_on(arrays, images, tmp_path):
    path = save_npz(tmp_path / "small.npz", arrays)
    options = {"value_range": (-1, 1), "pooling": "max", "frozen": ["block1"], "name": "bit"}
    backbone = BiTBackbone.from_weights(path, **options)
    features = as_numpy(BiTBackbone.from_weights(path, pooling=None)(images))
    pooled = as_numpy(backbone(images * 2 - 1))
    np.testing.assert_allclose(pooled, features.max(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    assert backbone.name == "bit" and not backbone.blocks[0].trainable


def test_config_and_saved_model_need_the_file_no_more(arrays, images, tmp_path, reload_model):
    path = save_npz(tmp_path / "small.npz", arrays)
    model = keras.Sequential([keras.Input((None, None, 3)), BiTBackbone.from_weights(path)])
    path.unlink()
    loaded = reload_model(model)
    np.testing.assert_array_equal(as_numpy(loaded(images)), as_numpy(model(images)))
    config = model.layers[-1].get_config()
    rebuilt = BiTBackbone.from_config(config)
    assert rebuilt.get_config() == config and str(path) not in str(config)


def test_architecture_of(rng):
    assert architecture_of(random_arrays(rng, (1, 3, 2, 1), 0.125)) == ((1, 3, 2, 1), 0.125)
    units, width = architecture_of(random_arrays(rng, (1, 1, 1, 1), 1))
    assert units == (1, 1, 1, 1) and width == 1 and isinstance(width, int)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="`path` must.*Received: .*none.npz, not found"):
        BiTBackbone.from_weights(tmp_path / "none.npz")


def html(path, arrays):
    path.write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")


def empty(path, arrays):
    path.touch()


def folder(path, arrays):
    path.mkdir()


def bare_array(path, arrays):
    with path.open("wb") as file:
        np.save(file, arrays[ROOT])


def pickled_file(path, arrays):
    path.write_bytes(pickle.dumps(arrays))


def pickled_array(path, arrays):
    np.savez(path, **released(arrays), extra=np.array([{"a": 1}], dtype=object))


def truncated(path, arrays):
    save_npz(path, arrays)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped_bytes(path, arrays):
    save_npz(path, arrays)
    overwrite(path, path.stat().st_size // 2, bytes(64))


def flipped_compressed_bytes(path, arrays):
    np.savez_compressed(path, **released(arrays))
    with zipfile.ZipFile(path) as file:
        member = file.infolist()[0]
    # A local header of 30 bytes, the name and 20 bytes of sizes stand before the compressed data.
    overwrite(path, member.header_offset + 30 + len(member.filename) + 20, b"\xff" * 64)


def overwrite(path, position, damage):
    data = path.read_bytes()
    path.write_bytes(data[:position] + damage + data[position + len(damage) :])


def same_name_twice(path, arrays):
    twin = {"resnet/root_block/standardized_conv2d_1/kernel": arrays[ROOT]}
    np.savez(path, **released(arrays), **twin)


@pytest.mark.parametrize(
    "write",
    [
        html,
        empty,
        folder,
        bare_array,
        pickled_file,
        pickled_array,
        truncated,
        flipped_bytes,
        flipped_compressed_bytes,
        same_name_twice,
    ],
)
def test_unreadable_files(arrays, tmp_path, write):
    path = tmp_path / "weights.npz"
    write(path, arrays)
    with pytest.raises(ValueError, match="`path` must be an undamaged .npz.*weights.npz"):
        BiTBackbone.from_weights(path)


class Trap:
    """Leaves a mark where its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (self.path.touch, ())


def test_a_pickle_in_the_file_is_not_run(arrays, tmp_path):
    trap = np.array([Trap(tmp_path / "mark")], dtype=object)
    np.savez(tmp_path / "trap.npz", **released(arrays), trap=trap)
    assert not (tmp_path / "mark").exists()
    with pytest.raises(ValueError, match="cannot be read.*pickle"):
        BiTBackbone.from_weights(tmp_path / "trap.npz")
    assert not (tmp_path / "mark").exists()
    np.load(tmp_path / "trap.npz", allow_pickle=True)["trap"]
    assert (tmp_path / "mark").exists()


def test_a_file_of_another_network(tmp_path):
    np.savez(tmp_path / "other.npz", **{"conv1/kernel": np.ones((3, 3)), "conv1/bias": np.ones(3)})
    with pytest.raises(ValueError, match="must hold a BiT network.*2 other arrays.*conv1/bias"):
        BiTBackbone.from_weights(tmp_path / "other.npz")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as file:
        file.writestr("readme.txt", "no arrays")
    with pytest.raises(ValueError, match="must hold a BiT network.*1 other"):
        BiTBackbone.from_weights(tmp_path / "zip.npz")


def test_half_a_network(arrays, tmp_path):
    three = {n: a for n, a in arrays.items() if not n.startswith("block4/")}
    with pytest.raises(ValueError, match=r"whole BiT network.*\[1, 1, 1, 0\] units"):
        BiTBackbone.from_weights(save_npz(tmp_path / "three.npz", three))
    flat = {**arrays, ROOT: arrays[ROOT].reshape(-1)}
    with pytest.raises(ValueError, match="root kernel of shape"):
        BiTBackbone.from_weights(save_npz(tmp_path / "flat.npz", flat))


def test_arrays_that_do_not_fit_are_all_listed(arrays, tmp_path):
    faulty = {**arrays, "block2/unit01/b/extra/kernel": np.ones((3, 3), "float32")}
    del faulty["block3/unit01/a/proj/standardized_conv2d/kernel"]
    faulty["group_norm/beta"] = np.ones(5, "float32")
    with pytest.raises(ValueError, match="with 3 faults") as error:
        BiTBackbone.from_weights(save_npz(tmp_path / "faulty.npz", faulty))
    message = str(error.value)
    assert "missing: block3/unit01/a/proj/standardized_conv2d/kernel (1, 1, 128, 256)" in message
    assert "unknown: block2/unit01/b/extra/kernel (3, 3)" in message
    assert "shape: group_norm/beta is (5,), must be (512,)" in message
    assert "faulty.npz" in message
