"""Folders of photographs as an `ImageDataset`."""

import os
import unicodedata
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from keras_bit.data.dataset import ImageDataset
from keras_bit.data.images import SKIP, check_damaged
from keras_bit.data.sources.files import FileSplit, inspect_file, key_start
from keras_bit.data.sources.selection import (
    TEST_NAMES,
    TRAIN_NAMES,
    Found,
    Selection,
    filter_found,
    to_dataset,
)
from keras_bit.data.threads import map_headers

_HERE = os.path.join(os.curdir, "")
_SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def image_folder(
    path: str | os.PathLike,
    *,
    validation_split: float = 0.1,
    seed: int = 0,
    min_edge: int = 0,
    examples_per_class: int | None = None,
    damaged: str = SKIP,
) -> ImageDataset:
    """An `ImageDataset` over a folder of photographs, which are named by their paths.

    The folder holds one folder of images for each class, or a `train` (or `training`) and a `test`
    folder (or `validation`, `valid`, `val`, `testing`) of such class folders. Class `i` is the
    `i`-th class folder by name. Images may lie in folders within a class folder. JPEG, PNG, BMP,
    GIF, WebP and TIFF files are recognized by their content. Only their headers are read here;
    pixels are read by `map`, which finds the files that are broken behind the header.

    Listed with reasons in `skipped`, and counted in one warning, are files that are no such images
    or whose header is broken, images smaller than `min_edge`, of more than twice
    `PIL.Image.MAX_IMAGE_PIXELS` pixels or outside the class folders, and folders beside `train` and
    `test`. Hidden and system files are ignored. The split into training
    and test images depends on the files' relative paths and `seed` only, not on the machine.

    Args:
        path: The folder.
        validation_split: Fraction of each class that becomes its test images (rounded; at least
            one image stays on each side). Not used where there is a `test` folder.
        seed: Non-negative integer; chooses the test images and the few-shot images.
        min_edge: Images whose shorter edge has fewer pixels are skipped.
        examples_per_class: Number of training images that are kept of each class, for few-shot
            runs; those of a smaller number are among those of a larger one. Default: all.
        damaged: What becomes of JPEG files that are cut short or damaged behind the header, which
            libjpeg decodes with wrong or gray pixels: `"skip"`, as of unreadable files, or `"keep"`
            them as it decodes them. Both name them in the warning of `pipelines`.

    Raises:
        FileNotFoundError: `path` does not exist.
        NotADirectoryError: `path` is a file.
        ValueError: An argument is out of range, there are fewer than two class folders, two of them
            differ only in case, training and test classes differ, or classes have too few images.

    Example:

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for path in [folder / name / f"{i}.png" for name in ("cat", "dog") for i in range(5)]:
    ...     path.parent.mkdir(exist_ok=True)
    ...     keras.utils.save_img(path, np.zeros((48, 64, 3)))
    >>> data = keras_bit.image_folder(folder, validation_split=0.2)
    >>> data.label_names, data.image_size, data.train_size
    (('cat', 'dog'), (48, 64), 8)
    """
    selection = Selection(validation_split, seed, min_edge, examples_per_class)
    make_split = partial(FileSplit, check_damaged(damaged))
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"`path` must be a folder that exists. Received: path={root}")
    if not root.is_dir():
        raise NotADirectoryError(
            f"`path` must be a folder of class folders, not a file. Received: path={root}"
        )
    train_folder, test_folder, unused = _layout(root)
    label_names = _class_folders(train_folder, test_folder)
    skipped = [(str(root / name), "beside the training and test folder") for name in unused]
    test, test_skipped = None, []
    if test_folder is not None:
        skipped += _stray_images(root)
        test_found, test_skipped = _scan_folder(root, test_folder, label_names, min_edge)
        test = make_split(test_found)
    found, train_skipped = _scan_folder(root, train_folder, label_names, min_edge)
    skipped += train_skipped + test_skipped
    return to_dataset(make_split, found, test, label_names, skipped, selection)


def holds_classes(root: Path) -> bool:
    """Whether each folder in a folder is a class, as where there are none for training and test."""
    return root.is_dir() and _layout(root)[1] is None


def _layout(root):
    """`(training folder, test folder or None, names of the folders beside the two)`."""
    folders = {name.casefold(): name for name in _subfolders(root)}
    train = next((name for name in TRAIN_NAMES if name in folders), None)
    test = next((name for name in TEST_NAMES if name in folders), None)
    if train is None or test is None:
        return root, None, []
    return root / folders.pop(train), root / folders.pop(test), folders.values()


def _class_folders(folder, test_folder):
    """Names of the class folders in the training folder; an error where the test folder differs."""
    names = _subfolders(folder)
    if len(names) < 2:
        content = f"only the folder {names[0]!r}" if names else "no folder"
        raise ValueError(
            "`path` must hold one folder of images for each class, at least two (or a `train` "
            f"and a `test` folder of such folders). Received: {folder} with {content} in it"
        )
    test_names = names if test_folder is None else _subfolders(test_folder)
    if test_names != names:
        raise ValueError(
            "Training and test folder must hold the same class folders. Received: "
            f"{sorted(set(names) - set(test_names))} only in {folder}, "
            f"{sorted(set(test_names) - set(names))} only in {test_folder}"
        )
    return names


def _subfolders(folder):
    """Names of the folders in a folder; an error where two differ only in case."""
    names = [entry.name for entry in _visible(folder) if _is_folder(entry)]
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise ValueError(
                "Folders must not differ only in upper and lower case; merge or rename them. "
                f"Received: {other!r} and {name!r} in {folder}"
            )
    return names


def _visible(folder):
    """What lies in a folder, sorted by name, without hidden and system files."""
    with os.scandir(folder) as entries:
        visible = [e for e in entries if e.name[0] != "." and e.name.lower() not in _SYSTEM_NAMES]
    return sorted(visible, key=lambda entry: entry.name)


def _is_folder(entry):
    # DirEntry.is_dir asks the disk of links only, but raises for one that points to itself.
    return os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()


def _path(entry):
    """The path of a `DirEntry`, written as pathlib writes it."""
    return entry.path.removeprefix(_HERE)


def _scan_folder(root, folder, label_names, min_edge):
    """What was found in the class folders of `folder`, and what of it was skipped."""
    items = ((path, i) for i, name in enumerate(label_names) for path in walk_files(folder / name))
    inspect = partial(inspect_file, key_start(root))
    inspected = map_headers(lambda item: inspect(*item), items)
    found, skipped = filter_found(inspected, min_edge)
    present = {image.label for image in found}
    for label, name in enumerate(label_names):
        if label not in present:
            reasons = [reason for path, reason in skipped if folder / name in Path(path).parents]
            first = f" (the first: {reasons[0]})" if reasons else ""
            raise ValueError(
                "Every class folder must hold images that can be read and are large enough. "
                f"Received: {folder / name} with none, and {len(reasons)} files skipped{first}"
            )
    return found, [*_stray_images(folder), *skipped]


def walk_files(folder: str | os.PathLike, ancestors: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields every file below a folder; links to folders are followed, but not in circles."""
    real = os.path.realpath(folder)
    if real in ancestors:
        return
    for entry in _visible(Path(folder)):
        if _is_folder(entry):
            yield from walk_files(entry.path, (*ancestors, real))
        else:
            yield _path(entry)


def _stray_images(folder):
    """Yields `(name, reason)` of the images that lie in `folder` itself, in no class folder."""
    for name in (_path(entry) for entry in _visible(folder) if not _is_folder(entry)):
        if isinstance(inspect_file(0, name, None), Found):
            yield name, "outside the class folders"
