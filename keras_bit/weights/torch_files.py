"""Files of PyTorch arrays: BiT as timm, Hugging Face transformers and its authors name them."""

import contextlib
import functools
import importlib
import itertools
import json
import math
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_bit.core.file_faults import check_zip, wrap_read_errors
from keras_bit.weights.arrays import StoredArray, WeightArrays, writing
from keras_bit.weights.torch_names import LIBRARIES, TIMM, TRANSFORMERS, canonical_names, name_in

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


# The layouts that `write_safetensors` writes.
LAYOUTS = {"timm": TIMM, "huggingface": TRANSFORMERS}
_GROUPS = 32
_EPSILON = "kernel_epsilon"  # in the metadata of files that this package writes


def read_safetensors(path: str | os.PathLike) -> WeightArrays:
    """Reads the header of a `.safetensors` file; the arrays are float32, whatever is in the file.

    Names are those of timm (`resnetv2_50x1_bit`), of Hugging Face transformers (`google/bit-50`)
    or of the authors' PyTorch code; names of none of them are kept. A ValueError tells of damage,
    of no BiT network, and of arrays that are not of floats.
    """
    path = pathlib.Path(path).absolute()  # arrays are read later, perhaps from another folder
    table = {}
    with _opened(path) as file:
        stated = (file.metadata() or {}).get(_EPSILON)
        for name in file.keys():
            header = file.get_slice(name)
            load = functools.partial(_safetensors_array, path, name)
            table[name] = _Tensor(tuple(header.get_shape()), header.get_dtype(), load)
    arrays = _network(path, table)
    return arrays if stated is None else arrays.with_epsilon(_stated_epsilon(path, stated))


def write_safetensors(
    path: str | os.PathLike,
    arrays: Mapping[str, Any],
    layout: str = "timm",
    dtype: str = "float32",
    epsilon: float = 1e-10,
) -> None:
    """Writes arrays or variables in a library's layout; PyTorch is not needed.

    They are copied one at a time.

    Args:
        path: File to write.
        arrays: Mapping with the names of `WeightArrays`, of a whole network.
        layout: `"timm"`, or `"huggingface"` for transformers.
        dtype: "float32", or "float16" for half the size.
        epsilon: What the network adds to a kernel's variance, for this package's reader.

    Raises:
        ValueError: If `layout` or `dtype` is another one.
        FloatingPointError: If a value is too large for float16.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"`layout` must be one of {sorted(LAYOUTS)}. Received: layout={layout!r}")
    names = {_name_in(layout, name, "head/kernel" in arrays): name for name in arrays}
    shapes = {theirs: _shape_in(layout, ours, arrays[ours].shape) for theirs, ours in names.items()}
    with writing(path, dtype) as temporary, open(temporary, "wb") as file:
        file.write(_header(shapes, dtype, epsilon))
        for ours in names.values():
            array = np.asarray(arrays[ours]).astype(f"<{np.dtype(dtype).str[1:]}", copy=False)
            turned = array.transpose((3, 2, 0, 1) if array.ndim == 4 else None)
            file.write(turned.tobytes())


def _header(shapes, dtype, epsilon):
    # "pt": transformers refuses files that do not say so.
    header: dict[str, Any] = {"__metadata__": {"format": "pt", _EPSILON: repr(float(epsilon))}}
    sizes = [np.dtype(dtype).itemsize * math.prod(shape) for shape in shapes.values()]
    ends = list(itertools.accumulate(sizes))
    for (name, shape), size, end in zip(shapes.items(), sizes, ends, strict=True):
        kind = {"float32": "F32", "float16": "F16"}[dtype]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end - size, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def check_portable(standardize: bool, groups: set[int]) -> None:
    """Raises where timm and transformers have no network with such kernels and group norms."""
    if not standardize or groups != {_GROUPS}:
        raise ValueError(
            f"The network must have standardized kernels and {_GROUPS} groups in every group norm, "
            f"as timm's and transformers' have. Received: standardize={standardize}, groups="
            f"{sorted(groups)}. Save it before `fold`; save a narrow network with `save_npz`."
        )


def _name_in(layout, name, has_head):
    """transformers' classifier holds the network as its part `bit`."""
    within = layout == "huggingface" and has_head and not name.startswith("head/")
    return ("bit." if within else "") + name_in(LAYOUTS[layout], name)


def _shape_in(layout, name, shape):
    """Kernels OIHW; timm's head is a 1x1 convolution."""
    if len(shape) == 4:
        return tuple(shape[axis] for axis in (3, 2, 0, 1))
    return tuple(shape[::-1]) + (1, 1) * (name == "head/kernel" and layout == "timm")


def _stated_epsilon(path, stated):
    with contextlib.suppress(ValueError):
        if 0 < float(stated) < math.inf:
            return float(stated)
    raise ValueError(
        f"The metadata of a file must state a positive {_EPSILON}. Received: {path} with {stated!r}"
    )


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
    found = [(canonical_names(table, library), library.epsilon) for library in LIBRARIES]
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
