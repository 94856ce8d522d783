"""Requests over HTTP, and how they fail."""

import contextlib
import http.client
import string
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

CHUNK = 2**18  # bytes
SILENCE = 20.0  # seconds without a byte after which a connection counts as cut
_PAGES = ("text/html", "application/xhtml+xml")
_WORTH_A_RETRY = (408, 425, 429)  # of the client's errors: timeout, too early, too many requests


# What the server that redirects knows of the file: Hugging Face's, of those that lie elsewhere.
_OF_THE_FILE = "X-Linked-ETag"


class Refused(Exception):
    """A download that fails however often it is tried, with the server's `status` if any."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class Broken(Exception):
    """A download that may succeed when it is tried again."""


class Damaged(Exception):
    """A download whose checksum is wrong."""


@contextlib.contextmanager
def request(url: str, headers: Mapping[str, str]) -> Iterator[Any]:
    """Yields the response to a GET request: a file, or the rest of it, or else raises."""
    with _open(url, headers) as response:
        kind = response.headers.get_content_type()
        if kind in _PAGES and response.status != 416:
            raise Refused(f"the server sends a web page, {kind}, in place of the file")
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise Refused(f"the server sends it encoded with {encoding}, which was not asked for")
        # A file of a mirror's folder has no status.
        if response.status not in (None, 200, *((206, 416) if "Range" in headers else ())):
            raise Refused(f"the server answers {response.status}, which was not asked for")
        yield response


def read_chunks(response: Any, size: int | None) -> Iterator[bytes]:
    """Yields the body of a response, of which `size` bytes are due, or any number with `None`."""
    left = sys.maxsize if size is None else size
    while left:
        try:
            chunk = response.read1(min(CHUNK, left))
        except (OSError, http.client.HTTPException) as error:
            raise Broken(f"the connection broke off, {_described(error)}") from error
        if not chunk:
            return
        left -= len(chunk)
        yield chunk


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows the web's own redirects, but not from a secure connection to an open one.

    A token goes to no other server, and `linked` is what the first one said of the file.
    """

    linked: str | None = None
    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302  # absent in Python 3.10

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type, scheme) == ("https", "http"):
            fp.close()
            raise Refused(f"the server redirects from {req.type} to {newurl}")
        code = 307 if code == 308 else code  # for Python 3.10
        self.linked = self.linked or headers.get(_OF_THE_FILE)
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if token and request and (request.type, request.host) == (req.type, req.host):
            request.add_unredirected_header("Authorization", token)
        return request


def _open(url, headers):
    url = urllib.parse.quote(url, safe=string.punctuation)
    get = urllib.request.Request(url, headers={"User-Agent": "keras_bit"})
    for name, value in headers.items():
        add = get.add_unredirected_header if name == "Authorization" else get.add_header
        add(name, value)
    redirects = _Redirects()
    try:
        response = urllib.request.build_opener(redirects).open(get, timeout=SILENCE)
    except urllib.error.HTTPError as error:
        if error.code == 416 and "Range" in headers:
            return error
        error.close()
        reason = f"the server answers {error.code} {error.reason}"
        if error.code >= 500 or error.code in _WORTH_A_RETRY:
            raise Broken(reason) from error
        raise Refused(reason, error.code) from error
    except http.client.InvalidURL as error:
        raise Refused(str(error)) from error
    except (OSError, http.client.HTTPException) as error:
        raise Broken(_described(getattr(error, "reason", error))) from error
    if redirects.linked and _OF_THE_FILE not in response.headers:
        response.headers[_OF_THE_FILE] = redirects.linked
    return response


def _described(error):
    return str(error) or type(error).__name__
