"""Where exported files come to lie."""

import os
import pathlib

from keras_bit.exporters.formats import FORMATS, Format


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
    weights = path.with_suffix(format.weights_suffix)
    if format.weights_suffix and weights.exists() and not path.exists():
        raise FileExistsError(
            f"`path` must leave other files alone. Received: path={path}, whose weights would "
            f"replace {weights.name} beside it. Choose another name, or remove that file."
        )
    return path


def publish(written: pathlib.Path, path: pathlib.Path, format: Format) -> pathlib.Path | None:
    """Gives what was written in one folder the names that belong to `path`.

    Returns the file of class names, or `None`; that of the file in its place does not stay without.
    """
    labels = format.labels_file(path)
    has_labels = format.labels_file(written).exists()
    if not has_labels and path.exists() and not _has_sibling(path, format):
        labels.unlink(missing_ok=True)
    for file in list(written.parent.iterdir()):
        _replace(file, path.with_name(file.name))
    return labels if has_labels else None


def _has_sibling(path, format):
    """Whether a file of another format may have the same file of class names."""
    stem = path.name.removesuffix(format.suffix)
    others = (each.suffix or "/saved_model.pb" for each in FORMATS.values() if each != format)
    return any((path.parent / f"{stem}{other}").exists() for other in others)


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
