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

from keras_bit.core.file_faults import wrap_read_errors
from keras_bit.core.files import cache_folder
from keras_bit.weights.arrays import LARGEST_RATIO
from keras_bit.weights.fetch.folders import check_owner, make_folder

FORMS = (
    "`https://tfhub.dev/google/bit/m-r50x1/1`, `kaggle://google/bit/tensorFlow2/m-r50x1`, "
    "a SavedModel folder or a .tar.gz of one"
)
_MODULE = (
    r"(?P<network>[sm]-r\d+x\d+)"
    r"(?:[-/](?P<head>ilsvrc2012|imagenet21k)[-_]classification)?"
    r"(?:/(?:versions/)?(?P<version>\d+))?/*"
)
_HOST = r"(?P<host>https?://[^/?#]+|(?:www\.)?tfhub\.dev)/"
_HUB = re.compile(f"(?i){_HOST}google/bit/{_MODULE}")
# Ports of the authors' distilled networks and their teachers, from the files in `distill/`.
_PORT = re.compile(
    rf"(?i){_HOST}sayakpaul/"
    r"(?P<name>(distill_bit_r(esnet)?50x1_(224|160)|bit_r(esnet)?152x2_(224|384))"
    r"_(classification|feature_extraction))(?:/(?P<version>\d+))?/*"
)
_KAGGLE_MODELS = r"kaggle://|(?:https?://)?(?:www\.)?kaggle\.com/(?:api/v1/)?models/"
_KAGGLE = re.compile(
    rf"(?i)(?:{_KAGGLE_MODELS})?google/bit/(?:frameworks/)?tensorflow2/(?:variations/)?{_MODULE}"
    r"(?:/download/*)?"
)
_REMOTE = re.compile(
    rf"(?i){_KAGGLE_MODELS}|(https?://)?(www\.)?tfhub\.dev/"
    r"|https?://[^/?#]+/(google/bit/|sayakpaul/(distill_)?bit_)"
    r"|google/bit/(frameworks/|tensorflow|keras|jax|pytorch|tflite|tfjs|flax)"
)


def is_handle(text: str | os.PathLike) -> bool:
    """Returns whether a text is a handle of TensorFlow Hub, a mirror of it, or Kaggle.

    >>> is_handle("kaggle://google/bit/tensorFlow2/m-r50x1"), is_handle("BiT-M-R50x1.npz")
    (True, False)
    """
    return _REMOTE.match(str(text).strip()) is not None


def resolve(handle: str | os.PathLike) -> pathlib.Path:
    """Returns the local folder of a SavedModel, downloading and unpacking it if need be.

    tensorflow_hub downloads into `$TFHUB_CACHE_DIR` or a temporary folder. Without kagglehub a
    module of Kaggle is the equal one of TensorFlow Hub. Archives are unpacked into this package's
    cache folder, and again when they have changed. A PermissionError tells of a folder that another
    user may have put there, in a place such as `/tmp` that everybody may write to.
    """
    path = pathlib.Path(handle)
    if path.is_dir():
        return _saved_model_in(path, "Pass the folder that holds saved_model.pb.")
    if path.is_file():
        return _unpacked(path)
    if not is_handle(handle):
        raise FileNotFoundError(f"`handle` must be {FORMS}. Received: {handle}, not found.")
    folder = _download(str(handle).strip())
    check_owner(folder)  # libraries may download into a folder of /tmp that others can guess
    return _saved_model_in(folder, "Delete this folder and try again: it may have been half-filled")


def _saved_model_in(folder, advice):
    if (folder / "saved_model.pb").is_file():
        return folder
    found = [file.parent for file in folder.glob("*/saved_model.pb") if file.is_file()]
    if len(found) == 1:
        return found[0]
    raise ValueError(
        "`handle` must lead to one SavedModel. Received: "
        f"{folder}, which holds {len(found)}, having no saved_model.pb of its own. {advice}"
    )


def _download(handle):
    """Tries one library after the other."""
    tried = []
    for library, function, address in _ways(handle):
        try:
            return pathlib.Path(getattr(importlib.import_module(library), function)(address))
        except Exception as error:  # those of kagglehub and TensorFlow have no class in common
            why = str(error)
            if getattr(error, "name", None) == "pkg_resources":
                why = "it needs pkg_resources: pip install 'setuptools<81'"
            tried.append(f"{library} with {address} ({type(error).__name__}: {why})")
    raise ConnectionError(
        f"`{handle}` could not be downloaded. Tried: {'; '.join(tried)}. Try again, or download "
        "the module elsewhere and pass its folder or .tar.gz."
    )


def _ways(handle):
    """Yields the names of a library and its function, and what it calls the module."""
    # A browser's or tensorflow_hub's query, such as `?tfhub-redirect=true`, says nothing more.
    address = handle.partition("#")[0].partition("?")[0]
    if port := _PORT.fullmatch(address):
        name, version = port["name"].lower(), port["version"] or 1
        yield "tensorflow_hub", "resolve", f"{_web(port['host'])}/sayakpaul/{name}/{version}"
        return
    kaggle = _KAGGLE.fullmatch(address)
    module = kaggle or _HUB.fullmatch(address)
    if module is None:
        raise ValueError(
            f"`handle` must be {FORMS}; networks are called like m-r50x1, with "
            "/ilsvrc2012_classification or /imagenet21k_classification behind those with a head. "
            f"Received: {handle}. Of other modules pass the downloaded folder, if it holds a BiT."
        )
    parts = {name: (part or "").lower() for name, part in module.groupdict().items()}
    head, version = parts["head"], parts["version"]
    name = parts["network"] + (f"/{head}_classification" if head else "")
    if kaggle and importlib.util.find_spec("kagglehub"):
        address = f"google/bit/tensorFlow2/{re.sub('[/_]', '-', name)}"
        yield "kagglehub", "model_download", address + (f"/{version}" if version else "")
    host = "https://tfhub.dev" if kaggle else _web(module["host"])
    yield "tensorflow_hub", "resolve", f"{host}/google/bit/{name}/{version or 1}"


def _web(host):
    return "https://tfhub.dev" if "tfhub.dev" in host.lower() else host


def _unpacked(archive):
    """The folder of an unpacked archive; it is named after the archive's path, size and date."""
    status = archive.stat()
    digits = hashlib.sha256(str(archive.resolve()).encode()).hexdigest()[:8]
    family = f"{archive.name.partition('.')[0]}-{digits}-"
    target = cache_folder() / f"{family}{status.st_size}-{status.st_mtime_ns}"
    check_owner(target)
    if not target.is_dir():
        make_folder(target.parent)
        _unpack(archive, target)
        for former in target.parent.glob(f"{family}*"):
            if former != target:
                shutil.rmtree(former, ignore_errors=True)
    return _saved_model_in(target, f"Make {archive} of one folder with a saved_model.pb.")


def _unpack(archive, target):
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpacking.") as temporary:
        folder = pathlib.Path(temporary, "module")
        folder.mkdir()
        rule = "`source` must be an undamaged, harmless .tar.gz of a SavedModel"
        with wrap_read_errors(archive, rule):
            _write_members(archive, folder)
        with contextlib.suppress(OSError):  # another process may have been quicker
            folder.rename(target)


def _write_members(archive, folder):
    """Looks at all headers of an archive before anything of it is written."""
    room = min(shutil.disk_usage(folder).free, LARGEST_RATIO * archive.stat().st_size)
    with tarfile.open(archive) as tar:
        _check_members(tar, room)
        for member in tar:
            target, content = folder / member.name, tar.extractfile(member)
            (target.parent if content else target).mkdir(parents=True, exist_ok=True)
            if content:
                with open(target, "xb") as file:
                    shutil.copyfileobj(content, file, length=2**20)


def _check_members(members, room):
    declared, seen = 0, set()
    for member in members:
        name = pathlib.PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or re.search(r"[\\:\0]", member.name):
            raise ValueError(f"its member {member.name!r} leads out of its folder")
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
            raise ValueError(f"its member {member.name!r} is neither a file nor a folder")
        if name in seen and member.isfile():
            raise ValueError(f"its member {member.name!r} overwrites another")
        seen.add(name)
        declared += member.size
        if declared > room:
            raise ValueError(
                f"its members declare {declared} bytes or more up to {member.name!r}, and "
                f"there can be no more than {room}"
            )
