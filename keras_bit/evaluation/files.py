"""From files, folders and patterns to the images that they mean."""

import glob
import os
import pathlib
import stat
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch

from keras_bit.core.text import list_some
from keras_bit.core.warn import warn_caller
from keras_bit.data.images import read_image_size, try_read
from keras_bit.data.sources.folders import walk_files
from keras_bit.data.threads import map_headers

FORMATS = "JPEG, PNG, BMP, GIF, WebP or TIFF"
RECURSIVE = "**"
_NAMED = 3


def find_images(
    files: str | os.PathLike | Iterable[str | os.PathLike], name: str = "files"
) -> list[str]:
    """Returns the paths of the images that files, folders and patterns mean, in their order.

    A folder means all images below it, sorted by path, without hidden and system files; links are
    followed, but not in circles. A text with `*`, `?` or `[` that is the name of no file means all
    images that it matches, and those below the folders that it matches; `**` stands for any number
    of folders. What else lies there is counted in a warning. Any other path is returned as it is,
    whether there is such a file or not.

    Args:
        files: The paths, or one.
        name: What errors call them.

    Raises:
        ValueError: If there is no image in a folder, or none that matches a pattern.
        OSError: If a folder cannot be read.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_bit.evaluation.files import find_images
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for file in ("b.png", "a.png", "cats/c.png"):
    ...     (folder / file).parent.mkdir(exist_ok=True)
    ...     keras.utils.save_img(folder / file, np.zeros((8, 8, 3)))
    >>> found = find_images([folder, f"{folder}/[ab].png"])
    >>> [pathlib.Path(file).name for file in found]
    ['a.png', 'b.png', 'c.png', 'a.png', 'b.png']
    """
    images: list[str] = []
    others: list[str] = []
    for file in [files] if isinstance(files, (str, os.PathLike)) else files:
        text = os.fspath(file)
        paths = _meant(text)
        if paths is None:
            images.append(text)
            continue
        found, rest = _divided(paths)
        if not found:
            raise ValueError(
                f"`{name}` must be images ({FORMATS}), folders with images, or patterns that match "
                f"images. Received: {text}, with no image among {len(rest):,} files."
            )
        images += found
        others += rest
    if others:
        listed = list_some(others, _NAMED)
        warn_caller(f"Skipped: {len(others):,}, which are no images ({FORMATS}): {listed}")
    return images


def is_image(path: str | os.PathLike) -> bool:
    """Whether the content of a file begins as an image does; raises what `try_read` catches."""
    from PIL import UnidentifiedImageError

    if not stat.S_ISREG(os.stat(path).st_mode):
        return False
    try:
        read_image_size(path)
    except UnidentifiedImageError:
        return False
    return True


def _meant(text: str) -> Iterator[str] | None:
    """The files that a folder or a pattern means; `None` where the text names a file."""
    if os.path.isdir(text):
        return walk_files(text)
    if glob.has_magic(text) and not os.path.lexists(text):
        return _matching(text)
    return None


def _matching(pattern: str) -> Iterator[str]:
    """Yields the files that a pattern matches, and those below the folders that it matches."""
    parts = pathlib.PurePath(pattern).parts
    split = parts.index(RECURSIVE) if RECURSIVE in parts else len(parts)
    for found in _glob(parts[:split]):
        if not os.path.isdir(found):
            yield from () if parts[split:] else (found,)
            continue
        for path in walk_files(found):
            below = pathlib.PurePath(path).relative_to(found).parts
            ends = range(1, len(below) + 1)  # of those that match a folder, too
            if not parts[split:] or any(_fits(below[:end], parts[split:]) for end in ends):
                yield path


def _glob(parts: Sequence[str]) -> list[str]:
    """What a pattern without `**` matches, sorted; folders that there are mean themselves."""
    if not parts:
        return [os.curdir]
    literal = len(parts)
    while literal and not os.path.lexists(os.path.join(*parts[:literal])):
        literal -= 1
    escaped = (glob.escape(os.path.join(*parts[:literal])),) if literal else ()
    found = glob.glob(os.path.join(*escaped, *parts[literal:]))
    return sorted(found, key=lambda path: pathlib.PurePath(path).parts)


def _fits(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a pattern."""
    if not patterns:
        return not parts
    if patterns[0] == RECURSIVE:
        return any(_fits(parts[start:], patterns[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], patterns[0]) and _fits(parts[1:], patterns[1:])


def _divided(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """The paths of images, or of what cannot be read and is reported later; and all others."""
    images: list[str] = []
    others: list[str] = []
    inspected = map_headers(lambda path: (path, *try_read(is_image, path)), paths)
    for path, image, reason in inspected:
        (images if image or reason else others).append(path)
    return images, others
