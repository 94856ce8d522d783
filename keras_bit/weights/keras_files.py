"""Keras's files of weights, `.weights.h5` and `.keras`, with a backbone somewhere in them."""

import pathlib
import re
import zipfile

from keras_bit.files import reading
from keras_bit.weights.arrays import StoredArray, WeightArrays

_MEMBER = "model.weights.h5"
# Keras numbers the layers of a list from the second on: block, block_1, block_2.
_UNIT = re.compile(r"blocks/block(?:_(\d+))?/units/bottleneck_unit(?:_(\d+))?/")
_NAMES = tuple(
    (re.compile(f"(?:.*/)?{path}"), name)
    for path, name in (
        (r"root_block/conv/vars/0", "root_block/standardized_conv2d/kernel"),
        (r"(block\d/unit\d+/[abc])/conv/vars/0", r"\1/standardized_conv2d/kernel"),
        (r"(block\d/unit\d+/[abc])/norm/vars/0", r"\1/group_norm/gamma"),
        (r"(block\d/unit\d+/[abc])/norm/vars/1", r"\1/group_norm/beta"),
        (r"(block\d/unit\d+)/proj/vars/0", r"\1/a/proj/standardized_conv2d/kernel"),
        (r"norm/vars/0", "group_norm/gamma"),
        (r"norm/vars/1", "group_norm/beta"),
        (r"zero_init_head(?:_\d+)?/vars/0", "head/kernel"),
        (r"zero_init_head(?:_\d+)?/vars/1", "head/bias"),
    )
)


def read_keras(path):
    """Reads the backbone, and the head, in a file that Keras wrote of a model of this package.

    Args:
        path: A `.weights.h5` or `.keras` file. The backbone and the head may be parts of a larger
            model, whose other arrays are passed over.

    Returns:
        `WeightArrays`.

    Raises:
        ValueError: If the file is damaged or no such file, or holds several backbones or heads.
    """
    import h5py

    path = pathlib.Path(path)
    stored = {}
    with reading(path, "an undamaged file of weights that Keras wrote"):
        file = h5py.File(_h5(path), "r")
        for place, dataset in _datasets(file):
            name = _name_of(place)
            if name in stored:
                raise ValueError(f"it holds {name} twice: save the layer on its own")
            if name is not None:
                stored[name] = _stored_array(path, place, dataset)
    return WeightArrays(path, stored)


def _h5(path):
    return zipfile.ZipFile(path).open(_MEMBER) if zipfile.is_zipfile(path) else path


def _datasets(file):
    import h5py

    found = []
    file.visititems(lambda place, item: found.append((place, item)))
    return [(place, item) for place, item in found if isinstance(item, h5py.Dataset)]


def _name_of(place):
    """The name of the array at a place in the file; `None` where it belongs to another layer."""

    def unit(match):
        block, number = (int(group or 0) + 1 for group in match.groups())
        return f"block{block}/unit{number:02d}/"

    place = _UNIT.sub(unit, place)
    for pattern, name in _NAMES:
        if pattern.fullmatch(place):
            return pattern.sub(name, place)
    return None


def _stored_array(path, place, dataset):
    room = dataset.id.get_storage_size()
    if room < dataset.nbytes:
        raise ValueError(f"{place} declares the shape {dataset.shape} and has no room for it")

    def load():
        with reading(path, "an undamaged file of weights that Keras wrote"):
            return dataset[()]

    return StoredArray(dataset.shape, load)
