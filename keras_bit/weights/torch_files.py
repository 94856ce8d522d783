"""Files of PyTorch arrays: BiT as timm, Hugging Face transformers and its authors name them."""

import contextlib
import functools
import importlib
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_bit.core.files import check_zip, wrap_read_errors
from keras_bit.weights.arrays import StoredArray, WeightArrays

# Before 2.6 and again before 2.10, files were found that broke out of PyTorch's safe loading
# (CVE-2025-32434, CVE-2026-24747).
_SAFE_TORCH = (2, 10)
_FLOATS = {"F64", "F32", "F16", "BF16"}
_FLOATS |= {"torch.float64", "torch.float32", "torch.float16", "torch.bfloat16"}


class _Tensor(NamedTuple):
    """An array as the file has it: axes in PyTorch's order, `dtype` in the file's words."""

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], np.ndarray]


class _Library(NamedTuple):
    """How a library names the layers, and the epsilon of its weight standardization.

    `unit` matches the numbers of block and unit, counted from `first`, and the layer in the unit.
    """

    root: str
    norm: str
    head: str
    unit: str
    first: int
    epsilon: float


# timm's and transformers' convolutions standardize with
# `F.batch_norm(weight.reshape(1, out_channels, -1), None, None, training=True, eps=1e-8)`, which
# is (w - mean) / sqrt(variance + 1e-8) with the mean and the biased variance of every output
# channel over I, H and W. timm's class has the default 1e-6, but every `resnetv2_*_bit` is made
# with 1e-8. The authors' `bit_pytorch` adds 1e-10, as here. All three keep kernels as they were
# trained, not standardized.
_TIMM = r"stages\.([0-3])\.blocks\.([0-9]{1,3})\.(.+)"  # models/resnetv2.py
# models/bit/modeling_bit.py
_TRANSFORMERS = r"encoder\.stages\.([0-3])\.layers\.([0-9]{1,3})\.(.+)"
_AUTHORS = r"body\.block([1-4])\.unit([0-9]{2,3})\.(.+)"  # bit_pytorch/models.py
_LIBRARIES = (
    _Library("stem.conv", "norm", "head.fc", _TIMM, 0, 1e-8),
    _Library("embedder.convolution", "norm", "classifier.1", _TRANSFORMERS, 0, 1e-8),
    _Library("root.conv", "head.gn", "head.conv", _AUTHORS, 1, 1e-10),
)
_CONV = "standardized_conv2d"
# Within a unit all three normalize before they convolve, so norm1 belongs to conv1.
_UNIT_LAYERS = {"downsample": f"a/proj/{_CONV}", "downsample.conv": f"a/proj/{_CONV}"} | {
    f"{theirs}{number}": f"{part}/{ours}"
    for number, part in enumerate("abc", 1)
    for theirs, ours in (("norm", "group_norm"), ("gn", "group_norm"), ("conv", _CONV))
}
_VARIABLES = {
    (_CONV, "weight"): "kernel",
    ("group_norm", "weight"): "gamma",
    ("group_norm", "bias"): "beta",
    ("head", "weight"): "kernel",
    ("head", "bias"): "bias",
}
# DataParallel and torch.compile put a name before all others; so does transformers' classifier.
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|bit)\.)+")


def read_safetensors(path: str | os.PathLike) -> WeightArrays:
    """Reads the header of a `.safetensors` file; the arrays are float32, whatever is in the file.

    Names are those of timm (`resnetv2_50x1_bit`), of Hugging Face transformers (`google/bit-50`)
    or of the authors' PyTorch code; names of none of them are kept. A ValueError tells of damage,
    of no BiT network, and of arrays that are not of floats.
    """
    path = pathlib.Path(path).absolute()  # arrays are read later, perhaps from another folder
    table = {}
    with _opened(path) as file:
        for name in file.keys():
            header = file.get_slice(name)
            load = functools.partial(_safetensors_array, path, name)
            table[name] = _Tensor(tuple(header.get_shape()), header.get_dtype(), load)
    return _network(path, table)


def read_torch(path: str | os.PathLike) -> WeightArrays:
    """Reads a state dict that `torch.save` wrote, without running its pickle.

    It may be in a dict under `"state_dict"` or `"model"`; else as `read_safetensors`. A ValueError
    also tells of other objects than arrays and of shapes that the file has no room for, an
    ImportError of a PyTorch that is missing or too old to load safely.
    """
    path = pathlib.Path(path)
    torch = _import_torch(path)
    rule = "`source` must be an undamaged file in which torch.save stored a state dict"
    with wrap_read_errors(path, rule):
        table = _torch_table(torch, path)
    return _network(path, table)


def _network(path, table):
    """The `WeightArrays` of a dict from the file's names to `_Tensor`s."""
    found = [(_canonical_names(table, library), library.epsilon) for library in _LIBRARIES]
    names, epsilon = max(found, key=lambda pair: len(pair[0]))
    if not any(name.startswith("block") for name in names):
        raise ValueError(
            "`source` must hold a BiT network with the names of timm, Hugging Face transformers or "
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
    return WeightArrays(path, stored, epsilon)


def _canonical_names(table, library):
    """Dict from the names of `BiTBackbone.named_weights` to those in the file."""
    names: dict[str, str] = {}
    ours = {library.root: f"root_block/{_CONV}", library.norm: "group_norm", library.head: "head"}
    for theirs in sorted(table, key=len):
        layer, _, leaf = _WRAPPERS.sub("", theirs).rpartition(".")
        if unit := re.fullmatch(library.unit, layer):
            block, number = (int(digits) + 1 - library.first for digits in unit.group(1, 2))
            layer = f"block{block}/unit{number:02d}/{_UNIT_LAYERS.get(unit[3], '')}"
        else:
            layer = ours.get(layer, "")
        if variable := _VARIABLES.get((layer.rpartition("/")[2], leaf)):
            # Of two names for the same array the shorter; the other remains among the unknown.
            names.setdefault(f"{layer}/{variable}", theirs)
    return names


def _stored_array(name, tensor):
    rank, is_head = len(tensor.shape), name == "head/kernel"
    turned = rank == 4 or (rank == 2 and is_head)
    axes = (2, 3, 1, 0)[-rank:] if turned else tuple(range(rank))  # OIHW to HWIO
    shape = tuple(tensor.shape[axis] for axis in axes)
    if is_head and shape[:-2] == (1, 1):  # a 1x1 convolution of the pooled features
        shape = shape[2:]

    def load():
        return np.asarray(tensor.load(), dtype=np.float32).transpose(axes).reshape(shape)

    return StoredArray(shape, load)


@contextlib.contextmanager
def _opened(path):
    import safetensors

    # Teaches NumPy the name "bfloat16", by which safetensors asks for it. Keras depends on it.
    importlib.import_module("ml_dtypes")
    with (
        wrap_read_errors(path, "`source` must be an undamaged .safetensors file"),
        safetensors.safe_open(str(path), framework="numpy") as file,
    ):
        yield file


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
    if tuple(map(int, torch.__version__.split(".")[:2])) < _SAFE_TORCH:
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
        check_zip(path)
    state = _load_safely(torch, path, mapped)
    state = state if isinstance(state, dict) else {}
    within = (state.get(key) for key in ("state_dict", "model"))
    state = next((inner for inner in within if isinstance(inner, dict)), state)
    table = {}
    for name, tensor in state.items():
        if isinstance(name, str) and isinstance(tensor, torch.Tensor):
            shape, dtype = tuple(tensor.shape), str(tensor.dtype)
            if tensor.numel() * tensor.element_size() > size:
                raise ValueError(
                    f"{name} declares the shape {shape}, for which the file is too small"
                )
            if tensor.layout != torch.strided or tensor.device.type != "cpu":
                dtype = f"{dtype}, {tensor.layout} on {tensor.device}"
            table[name] = _Tensor(shape, dtype, functools.partial(_torch_array, tensor))
    return table


def _load_safely(torch, path, mapped):
    try:
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        # PyTorch's own message is not shown: it explains how to load the file unsafely.
        found = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {found[1]}" if found else "its pickle cannot be read safely"
        raise ValueError(
            f"{reason}, and only arrays are loaded, no other objects: save the network's "
            "state_dict() alone, or as .safetensors"
        ) from error


def _torch_array(tensor):
    return np.array(tensor.float().numpy(force=True))  # a copy: the tensor is in the mapped file
