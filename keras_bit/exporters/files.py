"""Where exported files come to lie."""

import os
import pathlib

from keras_bit.exporters.formats import Format


def checked_path(path: str | os.PathLike, format: Format) -> pathlib.Path:
    """Returns the path to write to; raises where it is none of the format, or something else's."""
    path = pathlib.Path(path)
    if path.suffix != format.suffix and format.suffix or not path.name:
        ending = f"end with {format.suffix}" if format.suffix else "name a folder"
        raise ValueError(f"`path` must {ending} for {format.name}. Received: path={path}")
    if path.is_dir():
        if format.suffix or (any(path.iterdir()) and not (path / "saved_model.pb").is_file()):
            raise FileExistsError(
                "`path` must be new, or what an earlier export wrote. Received: "
                f"path={path}, a folder of something else"
            )
    elif path.exists() and not format.suffix:
        raise FileExistsError(f"`path` must name a folder. Received: path={path}, a file")
    return path


def publish(written: pathlib.Path, path: pathlib.Path, format: Format) -> pathlib.Path | None:
    """Gives what was written in one folder the names that belong to `path`.

    Returns the file of class names, or `None`; one of an earlier export does not stay without.
    """
    labels = format.labels_file(path)
    if not format.labels_file(written).exists():
        labels.unlink(missing_ok=True)
    for file in list(written.parent.iterdir()):
        _replace(file, path.with_name(file.name))
    return labels if labels.exists() else None


def _replace(source, target):
    """Moves a file or folder to where an older one may be, which stays if that fails."""
    if not target.is_dir():
        os.replace(source, target)
        return
    old = source.with_name(f"{source.name}.old")
    os.replace(target, old)
    try:
        os.replace(source, target)
    except BaseException:
        os.replace(old, target)
        raise
