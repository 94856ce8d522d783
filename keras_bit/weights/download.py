"""From a URL to a file in Keras's cache folder."""

import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import string
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from typing import NamedTuple

from keras_bit.files import written_whole
from keras_bit.weights import checksums
from keras_bit.weights.mirror import is_in_store, mirrored, split_url

ATTEMPTS = 4  # in a row that bring nothing new
RETRY_DELAY = 1.0  # seconds before the second attempt, doubled before every further one
SILENCE = 20.0  # seconds without a byte after which a connection counts as cut
_PIECE = 2**18  # bytes
_SAFE_IN_NAMES = " +,=@()"
_PAGES = ("text/html", "application/xhtml+xml")
_WORTH_A_RETRY = (408, 425, 429)  # of the client's errors: timeout, too early, too many requests


class _Refused(Exception):
    """A download that fails however often it is tried."""


class _Broken(Exception):
    """A download that may succeed when it is tried again."""


class _Damaged(Exception):
    """A download whose checksum is wrong."""


def fetch(url, *, anew=False):
    """Returns the local path of a file, downloading it where the cache lacks it.

    The file is stored at `cache_path(url)`, and beside it, as `NAME.json`, what is known of it:
    its size, its MD5 and what the server said. The size is compared at every call, the MD5 where
    the file was written to since. A file that differs is downloaded anew. A file that was put
    there by hand, without a record, is taken as it is.

    A download that breaks off stays as `NAME.part`. It is gone on with, at once a few times and
    at the next call, as long as the server still has the same file. Length and checksum are those
    that the server declares (`Content-Length`; `x-goog-hash` or `Content-MD5`). Processes and
    threads that ask for the same file wait for each other and download it once.

    The environment variable `KERAS_BIT_MIRROR` names another place of the authors' files, in
    place of `https://storage.googleapis.com/bit_models`: a URL, or a folder, from which files are
    copied. Their names in the cache stay the same.

    Args:
        url: Of a file, `http` or `https`.
        anew: Whether to replace what the cache has, such as a file that turned out unreadable.
            Until the download is complete the old file stays.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: If `url` is not the URL of a file, or `KERAS_BIT_MIRROR` is no place.
        ConnectionError: If the download fails.
        FileNotFoundError: If the mirror is a folder without this file.
        OSError: If the cache folder cannot be written, or the disk has too little room.
    """
    target = cache_path(url)
    seen = _stamp(target)
    if seen and not anew and _is_intact(target):
        return target
    with _one_at_a_time(target):
        if _stamp(target) != seen and _is_intact(target):  # while this process waited
            return target
        if seen and not anew:
            warnings.warn(
                f"The file {target} is damaged and is downloaded anew: it is not what its record, "
                f"{_record_of(target).name}, says. (For a file of your own, delete the record.)",
                stacklevel=2,
            )
        _download(url, mirrored(url), target)
    return target


def cache_path(url):
    """Returns where `fetch` stores a file, and looks for one that was put there by hand.

    Below the cache folder, `$KERAS_HOME/keras_bit` or else `~/.keras/keras_bit`, the folders are
    the server's name and those of the URL, as `wget --force-directories` makes them, so files of
    the same name from different places are kept apart. A port and a hash of the query are added
    where the URL has them.

    Example:

    >>> path = keras_bit.weights.download.cache_path("https://example.org/mine/BiT.npz")
    >>> path.parts[-4:]
    ('keras_bit', 'example.org', 'mine', 'BiT.npz')

    Args:
        url: Of a file, `http` or `https`.

    Raises:
        ValueError: If `url` is not the URL of a file.
    """
    parts = split_url(url, "url")
    names = [urllib.parse.unquote(name) for name in parts.path.split("/") if name]
    if not names or parts.path.endswith("/") or {".", ".."} & set(names):
        raise ValueError(f"`url` must name a file, without '.' and '..'. Received: {url!r}")
    if parts.query:
        names.insert(-1, f"query-{hashlib.sha256(parts.query.encode()).hexdigest()[:12]}")
    host = parts.hostname if parts.port is None else f"{parts.hostname}_{parts.port}"
    home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
    names = [urllib.parse.quote(name, safe=_SAFE_IN_NAMES) for name in (host, *names)]
    return home.joinpath("keras_bit", *names)


# Places.


# The cache.


def _stamp(path):
    """What changes when another file takes this place; `None` where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _record_of(target):
    return target.with_name(f"{target.name}.json")


def _is_intact(target):
    """Whether a file is there, and is the one of its record, if it has one."""
    stamp = _stamp(target)
    if stamp is None:
        return False
    try:
        record = json.loads(_record_of(target).read_text())
        size, modified, md5 = (record[key] for key in ("size", "modified", "md5"))
    except (OSError, ValueError, LookupError, TypeError):
        return True
    if stamp[1] != size:
        return False
    if stamp[0] == modified:
        return True
    with open(target, "rb") as file:
        if _fed(checksums.md5(), file=file).hexdigest() != md5:
            return False
    with contextlib.suppress(OSError):  # a folder that cannot be written: compared every time
        _write_json(_record_of(target), {**record, "modified": stamp[0]})
    return True


def _write_json(path, value):
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


@contextlib.contextmanager
def _one_at_a_time(target):
    """Lets one process and thread at a time download a file; the others wait."""
    import filelock

    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    with _writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            print(f"Waiting for another process that downloads {target.name}.", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _writing(folder):
    try:
        yield
    except OSError as error:
        raise OSError(
            f"The cache folder {folder} cannot be written ({error}). Make room there, or set the "
            "environment variable KERAS_HOME to another folder."
        ) from error


# A download, of several attempts.


def _download(url, source, target):
    part = _Part(target)
    longest = failures = damages = 0
    with _progress(source, target) as report:
        while failures < ATTEMPTS and damages < 2:
            try:
                with _writing(target.parent):
                    return _attempt(source, part, report)
            except _Refused as error:
                reason = error
                break
            except _Damaged as error:
                reason = error
                damages += 1
            except _Broken as error:
                reason = error
                failures = 1 if part.size > longest else failures + 1
                longest = max(longest, part.size)
                if failures < ATTEMPTS:
                    time.sleep(RETRY_DELAY * 2 ** (failures - 1))
    kept = part.resumable(source)[1]
    if not kept:
        part.discard()
    raise ConnectionError(_failure(url, source, target, reason, kept)) from reason


def _failure(url, source, target, reason, kept):
    mirror = "" if source == url else f" from {source}"
    again = f"Try again (the {_readable(kept)} that arrived are kept)" if kept else "Try again"
    ways = "" if not is_in_store(url) else ", set KERAS_BIT_MIRROR to a mirror's URL or folder"
    ahead = "" if not ways else " `keras-bit download` fills the cache ahead of time."
    return (
        f"`{url}` could not be downloaded{mirror} ({reason}). {again}{ways}, or download it "
        f"elsewhere and pass the file to `BiTBackbone.from_weights`, or put it at {target}.{ahead}"
    )


def _attempt(source, part, report):
    """One request, or two where the server has another file than the part's."""
    served, start = part.resumable(source)
    headers = {"Range": f"bytes={start}-", "If-Range": served.validator} if start else {}
    with _open(source, headers) as response:
        _refuse_others(response, resuming=bool(start))
        if start and _continues(response, served, start):
            return _receive(response, served, start, part, report)
        if response.status not in (206, 416):
            return _receive(response, _Served.of(source, response), 0, part, report)
    part.discard()
    return _attempt(source, part, report)


def _receive(response, served, start, part, report):
    checks = {"md5": checksums.md5()}
    if served.crc32c and not served.md5:
        checks["crc32c"] = checksums.crc32c()
    with part.opened(served, start) as file:
        _fed(*checks.values(), file=file)
        report(start, served.size)
        for piece in _pieces(response, served.size, start):
            file.write(piece)
            for check in checks.values():
                check.update(piece)
            report(file.tell(), served.size)
        size = file.tell()
        file.flush()
        os.fsync(file.fileno())  # before the renaming, or a power failure may leave half a file
    if served.size not in (None, size):
        raise _Broken(f"{size} of {served.size} bytes arrived")
    for name, check in checks.items():
        declared, found = getattr(served, name), check.hexdigest()
        if declared not in (None, found):
            part.discard()
            raise _Damaged(f"its {name} is {found}, but the server declares {declared}")
    part.finish(served._replace(size=size, md5=checks["md5"].hexdigest()))


class _Served(NamedTuple):
    """A file as its server describes it, with `None` for what it does not say."""

    url: str
    size: int | None
    etag: str | None
    last_modified: str | None
    generation: str | None
    md5: str | None
    crc32c: str | None

    @classmethod
    def of(cls, url, response, size=None):
        headers = response.headers
        length = headers.get("Content-Length", "")
        if size is None and length.isdecimal() and "Transfer-Encoding" not in headers:
            size = int(length)
        names = ("ETag", "Last-Modified", "x-goog-generation")
        declared = checksums.declared(headers)
        return cls(url, size, *map(headers.get, names), *map(declared.get, checksums.DIGITS))

    @property
    def validator(self):
        """What `If-Range` may hold; a weak ETag is none."""
        return self.etag if (self.etag or "").startswith('"') else self.last_modified

    def differs(self, other):
        """Whether the server has put another file in this one's place."""
        pairs = zip(self[1:5], other[1:5], strict=True)
        return any(a != b for a, b in pairs if None not in (a, b))


class _Part:
    """The beginning of a file, `NAME.part`, and beside it what the server said of the whole."""

    def __init__(self, target):
        self._target = target
        self._path = target.with_name(f"{target.name}.part")
        self._notes = _record_of(self._path)

    @property
    def size(self):
        return (_stamp(self._path) or (0, 0))[1]

    def resumable(self, url):
        """Returns what was served and how many bytes of it to keep; zero: start over."""
        try:
            served = _Served(**json.loads(self._notes.read_text()))
        except (OSError, ValueError, TypeError):
            return None, 0
        size = self.size
        if served.url != url or not served.validator or size > (served.size or size):
            return None, 0
        # Of a whole file the last byte is asked for again: whether it still is that file.
        return served, size - 1 if size == served.size else size

    @contextlib.contextmanager
    def opened(self, served, start):
        """Yields the file: to be read up to byte `start`, and written from there."""
        if served.size is not None:
            _check_room(self._path.parent, served.size - self.size)
        with open(self._path, "r+b" if start else "w+b") as file:
            file.truncate(start)
            if not start:
                _write_json(self._notes, served._asdict())
            yield file

    def finish(self, served):
        """Gives the file its name, and a record."""
        record = {**served._asdict(), "modified": _stamp(self._path)[0]}
        # First: of a file without a record no later damage would be seen.
        _write_json(_record_of(self._target), record)
        os.replace(self._path, self._target)
        self.discard()

    def discard(self):
        self._path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)


def _check_room(folder, size):
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(f"{_readable(size)} are needed, and {_readable(free)} are free")


# HTTP.


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows the web's own redirects, but not from a secure connection to an open one."""

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302  # absent in Python 3.10

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type, scheme) == ("https", "http"):
            fp.close()
            raise _Refused(f"the server redirects from {req.type} to {newurl}")
        code = 307 if code == 308 else code  # for Python 3.10
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url, headers):
    address = urllib.parse.quote(url, safe=string.punctuation)
    request = urllib.request.Request(address, headers={"User-Agent": "keras_bit", **headers})
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=SILENCE)
    except urllib.error.HTTPError as error:
        if error.code == 416 and "Range" in headers:
            return error
        error.close()
        kind = _Broken if error.code >= 500 or error.code in _WORTH_A_RETRY else _Refused
        raise kind(f"the server answers {error.code} {error.reason}") from error
    except http.client.InvalidURL as error:
        raise _Refused(str(error)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(_described(getattr(error, "reason", error))) from error


def _refuse_others(response, resuming):
    kind = response.headers.get_content_type()
    if kind in _PAGES and response.status != 416:
        raise _Refused(f"the server sends a web page, {kind}, in place of the file")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise _Refused(f"the server sends it encoded with {encoding}, which was not asked for")
    # A file of a mirror's folder has no status.
    if response.status not in ((None, 200, 206, 416) if resuming else (None, 200)):
        raise _Refused(f"the server answers {response.status}, which was not asked for")


def _continues(response, served, start):
    """Whether the response is the rest, from byte `start`, of what was served before."""
    pattern = r"bytes (\d+)-\d+/(?:(\d+)|\*)"
    match = re.fullmatch(pattern, response.headers.get("Content-Range", ""))
    if response.status != 206 or not match or int(match[1]) != start:
        return False
    size = served.size if match[2] is None else int(match[2])
    return not served.differs(_Served.of(served.url, response, size))


def _pieces(response, size, start):
    left = sys.maxsize if size is None else size - start
    while left:
        try:
            piece = response.read1(min(_PIECE, left))
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(f"the connection broke off, {_described(error)}") from error
        if not piece:
            return
        left -= len(piece)
        yield piece


def _described(error):
    return str(error) or type(error).__name__


# Checksums.


def _fed(*checks, file):
    """Feeds the rest of a file to checksums, and returns the first of them."""
    while piece := file.read(_PIECE):
        for check in checks:
            check.update(piece)
    return checks[0]


# What the user sees.


@contextlib.contextmanager
def _progress(source, target):
    """Yields `report(bytes, total)`: a line on stderr, and a bar there if it is a terminal."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    bar = progress.Progress(
        progress.BarColumn(None),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(compact=True),
        console=console,
        expand=True,
        disable=not console.is_terminal,
    )

    def report(done, total):
        if not bar.tasks:
            size = "" if total is None else f" ({_readable(total)})"
            line = f"Downloading {source} to {target}{size}"
            console.print(line, soft_wrap=True, markup=False, highlight=False)
            bar.add_task("", total=total, completed=done)
            bar.start()
        bar.update(bar.tasks[0].id, completed=done, total=total)

    try:
        yield report
    finally:
        bar.stop()


def _readable(size):
    from rich.filesize import decimal

    return decimal(size)
