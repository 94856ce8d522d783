"""Handles of TensorFlow Hub and Kaggle, and archives, into local SavedModel folders."""

import contextlib
import hashlib
import importlib.util
import os
import pathlib
import re
import shutil
import tarfile
import tempfile
import zlib

FORMS = (
    "`https://tfhub.dev/google/bit/m-r50x1/1`, `google/bit/tensorFlow2/m-r50x1`, "
    "a SavedModel folder or a .tar.gz of one"
)
_MODULE = (
    r"(?P<network>[sm]-r\d+x\d+)"
    r"(?:[-/](?P<head>ilsvrc2012|imagenet21k)[-_]classification)?"
    r"(?:/(?:versions/)?(?P<version>\d+))?/*"
)
_HUB = re.compile(r"(?P<host>https?://[^/?#]+)/google/bit/" + _MODULE, re.IGNORECASE)
_KAGGLE = re.compile(
    r"(?:https?://(?:www\.)?kaggle\.com/models/)?google/bit/"
    r"(?:frameworks/)?tensorflow2/(?:variations/)?" + _MODULE,
    re.IGNORECASE,
)
_REMOTE = re.compile(
    r"https?://((www\.)?(tfhub\.dev|kaggle\.com/models)/|[^/?#]+/google/bit/)"
    r"|google/bit/(frameworks/|tensorflow|keras|jax|pytorch|tflite|tfjs|flax)",
    re.IGNORECASE,
)
# Deflate shrinks nothing further: an archive that claims more is not what it says it is.
_LARGEST_RATIO = 1032


def is_handle(text):
    """Returns whether a text is a handle of TensorFlow Hub or Kaggle, and no path or file's URL.

    Mirrors are recognised by the path of their URLs, such as `http://mirror/google/bit/m-r50x1/1`.

    >>> is_handle("google/bit/tensorFlow2/m-r50x1"), is_handle("weights/BiT-M-R50x1.npz")
    (True, False)
    """
    return _REMOTE.match(str(text).strip()) is not None


def resolve(handle):
    """Returns the local folder of a SavedModel, downloading and unpacking it if need be.

    TensorFlow Hub's modules are downloaded by tensorflow_hub, into `$TFHUB_CACHE_DIR` or a folder
    for temporary files; Kaggle's by kagglehub where it is installed, into its cache, else as the
    equal module of TensorFlow Hub. Archives are unpacked into `$KERAS_HOME/keras_bit`, by default
    `~/.keras/keras_bit`, and anew when they have changed.

    Args:
        handle: URL of a module on tfhub.dev, with or without version; a Kaggle handle such as
            `"google/bit/tensorFlow2/m-r50x1"` or
            `"google/bit/frameworks/tensorFlow2/variations/m-r50x1/versions/1"`, or its URL; a
            SavedModel folder; or a `.tar.gz` of one.

    Returns:
        A `pathlib.Path`.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If it is a handle of no BiT module, or leads to no SavedModel; if an archive is
            damaged, has members that are links or lead out of its folder, or has no room for what
            it declares.
        ConnectionError: If the module cannot be downloaded, with everything that was tried.
    """
    path = pathlib.Path(handle)
    if path.is_dir():
        return _saved_model_in(path, "Pass the folder that holds saved_model.pb.")
    if path.is_file():
        return _unpacked(path)
    if not is_handle(handle):
        raise FileNotFoundError(f"`handle` must be {FORMS}. Received: {handle}, not found.")
    folder = _download(str(handle).strip())
    return _saved_model_in(folder, "Delete this folder and try again: it may have been half-filled")


def _saved_model_in(folder, advice):
    found = [file.parent for file in [folder / "saved_model.pb", *folder.glob("*/saved_model.pb")]]
    found = [place for place in found if (place / "saved_model.pb").is_file()]
    if found[:1] == [folder] or len(found) == 1:
        return found[0]
    raise ValueError(
        "`handle` must lead to one SavedModel. Received: "
        f"{folder}, which holds {len(found)}, having no saved_model.pb of its own. {advice}"
    )


def _download(handle):
    """Tries one way after the other to the folder of a module."""
    ways = _ways(handle)
    tried = []
    for what, address, fetch in ways:
        try:
            return pathlib.Path(fetch(address))
        except _download_errors(what) as error:
            tried.append(f"{what} with {address} ({type(error).__name__}: {error})")
    raise ConnectionError(
        f"`{handle}` could not be downloaded. Tried: {'; '.join(tried)}. Try again, or download "
        "the module elsewhere and pass its folder or .tar.gz."
    )


def _ways(handle):
    """Triples of a library's name, what it calls the module, and its function to a folder."""
    kaggle = _KAGGLE.fullmatch(handle)
    module = kaggle or _HUB.fullmatch(handle)
    if module is None:
        raise ValueError(
            f"`handle` must be {FORMS}; networks are called like m-r50x1, with "
            "/ilsvrc2012_classification or /imagenet21k_classification behind those with a head. "
            f"Received: {handle}"
        )
    parts = {name: (part or "").lower() for name, part in module.groupdict().items()}
    head, version = parts["head"], parts["version"]
    host = "https://tfhub.dev" if kaggle or "tfhub.dev" in parts["host"] else module["host"]
    name = parts["network"] + (f"/{head}_classification" if head else "")
    ways = [("tensorflow_hub", f"{host}/google/bit/{name}/{version or 1}", _fetch_from_hub)]
    if kaggle and importlib.util.find_spec("kagglehub"):
        name = re.sub("[/_]", "-", name)
        address = f"google/bit/tensorFlow2/{name}" + (f"/{version}" if version else "")
        ways.insert(0, ("kagglehub", address, _fetch_from_kaggle))
    return ways


def _fetch_from_hub(url):
    try:
        import tensorflow_hub
    except ModuleNotFoundError as error:
        if error.name != "pkg_resources":
            raise
        raise ModuleNotFoundError("it needs pkg_resources: pip install 'setuptools<81'") from error
    return tensorflow_hub.resolve(url)


def _fetch_from_kaggle(address):
    import kagglehub

    return kagglehub.model_download(address)


def _download_errors(library):
    """What a library raises where a module cannot be had."""
    errors = [
        OSError,
        ValueError,
        EOFError,
        ImportError,
        RuntimeError,
        tarfile.TarError,
        zlib.error,
    ]
    if library == "kagglehub":
        # Its errors have no class in common.
        import kagglehub.exceptions

        named = vars(kagglehub.exceptions).values()
        errors += [e for e in named if isinstance(e, type) and issubclass(e, Exception)]
    else:
        import tensorflow as tf

        errors.append(tf.errors.OpError)
    return tuple(errors)


def _unpacked(archive):
    """The folder of an unpacked archive; it is named after the archive's place, size and date."""
    status = archive.stat()
    place = hashlib.sha256(str(archive.resolve()).encode()).hexdigest()[:8]
    state = f"{status.st_size}-{status.st_mtime_ns}"
    cache = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
    family = f"{archive.name.partition('.')[0]}-{place}-"
    target = cache / "keras_bit" / f"{family}{state}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        _unpack(archive, target)
        for former in target.parent.glob(f"{family}*"):
            if former != target:
                shutil.rmtree(former, ignore_errors=True)
    return _saved_model_in(target, f"Make {archive} of one folder with a saved_model.pb.")


def _unpack(archive, target):
    temporary = pathlib.Path(tempfile.mkdtemp(dir=target.parent, prefix=".unpacking."))
    try:
        with _reading_archive(archive):
            _check_members(archive, shutil.disk_usage(temporary).free)
            with tarfile.open(archive) as tar:
                for member in tar:
                    _write(tar, member, temporary / member.name)
        # Another process may have been quicker.
        with contextlib.suppress(OSError):
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _reading_archive(archive):
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
        raise ValueError(
            "`handle` must be an undamaged, harmless .tar.gz of a SavedModel. Received: "
            f"{archive}, which cannot be unpacked ({error})."
        ) from error


def _check_members(archive, free):
    """Looks at all headers of an archive before anything of it is written."""
    room = min(free, _LARGEST_RATIO * archive.stat().st_size)
    declared = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            name = pathlib.PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts or re.search(r"[\\:\0]", member.name):
                raise ValueError(f"its member {member.name!r} leads out of its folder")
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
                raise ValueError(f"its member {member.name!r} is neither a file nor a folder")
            declared += member.size
            if declared > room:
                raise ValueError(
                    f"its members declare {declared} bytes or more up to {member.name!r}, and "
                    f"there can be no more than {room}"
                )


def _write(tar, member, target):
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as file:
        shutil.copyfileobj(tar.extractfile(member), file, length=2**20)
