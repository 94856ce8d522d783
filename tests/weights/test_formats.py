import dataclasses
import functools
import importlib
import io
import pathlib
import pickle
import tarfile
import zipfile

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_bit import BiTBackbone, BiTClassifier
from keras_bit.weights import EMBEDDED, find_preset, formats, read_architecture, read_weights
from keras_bit.weights.fetch import cache_path
from tests.conftest import as_numpy
from tests.weight_files import ROOT, SMALL, assert_equal_arrays, random_arrays, save_npz


@pytest.fixture
def arrays(rng):
    return random_arrays(rng)


@pytest.fixture
def path(arrays, tmp_path):
    return save_npz(tmp_path / "small.npz", arrays)


def test_routes_of_the_same_arrays_are_equal_to_the_last_bit(arrays, path, tmp_path):
    backbone = BiTBackbone.from_weights(path.rename(tmp_path / "without an ending"))
    model = BiTClassifier(backbone, 3)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    backbone.save_npz(tmp_path / "mine.npz")
    save_file(named_by_timm(arrays), tmp_path / "timm.safetensors")
    for file in ("model.keras", "model.weights.h5", "mine.npz", "timm.safetensors"):
        assert_equal_arrays(read_weights(tmp_path / file).without_head(), arrays)


def named_by_timm(arrays):
    """The arrays of a small network, one unit a block, as timm's safetensors hold them."""
    named = {}
    for name, array in arrays.items():
        path, _, variable = name.rpartition("/")
        kind = "conv" if variable == "kernel" else "norm"
        parts = path.split("/")
        if name.startswith("block"):
            stage = int(parts[0].removeprefix("block")) - 1
            number = "abc".index(parts[2]) + 1
            layer = "downsample.conv" if parts[3] == "proj" else f"{kind}{number}"
            theirs = f"stages.{stage}.blocks.0.{layer}"
        else:
            theirs = "stem.conv" if kind == "conv" else "norm"
        named[f"{theirs}.{'bias' if variable == 'beta' else 'weight'}"] = (
            np.ascontiguousarray(array.transpose(3, 2, 0, 1)) if array.ndim == 4 else array
        )
    return named


def test_the_epsilon_of_the_library_is_kept(arrays, tmp_path):
    save_file(named_by_timm(arrays), tmp_path / "timm.safetensors")
    backbone = BiTBackbone.from_weights(tmp_path / "timm.safetensors")
    assert backbone.kernel_epsilon == 1e-8 == backbone.blocks[0].units[0].a.conv.epsilon
    assert backbone.get_config()["kernel_epsilon"] == 1e-8
    assert BiTBackbone(**SMALL).blocks[3].units[0].proj.epsilon == 1e-10


@pytest.mark.parametrize(
    "source", ["none.npz", "none.KERAS", "./none", "~/none", "/none", pathlib.Path("m-r50x1")]
)
def test_a_missing_file(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"`source` must be.*Received: {source}, and"):
        read_weights(source)


@pytest.mark.parametrize(
    "content, what",
    [
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "is a web page"),
        (b"  <HTML>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer.*git lfs pull"),
        (b"", "is empty. Download it again, or save it again"),
        (b"\x93NUMPY\x01\x00v\x00", "is none of these"),
    ],
)
def test_files_of_other_kinds(tmp_path, content, what):
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"`source` must be.*weights.npz, which {what}"):
        BiTBackbone.from_weights(path)


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as file:
        file.writestr("readme.txt", "no arrays")
    with pytest.raises(ValueError, match="undamaged .npz file of arrays.*zip.npz"):
        BiTBackbone.from_weights(tmp_path / "zip.npz")


def test_arrays_of_another_network(tmp_path):
    np.savez(tmp_path / "other.npz", **{"conv1/kernel": np.ones((3, 3)), "conv1/bias": np.ones(3)})
    with pytest.raises(ValueError, match="must hold a BiT network.*2 other arrays.*conv1/bias"):
        BiTBackbone.from_weights(tmp_path / "other.npz")


def test_arrays_that_do_not_fit_are_all_listed_before_anything_is_allocated(
    arrays, tmp_path, monkeypatch
):
    faulty = {**arrays, "block2/unit01/b/extra/kernel": np.ones((3, 3), "float32")}
    del faulty["block3/unit01/a/proj/standardized_conv2d/kernel"]
    faulty["group_norm/beta"] = np.ones(5, "float32")
    monkeypatch.setattr(BiTBackbone, "build", lambda self, shape: pytest.fail("built"))
    with pytest.raises(ValueError, match="with 3 faults") as error:
        BiTBackbone.from_weights(save_npz(tmp_path / "faulty.npz", faulty))
    message = str(error.value)
    assert "missing: block3/unit01/a/proj/standardized_conv2d/kernel (1, 1, 128, 256)" in message
    assert "unknown: block2/unit01/b/extra/kernel (3, 3)" in message
    assert "shape: group_norm/beta is (5,), must be (512,)" in message
    assert "faulty.npz" in message


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_a_saved_model_is_read_from_folder_and_archive(tmp_path, monkeypatch, kind):
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "saved_model.pb").touch()
    if kind == "archive":
        with tarfile.open(tmp_path / "module.tar.gz", "w:gz") as tar:
            tar.add(folder / "saved_model.pb", "saved_model.pb")
    monkeypatch.setattr(formats, "read_saved_model", lambda *arguments: arguments)
    source = folder if kind == "folder" else str(tmp_path / "module.tar.gz")
    found, network, named = read_weights(source, "a network")
    assert (found / "saved_model.pb").exists() and network == "a network"
    assert str(named) == str(source)
    assert read_weights(source) == (found, None, named)


def test_a_handle_goes_to_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "resolve", lambda handle: tmp_path / handle)
    monkeypatch.setattr(formats, "read_saved_model", lambda *arguments: arguments)
    handle = "google/bit/tensorFlow2/m-r50x1"
    assert read_weights(handle, "a network") == (tmp_path / handle, "a network")


def test_a_url_is_downloaded_once(arrays, server, path):
    server.files["/small.npz"] = path.read_bytes()
    for _ in range(2):
        assert_equal_arrays(read_weights(f"{server.url}/small.npz").without_head(), arrays)
    assert server.requests_seen == ["/small.npz"]


def test_an_unreadable_file_in_the_cache_is_downloaded_again(arrays, server, path):
    server.files["/small.npz"] = path.read_bytes()
    cached = cache_path(f"{server.url}/small.npz")
    cached.parent.mkdir(parents=True)
    cached.write_bytes(server.files["/small.npz"][:1000])
    assert len(read_weights(f"{server.url}/small.npz")) == len(arrays) + 2
    assert server.requests_seen == ["/small.npz"]


# Presets.


@pytest.fixture
def small_preset(server, path, monkeypatch):
    """A table with one preset, on a mirror."""
    real = find_preset("m-r50x1")
    url = real.url.replace("BiT-M-R50x1", "small")
    small = dataclasses.replace(real, name="small", url=url, num_classes=7, **SMALL)
    # By name, which `keras_bit.weights.presets`, the function, hides.
    table = importlib.import_module("keras_bit.weights.presets")
    monkeypatch.setattr(table, "presets", lambda: {"small": small})
    monkeypatch.setenv("KERAS_BIT_MIRROR", f"{server.url}/mirror")
    server.files["/mirror/small.npz"] = path.read_bytes()
    return small


def test_from_preset_downloads_and_loads(arrays, server, home, small_preset):
    for name in ("small", "Small", "BiT-small"):
        backbone = BiTBackbone.from_preset(name, pooling="max")
        assert backbone.pooling == "max"
        for variable_name, variable in backbone.named_weights().items():
            np.testing.assert_array_equal(as_numpy(variable), arrays[variable_name])
    classifier = BiTClassifier.from_preset("small", num_classes=7)
    for variable in classifier.head.named_weights().values():
        np.testing.assert_array_equal(as_numpy(variable), np.ones(variable.shape))
    assert server.requests_seen == ["/mirror/small.npz"]
    assert {p.suffix for p in home.rglob("small.npz*") if p.is_file()} == {".npz", ".json"}


def test_a_presets_name_comes_before_a_file(arrays, small_preset, tmp_path, monkeypatch):
    other = {name: array + 1 for name, array in arrays.items()}
    monkeypatch.chdir(tmp_path)
    save_npz(tmp_path / "other.npz", other).rename("small")
    assert_equal_arrays(read_weights("small").without_head(), arrays)
    for source in ("./small", pathlib.Path("small"), str(tmp_path / "small")):
        assert_equal_arrays(read_weights(source).without_head(), other)


def test_a_preset_that_holds_another_network(server, tmp_path, monkeypatch, rng):
    monkeypatch.setenv("KERAS_BIT_MIRROR", server.url)
    body = save_npz(tmp_path / "r101.npz", random_arrays(rng, 101, 0.0625)).read_bytes()
    server.files["/BiT-M-R50x1.npz"] = body
    with pytest.raises(ValueError, match="'m-r50x1' must hold R50x1.*which holds R101x0.0625"):
        read_weights("m-r50x1")


def test_the_embedded_preset_needs_no_download(home):
    arrays = read_weights(EMBEDDED)
    assert sum(arrays[name].size for name in arrays) == find_preset(EMBEDDED).parameters
    assert not home.exists()


def test_from_preset_without_the_file_or_the_name(server, monkeypatch):
    monkeypatch.setenv("KERAS_BIT_MIRROR", server.url)
    with pytest.raises(ConnectionError, match="BiT-S-R50x1.npz"):
        BiTBackbone.from_preset("s-r50x1")
    for name in ("s-r50x1.np", "weights/s-r50x1"):
        with pytest.raises(ValueError, match="Did you mean 's-r50x1'.*`source` must be.*handle"):
            BiTBackbone.from_preset(name)
    with pytest.raises(ValueError, match="never released"):
        read_weights("BiT-L-R152x4")
    with pytest.raises(ValueError, match="Received: name='50'"):
        read_weights(50)
    assert server.requests_seen == ["/BiT-S-R50x1.npz"]


def test_a_source_without_a_name_may_be_a_file(arrays, path, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in (path, str(path), "~/small.npz"):
        assert len(read_weights(source)) == len(arrays) + 2
    monkeypatch.chdir(tmp_path)
    path.rename("m-r50x2")
    assert len(read_weights("m-r50x2")) == len(arrays) + 2
    with pytest.raises(ValueError, match="Did you mean 'm-r50x"):
        read_weights("m-r50x4")


def test_the_architecture_of_a_source(server, monkeypatch, path):
    monkeypatch.setenv("KERAS_BIT_MIRROR", server.url)
    assert read_architecture("BiT-M-R101x3") == (101, 3)
    assert read_architecture(EMBEDDED) == ((1, 1, 1, 1), 0.5)
    assert server.requests_seen == []
    assert read_architecture(path) == (SMALL["depth"], SMALL["width"])
    with pytest.raises(ValueError, match="Did you mean 'm-r50x"):
        read_architecture("m-r50x4")


# The layer that is made of arrays.


def test_a_loaded_layer_has_the_initializers_of_a_new_one(arrays, path, tmp_path):
    loaded = BiTBackbone.from_weights(path)
    new = BiTBackbone(**SMALL).root_block.conv.get_config()
    assert loaded.root_block.conv.get_config() == new
    half = {name: array.astype("float16") for name, array in arrays.items()}
    loaded = BiTBackbone.from_weights(save_npz(tmp_path / "half.npz", half))
    assert {keras.backend.standardize_dtype(v.dtype) for v in loaded.weights} == {"float32"}


# Files that were made to do harm.


class Trap:
    """Leaves a mark where its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (self.path.touch, ())


def pickled(path, trap):
    path.write_bytes(pickle.dumps(trap))


def pickled_in_zip(member, path, trap):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, pickle.dumps(trap))


def pickled_in_array(path, trap):
    with open(path, "wb") as file:
        np.savez(file, **{f"resnet/{ROOT}": np.array([trap], dtype=object)})


def pickled_in_hdf5(path, trap):
    with h5py.File(path, "w") as file:
        file["root_block/conv/vars/0"] = np.void(pickle.dumps(trap))


@pytest.mark.parametrize("name", ["w.pth", "w.npz", "w.keras", "w.weights.h5", "w.safetensors"])
@pytest.mark.parametrize(
    "write",
    [
        pickled,
        functools.partial(pickled_in_zip, "archive/data.pkl"),
        functools.partial(pickled_in_zip, "model.weights.h5"),
        functools.partial(pickled_in_zip, f"resnet/{ROOT}.npy"),
        pickled_in_array,
        pickled_in_hdf5,
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_pickle_is_run(tmp_path, name, write):
    pytest.importorskip("torch")
    trap = Trap(tmp_path / "mark")
    write(tmp_path / name, trap)
    with pytest.raises(ValueError, match=f"`source` must.*{name}, which is"):
        read_weights(tmp_path / name)
    assert not trap.path.exists()
    pickle.loads(pickle.dumps(trap))
    assert trap.path.exists()


@pytest.mark.parametrize("member", ["../mark", "/tmp/mark", "a/../../mark"])
def test_members_of_a_zip_are_written_nowhere(arrays, path, tmp_path, member):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, b"content")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="undamaged .npz"):
        read_weights(path)
    assert sorted(tmp_path.rglob("*")) == before and not pathlib.Path("/tmp/mark").exists()


def test_the_archive_is_named_and_not_where_it_was_unpacked(tmp_path):
    with tarfile.open(tmp_path / "module.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("saved_model.pb")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"\xff" * 5))
    with pytest.raises(ValueError, match="must be a whole SavedModel") as error:
        read_weights(tmp_path / "module.tar.gz")
    assert f"Received: {tmp_path / 'module.tar.gz'}, which" in str(error.value)
