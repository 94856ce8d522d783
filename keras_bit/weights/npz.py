"""The authors' npz files, read and written."""

import math
import pathlib
import re
import threading
import zipfile

import numpy as np

from keras_bit.files import reading, written_whole
from keras_bit.weights.arrays import StoredArray, WeightArrays

# Deflate shrinks nothing further: a member that claims more is not what it says it is.
_LARGEST_RATIO = 1032
_DTYPES = ("float16", "float32", "float64")
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path):
    """Reads the directory and the headers of an npz file in the authors' layout.

    Names may begin with `resnet/`, end with `:0` and carry numeric suffixes
    (`standardized_conv2d_17`), as in some released files.

    Args:
        path: The file.

    Returns:
        `WeightArrays`.

    Raises:
        ValueError: If the file is damaged or no npz file, holds anything but arrays of floats,
            or declares more than its size can hold.
    """
    archive = _Archive(pathlib.Path(path))
    stored = {}
    for member in archive.members:
        name = _plain(member.filename.removesuffix(".npy"))
        if name in stored:
            raise ValueError(
                "The names of the arrays must differ by more than a number. "
                f"Received: {name!r} twice in {path}"
            )
        stored[name] = archive.stored_array(name, member)
    return WeightArrays(path, stored)


def write_npz(path, arrays, dtype="float32"):
    """Writes arrays in the authors' layout, which their PyTorch and JAX code reads.

    Args:
        path: File to write; it gets its name when it is whole.
        arrays: Dict from the names of `BiTBackbone.named_weights`, and perhaps `head/kernel` and
            `head/bias`, to arrays or variables; they are copied one at a time.
        dtype: "float32", or "float16" for half the size.

    Raises:
        ValueError: If `dtype` is another one.
        FloatingPointError: If a value is too large for it.
    """
    if dtype not in ("float16", "float32"):
        raise ValueError(f'`dtype` must be "float16" or "float32". Received: dtype={dtype!r}')
    with (
        np.errstate(over="raise"),
        written_whole(path) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
    ):
        for name, array in arrays.items():
            array = np.asarray(array).astype(dtype, copy=False)
            array = array[None, None] if name == "head/kernel" else array
            released = re.sub("^head/", "head/conv2d/", name)
            with archive.open(f"resnet/{released}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


class _Archive:
    """A zip file of arrays, opened once and read from whenever an array is asked for."""

    def __init__(self, path):
        self._lock = threading.Lock()
        self._path = path
        with self._reading():
            self._zip = zipfile.ZipFile(path)
        self.members = self._zip.infolist()

    def stored_array(self, name, member):
        """The `StoredArray` of a member, whose header is read and checked."""
        with self._reading(), self._zip.open(member) as file:
            shape = _shape_in_header(file, member)
        shape = _shape_in_network(name, shape)

        def load():
            with self._lock, self._reading(), self._zip.open(member) as file:
                return np.lib.format.read_array(file, allow_pickle=False).reshape(shape)

        return StoredArray(shape, load)

    def _reading(self):
        return reading(self._path, "an undamaged .npz file of arrays")


def _shape_in_header(file, member):
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"{member.filename} has an unknown version {version} of the npy format")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.name not in _DTYPES:
        raise ValueError(f"{member.filename} holds {dtype} and not floats")
    declared = file.tell() + dtype.itemsize * math.prod(shape)
    if declared != member.file_size or declared > _LARGEST_RATIO * member.compress_size:
        raise ValueError(f"{member.filename} declares the shape {shape} and has no room for it")
    return shape


def _shape_in_network(name, shape):
    """Gamma and beta are flat; the head's kernel, in the files a 1x1 convolution, is a matrix."""
    if name.endswith(("gamma", "beta")):
        return (math.prod(shape),)
    return shape[2:] if name == "head/kernel" and shape[:2] == (1, 1) else shape


def _plain(name):
    name = re.sub(r"_\d+(?=/)", "", name.removeprefix("resnet/").removesuffix(":0"))
    return name.replace("head/conv2d/", "head/")
