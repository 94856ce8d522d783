"""Files of Hugging Face's repositories, by handles such as `hf://google/bit-50`.

They go through this package's own download, which resumes, compares the SHA-256, and needs no
further package; huggingface_hub's settings and its cache are honored.
"""

import os
import pathlib
import re
import urllib.parse
from typing import NamedTuple

from keras_bit.weights.fetch import cache_path, fetch
from keras_bit.weights.fetch.folders import check_owner
from keras_bit.weights.fetch.mirror import HUGGING_FACE

# Of a repository without a file's name the first of these is taken: as timm and transformers save
# theirs, and as Keras does.
FILES = ("model.safetensors", "pytorch_model.bin", "model.weights.h5", "model.keras")
_SCHEME = re.compile(
    r"hf://|hf[-_]hub:(?://)?|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE
)
_REPOSITORY = r"(?P<repository>\w[\w.-]*/\w[\w.-]*)"
_REVISION = r"(?P<revision>refs/(?:pr|convert)/\w+|\w[\w.-]*)"
_FILE = r"(?P<file>\w[\w. -]*(?:/\w[\w. -]*)*)"
_HANDLE = re.compile(f"{_REPOSITORY}(?:@{_REVISION})?(?:/{_FILE})?/*")
_PAGE = re.compile(f"{_REPOSITORY}(?:/(?:tree|blob|resolve|raw)/{_REVISION}(?:/{_FILE})?)?/*")
_OTHER_REPOSITORIES = ("datasets", "spaces", "buckets")


class _Handle(NamedTuple):
    repository: str
    revision: str
    files: tuple[str, ...]


def is_hub_handle(text: str) -> bool:
    """Returns whether a text is a handle, or the address of a page, of Hugging Face.

    >>> is_hub_handle("hf://google/bit-50"), is_hub_handle("google/bit-50")
    (True, False)
    """
    return _SCHEME.match(text.strip()) is not None


def fetch_from_hub(handle: str) -> pathlib.Path:
    """Returns the local path of a repository's file, downloading it if need be.

    It is looked for in the cache of huggingface_hub (`HF_HUB_CACHE`, `HF_HOME`) and in Keras's,
    into which it is downloaded. `HF_TOKEN`, or the file that `hf auth login` leaves, opens
    private repositories; `HF_ENDPOINT` is another server; with `HF_HUB_OFFLINE` nothing is
    downloaded.

    Args:
        handle: `hf://OWNER/REPO[@REVISION][/FILE]`, timm's `hf-hub:OWNER/REPO`, or the address of
            a page. Without a file it is the first of `FILES` that there is.

    Raises:
        ValueError: If `handle` is none of these.
        ConnectionError: If it cannot be downloaded.
        FileNotFoundError: If `KERAS_BIT_MIRROR` is a folder without the file.
    """
    parts = _parsed(handle)
    if path := _local_copy(parts):
        return path
    if _is_on("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        raise ConnectionError(
            f"`{handle}` is in no cache, and HF_HUB_OFFLINE is set. Unset it, or download the file "
            f"elsewhere and pass it, or put it at {cache_path(_url(parts, parts.files[0]))}."
        )
    failures = []
    for file in parts.files:
        try:
            return fetch(_url(parts, file), headers=_headers())
        except (ConnectionError, FileNotFoundError) as error:
            failures.append(error)
            if isinstance(error, ConnectionError) and _status(error) != 404:
                break
    last = failures[-1]
    raise type(last)(_explained(handle, parts, last)) from last.__cause__


def has_local_copy(handle: str) -> bool:
    """Returns whether Keras's cache holds the file, from an earlier download."""
    parts = _parsed(handle)
    return any(cache_path(_url(parts, file)).exists() for file in parts.files)


def _parsed(handle):
    text = handle.strip()
    rest = _SCHEME.sub("", text, count=1)
    is_page = not text.lower().startswith("hf")
    if is_page:
        rest = urllib.parse.unquote(rest.partition("#")[0].partition("?")[0])
    match = (_PAGE if is_page else _HANDLE).fullmatch(rest)
    if match is None or ".." in rest or rest.partition("/")[0] in _OTHER_REPOSITORIES:
        raise ValueError(
            "`source` must be `hf://OWNER/REPO`, `hf://OWNER/REPO@REVISION` or either with "
            f"`/FILE`, of a repository of models. Received: {handle!r}"
        )
    files = (match["file"],) if match["file"] else FILES
    return _Handle(match["repository"], match["revision"] or "main", files)


def _url(parts, file):
    endpoint = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or HUGGING_FACE
    revision = urllib.parse.quote(parts.revision, safe="")
    return f"{endpoint}/{parts.repository}/resolve/{revision}/{urllib.parse.quote(file)}"


def _local_copy(parts):
    """The file in huggingface_hub's cache or in Keras's, or `None`."""
    folder = _hub_cache() / f"models--{parts.repository.replace('/', '--')}"
    reference = folder / "refs" / parts.revision
    commit = reference.read_text().strip() if reference.is_file() else parts.revision
    for file in parts.files:
        path = folder / "snapshots" / commit / file
        if path.is_file():
            check_owner(path)
            return path
        if cache_path(url := _url(parts, file)).exists():
            return fetch(url, headers=_headers())
    return None


def _headers():
    token = _token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _token():
    if _is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    if token := _set("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        return token
    path = pathlib.Path(_set("HF_TOKEN_PATH") or _hub_home() / "token").expanduser()
    return path.read_text().strip() if path.is_file() else None


def _hub_cache():
    named = _set("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    return pathlib.Path(named or _hub_home() / "hub").expanduser()


def _hub_home():
    cache = _set("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(_set("HF_HOME") or f"{cache}/huggingface").expanduser()


def _set(*names):
    """The value of the first environment variable that has one."""
    values = (os.environ.get(name, "").strip() for name in names)
    return next(filter(None, values), None)


def _is_on(*names):
    return (_set(*names) or "").upper() in ("1", "ON", "YES", "TRUE")


def _status(error):
    return getattr(error.__cause__, "status", None)


def _explained(handle, parts, error):
    advice, status = "", _status(error)
    if status in (401, 403):
        advice = (
            " Hugging Face answers so where a repository does not exist, is private, or has to be "
            "asked for: look at its name, or set HF_TOKEN to a token that may read it."
        )
    elif status == 404:
        advice = f" Looked for {', '.join(parts.files)} at revision {parts.revision}."
        if len(parts.files) > 1:
            advice += " Name another file: hf://OWNER/REPO/FILE."
    return f"`{handle}`: {error}{advice}"
