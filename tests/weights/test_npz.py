import io
import zipfile

import keras
import numpy as np
import pytest

from keras_bit import BiTBackbone, BiTClassifier
from keras_bit.layers.group_norm import choose_groups
from keras_bit.weights.npz import read_npz, write_npz
from tests import oracle
from tests.conftest import as_numpy
from tests.weight_files import ROOT, SMALL, numbered, random_arrays, released, save_npz


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
    read = read_npz(save_npz(tmp_path / "small.npz", arrays, **options))
    assert read.shapes == {name: array.shape for name, array in read.items()}
    backbone, head = read.without_head(), read.only_head()
    assert set(backbone) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(backbone[name], array)
        assert backbone[name].dtype == np.float32
    shapes = {"head/kernel": (512, 7), "head/bias": (7,)}
    assert head.shapes == ({} if options.get("head") is False else shapes)


def test_numbered_names_are_really_numbered(arrays):
    names = list(released(arrays, name_of=numbered))
    assert "resnet/root_block/standardized_conv2d_0/kernel" in names
    assert all(any(digit in name.split("/")[-2] for digit in "0123456789") for name in names)


@pytest.mark.parametrize(
    "depth, width, options",
    [((1, 1, 1, 1), 0.25, {}), ((1, 2, 1, 1), 0.5, {"name_of": numbered})],
)
def test_from_weights_equals_the_numpy_oracle(rng, images, tmp_path, depth, width, options):
    arrays = random_arrays(rng, depth, width)
    path = save_npz(tmp_path / "net.npz", arrays, **options)
    backbone = BiTBackbone.from_weights(path, pooling=None)
    assert (backbone.depth, backbone.width) == (depth, width)
    expected = oracle.backbone(images * 2.0 - 1.0, arrays, depth, choose_groups)
    difference = np.abs(as_numpy(backbone(images)) - expected).max()
    assert difference / np.abs(expected).max() < 1e-4


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


def bare_array(path, arrays):
    with path.open("wb") as file:
        np.save(file, arrays[ROOT])


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
    # A local header of 30 bytes, the name and 20 bytes of sizes come before the compressed data.
    overwrite(path, member.header_offset + 30 + len(member.filename) + 20, b"\xff" * 64)


def overwrite(path, position, damage):
    data = path.read_bytes()
    path.write_bytes(data[:position] + damage + data[position + len(damage) :])


@pytest.mark.parametrize(
    "write",
    [
        bare_array,
        pickled_array,
        truncated,
        flipped_bytes,
        flipped_compressed_bytes,
    ],
)
def test_unreadable_files(arrays, tmp_path, write):
    path = tmp_path / "weights.npz"
    write(path, arrays)
    with pytest.raises(
        ValueError, match="must be an undamaged .npz.*weights.npz, which is (cut|dama)"
    ):
        list(read_npz(path).values())


def test_the_same_name_twice(arrays, tmp_path):
    twin = {"resnet/root_block/standardized_conv2d_1/kernel": arrays[ROOT]}
    np.savez(tmp_path / "twins.npz", **released(arrays), **twin)
    with pytest.raises(ValueError, match=f"differ by more than a number.*{ROOT}' twice.*twins"):
        read_npz(tmp_path / "twins.npz")


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
    with pytest.raises(ValueError, match="another kind.*object and not floats"):
        BiTBackbone.from_weights(tmp_path / "trap.npz")
    assert not (tmp_path / "mark").exists()
    np.load(tmp_path / "trap.npz", allow_pickle=True)["trap"]
    assert (tmp_path / "mark").exists()


def lying_header(path, shape, **declared):
    """An npz whose only member declares a shape that it does not hold."""
    header = io.BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(header, description)
    with zipfile.ZipFile(path, "w", **declared) as file:
        file.writestr(f"resnet/{ROOT}.npy", header.getvalue() + bytes(64))


def test_a_shape_without_room_for_it(tmp_path):
    path = tmp_path / "lie.npz"
    lying_header(path, (7, 7, 3, 10**12))
    with pytest.raises(ValueError, match=r"declares the shape \(7, 7, 3, 1000000000000\)"):
        read_npz(path)


def test_a_directory_that_lies_as_well(tmp_path, monkeypatch):
    path = tmp_path / "lie.npz"
    shape = (7, 7, 3, 10**6)
    lying_header(path, shape, compression=zipfile.ZIP_DEFLATED)
    intact = zipfile.ZipFile._RealGetContents

    def boast(archive):
        intact(archive)
        for member in archive.infolist():
            member.file_size += 4 * np.prod(shape) - 64

    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", boast)
    with pytest.raises(ValueError, match=r"declares the shape \(7, 7, 3, 1000000\)"):
        read_npz(path)


@pytest.mark.parametrize("dtype", ["int32", "complex64", "<U4"])
def test_other_types_than_floats(tmp_path, dtype):
    np.savez(tmp_path / "other.npz", **{ROOT: np.zeros((7, 7, 3, 16)).astype(dtype)})
    with pytest.raises(ValueError, match="and not floats"):
        read_npz(tmp_path / "other.npz")


def test_an_array_is_read_when_it_is_asked_for(arrays, tmp_path, monkeypatch):
    path = save_npz(tmp_path / "small.npz", arrays)
    reads = []
    read_array = np.lib.format.read_array

    def counted(file, **options):
        reads.append(file.name)
        return read_array(file, **options)

    monkeypatch.setattr(np.lib.format, "read_array", counted)
    read = read_npz(path)
    assert len(read.shapes) == len(arrays) + 2 and reads == []
    np.testing.assert_array_equal(read[ROOT], arrays[ROOT])
    assert reads == [f"resnet/{ROOT}.npy"]


def test_what_is_written_is_the_authors_layout(rng, arrays, tmp_path):
    head = {"head/kernel": rng.normal(size=(512, 7)), "head/bias": rng.normal(size=7)}
    head = {name: array.astype("float32") for name, array in head.items()}
    write_npz(tmp_path / "mine.npz", arrays | head)
    with np.load(tmp_path / "mine.npz") as file:
        written = dict(file)
    assert set(written) == set(released(arrays))
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[f"resnet/{name}"], array)
    # The authors' PyTorch code turns HWIO into OIHW and leaves flat arrays alone.
    assert written["resnet/head/conv2d/kernel"].shape == (1, 1, 512, 7)
    assert written["resnet/block1/unit01/a/group_norm/gamma"].shape == (16,)
    read = read_npz(tmp_path / "mine.npz")
    for name, array in (arrays | head).items():
        np.testing.assert_array_equal(read[name], array)


def test_half_the_size_and_what_it_costs(arrays, tmp_path):
    write_npz(tmp_path / "whole.npz", arrays)
    write_npz(tmp_path / "half.npz", arrays, "float16")
    sizes = [(tmp_path / name).stat().st_size for name in ("half.npz", "whole.npz")]
    assert 0.5 < sizes[0] / sizes[1] < 0.55
    read = read_npz(tmp_path / "half.npz")
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array.astype("float16"))
    assert BiTBackbone.from_weights(tmp_path / "half.npz").weights[0].dtype == "float32"


def test_halves_that_cannot_be_written(arrays, tmp_path):
    path = tmp_path / "half.npz"
    with pytest.raises(ValueError, match="`dtype` must be.*Received: dtype='int8'"):
        write_npz(path, arrays, "int8")
    with pytest.raises(FloatingPointError):
        write_npz(path, {"norm/gamma": np.full(3, 1e5, "float32")}, "float16")
    assert not any(tmp_path.iterdir())


def test_writing_leaves_nothing_half_done(arrays, tmp_path):
    path = save_npz(tmp_path / "small.npz", arrays)
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        write_npz(path, {**arrays, "head/bias": Unwritable()})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["small.npz"]


class Unwritable:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError


def test_a_backbone_comes_back_from_its_npz(tmp_path, randomize):
    backbone = BiTBackbone(**SMALL)
    backbone.build((None, None, None, 3))
    randomize(backbone)
    backbone.save_npz(tmp_path / "mine.npz")
    loaded = BiTBackbone.from_weights(tmp_path / "mine.npz").named_weights()
    assert list(loaded) == list(backbone.named_weights())
    for name, variable in backbone.named_weights().items():
        np.testing.assert_array_equal(as_numpy(loaded[name]), as_numpy(variable), err_msg=name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["block2/unit01/b/group_norm/beta", "head/conv2d/bias"])
def test_arrays_that_are_not_finite_are_refused(arrays, tmp_path, name, value):
    stored = released(arrays)
    stored[f"resnet/{name}"][..., 1] = value
    path = tmp_path / "diverged.npz"
    np.savez(path, **stored)
    name = name.replace("conv2d/", "")
    with pytest.raises(ValueError, match=f"{name}.* must be finite. Received: infinite or NaN"):
        BiTClassifier.from_weights(path)
    if not name.startswith("head"):
        with pytest.raises(ValueError, match="must be finite"):
            BiTBackbone.from_preset(path)
