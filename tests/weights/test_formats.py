import dataclasses
import functools
import importlib
import io
import pathlib
import pickle
import re
import tarfile
import zipfile

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_bit import BiTBackbone, BiTClassifier
from keras_bit.weights import find_preset, formats, read_architecture, read_weights
from keras_bit.weights.fetch import cache_path, download
from keras_bit.weights.fetch.mirror import STORE
from keras_bit.weights.presets import EMBEDDED
from tests.conftest import as_numpy
from tests.weight_files import (
    ROOT,
    SMALL,
    as_weight_arrays,
    assert_equal_arrays,
    random_arrays,
    save_npz,
)


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


# Further places of a preset.


PLACE = "hf://timm/small_bit.goog/model.safetensors"


@pytest.fixture
def hugging_face(server, small_preset, monkeypatch, tmp_path, arrays):
    """The authors' server and Hugging Face, of which the first lacks the preset's file."""
    table = importlib.import_module("keras_bit.weights.presets")
    # A preset without a slash in its name may have a module without a head.
    twin = dataclasses.replace(small_preset, name="small/head", timm="small_bit.goog")
    twin = dataclasses.replace(twin, kaggle=f"{KAGGLE}-imagenet21k-classification", hub="https://")
    monkeypatch.setattr(table, "_all", lambda: (small_preset, twin))
    monkeypatch.setattr(download, "mirrored", lambda url: url.replace(STORE, f"{server.url}/store"))
    monkeypatch.delenv("KERAS_BIT_MIRROR")
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/hf")
    server.files.clear()
    add_copy(server, tmp_path, arrays)
    return server


KAGGLE = "google/bit/tensorFlow2/m-r50x1"
COPY = "/hf/timm/small_bit.goog/resolve/main/model.safetensors"


def add_copy(server, folder, arrays, classes=7):
    features = arrays["group_norm/gamma"].size
    head = {
        "head.fc.weight": np.ones((classes, features, 1, 1), "float32"),
        "head.fc.bias": np.ones(classes, "float32"),
    }
    save_file(named_by_timm(arrays) | head, folder / "copy.safetensors")
    server.files[COPY] = (folder / "copy.safetensors").read_bytes()


def test_hugging_face_takes_the_place_of_the_authors_server(arrays, hugging_face):
    expected = f"'small' are taken from {PLACE}, which holds the same arrays: .*404 Not Found"
    with pytest.warns(UserWarning, match=expected) as caught:
        model = BiTClassifier.from_preset("small", num_classes=7)
    assert len(caught) == 1 and caught[0].filename == __file__
    for name, variable in model.backbone.named_weights().items():
        np.testing.assert_array_equal(as_numpy(variable), arrays[name])
    # They are the authors' arrays, whoever keeps them.
    assert model.backbone.kernel_epsilon == 1e-10
    assert hugging_face.requests_seen == ["/store/small.npz", COPY]
    # Once it is there, nobody is asked.
    assert_equal_arrays(read_weights("small").without_head(), arrays)
    assert len(hugging_face.requests_seen) == 2


def test_the_authors_file_comes_first(arrays, path, hugging_face):
    hugging_face.files["/store/small.npz"] = path.read_bytes()
    assert_equal_arrays(read_weights("small").without_head(), arrays)
    assert hugging_face.requests_seen == ["/store/small.npz"]


def test_kaggle_is_the_last_place(arrays, hugging_face, monkeypatch):
    def resolve(handle):
        assert handle == f"kaggle://{KAGGLE}-imagenet21k-classification"
        return "a folder"

    head = {"head/kernel": np.ones((512, 7), "float32"), "head/bias": np.ones(7, "float32")}
    whole = as_weight_arrays(arrays | head)
    monkeypatch.setattr(formats, "resolve", resolve)
    monkeypatch.setattr(formats, "read_saved_model", lambda *given: (given, whole)[1])
    hugging_face.files.clear()
    with pytest.warns(UserWarning, match="'small' are taken from kaggle://"):
        assert_equal_arrays(read_weights("small"), arrays | head)


@pytest.mark.parametrize("fault", ["absent", "other head", "other network", "damaged"])
def test_all_that_failed_is_named(arrays, hugging_face, monkeypatch, tmp_path, rng, fault):
    def resolve(handle):
        raise ConnectionError("no Kaggle")

    monkeypatch.setattr(formats, "resolve", resolve)
    if fault == "absent":
        hugging_face.files.clear()
    elif fault == "damaged":
        hugging_face.files[COPY] = hugging_face.files[COPY][:1000]
    elif fault == "other head":
        add_copy(hugging_face, tmp_path, arrays, classes=8)
    else:
        add_copy(hugging_face, tmp_path, random_arrays(rng, (1, 1, 1, 1), 0.5))
    second = {
        "absent": f"{PLACE}`: .*404",
        "damaged": "model.safetensors, which is cut: 1,000 of",
        "other head": "must have a head of 7 classes. Received: .*whose head has 8",
        "other network": "must hold R1-1-1-1x0.25. Received: .*R1-1-1-1x0.5",
    }[fault]
    with pytest.raises(ConnectionError) as error:
        read_weights("small")
    first, *others = str(error.value).splitlines()
    assert first == "The weights of 'small' are at 3 places, and none could be read:"
    assert re.match(f"  1. `{STORE}/small.npz` could not be downloaded.*404", others[0])
    assert re.search(f"  2. .*{second}", others[1]) and others[2] == "  3. no Kaggle"


def test_a_mirror_has_no_further_place(hugging_face, monkeypatch):
    """Whoever names a mirror may have no other network."""
    monkeypatch.setenv("KERAS_BIT_MIRROR", hugging_face.url)
    monkeypatch.setattr(formats, "resolve", lambda handle: pytest.fail("asked Kaggle"))
    hugging_face.files.clear()
    with pytest.raises(ConnectionError, match="at 2 places"):
        read_weights("small")


def test_a_handle_of_hugging_face(arrays, hugging_face):
    backbone = BiTBackbone.from_preset("hf://timm/small_bit.goog")
    assert backbone.kernel_epsilon == 1e-8
    for name, variable in backbone.named_weights().items():
        np.testing.assert_array_equal(as_numpy(variable), arrays[name])
    assert read_architecture("hf://timm/small_bit.goog") == (SMALL["depth"], SMALL["width"])


# Without weights.


def test_a_preset_without_its_weights(server, monkeypatch):
    monkeypatch.setenv("KERAS_BIT_MIRROR", server.url)
    backbone = BiTBackbone.from_preset("m-r101x3", load_weights=False, pooling="max")
    assert (backbone.depth, backbone.width, backbone.pooling) == (101, 3, "max")
    assert not backbone.built and backbone.kernel_epsilon == 1e-10
    assert server.requests_seen == []


def test_a_classifier_without_weights(path):
    own = BiTClassifier.from_preset(EMBEDDED, 5, load_weights=False, pooling="max")
    released = BiTClassifier.from_weights(path, load_weights=False)
    assert (own.backbone.pooling, own.head.num_classes) == ("max", 5)
    assert (released.backbone.depth, released.head.num_classes) == (SMALL["depth"], 7)
    for model in (own, released):
        assert not any(as_numpy(v).any() for v in model.head.named_weights().values())
    first, second = (
        as_numpy(BiTBackbone.from_weights(path, load_weights=random).named_weights()[ROOT])
        for random in (False, True)
    )
    assert first.shape == second.shape and not np.allclose(first, second)
    with pytest.raises(ValueError, match="`num_classes` must be given.*Received: 'f-r14x0.5'"):
        BiTClassifier.from_preset(EMBEDDED, load_weights=False)
    with pytest.raises(ValueError, match="`num_classes` must be an integer.*num_classes=0"):
        BiTClassifier.from_preset(EMBEDDED, 0, load_weights=False)


@pytest.mark.parametrize("network", [BiTBackbone, BiTClassifier])
def test_load_weights_is_a_boolean(network):
    with pytest.raises(ValueError, match="`load_weights` must be True or False.*'no'"):
        network.from_preset("m-r50x1", load_weights="no")


def test_the_epsilon_of_a_file_without_its_weights(arrays, tmp_path):
    save_file(named_by_timm(arrays), tmp_path / "timm.safetensors")
    backbone = BiTBackbone.from_preset(tmp_path / "timm.safetensors", load_weights=False)
    assert backbone.kernel_epsilon == 1e-8 and backbone.depth == SMALL["depth"]
    backbone = BiTBackbone.from_preset(
        tmp_path / "timm.safetensors", load_weights=False, kernel_epsilon=1e-6
    )
    assert backbone.kernel_epsilon == 1e-6


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


def test_saved_models_without_tensorflow_are_refused_before_a_download(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_bit.core.device.has_tensorflow", lambda: False)
    with pytest.raises(ValueError, match="must lead to one SavedModel"):
        read_weights(tmp_path)
    with pytest.raises(ImportError, match="A SavedModel needs TensorFlow.*Received: kaggle://"):
        read_weights("kaggle://google/bit/tensorFlow2/m-r50x1/1")
