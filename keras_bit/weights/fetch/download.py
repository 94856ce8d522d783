"""From a URL to a file in Keras's cache folder."""

import contextlib
import hashlib
import pathlib
import sys
import time
import urllib.parse
from collections.abc import Mapping

from keras_bit.core.files import cache_folder, read_json, write_json
from keras_bit.core.text import readable_size
from keras_bit.core.warn import warn_caller
from keras_bit.weights.fetch import checksums
from keras_bit.weights.fetch.connection import CHUNK, Broken, Damaged, Refused, read_chunks, request
from keras_bit.weights.fetch.folders import check_owner, make_folder
from keras_bit.weights.fetch.mirror import is_mirrored, mirrored, split_url
from keras_bit.weights.fetch.partial import PartialFile, Served, record_of

ATTEMPTS = 4  # in a row that bring nothing new
RETRY_DELAY = 1.0  # seconds before the second attempt, doubled before every further one


def fetch(
    url: str, *, refresh: bool = False, headers: Mapping[str, str] | None = None
) -> pathlib.Path:
    """Returns the local path of a file, downloading it where the cache lacks it.

    The file is stored at `cache_path(url)`, and beside it, as `NAME.json`, what is known of it.
    Its size is compared at every call, its MD5 where it was written to since; a file that differs
    is downloaded again, one that was put there by hand, without a record, is taken as it is.

    A download that breaks off stays as `NAME.part`. It is resumed, at once a few times and at the
    next call, as long as the server still has the same file. Length and checksum are those that
    the server declares (`Content-Length`; `x-goog-hash`, `Content-MD5` or Hugging Face's
    `X-Linked-ETag`). Processes and threads
    that ask for the same file wait for each other and download it once.

    The environment variable `KERAS_BIT_MIRROR` names another location of the authors' files, in
    place of `https://storage.googleapis.com/bit_models`: a URL, or a folder, from which files are
    copied. Hugging Face's files are below `huggingface.co` there, as
    `OWNER/REPO/resolve/main/FILE`. The names in the cache stay the same.

    Args:
        url: Of a file, `http` or `https`.
        refresh: Whether to replace what the cache has, such as a file that turned out unreadable.
            Until the download is complete the old file stays.
        headers: Further headers for the server of `url`; a mirror does not get them, and other
            servers that it redirects to get no `Authorization`.

    Raises:
        ValueError: If `url` is not the URL of a file, or `KERAS_BIT_MIRROR` is neither the URL
            nor the folder of a mirror.
        ConnectionError: If the download fails.
        FileNotFoundError: If the mirror is a folder without this file.
        PermissionError: If the cache folder is another user's, in a place such as `/tmp` that
            everybody may write to. There the folders that this makes are private, mode 0700.
        OSError: If the cache folder cannot be written, or the disk has too little room.
    """
    target = cache_path(url)
    check_owner(target)
    seen = _stamp(target)
    if seen and not refresh and _is_intact(target):
        return target
    with _one_at_a_time(target):
        if _stamp(target) != seen and _is_intact(target):  # while this process waited
            return target
        if seen and not refresh:
            warn_caller(
                f"The file {target} is damaged and is downloaded again: it is not what its "
                f"record, {record_of(target).name}, says. (For a file of your own, delete the "
                "record.)"
            )
        source = mirrored(url)
        _download(url, source, target, headers if source == url and headers else {})
    return target


def cache_path(url: str) -> pathlib.Path:
    """Returns where `fetch` stores a file, and looks for one that was put there by hand.

    Below the cache folder, `$KERAS_HOME/keras_bit` or else `~/.keras/keras_bit`, the folders are
    the server's name, with the port, and those of the URL, with a hash of its query: files of the
    same name from different servers are kept apart.

    Args:
        url: Of a file, `http` or `https`.

    Raises:
        ValueError: If `url` is not the URL of a file.

    Example:

    >>> path = keras_bit.weights.fetch.cache_path("https://example.org/mine/BiT.npz")
    >>> path.parts[-4:]
    ('keras_bit', 'example.org', 'mine', 'BiT.npz')
    """
    parts = split_url(url, "url")
    names = [urllib.parse.unquote(name) for name in parts.path.split("/") if name]
    if not names or parts.path.endswith("/") or {".", ".."} & set(names):
        raise ValueError(f"`url` must name a file, without '.' and '..'. Received: {url!r}")
    if parts.query:
        names.insert(-1, f"query-{hashlib.sha256(parts.query.encode()).hexdigest()[:12]}")
    host = (parts.hostname or "") + ("" if parts.port is None else f"_{parts.port}")
    quoted = (urllib.parse.quote(name, safe=" +,=@()") for name in (host, *names))
    return cache_folder().joinpath(*quoted)


def _stamp(path):
    """What changes when another file takes this name; `None` where there is none."""
    with contextlib.suppress(OSError):
        stat = path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
    return None


def _is_intact(target):
    """Whether a file is there, and is the one of its record, if it has one."""
    stamp = _stamp(target)
    if stamp is None:
        return False
    try:
        record = read_json(record_of(target))
        size, modified, md5 = (record[key] for key in ("size", "modified", "md5"))
    except (OSError, ValueError, LookupError, TypeError):
        return True
    if stamp[1] != size:
        return False
    if stamp[0] == modified:
        return True
    with open(target, "rb") as file:
        if _feed(file, checksums.md5()).digest().hex() != md5:
            return False
    with contextlib.suppress(OSError):  # a folder that cannot be written: compared every time
        write_json(record_of(target), {**record, "modified": stamp[0]})
    return True


@contextlib.contextmanager
def _one_at_a_time(target):
    """Lets one process and thread at a time download a file; the others wait."""
    import filelock

    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    with _writing(target.parent):
        make_folder(target.parent)
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


def _download(url, source, target, headers):
    """Several attempts, until the file is complete or the attempts are used up."""
    part = PartialFile(target)
    longest = failures = damages = 0
    reason: Exception
    with _progress(source, target) as report:
        while failures < ATTEMPTS and damages < 2:
            try:
                with _writing(target.parent):
                    return _attempt(source, headers, part, report)
            except Refused as error:
                reason = error
                break
            except Damaged as error:
                reason = error
                damages += 1
            except Broken as error:
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
    again = f"Try again (the {readable_size(kept)} that arrived are kept)" if kept else "Try again"
    ways = ahead = ""
    if is_mirrored(url):
        ways = ", set KERAS_BIT_MIRROR to a mirror's URL or folder"
        ahead = " `keras-bit download` fills the cache ahead of time."
    return (
        f"`{url}` could not be downloaded{mirror} ({reason}). {again}{ways}, or download it "
        f"elsewhere and pass the file to `BiTBackbone.from_weights`, or put it at {target}.{ahead}"
    )


def _attempt(source, headers, part, report):
    """One request, or two where the server has another file than the part's."""
    served, start = part.resumable(source)
    rest = {"Range": f"bytes={start}-", "If-Range": served.validator} if start else {}
    with request(source, {**headers, **rest}) as response:
        if start and served.is_continued_by(response, start):
            return _receive(response, served, start, part, report)
        if response.status not in (206, 416):
            return _receive(response, Served.of(source, response), 0, part, report)
    part.discard()
    return _attempt(source, headers, part, report)


def _receive(response, served, start, part, report):
    checks = {"md5": checksums.md5()}
    if served.sha256:
        checks["sha256"] = checksums.sha256()
    if served.crc32c and not served.md5:
        checks["crc32c"] = checksums.crc32c()
    with part.opened(served, start) as file:
        _feed(file, *checks.values())
        report(start, served.size)
        for chunk in read_chunks(response, None if served.size is None else served.size - start):
            file.write(chunk)
            for check in checks.values():
                check.update(chunk)
            report(file.tell(), served.size)
        size = file.tell()
    if served.size not in (None, size):
        raise Broken(f"{size} of {served.size} bytes arrived")
    for name, check in checks.items():
        declared, found = getattr(served, name), check.digest().hex()
        if declared not in (None, found):
            part.discard()
            raise Damaged(f"its {name} is {found}, but the server declares {declared}")
    part.finish(served._replace(size=size, md5=checks["md5"].digest().hex()))


def _feed(file, *checks):
    """Feeds the rest of a file to checksums, and returns the first of them."""
    while chunk := file.read(CHUNK):
        for check in checks:
            check.update(chunk)
    return checks[0]


@contextlib.contextmanager
def _progress(source, target):
    """Yields `report(bytes, total)`: a line on stderr, and a bar there if it is a terminal."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    texts = (progress.DownloadColumn(), progress.TransferSpeedColumn())
    columns = (progress.BarColumn(None), *texts, progress.TimeRemainingColumn(compact=True))
    hidden = not console.is_terminal
    bar = progress.Progress(*columns, console=console, expand=True, disable=hidden)

    def report(done, total):
        if not bar.tasks:
            size = "" if total is None else f" ({readable_size(total)})"
            console.out(f"Downloading {source} to {target}{size}", highlight=False)
            bar.add_task("", total=total, completed=done)
            bar.start()
        bar.update(bar.tasks[0].id, completed=done, total=total)

    try:
        yield report
    finally:
        bar.stop()
