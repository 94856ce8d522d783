import functools
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
import unittest.mock
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from keras_bit import BiTBackbone, BiTClassifier
from keras_bit.weights.torch_files import read_safetensors, read_torch, write_safetensors
from tests.conftest import as_numpy
from tests.weight_files import SMALL, as_weight_arrays, assert_equal_arrays, random_arrays

PARTS = {"a": 1, "b": 2, "c": 3}
NO_UNIT = {
    "timm": {"root_block": "stem.conv", "group_norm": "norm", "head": "head.fc"},
    "transformers": {
        "root_block": "bit.embedder.convolution",
        "group_norm": "bit.norm",
        "head": "classifier.1",
    },
    "bit_pytorch": {"root_block": "root.conv", "group_norm": "head.gn", "head": "head.conv"},
}
# Arrays as the libraries themselves print them, with shapes in the network `SMALL`.
SPOT_CHECKS = [
    ("timm", "stem.conv.weight", "root_block/standardized_conv2d/kernel"),
    ("timm", "stages.0.blocks.0.downsample.conv.weight", "a/proj/standardized_conv2d/kernel"),
    ("timm", "stages.3.blocks.0.norm1.weight", "block4/unit01/a/group_norm/gamma"),
    ("timm", "stages.1.blocks.1.conv2.weight", "block2/unit02/b/standardized_conv2d/kernel"),
    ("timm", "norm.bias", "group_norm/beta"),
    (
        "transformers",
        "bit.encoder.stages.0.layers.0.downsample.conv.weight",
        "block1/unit01/a/proj/standardized_conv2d/kernel",
    ),
    (
        "transformers",
        "bit.encoder.stages.1.layers.1.norm3.bias",
        "block2/unit02/c/group_norm/beta",
    ),
    ("bit_pytorch", "body.block1.unit01.downsample.weight", "a/proj/standardized_conv2d/kernel"),
    ("bit_pytorch", "body.block2.unit02.gn1.weight", "block2/unit02/a/group_norm/gamma"),
    ("bit_pytorch", "body.block1.unit01.conv3.weight", "c/standardized_conv2d/kernel"),
]


def name_in(library, name):
    """The name of an array in a library, spelled out from its end to its beginning."""
    *parents, kind, variable = name.split("/")
    end = "weight" if variable in ("kernel", "gamma") else "bias"
    if not parents or parents == ["root_block"]:
        return f"{NO_UNIT[library][(parents or [kind])[0]]}.{end}"
    number = PARTS[parents[2]]
    layer = f"conv{number}"
    if parents[-1] == "proj":
        layer = "downsample" if library == "bit_pytorch" else "downsample.conv"
    elif kind == "group_norm":
        layer = f"gn{number}" if library == "bit_pytorch" else f"norm{number}"
    block, unit = int(parents[0].removeprefix("block")), int(parents[1].removeprefix("unit"))
    units = {
        "timm": f"stages.{block - 1}.blocks.{unit - 1}",
        "transformers": f"bit.encoder.stages.{block - 1}.layers.{unit - 1}",
        "bit_pytorch": f"body.block{block}.unit{unit:02d}",
    }
    return f"{units[library]}.{layer}.{end}"


def state_in(library, arrays, wrapper="", bare=False):
    """A network's arrays as a library stores them; `bare` omits the `bit.` of transformers."""
    state = {}
    for name, array in arrays.items():
        theirs = name_in(library, name)
        if name == "head/kernel":
            array = array.T if library == "transformers" else array.T[:, :, None, None]
        elif array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        theirs = theirs.removeprefix("bit.") if bare else theirs
        state[wrapper + theirs] = np.ascontiguousarray(array)
    return state


def save(path, state):
    safetensors.numpy.save_file(state, path)
    return path


def save_raw(path, header, data):
    """A safetensors file by hand: what the library would not write."""
    header = json.dumps(header).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def assert_same(read, arrays):
    assert_equal_arrays(read, arrays)
    assert {array.dtype for array in read.values()} == {np.dtype("float32")}


@pytest.fixture
def arrays(rng):
    """With a second unit in one block, for the numbers, and a head."""
    arrays = random_arrays(rng, (1, 2, 1, 1), SMALL["width"])
    features = arrays["group_norm/gamma"].size
    arrays["head/kernel"] = rng.normal(size=(features, 7)).astype("float32")
    arrays["head/bias"] = rng.normal(size=7).astype("float32")
    return arrays


@pytest.fixture
def state(arrays):
    return state_in("timm", arrays)


@pytest.fixture
def peak_memory():
    """A function that returns the largest number of bytes in use since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def save_torch(torch, tmp_path):
    def save(state, **options):
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
        torch.save(options.pop("wrap", dict)(tensors), tmp_path / "small.pth", **options)
        return tmp_path / "small.pth"

    return save


@pytest.fixture
def timm(torch, monkeypatch):
    """timm, which imports torchvision for its transforms and data sets, not needed here."""
    if "timm" not in sys.modules:
        for name in (
            "",
            ".datasets",
            ".models",
            ".models.feature_extraction",
            ".ops",
            ".ops.misc",
            ".transforms",
            ".transforms.functional",
        ):
            monkeypatch.setitem(sys.modules, f"torchvision{name}", unittest.mock.MagicMock())
    return pytest.importorskip("timm")


# The three layouts, and what may surround them.


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize(
    "library, bare, epsilon",
    [
        ("timm", False, 1e-8),
        ("transformers", False, 1e-8),
        ("transformers", True, 1e-8),
        ("bit_pytorch", False, 1e-10),
    ],
)
def test_safetensors_in_each_layout(arrays, tmp_path, library, bare, epsilon, wrapper):
    path = save(tmp_path / "small.safetensors", state_in(library, arrays, wrapper, bare))
    read = read_safetensors(str(path))
    assert_same(read, arrays)
    assert read.epsilon == epsilon
    assert "small.safetensors" in read.source


@pytest.mark.parametrize("library, theirs, ours", SPOT_CHECKS)
def test_names_as_the_libraries_print_them(arrays, library, theirs, ours):
    name = next(name for name in arrays if name_in(library, name) == theirs)
    assert name.endswith(ours)


def test_a_backbone_without_a_head(arrays, tmp_path):
    arrays = {name: array for name, array in arrays.items() if not name.startswith("head/")}
    path = save(tmp_path / "small.safetensors", state_in("transformers", arrays, bare=True))
    assert_same(read_safetensors(path), arrays)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float64"])
def test_other_precisions_become_float32(state, arrays, tmp_path, dtype):
    state = {name: array.astype(dtype) for name, array in state.items()}
    path = save(tmp_path / "small.safetensors", state)
    rounded = {name: array.astype(dtype).astype("float32") for name, array in arrays.items()}
    assert_same(read_safetensors(path), rounded)


def test_bfloat16_where_nothing_else_has_taught_numpy_its_name(state, tmp_path):
    state = {name: array.astype(ml_dtypes.bfloat16) for name, array in state.items()}
    path = save(tmp_path / "small.safetensors", state)
    code = (
        "import sys\n"
        "sys.argv[0] = 'keras-bit'  # the command, which imports no Keras before it needs it\n"
        "from keras_bit.weights.torch_files import read_safetensors\n"
        "assert not {'ml_dtypes', 'safetensors', 'torch', 'keras'} & set(sys.modules)\n"
        f"print(read_safetensors({str(path)!r})['head/bias'].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == state["head.fc.bias"].astype("float32").tolist()


def test_arrays_are_read_when_asked_for_and_from_anywhere(state, arrays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "small.safetensors", state)
    read = read_safetensors("small.safetensors")
    largest = max(arrays, key=lambda name: arrays[name].size)
    state[name_in("timm", largest)] += 1
    save(tmp_path / "new.safetensors", state)
    os.replace("new.safetensors", "small.safetensors")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(read[largest], arrays[largest] + 1)


def test_only_the_array_asked_for_takes_memory(tmp_path, peak_memory):
    edge = 8192  # 256 MB, of which the file system stores nothing
    header = {
        "stages.0.blocks.0.norm1.bias": {
            "dtype": "F32",
            "shape": [4],
            "data_offsets": [0, 16],
        },
        "stages.0.blocks.0.conv1.weight": {
            "dtype": "F32",
            "shape": [edge, edge, 1, 1],
            "data_offsets": [16, 16 + 4 * edge**2],
        },
    }
    path = save_raw(tmp_path / "large.safetensors", header, np.arange(4, dtype="<f4").tobytes())
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + 4 * edge**2)
    read = read_safetensors(path)
    assert read.shapes["block1/unit01/a/standardized_conv2d/kernel"] == (1, 1, edge, edge)
    assert read["block1/unit01/a/group_norm/beta"].tolist() == [0, 1, 2, 3]
    assert peak_memory() < 2**20


# What is not a network, or not a whole one.


def test_names_that_are_missing_or_foreign_are_left_to_the_strict_merge(state, arrays, tmp_path):
    del state["stages.1.blocks.0.norm2.weight"]
    state["stages.1.blocks.0.norm2.running_mean"] = np.zeros((), "int64")
    state["body.block1.unit01.conv1.weight"] = np.ones((2, 3), "float32")
    state["module.norm.weight"] = np.ones(5, "float32")
    read = read_safetensors(save(tmp_path / "small.safetensors", state))
    unknown = {
        "stages.1.blocks.0.norm2.running_mean",
        "body.block1.unit01.conv1.weight",
        "module.norm.weight",
    }
    assert set(arrays) - set(read) == {"block2/unit01/b/group_norm/gamma"}
    assert set(read) - set(arrays) == unknown
    assert read.shapes["body.block1.unit01.conv1.weight"] == (2, 3)


def test_a_head_of_another_form_keeps_its_shape_for_the_strict_merge(state, tmp_path):
    state["head.fc.weight"] = np.ones((7, 4, 3, 3), "float32")
    read = read_safetensors(save(tmp_path / "small.safetensors", state))
    assert read.shapes["head/kernel"] == read["head/kernel"].shape == (3, 3, 4, 7)


@pytest.mark.parametrize(
    "names",
    [[], ["conv1.weight", "layer1.0.conv1.weight"], ["norm.weight", "stem.conv.weight"]],
)
def test_no_bit_network(tmp_path, names):
    path = save(tmp_path / "other.safetensors", {n: np.ones(4, "float32") for n in names})
    with pytest.raises(ValueError, match=rf"other\.safetensors, no BiT network but {len(names)} a"):
        read_safetensors(path)


def test_arrays_of_integers(state, tmp_path):
    state["stages.0.blocks.0.conv1.weight"] = np.ones((4, 4, 1, 1), "int8")
    path = save(tmp_path / "quantized.safetensors", state)
    with pytest.raises(ValueError, match="must be of floats.*quantized.*conv1.weight' of type I8"):
        read_safetensors(path)


KERNEL = "stages.0.blocks.0.conv1.weight"
ROOT = "stem.conv.weight"


@pytest.mark.parametrize(
    "header, size",
    [
        ({KERNEL: ("F32", [10**6, 10**6, 1, 1], [0, 16])}, 16),
        ({KERNEL: ("F32", [10**6, 10**6, 1, 1], [0, 4 * 10**12])}, 16),
        ({KERNEL: ("F32", [2**62, 16, 1, 1], [0, 16])}, 16),
        ({KERNEL: ("F32", [4], [0, 16])}, 12),
        ({KERNEL: ("F32", [4], [0, 16])}, 20),
        ({KERNEL: ("F32", [4], [0, 16]), ROOT: ("F32", [4], [0, 16])}, 16),
        ({KERNEL: ("F32", [4], [0, 16]), ROOT: ("F32", [4], [8, 24])}, 24),
        ({KERNEL: ("F31", [4], [0, 16])}, 16),
        ([KERNEL], 16),
    ],
    ids=["shape", "size", "overflow", "short", "long", "twice", "overlap", "dtype", "list"],
)
def test_headers_that_do_not_fit_the_file(tmp_path, peak_memory, header, size):
    if isinstance(header, dict):
        fields = ("dtype", "shape", "data_offsets")
        header = {name: dict(zip(fields, values, strict=True)) for name, values in header.items()}
    path = save_raw(tmp_path / "bad.safetensors", header, bytes(size))
    with pytest.raises(ValueError, match=r"undamaged \.safetensors file.*bad\.safetensors"):
        read_safetensors(path)
    assert peak_memory() < 2**20


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>", b"version https://git-lfs"])
def test_other_files_called_safetensors(tmp_path, content):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"undamaged \.safetensors file.*bad\.safetensors"):
        read_safetensors(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_a_cut_off_file(state, tmp_path, kept):
    path = save(tmp_path / "bad.safetensors", state)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"undamaged \.safetensors file.*bad\.safetensors"):
        read_safetensors(path)


def test_a_file_cut_off_between_header_and_array(state, tmp_path):
    path = save(tmp_path / "bad.safetensors", state)
    read = read_safetensors(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"undamaged \.safetensors file.*bad\.safetensors"):
        read["head/bias"]


# Files of torch.save.


def test_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "small.pth").write_bytes(b"PK")
    with pytest.raises(ImportError, match=r"pip install torch.*\.safetensors.*small\.pth"):
        read_torch(tmp_path / "small.pth")


@pytest.mark.parametrize(
    "version, accepted", [("2.5.1", False), ("2.9.1+cu1", False), ("3.0", True)]
)
def test_a_torch_whose_safe_loading_is_not_safe(
    torch, save_torch, state, monkeypatch, version, accepted
):
    path = save_torch(state)
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    if accepted:
        assert len(read_torch(path)) == len(state)
        return
    with pytest.raises(
        ImportError, match=r"PyTorch 2\.10 or newer.*" + version.replace("+", r"\+")
    ):
        read_torch(path)


@pytest.mark.parametrize("library", ["timm", "transformers", "bit_pytorch"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"wrap": lambda tensors: {"state_dict": tensors, "epoch": 3}},
        {"wrap": lambda tensors: {"step": 20_000, "model": tensors, "optim": {"state": {}}}},
        {"_use_new_zipfile_serialization": False},
    ],
    ids=["alone", "state_dict", "model", "of 2020"],
)
def test_torch_in_each_layout(arrays, save_torch, library, options):
    read = read_torch(save_torch(state_in(library, arrays, "module."), **options))
    assert_same(read, arrays)
    assert read.epsilon == (1e-10 if library == "bit_pytorch" else 1e-8)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float64"])
def test_other_precisions_of_torch_become_float32(torch, arrays, state, save_torch, precision):
    def convert(tensors):
        return {name: tensor.to(getattr(torch, precision)) for name, tensor in tensors.items()}

    dtype = ml_dtypes.bfloat16 if precision == "bfloat16" else precision
    rounded = {name: array.astype(dtype).astype("float32") for name, array in arrays.items()}
    assert_same(read_torch(save_torch(state, wrap=convert)), rounded)


def test_parameters_and_arrays_that_lie_otherwise(torch, arrays, state, save_torch):
    """`channels_last` kernels, as timm trains them, have other strides."""

    def convert(tensors):
        return {
            name: torch.nn.Parameter(
                tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
            )
            for name, tensor in tensors.items()
        }

    assert_same(read_torch(save_torch(state, wrap=convert)), arrays)


@pytest.mark.parametrize("is_zip", [True, False])
def test_torch_loads_safely_and_maps_where_it_can(torch, state, save_torch, monkeypatch, is_zip):
    path = save_torch(state, _use_new_zipfile_serialization=is_zip)
    with unittest.mock.patch.object(torch, "load", wraps=torch.load) as load:
        read_torch(path)
    assert load.call_args.kwargs == {"weights_only": True, "mmap": is_zip, "map_location": "cpu"}


def test_what_was_read_can_be_changed_without_harm(arrays, state, save_torch):
    read = read_torch(save_torch(state))
    read["group_norm/beta"][:] = 0
    assert_same(read, arrays)


class Intruder:
    """Unpickling it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_pickles_are_never_run(torch, state, tmp_path, form):
    marker = tmp_path / "marker"
    path = tmp_path / "evil.pth"
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    content = {"state_dict": tensors, "note": Intruder(marker)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match=r"evil\.pth.*(mkdir|safely), and only arrays") as error:
        read_torch(path)
    assert not marker.exists()
    assert "weights_only" not in str(error.value)
    if form == "pickle":
        pickle.loads(path.read_bytes())
        assert marker.exists()  # It would have, had it been run.


def test_a_whole_pickled_network(torch, tmp_path):
    torch.save(torch.nn.Conv2d(3, 4, 1), tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=r"whole\.pth.*Conv2d.*state_dict\(\)"):
        read_torch(tmp_path / "whole.pth")


@pytest.mark.parametrize("content", [{}, [], 3, {"epoch": 3}, {"model": 3}])
def test_torch_files_without_a_network(torch, tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth, no BiT network but 0 arrays"):
        read_torch(tmp_path / "other.pth")


def test_a_shape_that_the_file_has_no_room_for(torch, state, save_torch):
    def convert(tensors):
        return tensors | {KERNEL: torch.ones(1).expand(10**6, 10**6, 1, 1)}

    with pytest.raises(ValueError, match=f"{KERNEL} declares the shape.*too small"):
        read_torch(save_torch(state, wrap=convert))


def test_parts_of_a_zip_that_swell(state, save_torch):
    """PyTorch never compresses; it would unpack such a part as a whole."""
    path = save_torch(state)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("small/data/999", bytes(10**8))
    with pytest.raises(ValueError, match="parts declare more bytes than it has"):
        read_torch(path)


@pytest.mark.parametrize("form", ["sparse", "integers", "meta"])
def test_tensors_that_are_no_plain_arrays_of_floats(torch, state, save_torch, form):
    def convert(tensors):
        kernel = tensors[KERNEL]
        others = {"sparse": kernel.to_sparse(), "integers": kernel.int(), "meta": kernel.to("meta")}
        return tensors | {KERNEL: others[form]}

    with pytest.raises(ValueError, match=rf"must be of floats.*small\.pth with '{KERNEL}'"):
        read_torch(save_torch(state, wrap=convert))


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_cut_off_torch_file(state, save_torch, kept, is_zip):
    path = save_torch(state, _use_new_zipfile_serialization=is_zip)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"undamaged file.*torch\.save.*small\.pth"):
        read_torch(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("is_zip", [True, False])
def test_damaged_bytes_give_no_other_error(torch, rng, tmp_path, is_zip):
    path = tmp_path / "bad.pth"
    tensors = {KERNEL: torch.ones(4, 4, 1, 1), ROOT: torch.ones(4, 3, 7, 7)}
    torch.save({"model": tensors}, path, _use_new_zipfile_serialization=is_zip)
    content, refused = path.read_bytes(), 0
    for _ in range(300):
        damaged = bytearray(content)
        for index in rng.integers(0, 900, 3):
            damaged[index] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            dict(read_torch(path))
        except ValueError as error:
            refused += "bad.pth" in str(error)
    assert refused > 100


# timm's own network gives the same features.


def randomized(network, torch, rng, spread):
    """Random weights; timm itself starts the last kernel of each unit, and biases, at zero."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            shape = tuple(parameter.shape)
            is_gamma = len(shape) == 1 and name.endswith("weight")
            values = rng.normal(1.0 if is_gamma else 0.0, spread if len(shape) > 1 else 0.3, shape)
            parameter.copy_(torch.from_numpy(values.astype("float32")))
    return network.eval()


def features_of_timm(network, torch, images):
    with torch.no_grad():
        maps = network.forward_features(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        return network.forward_head(maps, pre_logits=True).numpy().reshape(len(images), -1)


def backbone_of(read, depth, epsilon):
    backbone = BiTBackbone(depth, 1, value_range=(-1, 1), kernel_epsilon=epsilon)
    variables = backbone.named_weights()
    assert set(read) - set(variables) == {"head/kernel", "head/bias"}
    for name, variable in variables.items():
        variable.assign(read[name])
    return backbone


def relative_difference(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def test_features_and_logits_of_timm(torch, timm, rng, tmp_path):
    """Kernels so small that a wrong epsilon would show."""
    conv = functools.partial(timm.layers.StdConv2d, eps=1e-8)
    layers = (1, 2, 1, 1)
    network = timm.models.resnetv2.ResNetV2(
        layers, num_classes=7, stem_type="fixed", conv_layer=conv
    )
    randomized(network, torch, rng, spread=1e-3)
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    read = read_safetensors(save(tmp_path / "timm.safetensors", state))
    images = rng.uniform(-1, 1, (2, 40, 53, 3)).astype("float32")
    features = features_of_timm(network, torch, images)
    ours = as_numpy(backbone_of(read, layers, read.epsilon)(images))
    assert relative_difference(ours, features) < 2e-5
    assert relative_difference(as_numpy(backbone_of(read, layers, 1e-10)(images)), features) > 1e-3
    with torch.no_grad():
        logits = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    assert relative_difference(ours @ read["head/kernel"] + read["head/bias"], logits) < 2e-5


@pytest.mark.slow
def test_features_of_timms_r50x1(torch, timm, rng, tmp_path):
    """With kernels of the size that He's initialization gives, either epsilon serves."""
    network = timm.create_model("resnetv2_50x1_bit", pretrained=False, num_classes=10)
    randomized(network, torch, rng, spread=0.02)
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    read = read_safetensors(save(tmp_path / "timm.safetensors", state))
    for epsilon, tolerance in ((read.epsilon, 2e-5), (1e-10, 1e-4)):
        backbone = backbone_of(read, 50, epsilon)
        for height, width in ((64, 64), (97, 70)):
            images = rng.uniform(-1, 1, (2, height, width, 3)).astype("float32")
            difference = relative_difference(
                as_numpy(backbone(images)), features_of_timm(network, torch, images)
            )
            print(f"epsilon {epsilon}, {height}x{width}: {difference:.1e}")
            assert difference < tolerance


# Files that this package writes.

WIDE = {"depth": (1, 2, 1, 1), "width": 1}  # 32 groups in every norm, as those libraries have
LAYOUTS = [("timm", "timm"), ("huggingface", "transformers")]


def classifier_of(arrays, **options):
    """A classifier with given arrays, and its backbone."""
    head = {name: array for name, array in arrays.items() if name.startswith("head/")}
    backbone = BiTBackbone.from_arrays(as_weight_arrays(arrays), **options)
    model = BiTClassifier(backbone, head["head/bias"].size)
    for name, variable in model.head.named_weights().items():
        variable.assign(head[name])
    return model


@pytest.fixture(scope="module")
def wide():
    """Arrays of a network that timm and transformers have; its kernels are as large as trained."""
    rng = np.random.default_rng(5)
    arrays = random_arrays(rng, **WIDE)
    arrays = {n: 0.1 * a if a.ndim == 4 else a for n, a in arrays.items()}
    arrays["head/kernel"] = rng.normal(0, 0.02, (2048, 7)).astype("float32")
    arrays["head/bias"] = rng.normal(size=7).astype("float32")
    return arrays


@pytest.fixture(scope="module")
def wide_classifier(wide):
    return classifier_of(wide, value_range=(-1, 1))


@pytest.mark.parametrize("layout, library", LAYOUTS)
@pytest.mark.parametrize("with_head", [True, False])
def test_written_files_are_those_of_the_library(
    wide, wide_classifier, tmp_path, layout, library, with_head
):
    path = tmp_path / "bit.safetensors"
    written = wide_classifier if with_head else wide_classifier.backbone
    written.save_safetensors(path, layout)
    arrays = {n: a for n, a in wide.items() if with_head or not n.startswith("head/")}
    expected = state_in(library, arrays, bare=not with_head)
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata()["format"] == "pt"
    state = safetensors.numpy.load_file(path)
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(state[name], array, err_msg=name)
    # Read again they are the same network, to the last bit, with its epsilon.
    read = read_safetensors(path)
    assert_same(read, arrays)
    assert read.epsilon == 1e-10
    assert [p.name for p in tmp_path.iterdir()] == ["bit.safetensors"]


def test_the_epsilon_that_is_written(arrays, tmp_path):
    head = {name: array for name, array in arrays.items() if name.startswith("head/")}
    for epsilon in (1e-8, 3e-7):
        write_safetensors(tmp_path / "small.safetensors", arrays, epsilon=epsilon)
        assert read_safetensors(tmp_path / "small.safetensors").epsilon == epsilon
    for stated in ("none", "0", "-1", "nan", "inf"):
        state = state_in("timm", arrays | head)
        path = tmp_path / "stated.safetensors"
        safetensors.numpy.save_file(state, path, {"kernel_epsilon": stated})
        with pytest.raises(ValueError, match=f"positive kernel_epsilon.*stated.*'{stated}'"):
            read_safetensors(path)


def test_half_precision(arrays, tmp_path):
    path = tmp_path / "half.safetensors"
    write_safetensors(path, arrays, "huggingface", "float16")
    half = {name: array.astype("float16").astype("float32") for name, array in arrays.items()}
    assert_same(read_safetensors(path), half)
    assert {a.dtype.name for a in safetensors.numpy.load_file(path).values()} == {"float16"}
    before = path.read_bytes()
    with pytest.raises(FloatingPointError):
        write_safetensors(path, arrays | {"head/bias": np.full(7, 1e6)}, dtype="float16")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "options, fault",
    [
        ({"layout": "torch"}, r"`layout` must be one of \['huggingface', 'timm'\]. .*'torch'"),
        ({"dtype": "int8"}, '`dtype` must be "float16" or "float32". Received: dtype=.int8'),
    ],
)
def test_layouts_and_dtypes_that_there_are_not(wide_classifier, tmp_path, options, fault):
    with pytest.raises(ValueError, match=fault):
        wide_classifier.save_safetensors(tmp_path / "x.safetensors", **options)
    assert list(tmp_path.iterdir()) == []


def test_networks_that_the_libraries_do_not_have(wide_classifier, tmp_path):
    narrow = BiTBackbone(**SMALL)
    with pytest.raises(ValueError, match=r"32 groups.*groups=\[8, 16, 32\].*save_npz"):
        narrow.save_safetensors(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="standardize=False.*before `fold`"):
        wide_classifier.backbone.fold().save_safetensors(tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_writing_needs_no_torch(tmp_path):
    path, name = str(tmp_path / "x"), "root_block/standardized_conv2d/kernel"
    code = (
        "import sys\n"
        "sys.argv[0] = 'keras-bit'  # the command, which imports no Keras before it needs it\n"
        "import numpy as np\n"
        "from keras_bit.weights.torch_files import write_safetensors\n"
        f"write_safetensors({path!r}, {{{name!r}: np.ones((1, 1, 2, 3), 'float32')}})\n"
        "assert not {'safetensors', 'torch', 'keras'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert safetensors.numpy.load_file(path)["stem.conv.weight"].shape == (3, 2, 1, 1)


@pytest.fixture
def images(rng):
    return rng.uniform(-1, 1, (2, 64, 75, 3)).astype("float32")


def logits_of(network, torch, images):
    with torch.no_grad():
        outputs = network.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    return getattr(outputs, "logits", outputs).numpy()


@pytest.mark.slow
def test_timm_loads_what_is_written(torch, timm, wide, images, rng, tmp_path):
    """R50x1, as timm makes it, with the head and without."""
    heads = {name: array for name, array in wide.items() if name.startswith("head/")}
    arrays = {n: (0.1 if a.ndim == 4 else 1) * a for n, a in random_arrays(rng, 50, 1).items()}
    model = classifier_of(arrays | heads, value_range=(-1, 1), kernel_epsilon=1e-8)
    path = tmp_path / "bit.safetensors"
    for written, classes in ((model, 7), (model.backbone, 0)):
        written.save_safetensors(path)
        options = {"num_classes": classes, "checkpoint_path": str(path)}  # loaded strictly
        network = timm.create_model("resnetv2_50x1_bit", **options)
        ours, theirs = as_numpy(written(images)), logits_of(network, torch, images)
        print(f"timm, {classes} classes: {relative_difference(ours, theirs):.1e}")
        assert relative_difference(ours, theirs) < 1e-4  # rounding over 50 layers
    overlay = {"file": str(path), "num_classes": 0}
    network = timm.create_model(
        "resnetv2_50x1_bit", pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
    )
    np.testing.assert_array_equal(logits_of(network, torch, images), theirs)
    read = BiTBackbone.from_preset(path, value_range=(-1, 1))
    np.testing.assert_array_equal(as_numpy(read(images)), ours)


@pytest.mark.slow
@pytest.mark.parametrize("with_head", [True, False])
def test_transformers_loads_what_is_written(torch, wide, images, tmp_path, with_head):
    transformers = pytest.importorskip("transformers")
    config = transformers.BitConfig(depths=list(WIDE["depth"]), num_labels=7)
    config.save_pretrained(tmp_path)
    model = classifier_of(wide, value_range=(-1, 1), kernel_epsilon=1e-8)
    written = model if with_head else model.backbone
    written.save_safetensors(tmp_path / "model.safetensors", "huggingface")
    kind = transformers.BitForImageClassification if with_head else transformers.BitModel
    network, report = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    if with_head:
        theirs = logits_of(network, torch, images)
    else:
        with torch.no_grad():
            pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
            theirs = network(pixels).pooler_output.numpy().reshape(len(images), -1)
    difference = relative_difference(as_numpy(written(images)), theirs)
    print(f"transformers, head {with_head}: {difference:.1e}")
    assert difference < 2e-5
