"""From the name of a preset, or of a file of any kind, to its arrays."""

import contextlib
import os
import pathlib
import re
import tarfile
import zipfile
from typing import NamedTuple

from keras_bit.core.file_faults import AGAIN, fault_of, wrap_read_errors
from keras_bit.core.warn import warn_caller
from keras_bit.weights.architecture import Architecture, architecture_of
from keras_bit.weights.arrays import NetworkOf, WeightArrays
from keras_bit.weights.fetch import cache_path, fetch
from keras_bit.weights.fetch.mirror import named_mirror
from keras_bit.weights.hugging_face import fetch_from_hub, has_local_copy, is_hub_handle
from keras_bit.weights.keras_files import read_keras
from keras_bit.weights.npz import read_npz
from keras_bit.weights.presets import Preset, find_preset, further_places
from keras_bit.weights.saved_model import is_handle, read_saved_model, resolve
from keras_bit.weights.torch_files import read_safetensors, read_torch

FORMS = (
    "an .npz file in the authors' layout, a .safetensors, .pth or .bin file of timm or Hugging "
    "Face, a .weights.h5 or .keras file, the authors' .h5, a TensorFlow SavedModel (a folder or "
    ".tar.gz), the URL of one of these, or a handle: hf://OWNER/REPO of Hugging Face, "
    "kaggle://google/bit/... or TensorFlow Hub's URL"
)
# What the authors' networks were trained with, whoever stores them.
_AUTHORS_EPSILON = 1e-10
_PATH = re.compile(r"[.~].*|.*\.(npz|safetensors|pth|pt|bin|h5|keras|tar|gz|tgz)", re.IGNORECASE)


class Outline(NamedTuple):
    """What a network is without its weights; without a head it has 0 classes."""

    architecture: Architecture
    num_classes: int
    kernel_epsilon: float


def read_weights(source: str | os.PathLike, network: NetworkOf | None = None) -> WeightArrays:
    """Reads the names and shapes of a network's arrays, and later the arrays.

    Args:
        source: A name of `keras_bit.presets()`, whose file is downloaded into Keras's cache
            folder if need be; or else the path of a file or folder, a URL, or a handle, as for
            `keras_bit.BiTBackbone.from_preset`. A preset's name comes before a file of the same
            name: `"./m-r50x1"` is the file. Files are told by their content, not by their name. If
            the authors' server fails, a preset is read from Hugging Face or Kaggle, with a warning.
        network: A function from `WeightArrays` to a function from images (n, height, width, 3) in
            [0, 1] to features, or logits where the arrays have a head. With it the arrays of a
            SavedModel are verified against the module's own function; without it they are the
            likeliest ones.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is neither such a preset nor such a file; if the file is of no known
            kind, damaged, or of another network than the preset; or if a SavedModel's own
            function gives other outputs than `network`.
        ConnectionError: If it cannot be downloaded.

    Example:

    >>> arrays = keras_bit.weights.read_weights("f-r14x0.5")
    >>> arrays.shapes["root_block/standardized_conv2d/kernel"]
    (7, 7, 3, 32)
    """
    preset = _preset_called(source)
    if preset is not None:
        return _read_preset(preset, network)
    text = str(source)
    if not text.strip():
        raise ValueError(f"`source` must be {FORMS}. Received: source={text!r}")
    if is_handle(text) or is_hub_handle(text):
        return _read_handle(text, network)
    if text.startswith(("https://", "http://")):
        return _read_download(text, network)
    path = pathlib.Path(os.path.expanduser(text))
    if not path.exists():
        raise _not_found(source)
    return _read_path(path, network)


def read_architecture(source: str | os.PathLike) -> Architecture:
    """Returns depth and width of a preset, without downloading it, or else of a file.

    Args:
        source: As for `read_weights`.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: As `read_weights`.

    Example:

    >>> str(keras_bit.weights.read_architecture("m-r101x3"))
    'R101x3'
    """
    return read_outline(source).architecture


def read_outline(source: str | os.PathLike) -> Outline:
    """Returns what a preset's network is, without downloading it, or else that of a file.

    Args, raises: As `read_weights`.
    """
    preset = _preset_called(source)
    if preset is not None:
        architecture = Architecture(preset.depth, preset.width)
        return Outline(architecture, preset.num_classes, _AUTHORS_EPSILON)
    arrays = read_weights(source)
    (classes,) = arrays.shapes.get("head/bias", (0,))
    return Outline(architecture_of(arrays), classes, arrays.epsilon)


def _preset_called(source):
    if not isinstance(source, os.PathLike):
        with contextlib.suppress(ValueError):
            return find_preset(source)
    return None


def _not_found(source):
    """The error about a source that is neither a preset nor there."""
    text = str(source)
    if isinstance(source, os.PathLike) or os.path.isabs(text) or _PATH.fullmatch(text):
        return FileNotFoundError(
            f"`source` must be {FORMS}. Received: {text}, and there is no such file"
        )
    try:
        find_preset(text)
    except ValueError as error:
        return ValueError(f"{error} Else `source` must be {FORMS}; there is no such file.")


def _read_preset(preset, network):
    if preset.path:
        return _checked(_read_path(preset.path), preset)
    return _read_first(preset, _places(preset), network, [])


def read_copy(preset: Preset, failure: Exception) -> WeightArrays:
    """Reads a preset from elsewhere, where the authors' server failed.

    Raises that failure where it is nowhere else, and else all of them.
    """
    copies = [place for place in _places(preset) if place != preset.url]
    return _read_first(preset, copies, None, [failure])


def _read_first(preset, places, network, failures):
    """Reads a preset from the first place that has it, after what failed."""
    for place in places:
        try:
            if place == preset.url:
                return _checked(_read_download(place), preset)
            arrays = _checked(_read_handle(place, network), preset, with_head=True)
        except (ConnectionError, FileNotFoundError) as error:
            failures.append(error)
        except (ImportError, ValueError) as error:
            if place == preset.url:
                raise
            failures.append(error)
        else:
            if failures:
                warn_caller(
                    f"The weights of {preset.name!r} are taken from {place}, which holds the same "
                    f"arrays: {failures[0]}"
                )
            return arrays.with_epsilon(_AUTHORS_EPSILON)
    if len(failures) == 1:
        raise failures[0]
    reasons = "".join(f"\n  {number}. {error}" for number, error in enumerate(failures, 1))
    raise type(failures[0])(
        f"The weights of {preset.name!r} are at {len(failures)} places, and none could be read:"
        f"{reasons}"
    ) from failures[0]


def _places(preset):
    """The authors' file and the handles of its copies; one that was downloaded comes first."""
    copies = [handle for handle in further_places(preset) if is_hub_handle(handle)]
    if not named_mirror():  # which stands for all servers that it can stand for
        copies += [handle for handle in further_places(preset) if is_handle(handle)]
    if not cache_path(preset.url).exists():
        for handle in filter(is_hub_handle, copies):
            if has_local_copy(handle):
                return (handle, preset.url, *(copy for copy in copies if copy != handle))
    return (preset.url, *copies)


def _checked(arrays, preset, with_head=False):
    expected, found = Architecture(preset.depth, preset.width), architecture_of(arrays)
    if found != expected:
        raise ValueError(
            f"The file of the preset {preset.name!r} must hold {expected}. Received: "
            f"{arrays.source}, which holds {found}. Delete it, or pass its path if that is what "
            "you want."
        )
    (classes,) = arrays.shapes.get("head/bias", (0,))
    if with_head and classes != preset.num_classes:
        raise ValueError(
            f"The file of the preset {preset.name!r} must have a head of {preset.num_classes} "
            f"classes. Received: {arrays.source}, whose head has {classes}."
        )
    return arrays


def _read_handle(handle, network):
    if is_hub_handle(handle):
        return _read_path(fetch_from_hub(handle), network)
    _check_tensorflow(handle)  # before the download
    return read_saved_model(resolve(handle), network)


def _read_download(url, network=None):
    was_cached = cache_path(url).exists()
    try:
        return _read_path(fetch(url), network)
    except ValueError:
        if not was_cached:
            raise
        # It may have been damaged since, in a way that its size does not tell.
        return _read_path(fetch(url, refresh=True), network)


def _read_path(path, network=None):
    if not path.is_dir():
        if fault := fault_of(path):
            raise ValueError(
                f"`source` must be an undamaged file of weights. Received: {path}, which {fault}. "
                f"{AGAIN}"
            )
        with open(path, "rb") as file:
            start = file.read(16)
        if not start.startswith(b"\x1f\x8b") and not tarfile.is_tarfile(path):
            return _reader_of(path, start)(path)
    folder = resolve(path)
    _check_tensorflow(path)
    return read_saved_model(folder, network, path)


def _check_tensorflow(source):
    from keras_bit.core.device import has_tensorflow

    if not has_tensorflow():
        raise ImportError(
            "A SavedModel needs TensorFlow: pip install tensorflow. Without it, take the network's "
            f".npz or .safetensors file. Received: {source}"
        )


def _reader_of(path, start):
    """The function that reads a file of this kind, told by its first bytes and its members."""
    if start.startswith(b"\x89HDF"):
        return read_keras
    if start.startswith(b"PK"):
        return _reader_of_zip(path)
    if start[8:9] == b"{":
        return read_safetensors
    if start.startswith(b"\x80"):
        return read_torch  # a pickle: PyTorch's files from before 2020
    raise ValueError(f"`source` must be {FORMS}. Received: {path}, which is none of these. {AGAIN}")


def _reader_of_zip(path):
    with wrap_read_errors(path, "`source` must be an undamaged zip file"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    if "model.weights.h5" in names:
        return read_keras
    return read_torch if any(name.endswith("data.pkl") for name in names) else read_npz
