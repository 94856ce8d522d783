"""Where the authors' and Hugging Face's files are, and where a mirror has them."""

import os
import pathlib
import re
import urllib.parse
import urllib.request

STORE = "https://storage.googleapis.com/bit_models"
HUGGING_FACE = "https://huggingface.co"
# What is mirrored, and in which folder of the mirror.
_FOLDERS = {f"{STORE}/": "/", f"{HUGGING_FACE}/": "/huggingface.co/"}


def split_url(url: str, argument: str) -> urllib.parse.SplitResult:
    """Returns the parts of an http or https URL; raises ValueError for any other text."""
    try:
        parts = urllib.parse.urlsplit(url)
        intact = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of a port that is no number, or a wrong IPv6 address
        intact = False
    if not intact:
        raise ValueError(
            f"`{argument}` must be a whole URL that begins with http:// or https://. "
            f"Received: {url!r}"
        )
    return parts


def mirrored(url: str) -> str:
    """The URL to download from: `url` itself, or that of the same file on the mirror."""
    mirror = named_mirror()
    if not mirror or not is_mirrored(url):
        return url
    [rest] = (f + url.removeprefix(place) for place, f in _FOLDERS.items() if url.startswith(place))
    if re.match("https?://", mirror, re.IGNORECASE):
        parts = split_url(mirror, "KERAS_BIT_MIRROR")
        if parts.query or parts.fragment:
            raise ValueError(
                f"`KERAS_BIT_MIRROR` must be a URL without '?' and '#'. Received: {mirror!r}"
            )
        return mirror.rstrip("/") + rest
    if mirror.lower().startswith("file://"):
        folder = pathlib.Path(urllib.request.url2pathname(urllib.parse.urlsplit(mirror).path))
    else:
        folder = pathlib.Path(mirror).expanduser()
    if not folder.is_dir():
        raise ValueError(
            "`KERAS_BIT_MIRROR` must be a URL that begins with http:// or https://, or an "
            f"existing folder. Received: {mirror!r}"
        )
    file = folder / urllib.parse.unquote(urllib.parse.urlsplit(rest).path).lstrip("/")
    if not file.is_file():
        raise FileNotFoundError(
            f"The mirror that `KERAS_BIT_MIRROR` names must hold the file. Received: {mirror!r}, "
            f"without {file}. Put it there, or download {url} elsewhere and pass the file to "
            "`BiTBackbone.from_weights`."
        )
    return file.absolute().as_uri()


def named_mirror() -> str:
    """What `KERAS_BIT_MIRROR` names, or an empty text."""
    return os.environ.get("KERAS_BIT_MIRROR", "").strip()


def is_mirrored(url: str) -> bool:
    """Whether a URL is that of a file which a mirror would have."""
    return url.startswith(tuple(_FOLDERS))
