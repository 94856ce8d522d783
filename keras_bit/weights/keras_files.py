"""Keras's files of weights: Keras 3's with a backbone in them, and the authors' of Keras 2."""

import contextlib
import json
import math
import os
import pathlib
import re
import zipfile
from typing import Any

from keras_bit.core.file_faults import check_zip, wrap_read_errors
from keras_bit.weights.arrays import StoredArray, WeightArrays

_MEMBER = "model.weights.h5"
_AUTHORS_RULE = (
    "`source` must be a file of Keras 3, or of Keras 2 the authors' ResnetV2 as its save_weights "
    "stores it"
)
_AUTHORS_ADVICE = (
    "Use the authors' .npz file of the network, or save the layer as .weights.h5 with Keras 3."
)
# Keras numbers the layers of a list from the second on: block, block_1, block_2.
_UNIT = re.compile(r"blocks/block(?:_(\d+))?/units/bottleneck_unit(?:_(\d+))?/")
# The layers of the authors' ResnetV2, `bit_tf2/models.py`, of which block1 to block4 have units.
_AUTHORS_LAYERS = {
    "root_block": ["root_block/standardized_conv2d/kernel"],
    "group_norm": ["group_norm/gamma", "group_norm/beta"],
    "head/dense": ["head/kernel", "head/bias"],
}
# The arrays of a unit, in the order in which it has its layers; the projection is made last.
_AUTHORS_UNIT = [
    f"{part}/{array}"
    for part in "abc"
    for array in ("group_norm/gamma", "group_norm/beta", "standardized_conv2d/kernel")
]
_AUTHORS_PROJECTION = "a/proj/standardized_conv2d/kernel"
_ROOT = "root_block/conv/vars/0"
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

    They may be parts of a larger model, whose other arrays are skipped. Or the file is one of the
    authors' TF2 code, `bit_models/BiT-M-R50x1.h5`, which `save_weights` of Keras 2 wrote. A
    ValueError tells of damage, of several backbones or heads, and of another file of Keras 2.
    Of files with weights alone the epsilon of the kernels is not known: it is the default.
    """
    path = pathlib.Path(path)
    with contextlib.ExitStack() as unless_read:  # else arrays are read later
        with _reading(path):
            epsilons, file = _opened(path)
            unless_read.enter_context(file)
            found: dict[str, Any] = {"": file}
            file.visititems(found.__setitem__)  # which follows no link to another file
            is_keras_2 = "layer_names" in file.attrs or "model_weights" in found
            stored = {} if is_keras_2 else _arrays_of(path, found)
        if is_keras_2:
            with wrap_read_errors(path, _AUTHORS_RULE, _AUTHORS_ADVICE):
                stored = _authors_arrays(path, found)
        unless_read.pop_all()
    return WeightArrays(path, stored, *epsilons)


def _opened(path):
    """The epsilon of the kernels as far as the file tells it, and the HDF5 file."""
    import h5py

    if not zipfile.is_zipfile(path):
        return set(), h5py.File(path, "r")
    check_zip(path)
    return _stated_epsilons(path), h5py.File(zipfile.ZipFile(path).open(_MEMBER), "r")


def _arrays_of(path, found):
    """Arrays by name, from the items of a file of Keras 3."""
    import h5py

    stored, has_several_heads = {}, False
    # Another layer of a larger model may hold what is called `norm`, too.
    backbones = tuple(key.removesuffix(_ROOT) for key in found if key.endswith(_ROOT))
    for key, item in found.items():
        name = _name_of(key) if isinstance(item, h5py.Dataset) else None
        if name and (name.startswith("head/") or key.startswith(backbones)):
            if name not in stored:
                stored[name] = _stored_array(path, key, item)
            elif name.startswith("head/"):
                has_several_heads = True
            else:
                raise ValueError(f"it holds {name} twice: save the layer on its own")
    if has_several_heads:  # none of them is the head
        return {name: array for name, array in stored.items() if not name.startswith("head/")}
    return stored


def _stated_epsilons(path):
    """The `kernel_epsilon` of the backbone in the configuration of a `.keras` file, if any."""
    stated = set()

    def note(part):
        if "kernel_epsilon" in part:
            stated.add(float(part["kernel_epsilon"]))
        return part

    with zipfile.ZipFile(path) as archive:
        json.loads(archive.read("config.json"), object_hook=note)
    if len(stated) > 1 or not all(0 < epsilon < math.inf for epsilon in stated):
        raise ValueError(f"its configuration has `kernel_epsilon` as {sorted(stated)}")
    return stated


def _authors_arrays(path, found):
    """Arrays by name, in the order in which the authors' code itself loads them.

    Keras 2 stores a list of arrays for each layer of the model, under names that depend on its
    version and are not unique; it reads them in order. What the names do tell is compared.
    """
    if "model_weights" in found:
        raise ValueError("it is a whole model")
    stored = {}
    for layer in _texts(found[""], "layer_names"):
        theirs = _texts(found[layer], "weight_names")
        if not theirs:
            continue
        ours = _authors_names(re.sub(r"_\d+$", "", layer), len(theirs))
        if len(ours) != len(theirs) or not all(map(_is_same, ours, theirs)):
            raise ValueError(
                f"its layer {layer} with {len(theirs)} arrays, {theirs[:2]} among them, is none "
                "of the authors'"
            )
        for name, key in zip(ours, theirs, strict=True):
            stored[name] = _stored_array(path, f"{layer}/{key}", found[f"{layer}/{key}"])
    return stored


def _texts(item, attribute):
    texts = item.attrs[attribute]
    return [text.decode() if isinstance(text, bytes) else str(text) for text in texts]


def _authors_names(layer, count):
    """The names of the arrays of a layer with so many; an empty list for another layer."""
    if not re.fullmatch("block[1-4]", layer):
        return _AUTHORS_LAYERS.get(layer, [])
    units = [[*_AUTHORS_UNIT, _AUTHORS_PROJECTION], *[_AUTHORS_UNIT] * (count // 9 - 1)]
    return [f"{layer}/unit{n:02d}/{name}" for n, unit in enumerate(units, 1) for name in unit]


def _is_same(ours, theirs):
    """Whether a name in the file, such as `unit01/a/group_norm/gamma:0`, may be that of ours."""
    parts = re.sub(r"_\d+(?=/)", "", theirs.removesuffix(":0")).split("/")
    if ours.startswith("head/"):
        return parts[-1] == ours[5:]
    return parts[-2:] == ours.split("/")[-2:] and ("proj" in parts) == ("/proj/" in ours)


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
    # HDF5 has no bfloat16: Keras stores two opaque bytes, and names them.
    is_bfloat16 = dataset.dtype == "V2" and dataset.attrs.get("dtype") == "bfloat16"
    if dataset.dtype.kind != "f" and not is_bfloat16:
        raise ValueError(f"{key} holds {dataset.dtype} and not floats")
    room = dataset.id.get_storage_size()
    if room < dataset.nbytes:
        raise ValueError(f"{key} declares the shape {dataset.shape} and has no room for it")

    def load():
        with _reading(path):
            array = dataset[()]
            return _float32_of(array) if is_bfloat16 else array

    return StoredArray(dataset.shape, load)


def _float32_of(array):
    import ml_dtypes

    return array.view(ml_dtypes.bfloat16).astype("float32")
