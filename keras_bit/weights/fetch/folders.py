"""Folders of downloads, which nobody else may write to."""

import os
import pathlib
import stat


def make_folder(path: str | os.PathLike) -> None:
    """Makes a folder of downloads, and those above it.

    Below a folder that everybody may write to, such as `/tmp`, they are private to the user
    (mode 0700). Raises as `check_owner`.
    """
    path = pathlib.Path(os.path.abspath(path))
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            shared = any(map(_is_shared, folder.parents))
            folder.mkdir(0o700 if shared else 0o777, exist_ok=True)
    check_owner(path)  # afterward: somebody may have been quicker


def check_owner(path: str | os.PathLike) -> None:
    """Raises a PermissionError where another user may have put a file, or a folder above it.

    So it may be where everybody may write to the folder that it lies in. What belongs to the user
    or to root is trusted.
    """
    for each in {os.path.abspath(path), os.path.realpath(path)}:
        for part in (pathlib.Path(each), *pathlib.Path(each).parents):
            if not os.path.lexists(part) or not _is_shared(part.parent):
                continue
            if (owner := os.lstat(part).st_uid) not in (os.getuid(), 0):
                raise PermissionError(
                    f"Downloads must lie where nobody else may write. Received: {part}, which "
                    f"belongs to the user with number {owner}, in {part.parent}, which everybody "
                    "may write to. Set the environment variable KERAS_HOME, for modules of "
                    "TensorFlow Hub TFHUB_CACHE_DIR, to a folder of your own."
                )


def _is_shared(folder):
    """Whether everybody may write to a folder, as far as the system tells: Windows does not."""
    return os.name != "nt" and folder.is_dir() and bool(folder.stat().st_mode & stat.S_IWOTH)
