"""Folders of photographs as an `ImageDataset`."""

import os
import stat
import unicodedata
from functools import partial
from pathlib import Path

from keras_bit.data.dataset import (
    TEST_NAMES,
    Found,
    Selection,
    Split,
    labels_of,
    make_dataset,
    sift,
)
from keras_bit.data.images import attempt, read_image_size, reason_of, threaded_map

_HEADERS_AT_ONCE = 64
_SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


class FileSplit(Split):
    """Images that lie in files."""

    def __init__(self, found):
        super().__init__((image.name for image in found), [image.label for image in found])
        self._found = tuple(found)

    def _identity(self):
        for image in self._found:
            yield os.fsencode(image.identity)

    def _sources(self):
        return (image.key for image in self._found)


def _visible(folder):
    """What lies in a folder, sorted by name, without hidden and system files."""
    with os.scandir(folder) as entries:
        return sorted(
            (
                entry
                for entry in entries
                if not entry.name.startswith(".") and entry.name.lower() not in _SYSTEM_NAMES
            ),
            key=lambda entry: entry.name,
        )


def _is_folder(entry):
    # DirEntry.is_dir raises for a link that points to itself.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _subfolders(folder):
    """Names of the folders in a folder; an error where two differ only in case."""
    names = [entry.name for entry in _visible(folder) if _is_folder(entry)]
    seen = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise ValueError(
                "Folders must not differ only in upper and lower case; merge or rename them. "
                f"Received: {other!r} and {name!r} in {folder}"
            )
    return names


def _check_folder(path):
    if not path.exists():
        raise FileNotFoundError(f"`path` must be a folder that exists. Received: path={path}")
    if not path.is_dir():
        raise NotADirectoryError(
            f"`path` must be a folder of class folders, not a file. Received: path={path}"
        )


def _layout(root):
    """`(training folder, test folder or None, names of the folders beside the two)`."""
    folders = {name.casefold(): name for name in _subfolders(root)}
    test = next((folders[name] for name in TEST_NAMES if name in folders), None)
    train = folders.get("train")
    if train is None or test is None:
        return root, None, []
    unused = [name for name in folders.values() if name not in (train, test)]
    return root / train, root / test, unused


def _class_folders(folder):
    names = _subfolders(folder)
    if len(names) < 2:
        content = f"only the folder {names[0]!r}" if names else "no folder"
        raise ValueError(
            "`path` must hold one folder of images for each class, at least two (or a `train` "
            f"and a `test` folder of such folders). Received: {folder} with {content} in it"
        )
    return names


def _check_same_classes(train_folder, train_names, test_folder, test_names):
    only_train = sorted(set(train_names) - set(test_names))
    only_test = sorted(set(test_names) - set(train_names))
    if only_train or only_test:
        raise ValueError(
            "Training and test folder must hold the same class folders. Received: "
            f"{only_train} only in {train_folder}, {only_test} only in {test_folder}"
        )


def _walk(folder, ancestors=()):
    """Yields every file below a folder; links to folders are followed, but not in circles."""
    real = os.path.realpath(folder)
    if real in ancestors:
        return
    for entry in _visible(folder):
        if _is_folder(entry):
            yield from _walk(entry.path, (*ancestors, real))
        else:
            yield Path(entry.path)


def _inspect_file(root, item):
    """`(found or None, name, reason or None)` of a file, from its header."""
    path, label = item
    name = str(path)
    try:
        status = path.stat()
    except OSError as error:
        return None, name, reason_of(error)
    if not stat.S_ISREG(status.st_mode):
        return None, name, "not a regular file"
    if not status.st_size:
        return None, name, "empty file"
    size, reason = attempt(read_image_size, name)
    if reason is not None:
        return None, name, reason
    relative = path.relative_to(root).as_posix()
    identity = f"{relative}\0{status.st_size}\0{status.st_mtime_ns}"
    return Found(name, label, size, name, identity), name, None


def _stray_images(root, folder):
    """Yields `(name, reason)` of the images that lie in `folder` itself, in no class folder."""
    for entry in _visible(folder):
        if not _is_folder(entry):
            found, name, _ = _inspect_file(root, (Path(entry.path), None))
            if found is not None:
                yield name, "outside the class folders"


def _scan_folder(root, folder, label_names, min_edge):
    """What was found in the class folders of `folder`, and what of it is left out."""
    items = (
        (path, label) for label, name in enumerate(label_names) for path in _walk(folder / name)
    )
    inspected = threaded_map(partial(_inspect_file, root), items, _HEADERS_AT_ONCE)
    found, left_out = sift(inspected, min_edge)
    present = set(labels_of(found))
    for label, name in enumerate(label_names):
        if label not in present:
            reasons = [reason for path, reason in left_out if folder / name in Path(path).parents]
            first = f" (the first: {reasons[0]})" if reasons else ""
            raise ValueError(
                "Every class folder must hold images that can be read and are large enough. "
                f"Received: {folder / name} with none, and {len(reasons)} files left out{first}"
            )
    return found, [*_stray_images(root, folder), *left_out]


def image_folder(path, *, validation_split=0.1, seed=0, min_edge=0, examples_per_class=None):
    """An `ImageDataset` over a folder of photographs.

    The folder holds one folder of images for each class, or a `train` and a `test` folder (also
    called `validation`, `valid` or `val`) of such class folders. Class `i` is the `i`-th class
    folder by name. Images may lie in folders within a class folder. JPEG, PNG, BMP and GIF files
    are told by their content. Only their headers are read here; pixels are read by `map`.

    Left out, and listed with reasons in `left_out` and counted in one warning: files that are no
    such images or whose header is broken, images smaller than `min_edge`, images outside the class
    folders, folders beside `train` and `test`. Hidden and system files are passed over. A file that
    is broken behind its header is found by `map` only.

    The division into training and test images depends on the files' relative paths and `seed`
    only, not on the machine or the order in which the file system lists them.

    Args:
        path: The folder.
        validation_split: Fraction of each class that becomes its test images (rounded; at least
            one image stays on each side). Not used where there is a `test` folder.
        seed: Non-negative integer; chooses the test images and the few-shot images.
        min_edge: Images whose shorter edge has fewer pixels are left out.
        examples_per_class: Number of training images that are kept of each class, for few-shot
            runs. The images kept at a smaller number are among those kept at a larger one.
            Default: all. The test images stay the same.

    Returns:
        An `ImageDataset`. The names of its images are their paths.

    Raises:
        FileNotFoundError: `path` does not exist.
        NotADirectoryError: `path` is a file.
        ValueError: There are fewer than two class folders, two of them differ only in case, the
            training and the test classes differ, or a class has too few images.

    Example:

    ```python
    import pathlib, tempfile
    from PIL import Image
    import keras_bit

    folder = pathlib.Path(tempfile.mkdtemp())
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for index in range(5):
            Image.new("RGB", (64, 48)).save(folder / name / f"{index}.png")

    data = keras_bit.image_folder(folder, validation_split=0.2)
    print(data.label_names, data.image_size)  # ('cat', 'dog') (48, 64)
    print(data.train_size, data.test_size)  # 8 2
    ```
    """
    selection = Selection(validation_split, seed, min_edge, examples_per_class).checked()
    root = Path(path)
    _check_folder(root)
    train_folder, test_folder, unused = _layout(root)
    label_names = _class_folders(train_folder)
    left_out = [(str(root / name), "beside the training and test folder") for name in unused]
    test_found, test_left_out = None, []
    if test_folder is not None:
        _check_same_classes(train_folder, label_names, test_folder, _subfolders(test_folder))
        left_out += _stray_images(root, root)
        test_found, test_left_out = _scan_folder(root, test_folder, label_names, min_edge)
    found, train_left_out = _scan_folder(root, train_folder, label_names, min_edge)
    left_out += train_left_out + test_left_out
    return make_dataset(found, test_found, FileSplit, FileSplit, label_names, left_out, selection)
