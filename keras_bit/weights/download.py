"""From a URL to a file in Keras's cache folder."""

import http.client
import os
import pathlib
import shutil
import tempfile
import urllib.parse
import urllib.request


def fetch(url):
    """Returns the local path of a file, downloading it where the cache lacks it.

    The cache is `$KERAS_HOME/keras_bit`, by default `~/.keras/keras_bit`.

    Raises:
        ConnectionError: If the download fails or breaks off; nothing is left behind then.
    """
    home = pathlib.Path(os.environ.get("KERAS_HOME", pathlib.Path.home() / ".keras"))
    target = home / "keras_bit" / urllib.parse.unquote(url).rpartition("/")[2]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(url, target)
    return target


def _download(url, target):
    print(f"Downloading {url} to {target}")
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url) as response:
            shutil.copyfileobj(response, file, length=2**20)
            expected = response.headers.get("Content-Length")
            if expected is not None and file.tell() != int(expected):
                raise OSError(f"{file.tell()} of {expected} bytes arrived")
        os.replace(temporary, target)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ConnectionError(
            f"`{url}` could not be downloaded ({error}). Try again, or download it elsewhere and "
            "pass the file to `BiTBackbone.from_weights`."
        ) from error
    finally:
        pathlib.Path(temporary).unlink(missing_ok=True)
