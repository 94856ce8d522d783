"""Keras's files of weights, `.weights.h5` and `.keras`, with a backbone somewhere in them."""

import os
import pathlib
import re
import zipfile

from keras_bit.core.files import check_zip, wrap_read_errors
from keras_bit.weights.arrays import StoredArray, WeightArrays

_MEMBER = "model.weights.h5"
# Keras numbers the layers of a list from the second on: block, block_1, block_2.
_UNIT = re.compile(r"blocks/block(?:_(\d+))?/units/bottleneck_unit(?:_(\d+))?/")
_NAMES = {
    r"root_block/conv/vars/0": "root_block/standardized_conv2d/kernel",
    r"(block\d/unit\d+/[abc])/conv/vars/0": r"\1/standardized_conv2d/kernel",
    r"(block\d/unit\d+/[abc])/norm/vars/0": r"\1/group_norm/gamma",
    r"(block\d/unit\d+/[abc])/norm/vars/1": r"\1/group_norm/beta",
    r"(block\d/unit\d+)/proj/vars/0": r"\1/a/proj/standardized_conv2d/kernel",
    r"norm/vars/0": "group_norm/gamma",
    r"norm/vars/1": "group_norm/beta",
    r"zero_init_head(?:_\d+)?/vars/0": "head/kernel",
    r"zero_init_head(?:_\d+)?/vars/1": "head/bias",
}


def read_keras(path: str | os.PathLike) -> WeightArrays:
    """Reads the backbone, and the head, in a `.weights.h5` or `.keras` file.

    They may be parts of a larger model, whose other arrays are skipped. A ValueError tells of
    damage, and of several backbones or heads.
    """
    import h5py

    path = pathlib.Path(path)
    stored = {}
    with _reading(path):
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            check_zip(path)
        file = h5py.File(zipfile.ZipFile(path).open(_MEMBER) if is_zip else path, "r")
        found = []
        file.visititems(lambda key, item: found.append((key, item)))
        for key, item in found:
            if isinstance(item, h5py.Dataset) and (name := _name_of(key)):
                if name in stored:
                    raise ValueError(f"it holds {name} twice: save the layer on its own")
                stored[name] = _stored_array(path, key, item)
    return WeightArrays(path, stored)


def _reading(path):
    return wrap_read_errors(path, "`source` must be an undamaged file of weights that Keras wrote")


def _name_of(key):
    """The name of the array with a key in the file; `None` where it belongs to another layer."""

    def unit(match):
        block, number = (int(group or 0) + 1 for group in match.groups())
        return f"block{block}/unit{number:02d}/"

    key = _UNIT.sub(unit, key)
    matches = ((re.fullmatch(f"(?:.*/)?{path}", key), name) for path, name in _NAMES.items())
    return next((match.expand(name) for match, name in matches if match), None)


def _stored_array(path, key, dataset):
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{key} lies in another file, which is not read")
    if dataset.dtype.kind != "f":
        raise ValueError(f"{key} holds {dataset.dtype} and not floats")
    room = dataset.id.get_storage_size()
    if room < dataset.nbytes:
        raise ValueError(f"{key} declares the shape {dataset.shape} and has no room for it")

    def load():
        with _reading(path):
            return dataset[()]

    return StoredArray(dataset.shape, load)
