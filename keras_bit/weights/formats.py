"""Files of weights, read into {name: array} with the names of `BiTBackbone.named_weights`."""

import pathlib
import re
import zipfile
import zlib

import numpy as np

_UNIT = re.compile(r"block([1-4])/unit(\d+)/")


def read_weights(path):
    """Reads the arrays of a backbone from a file in the authors' layout.

    Args:
        path: An `.npz` file. Its names may begin with `resnet/` and carry numeric suffixes
            (`standardized_conv2d_17`); the head is left out.

    Returns:
        A dict from name to array: kernels HWIO, gamma and beta flat.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no npz file or holds no BiT backbone.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"`path` must be a file of weights. Received: {path}, not found.")
    try:
        arrays = _read_npz(path)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"`path` must be an undamaged .npz file of arrays. Received: {path}, "
            f"which cannot be read ({error})."
        ) from error
    arrays = {
        name: array.reshape(-1) if name.endswith(("gamma", "beta")) else array
        for name, array in arrays.items()
        if not name.startswith("head/")
    }
    if "root_block/standardized_conv2d/kernel" not in arrays:
        raise ValueError(
            "`path` must hold a BiT network in the authors' layout, with the array "
            f"'resnet/root_block/standardized_conv2d/kernel'. Received: {path} with "
            f"{len(arrays)} other arrays, {sorted(arrays)[:3]} among them."
        )
    return arrays


def architecture_of(arrays):
    """Returns `(units, width)`: four numbers of units, and the factor on the channels.

    Raises:
        ValueError: If a block has no units, or the root's kernel has no channels.
    """
    units = [0, 0, 0, 0]
    for name in arrays:
        match = _UNIT.match(name)
        if match:
            block, unit = map(int, match.groups())
            units[block - 1] = max(units[block - 1], unit)
    root = arrays["root_block/standardized_conv2d/kernel"].shape
    if 0 in units or len(root) != 4:
        raise ValueError(
            "The arrays must be those of a whole BiT network. Received: "
            f"{units} units in its four blocks, and a root kernel of shape {root}."
        )
    width = root[-1] / 64
    return tuple(units), int(width) if width == int(width) else width


def _read_npz(path):
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not a zip archive, or cut off")
    with np.load(path, allow_pickle=False) as file:
        arrays = {_plain(name): file[name] for name in file.files}
        if len(arrays) < len(file.files):
            raise ValueError("several of its arrays have the same name but for a number")
    return arrays


def _plain(name):
    return re.sub(r"_\d+(?=/)", "", name.removeprefix("resnet/").removesuffix(":0"))
