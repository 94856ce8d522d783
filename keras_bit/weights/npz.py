"""The authors' npz files, read and written."""

import math
import os
import pathlib
import re
import threading
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_bit.core.file_faults import wrap_read_errors
from keras_bit.weights.arrays import LARGEST_RATIO, StoredArray, WeightArrays, writing

_DTYPES = ("float16", "float32", "float64")
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: str | os.PathLike) -> WeightArrays:
    """Reads the directory and the headers of an npz file in the authors' layout.

    Names may begin with `resnet/`, end with `:0` and carry numeric suffixes
    (`standardized_conv2d_17`), as in some released files. A ValueError tells of damage, of arrays
    that are not of floats, and of shapes that the file has no room for.
    """
    path = pathlib.Path(path)
    lock = threading.Lock()
    with _reading(path):
        archive = zipfile.ZipFile(path)

    def stored_array(name, member):
        with _reading(path), archive.open(member) as file:
            shape = _declared_shape(file, member)
        if name.endswith(("gamma", "beta")):
            shape = (math.prod(shape),)
        elif name == "head/kernel" and shape[:2] == (1, 1):  # a 1x1 convolution of the features
            shape = shape[2:]

        def load():
            with lock, _reading(path), archive.open(member) as file:
                return np.lib.format.read_array(file, allow_pickle=False).reshape(shape)

        return StoredArray(shape, load)

    stored: dict[str, StoredArray] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy").removesuffix(":0").removeprefix("resnet/")
        name = re.sub(r"_\d+(?=/)", "", name).replace("head/conv2d/", "head/")
        if name in stored:
            raise ValueError(
                "The names of the arrays must differ by more than a number. "
                f"Received: {name!r} twice in {path}"
            )
        stored[name] = stored_array(name, member)
    return WeightArrays(path, stored)


def write_npz(path: str | os.PathLike, arrays: Mapping[str, Any], dtype: str = "float32") -> None:
    """Writes arrays or variables in the authors' layout, which their PyTorch and JAX code reads.

    `arrays` have the names of `WeightArrays` and are copied one at a time. `dtype` is "float32",
    or "float16" for half the size; a FloatingPointError tells of a value too large for it.
    """
    with writing(path, dtype) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            array = np.asarray(array).astype(dtype, copy=False)
            array = array[None, None] if name == "head/kernel" else array
            released = re.sub("^head/", "head/conv2d/", name)
            with archive.open(f"resnet/{released}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _reading(path):
    return wrap_read_errors(path, "`source` must be an undamaged .npz file of arrays")


def _declared_shape(file, member):
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"{member.filename} has an unknown version {version} of the npy format")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.name not in _DTYPES:
        raise ValueError(f"{member.filename} holds {dtype} and not floats")
    declared = file.tell() + dtype.itemsize * math.prod(shape)
    if declared != member.file_size or declared > LARGEST_RATIO * member.compress_size:
        raise ValueError(f"{member.filename} declares the shape {shape} and has no room for it")
    return shape
