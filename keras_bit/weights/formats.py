"""A name of a file, whatever its kind, into its arrays."""

import pathlib
import tarfile
import zipfile

from keras_bit.weights import hub
from keras_bit.weights.download import cache_path, fetch
from keras_bit.weights.keras_files import read_keras
from keras_bit.weights.networks import Architecture, architecture_of
from keras_bit.weights.npz import read_npz
from keras_bit.weights.presets import find_preset
from keras_bit.weights.saved_model import read_saved_model
from keras_bit.weights.torch_files import read_safetensors, read_torch

FORMS = (
    "an .npz file in the authors' layout, a .safetensors, .pth or .bin file of timm or Hugging "
    "Face, a .weights.h5 or .keras file, a TensorFlow SavedModel (a folder or .tar.gz), the URL "
    "of one of these, or a TensorFlow Hub or Kaggle handle"
)


_MISTAKES = (
    (b"<", "a web page"),
    (b"version https://", "a pointer to a file: fetch it with `git lfs pull`"),
)


def read_weights(source):
    """Reads the names and shapes of a network's arrays, and later the arrays.

    Args:
        source: Path of a file or folder, URL, or handle; see `FORMS`. Files are told by their
            content, not by their name.

    Returns:
        `WeightArrays`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of no known kind, or damaged.
        ConnectionError: If it cannot be downloaded.
    """
    text = str(source)
    if hub.is_handle(text):
        return read_saved_model(hub.resolve(text))
    if text.startswith(("https://", "http://")):
        return _read_download(text)
    return _read_path(pathlib.Path(source))


def read_preset(name):
    """Reads the weights of a preset, which may have to be downloaded into Keras's cache folder.

    Args:
        name: A name of the table, or else a source as `read_weights` takes it.

    Returns:
        `WeightArrays`.

    Raises:
        ValueError: If there is no such preset, or its file holds another network.
        ConnectionError: If the file cannot be downloaded.
    """
    try:
        preset = find_preset(name)
    except ValueError:
        if not _is_source(str(name)):
            raise
        return read_weights(name)
    arrays = _read_path(preset.path) if preset.path else _read_download(preset.url)
    found = architecture_of(arrays)
    if found != Architecture(preset.depth, preset.width):
        raise ValueError(
            f"The file of the preset {preset.name!r} must hold "
            f"{Architecture(preset.depth, preset.width)}. Received: {arrays.source}, which holds "
            f"{found}. Delete it, or pass it to `from_weights` if that is what you want."
        )
    return arrays


def _is_source(text):
    return "://" in text or hub.is_handle(text) or pathlib.Path(text).exists()


def _read_download(url):
    was_cached = cache_path(url).exists()
    try:
        return _read_path(fetch(url))
    except ValueError:
        if not was_cached:
            raise
        # It may have been damaged since, in a way that its size does not tell.
        return _read_path(fetch(url, anew=True))


def _read_path(path):
    if not path.exists():
        raise FileNotFoundError(
            f"`source` must be {FORMS}. Received: {path}, and there is no such file"
        )
    if path.is_dir():
        return read_saved_model(path)
    return _reader_of(path)(path)


def _reader_of(path):
    """The function that reads a file of this kind, told by its first bytes and its members."""
    with open(path, "rb") as file:
        start = file.read(16)
    if start.startswith(b"\x89HDF"):
        return read_keras
    if start.startswith(b"PK"):
        return _reader_of_zip(path)
    if start.startswith(b"\x1f\x8b") or tarfile.is_tarfile(path):
        return lambda path: read_saved_model(hub.resolve(path))
    if start[8:9] == b"{":
        return read_safetensors
    if start.startswith(b"\x80"):
        return read_torch  # a pickle: PyTorch's files of before 2020
    what = next((what for sign, what in _MISTAKES if start.lstrip().startswith(sign)), "none")
    raise ValueError(f"`source` must be {FORMS}. Received: {path}, which is {what}")


def _reader_of_zip(path):
    if not zipfile.is_zipfile(path):
        return read_npz  # cut off, as it will say
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if "model.weights.h5" in names:
        return read_keras
    return read_torch if any(name.endswith("data.pkl") for name in names) else read_npz
