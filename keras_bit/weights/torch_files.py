"""Files of PyTorch arrays: BiT as timm, Hugging Face transformers and its authors name them."""

import contextlib
import functools
import importlib
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_bit.files import reading
from keras_bit.weights.arrays import StoredArray, WeightArrays

# Before 2.6 and again before 2.10, files were found that broke out of PyTorch's safe loading
# (CVE-2025-32434, CVE-2026-24747).
_SAFE_TORCH = (2, 10)
_FLOATS = {"F64", "F32", "F16", "BF16"}
_FLOATS |= {"torch.float64", "torch.float32", "torch.float16", "torch.bfloat16"}


class _Tensor(NamedTuple):
    """An array as the file has it: its axes in PyTorch's order, `dtype` in the file's words."""

    shape: tuple
    dtype: str
    load: Callable[[], np.ndarray]


class _Library(NamedTuple):
    """How a library names the layers, and the epsilon of its weight standardisation.

    `unit` matches the number of the block, the number of the unit, and the layer in it; `first`
    is the number of the first block and unit.
    """

    layers: dict
    unit: str
    first: int
    epsilon: float


# timm's and transformers' convolutions standardise with
# `F.batch_norm(weight.reshape(1, out_channels, -1), None, None, training=True, eps=1e-8)`, which
# is (w - mean) / sqrt(variance + 1e-8) with the mean and the biased variance of every output
# channel over I, H and W. timm's class has the default 1e-6, but every `resnetv2_*_bit` is made
# with 1e-8. The authors' `bit_pytorch` adds 1e-10, as here. All three keep kernels as they were
# trained, not standardised.
_LIBRARIES = (
    _Library(  # timm, models/resnetv2.py
        {
            "stem.conv": "root_block/standardized_conv2d",
            "norm": "group_norm",
            "head.fc": "head",
        },
        r"stages\.([0-3])\.blocks\.([0-9]{1,3})\.(.+)",
        first=0,
        epsilon=1e-8,
    ),
    _Library(  # transformers, models/bit/modeling_bit.py
        {
            "embedder.convolution": "root_block/standardized_conv2d",
            "norm": "group_norm",
            "classifier.1": "head",
        },
        r"encoder\.stages\.([0-3])\.layers\.([0-9]{1,3})\.(.+)",
        first=0,
        epsilon=1e-8,
    ),
    _Library(  # big_transfer, bit_pytorch/models.py
        {
            "root.conv": "root_block/standardized_conv2d",
            "head.gn": "group_norm",
            "head.conv": "head",
        },
        r"body\.block([1-4])\.unit([0-9]{2,3})\.(.+)",
        first=1,
        epsilon=1e-10,
    ),
)
# Within a unit all three normalise before they convolve, so that norm1 stands with conv1.
_UNIT_LAYERS = {
    f"{theirs}{number}": f"{part}/{ours}"
    for number, part in enumerate("abc", 1)
    for theirs, ours in (
        ("norm", "group_norm"),
        ("gn", "group_norm"),
        ("conv", "standardized_conv2d"),
    )
} | {
    "downsample.conv": "a/proj/standardized_conv2d",
    "downsample": "a/proj/standardized_conv2d",
}
_VARIABLES = {
    ("standardized_conv2d", "weight"): "kernel",
    ("group_norm", "weight"): "gamma",
    ("group_norm", "bias"): "beta",
    ("head", "weight"): "kernel",
    ("head", "bias"): "bias",
}
# DataParallel and torch.compile put a name before all others; so does transformers' classifier.
_WRAPPERS = re.compile(r"(?:(?:module|_orig_mod|bit)\.)*")


def read_safetensors(path):
    """Reads the header of a `.safetensors` file of a BiT network.

    Args:
        path: A file with the names of timm (`resnetv2_50x1_bit`), of Hugging Face transformers
            (`google/bit-50`) or of the authors' PyTorch code. Names of none of them are kept.

    Returns:
        `WeightArrays` of float32, whatever the precision in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or no such file, declares more than it has room for, or
            holds no BiT network or one whose arrays are not of floats.
    """
    path = _existing(path)
    table = {}
    with _opened(path) as file:
        for name in file.keys():
            header = file.get_slice(name)
            load = functools.partial(_safetensors_array, path, name)
            table[name] = _Tensor(tuple(header.get_shape()), header.get_dtype(), load)
    return _network(path, table)


def read_torch(path):
    """Reads a state dict that `torch.save` wrote of a BiT network, without running its pickle.

    Args:
        path: A `.pth`, `.pt`, `.bin` or `.tar` file with names as in `read_safetensors`, on its
            own or in a dict under `"state_dict"` or `"model"`.

    Returns:
        `WeightArrays` of float32, whatever the precision in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If PyTorch is missing, or too old to load such a file safely.
        ValueError: If the file is damaged, holds other objects than arrays, declares more than it
            has room for, or holds no BiT network or one whose arrays are not of floats.
    """
    path = _existing(path)
    torch = _import_torch(path)
    with reading(path, "an undamaged file in which torch.save stored a state dict"):
        table = _torch_table(torch, path)
    return _network(path, table)


def _existing(path):
    path = pathlib.Path(path).absolute()  # Arrays are read later, perhaps from another folder.
    if not path.exists():
        raise FileNotFoundError(f"`path` must be a file of weights. Received: {path}, not found.")
    return path


def _network(path, table):
    """The `WeightArrays` of a dict from the file's names to `_Tensor`s."""
    names, library = max(
        ((_canonical_names(table, library), library) for library in _LIBRARIES),
        key=lambda pair: len(pair[0]),
    )
    if not any(name.startswith("block") for name in names):
        raise ValueError(
            "The file must hold a BiT network with the names of timm, Hugging Face transformers or "
            f"the authors' PyTorch code. Received: {path}, no BiT network but {len(table)} arrays, "
            f"{sorted(table)[:3]} among them."
        )
    for theirs in names.values():
        if table[theirs].dtype not in _FLOATS:
            raise ValueError(
                "The arrays of a network must be of floats with 16, 32 or 64 bits. Received: "
                f"{path} with {theirs!r} of type {table[theirs].dtype}"
            )
    known = set(names.values())
    others = {theirs: theirs for theirs in table if theirs not in known}
    stored = {name: _stored_array(name, table[theirs]) for name, theirs in (others | names).items()}
    return WeightArrays(path, stored, library.epsilon)


def _canonical_names(table, library):
    """Dict from the names of `BiTBackbone.named_weights` to those in the file."""
    names = {}
    for theirs in sorted(table, key=len):
        layer, _, variable = theirs[_WRAPPERS.match(theirs).end() :].rpartition(".")
        layer = _canonical_layer(layer, library)
        variable = _VARIABLES.get((layer.rpartition("/")[2], variable))
        if variable is not None:
            # Of two names for the same array the shorter; the other remains among the unknown.
            names.setdefault(f"{layer}/{variable}", theirs)
    return names


def _canonical_layer(layer, library):
    unit = re.fullmatch(library.unit, layer)
    if unit is None:
        return library.layers.get(layer, "")
    block, number = (int(digits) + 1 - library.first for digits in unit.group(1, 2))
    return f"block{block}/unit{number:02d}/{_UNIT_LAYERS.get(unit[3], '')}"


def _stored_array(name, tensor):
    shape = tensor.shape
    if name == "head/kernel" and len(shape) in (2, 4) and set(shape[2:]) <= {1}:
        axes = (2, 3, 1, 0)[-len(shape) :]  # A matrix, or a 1x1 convolution of the pooled features.
        shape = (shape[1], shape[0])
    elif len(shape) == 4:
        axes = (2, 3, 1, 0)  # OIHW to HWIO.
        shape = tuple(shape[axis] for axis in axes)
    else:
        axes = tuple(range(len(shape)))

    def load():
        array = np.asarray(tensor.load(), dtype=np.float32)
        return array.transpose(axes).reshape(shape)

    return StoredArray(shape, load)


@contextlib.contextmanager
def _opened(path):
    import safetensors

    # Teaches NumPy the name "bfloat16", by which safetensors asks for it. Keras depends on it.
    importlib.import_module("ml_dtypes")
    with reading(path, "an undamaged .safetensors file"):
        try:
            with safetensors.safe_open(str(path), framework="numpy") as file:
                yield file
        except safetensors.SafetensorError as error:
            raise ValueError(str(error)) from error


def _safetensors_array(path, name):
    # Opened for each array: what stays open would keep all that was read mapped into memory.
    with _opened(path) as file:
        return file.get_tensor(name)


def _import_torch(path):
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "PyTorch is needed to read files of torch.save: `pip install torch`, or convert the "
            f"file to .safetensors where PyTorch is installed. Received: {path}"
        ) from error
    if torch.__version__ < _SAFE_TORCH:
        raise ImportError(
            "PyTorch 2.10 or newer is needed: what older ones call safe loading can be made to run "
            f"code from the file. Upgrade it, or convert the file to .safetensors where you trust "
            f"it. Received: PyTorch {torch.__version__} for {path}"
        )
    return torch


def _torch_table(torch, path):
    size = path.stat().st_size
    mapped = zipfile.is_zipfile(path)  # Older files have another form, which is read as a whole.
    if mapped:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > size:
                raise ValueError("its parts declare more bytes than it has")
    state = _load_safely(torch, path, mapped)
    table = {}
    for name, tensor in _state_dict(state).items():
        if isinstance(name, str) and isinstance(tensor, torch.Tensor):
            if tensor.numel() * tensor.element_size() > size:
                raise ValueError(
                    f"{name} declares the shape {tuple(tensor.shape)}, for which "
                    "the file is too small"
                )
            load = functools.partial(_torch_array, tensor)
            table[name] = _Tensor(tuple(tensor.shape), _torch_dtype(torch, tensor), load)
    return table


def _load_safely(torch, path, mapped):
    try:
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        # PyTorch's own message is left out: it explains how to load the file unsafely.
        found = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {found[1]}" if found else "its pickle cannot be read safely"
        raise ValueError(
            f"{reason}, and only arrays are loaded, no other objects: save the network's "
            "state_dict() alone, or as .safetensors"
        ) from error
    except (AssertionError, AttributeError) as error:  # Of PyTorch's own, on damaged pickles.
        raise ValueError(f"its pickle is damaged: {error}") from error


def _state_dict(state):
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            return state[key]
    return state if isinstance(state, dict) else {}


def _torch_dtype(torch, tensor):
    if tensor.layout == torch.strided and tensor.device.type == "cpu":
        return str(tensor.dtype)
    return f"{tensor.dtype}, {tensor.layout} on {tensor.device}"


def _torch_array(tensor):
    # A copy: the tensor lies in the mapped file.
    return np.array(tensor.float().numpy(force=True))
