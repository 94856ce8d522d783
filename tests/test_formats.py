import tarfile
import zipfile

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_bit import BiTBackbone, BiTClassifier
from keras_bit.weights import formats, hub, presets
from keras_bit.weights.download import cache_path
from keras_bit.weights.formats import read_preset, read_weights
from tests.conftest import as_numpy
from tests.web_server import WebServer
from tests.weight_files import SMALL, random_arrays, save_npz


@pytest.fixture
def arrays(rng):
    return random_arrays(rng)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KERAS_BIT_MIRROR", raising=False)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)


def test_routes_of_the_same_arrays_are_equal_to_the_last_bit(rng, arrays, tmp_path):
    images = rng.uniform(0, 1, (2, 45, 40, 3)).astype("float32")
    path = save_npz(tmp_path / "small.npz", arrays).rename(tmp_path / "without an ending")
    npz = BiTBackbone.from_weights(path)
    model = BiTClassifier(npz, 3)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    npz.save_npz(tmp_path / "mine.npz")
    save_file(named_by_timm(arrays), tmp_path / "timm.safetensors")
    expected = as_numpy(npz(images))
    for file in ("model.keras", "model.weights.h5", "mine.npz", "timm.safetensors"):
        backbone = BiTBackbone.from_weights(tmp_path / file, kernel_epsilon=1e-10)
        np.testing.assert_array_equal(as_numpy(backbone(images)), expected, err_msg=file)


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


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="`source` must be.*Received: .*none.npz, and"):
        read_weights(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "content, what",
    [
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "a web page"),
        (b"  <HTML>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer.*git lfs pull"),
        (b"", "none"),
        (b"\x93NUMPY\x01\x00v\x00", "none"),
    ],
)
def test_files_of_other_kinds(tmp_path, content, what):
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"`source` must be.*weights.npz, which is {what}"):
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


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_a_saved_model_is_read_from_folder_and_archive(tmp_path, monkeypatch, kind):
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "saved_model.pb").touch()
    if kind == "archive":
        with tarfile.open(tmp_path / "module.tar.gz", "w:gz") as tar:
            tar.add(folder / "saved_model.pb", "saved_model.pb")
    monkeypatch.setattr(formats, "read_saved_model", lambda place: place.joinpath("here"))
    place = read_weights(folder if kind == "folder" else str(tmp_path / "module.tar.gz"))
    assert place.name == "here" and (place.parent / "saved_model.pb").exists()


def test_a_handle_goes_to_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "resolve", lambda handle: tmp_path / handle)
    monkeypatch.setattr(formats, "read_saved_model", lambda place: place)
    handle = "google/bit/tensorFlow2/m-r50x1"
    assert read_weights(handle) == tmp_path / handle


@pytest.fixture
def server():
    with WebServer() as server:
        yield server


def test_a_url_is_downloaded_once(arrays, server, tmp_path):
    server.files["/small.npz"] = save_npz(tmp_path / "small.npz", arrays).read_bytes()
    for _ in range(2):
        read = read_weights(f"{server.url}/small.npz")
        np.testing.assert_array_equal(read["group_norm/beta"], arrays["group_norm/beta"])
    assert server.requests_seen == ["/small.npz"]


def test_an_unreadable_file_in_the_cache_is_downloaded_anew(arrays, server, tmp_path):
    server.files["/small.npz"] = save_npz(tmp_path / "small.npz", arrays).read_bytes()
    cached = cache_path(f"{server.url}/small.npz")
    cached.parent.mkdir(parents=True)
    cached.write_bytes(server.files["/small.npz"][:1000])
    assert len(read_weights(f"{server.url}/small.npz")) == len(arrays) + 2
    assert server.requests_seen == ["/small.npz"]


def test_a_preset_that_holds_another_network(arrays, server, tmp_path, monkeypatch, rng):
    monkeypatch.setenv("KERAS_BIT_MIRROR", server.url)
    body = save_npz(tmp_path / "r101.npz", random_arrays(rng, 101, 0.0625)).read_bytes()
    server.files["/BiT-M-R50x1.npz"] = body
    with pytest.raises(ValueError, match="'m-r50x1' must hold R50x1.*which holds R101x0.0625"):
        read_preset("m-r50x1")


def test_from_preset(arrays, server, tmp_path, monkeypatch, rng):
    small = presets.Preset("small", SMALL["depth"], SMALL["width"], "", 7, 0, 32, f"{server.url}/s")
    monkeypatch.setattr(presets, "presets", lambda: {"small": small})
    server.files["/s"] = save_npz(tmp_path / "small.npz", arrays).read_bytes()
    images = rng.uniform(0, 1, (2, 40, 40, 3)).astype("float32")
    backbone = BiTBackbone.from_preset("Small", pooling="max")
    local = BiTBackbone.from_weights(tmp_path / "small.npz", pooling="max")
    np.testing.assert_array_equal(as_numpy(backbone(images)), as_numpy(local(images)))
    classifier = BiTClassifier.from_preset("small", num_classes=7)
    assert classifier.predict(images, verbose=0).shape == (2, 7)
    assert server.requests_seen == ["/s"]


def test_shapes_are_checked_before_anything_is_allocated(arrays, tmp_path, monkeypatch):
    arrays["group_norm/beta"] = np.ones(5, "float32")
    path = save_npz(tmp_path / "faulty.npz", arrays)
    monkeypatch.setattr(BiTBackbone, "build", lambda self, shape: pytest.fail("built"))
    with pytest.raises(ValueError, match="with 1 faults"):
        BiTBackbone.from_weights(path)


@pytest.mark.parametrize("depth, width", [((1, 2, 1, 1), 0.5), (50, 0.125)])
def test_shapes_that_are_told_are_those_that_are_built(depth, width):
    told = BiTBackbone(depth, width).weight_shapes()
    built = BiTBackbone(depth, width).named_weights()
    assert told == {name: tuple(variable.shape) for name, variable in built.items()}


def test_a_loaded_layer_has_the_initializers_of_a_new_one(arrays, tmp_path):
    loaded = BiTBackbone.from_weights(save_npz(tmp_path / "small.npz", arrays))
    new = BiTBackbone(**SMALL).root_block.conv.get_config()
    assert loaded.root_block.conv.get_config() == new
    half = {name: array.astype("float16") for name, array in arrays.items()}
    loaded = BiTBackbone.from_weights(save_npz(tmp_path / "half.npz", half))
    assert {keras.backend.standardize_dtype(v.dtype) for v in loaded.weights} == {"float32"}


def test_a_preset_may_be_a_file(arrays, tmp_path, monkeypatch):
    path = save_npz(tmp_path / "small.npz", arrays)
    for name in (path, str(path)):
        assert read_preset(name).without_head().shapes == read_weights(path).without_head().shapes
    monkeypatch.chdir(tmp_path)
    path.rename("m-r50x2")
    assert len(read_preset("m-r50x2")) == len(arrays) + 2
    with pytest.raises(ValueError, match="Did you mean 'm-r50x"):
        read_preset("m-r50x4")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_weights("m-r50x4")
