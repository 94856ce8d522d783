import base64
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import filelock
import pytest

from keras_bit.weights.fetch import cache_path, connection, download, fetch
from keras_bit.weights.fetch.download import ATTEMPTS
from keras_bit.weights.fetch.mirror import STORE
from tests.web_server import Reply
from tests.weights.fetch.test_checksums import crc32c_bit_by_bit

CONTENT = bytes(range(256)) * 5000  # more than one chunk
OTHER = CONTENT[::-1]
HALF = len(CONTENT) // 2
ROOT = pathlib.Path(__file__).parents[3]
# As the command does it, without importing Keras.
FETCH = """
import sys
sys.argv[0] = "keras-bit"
from keras_bit.weights.fetch import fetch
print(fetch(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def files(server):
    server.files["whole.npz"] = CONTENT


@pytest.fixture
def url(server):
    return f"{server.url}/bit/whole.npz"


def files_below(folder):
    """Names of the files, without the locks, and the records of what is there."""
    names = sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name[0] != ".")
    return [n for n in names if not (n.endswith(".json") and n.removesuffix(".json") in names)]


def beside(url, suffix):
    path = cache_path(url)
    return path.with_name(path.name + suffix)


def break_off(server, url, **changes):
    """Leaves the first half of the file in the cache."""
    server.replies.append(Reply(cut_after=HALF, **changes))
    server.replies.extend([Reply(status=503)] * ATTEMPTS)
    with pytest.raises(ConnectionError):
        fetch(url)
    server.replies.clear()
    server.requests_seen.clear()
    server.headers_seen.clear()
    return beside(url, ".part")


def start_fetch(url):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", FETCH, url], cwd=ROOT, **pipes)


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def in_two_threads(call):
    results = []
    threads = [threading.Thread(target=lambda: results.append(call())) for _ in range(2)]
    for thread in threads:
        thread.start()
    return threads, results


# The cache.


def test_a_file_is_fetched_once(server, home, url):
    path = fetch(url)
    folder = url.split("/")[2].replace(":", "_")
    assert path == home / "keras_bit" / folder / "bit" / "whole.npz"
    assert path.read_bytes() == CONTENT
    assert fetch(url) == path
    assert server.requests_seen == ["/bit/whole.npz"]
    assert sorted(p.name for p in home.rglob("*") if p.is_file()) == [
        ".whole.npz.lock",
        "whole.npz",
        "whole.npz.json",
    ]


def test_the_record(server, url):
    server.reply = Reply(headers={"x-goog-generation": "17"})
    path = fetch(url)
    record = json.loads(beside(url, ".json").read_text())
    assert record["url"] == url and record["size"] == len(CONTENT)
    assert record["md5"] == hashlib.md5(CONTENT).hexdigest()
    assert record["modified"] == path.stat().st_mtime_ns and record["generation"] == "17"


def test_the_mode_of_files_follows_the_umask(url):
    before = os.umask(0o027)
    try:
        path = fetch(url)
    finally:
        os.umask(before)
    assert [p.stat().st_mode & 0o777 for p in (path, beside(url, ".json"))] == [0o640, 0o640]


def test_the_default_cache_is_that_of_keras(tmp_path, monkeypatch, url):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setattr(pathlib.Path, "home", lambda: tmp_path / "user")
    assert fetch(url).relative_to(tmp_path / "user" / ".keras" / "keras_bit").name == "whole.npz"


def test_files_of_one_name_are_kept_apart(server):
    server.files |= {"/mine/BiT.npz": OTHER, "/bit_models/BiT.npz": CONTENT}
    assert fetch(f"{server.url}/bit_models/BiT.npz").read_bytes() == CONTENT
    assert fetch(f"{server.url}/mine/BiT.npz").read_bytes() == OTHER


@pytest.mark.parametrize(
    "url, expected",
    [
        (f"{STORE}/vtab/a.npz", "storage.googleapis.com/bit_models/vtab/a.npz"),
        ("HTTP://Example.org:80//a/b%20c.npz", "example.org_80/a/b c.npz"),
        ("https://me:secret@example.org/a.npz#part", "example.org/a.npz"),
        ("https://example.org/a%2Fb%5Cc%3A.npz", "example.org/a%2Fb%5Cc%3A.npz"),
        ("https://example.org/a%252Fb.npz", "example.org/a%252Fb.npz"),
        ("https://[::1]/a.npz", "%3A%3A1/a.npz"),
        ("https://example.org/a.npz?v=1", "example.org/query-a798de8ee75a/a.npz"),
    ],
)
def test_cache_path(home, url, expected):
    assert cache_path(url) == home / "keras_bit" / expected


@pytest.mark.parametrize(
    "url, reason",
    [
        ("ftp://example.org/a.npz", "begins with http:// or https://"),
        ("file:///etc/passwd", "begins with http:// or https://"),
        ("a.npz", "begins with http:// or https://"),
        ("https:///a.npz", "begins with http:// or https://"),
        ("https://example.org:port/a.npz", "begins with http:// or https://"),
        ("https://[::1/a.npz", "begins with http:// or https://"),
        ("https://example.org", "must name a file"),
        ("https://example.org/folder/", "must name a file"),
        ("https://example.org/../../../a.npz", "must name a file"),
        ("https://example.org/%2e%2e/a.npz", "must name a file"),
    ],
)
def test_urls_of_no_file(home, url, reason):
    with pytest.raises(ValueError, match=f"`url` must.*{reason}|`url` {reason}.*Received: '"):
        fetch(url)
    assert not home.exists()


def test_a_file_put_there_by_hand_is_taken(server, url):
    path = cache_path(url)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"by hand")
    assert fetch(url).read_bytes() == b"by hand"
    assert server.requests_seen == []


def test_a_cached_file_needs_no_writable_folder(monkeypatch, url):
    path = fetch(url)
    os.utime(path, ns=(0, 0))

    def refuse(*arguments, **options):
        raise PermissionError

    monkeypatch.setattr(filelock, "FileLock", refuse)
    monkeypatch.setattr(pathlib.Path, "write_text", refuse)
    assert fetch(url) == path


@pytest.mark.parametrize(
    "damage, touched",
    [
        (CONTENT[:-1], False),
        (CONTENT + b"!", False),
        (b"", True),
        (b"!" + CONTENT[1:], True),
    ],
)
def test_a_damaged_file_is_downloaded_again(server, url, damage, touched):
    path = fetch(url)
    modified = path.stat().st_mtime_ns
    path.write_bytes(damage)
    modified += 1 if touched else 0
    os.utime(path, ns=(modified, modified))
    with pytest.warns(UserWarning, match="whole.npz is damaged and is downloaded again"):
        assert fetch(url) == path
    assert path.read_bytes() == CONTENT and len(server.requests_seen) == 2
    fetch(url)
    assert len(server.requests_seen) == 2


def test_a_damaged_record_is_none(server, url):
    path = fetch(url)
    for damage in ("", "[]", '{"size": 1}', "\x00"):
        beside(url, ".json").write_text(damage)
        assert fetch(url) == path
    assert len(server.requests_seen) == 1


def test_a_touched_file_is_read_once(server, monkeypatch, url):
    path = fetch(url)
    os.utime(path, ns=(0, 0))
    assert fetch(url) == path
    monkeypatch.setattr(download.checksums, "md5", None)
    assert fetch(url) == path
    assert len(server.requests_seen) == 1


def test_refresh(server, url):
    path = fetch(url)
    server.files["whole.npz"] = OTHER
    assert fetch(url).read_bytes() == CONTENT
    assert fetch(url, refresh=True) == path and path.read_bytes() == OTHER
    server.reply = Reply(status=404)
    with pytest.raises(ConnectionError, match="404"):
        fetch(url, refresh=True)
    assert fetch(url).read_bytes() == OTHER


# Several at once.


def test_two_processes_download_once(server, url):
    server.reply = Reply(stall_after=HALF)
    first = start_fetch(url)
    assert server.stalled.wait(30)
    second = start_fetch(url)
    assert second.stderr.readline() == "Waiting for another process that downloads whole.npz.\n"
    server.released.set()
    for process in (first, second):
        output, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert pathlib.Path(output.strip()).read_bytes() == CONTENT
    assert len(server.requests_seen) == 1


@pytest.mark.parametrize("refresh", [False, True])
def test_two_threads_download_once(server, url, refresh, capsys):
    if refresh:
        fetch(url)
        server.requests_seen.clear()
    server.reply = Reply(stall_after=HALF)
    threads, paths = in_two_threads(lambda: fetch(url, refresh=refresh))
    wait_until(lambda: "Waiting" in capsys.readouterr().err)
    server.released.set()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in paths] == [CONTENT] * 2
    assert len(server.requests_seen) == 1


def test_the_download_of_a_killed_process_is_resumed(server, url):
    server.replies.append(Reply(stall_after=HALF))
    process = start_fetch(url)
    assert server.stalled.wait(30)
    part = beside(url, ".part")
    wait_until(lambda: part.exists() and part.stat().st_size >= HALF - 2**16)  # less its buffer
    process.send_signal(signal.SIGKILL)
    process.communicate()
    arrived = part.stat().st_size
    assert not cache_path(url).exists()
    assert fetch(url).read_bytes() == CONTENT
    assert server.headers_seen[1]["range"] == f"bytes={arrived}-"
    assert files_below(part.parent) == ["whole.npz"]


# Downloads that break off.


@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_download_is_resumed_at_once(server, url, chunked):
    server.replies.append(Reply(cut_after=HALF, chunked=chunked))
    assert fetch(url).read_bytes() == CONTENT
    first, second = server.headers_seen
    assert "range" not in first and second["range"] == f"bytes={HALF}-"
    assert second["if-range"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'


def test_a_cut_download_is_kept_for_the_next_call(server, home, url):
    server.replies.append(Reply(cut_after=HALF))
    server.replies.extend([Reply(status=503)] * ATTEMPTS)
    with pytest.raises(ConnectionError, match=r"503.*Try again \(the 640\.0 kB that arrived"):
        fetch(url)
    assert files_below(home) == ["whole.npz.part"]
    server.replies.clear()
    assert fetch(url).read_bytes() == CONTENT
    assert server.headers_seen[-1]["range"] == f"bytes={HALF}-"
    assert files_below(home) == ["whole.npz"]
    assert json.loads(beside(url, ".json").read_text())["size"] == len(CONTENT)


def test_attempts_count_from_the_last_that_brought_something(server, url):
    server.reply = Reply(cut_after=len(CONTENT) // (3 * ATTEMPTS))
    assert fetch(url).read_bytes() == CONTENT
    assert len(server.requests_seen) > 3 * ATTEMPTS


def test_an_interrupted_download_is_kept(server, monkeypatch, url):
    server.replies.append(Reply(stall_after=HALF))

    def interrupt(response, size):
        yield response.read1(1000)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "read_chunks", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(url)
    server.released.set()
    assert fetch(url).read_bytes() == CONTENT
    assert 0 < int(server.headers_seen[1]["range"][6:-1]) <= 1000


def test_silence_is_a_cut(server, monkeypatch, url):
    monkeypatch.setattr(connection, "SILENCE", 2.0)
    server.replies.append(Reply(stall_after=HALF))
    assert fetch(url).read_bytes() == CONTENT
    assert server.headers_seen[1]["range"] == f"bytes={HALF}-"


@pytest.mark.parametrize(
    "reply",
    [Reply(), Reply(if_range=False), Reply(ranges=False)],
    ids=["If-Range honored", "If-Range ignored", "Range ignored"],
)
@pytest.mark.parametrize(
    "before, after",
    [
        ({}, {}),
        ({"ETag": None}, {"ETag": None, "Last-Modified": "Tue, 14 Nov 2023 22:13:21 GMT"}),
        ({"ETag": 'W/"1"'}, {"ETag": 'W/"2"', "Last-Modified": "Tue, 14 Nov 2023 22:13:21 GMT"}),
    ],
    ids=["ETag", "Last-Modified", "weak ETag"],
)
def test_another_file_on_the_server_is_not_joined_on(server, url, reply, before, after):
    break_off(server, url, headers=before)
    server.files["whole.npz"] = OTHER
    server.reply = Reply(headers=after, if_range=reply.if_range, ranges=reply.ranges)
    assert fetch(url).read_bytes() == OTHER
    assert server.headers_seen[0]["range"] == f"bytes={HALF}-"


def test_another_generation_is_not_joined_on(server, url):
    break_off(server, url, headers={"ETag": '"same"', "x-goog-generation": "1"})
    server.files["whole.npz"] = OTHER
    server.reply = Reply(headers={"ETag": '"same"', "x-goog-generation": "2"})
    assert fetch(url).read_bytes() == OTHER


def test_another_length_is_not_joined_on(server, url):
    break_off(server, url, headers={"ETag": '"same"'})
    server.files["whole.npz"] = OTHER + b"longer"
    server.reply = Reply(headers={"ETag": '"same"'})
    assert fetch(url).read_bytes() == OTHER + b"longer"


def test_a_part_from_another_mirror_is_not_joined_on(server, monkeypatch):
    server.files |= {"/one/a.npz": CONTENT, "/two/a.npz": OTHER}
    server.reply = Reply(headers={"ETag": '"same"'})
    monkeypatch.setenv("KERAS_BIT_MIRROR", f"{server.url}/one")
    break_off(server, f"{STORE}/a.npz", headers={"ETag": '"same"'})
    monkeypatch.setenv("KERAS_BIT_MIRROR", f"{server.url}/two")
    assert fetch(f"{STORE}/a.npz").read_bytes() == OTHER


def test_a_range_from_elsewhere_is_not_joined_on(server, url):
    break_off(server, url)
    wrong = f"bytes {HALF - 1}-{len(CONTENT) - 1}/{len(CONTENT)}"
    server.replies.append(Reply(headers={"Content-Range": wrong}))
    assert fetch(url).read_bytes() == CONTENT
    assert [("range" in headers) for headers in server.headers_seen] == [True, False]


def test_a_file_without_validator_starts_over(server, home, url):
    none = {"ETag": 'W/"1"', "Last-Modified": None}
    server.reply = Reply(headers=none, cut_after=HALF)
    with pytest.raises(ConnectionError, match=rf"{HALF} of {len(CONTENT)} bytes.*Try again, or"):
        fetch(url)
    assert len(server.requests_seen) == ATTEMPTS and files_below(home) == []
    server.reply = Reply(headers=none)
    assert fetch(url).read_bytes() == CONTENT
    assert not any("range" in headers for headers in server.headers_seen)


@pytest.mark.parametrize("size, asked", [(len(CONTENT), len(CONTENT) - 1), (len(CONTENT) + 1, 0)])
def test_a_part_as_long_as_the_file_or_longer(server, url, size, asked):
    part = break_off(server, url)
    part.write_bytes((CONTENT + b"!")[:size])
    assert fetch(url).read_bytes() == CONTENT
    expected = f"bytes={asked}-" if asked else None
    assert [headers.get("range") for headers in server.headers_seen] == [expected]


def test_a_range_that_cannot_be_starts_over(server, url):
    break_off(server, url)
    server.files["whole.npz"] = OTHER[: HALF - 1]
    server.reply = Reply(if_range=False)  # answers 416
    assert fetch(url).read_bytes() == OTHER[: HALF - 1]
    assert len(server.requests_seen) == 2


def notes_of(address, **changes):
    """What is known of a part, with some of it changed."""
    names = ("size", "etag", "last_modified", "generation", "md5", "crc32c")
    return json.dumps({**dict.fromkeys(names), "url": address, "etag": '"a"', **changes})


@pytest.mark.parametrize(
    "change",
    [{"size": "x"}, {"size": 1e9}, {"etag": 3}, {"etag": '"a\r\nX: b"'}, {"md5": [1]}, {"url": {}}],
)
def test_a_part_with_notes_that_were_never_written_starts_over(server, url, change):
    break_off(server, url)
    beside(url, ".part.json").write_text(notes_of(url, **change))
    assert fetch(url).read_bytes() == CONTENT


@pytest.mark.parametrize("notes", [None, "", "{}", '{"size": "x"}', "[" * 100_000])
def test_a_part_without_its_notes_starts_over(server, url, notes):
    part = break_off(server, url)
    part.write_bytes(b"!" * HALF)
    if notes is None:
        beside(url, ".part.json").unlink()
    else:
        beside(url, ".part.json").write_text(notes)
    assert fetch(url).read_bytes() == CONTENT
    assert len(server.requests_seen) == 1


def test_a_file_of_unknown_length(server, url):
    server.reply = Reply(chunked=True)
    assert fetch(url).read_bytes() == CONTENT
    assert json.loads(beside(url, ".json").read_text())["size"] == len(CONTENT)


# Checksums.


def encoded(name, content):
    digits = hashlib.md5(content).hexdigest() if name == "md5" else crc32c_bit_by_bit(content)
    return f"{name}={base64.b64encode(bytes.fromhex(digits)).decode()}"


SHORT, WRONG = CONTENT[:30_000], OTHER[:30_000]
MD5, CRC = encoded("md5", SHORT), encoded("crc32c", SHORT)
WRONG_MD5, WRONG_CRC = encoded("md5", WRONG), encoded("crc32c", WRONG)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-goog-hash": f"{CRC},{MD5}"},
        {"x-goog-hash": f"{MD5}, {CRC}"},
        (("x-goog-hash", CRC), ("x-goog-hash", MD5)),
        {"x-goog-hash": CRC},
        {"Content-MD5": MD5.removeprefix("md5=")},
        {"x-goog-hash": f"{WRONG_CRC},{MD5}"},  # MD5 is enough
        {"x-goog-hash": "md5=?,crc32c=AAAA,sha1=AAAA,"},
    ],
)
def test_right_checksums(server, url, headers):
    server.files["whole.npz"] = SHORT
    server.reply = Reply(headers=headers)
    assert fetch(url).read_bytes() == SHORT
    assert len(server.requests_seen) == 1


@pytest.mark.parametrize(
    "name, headers",
    [
        ("md5", {"x-goog-hash": f"{CRC},{WRONG_MD5}"}),
        ("md5", (("x-goog-hash", WRONG_MD5), ("x-goog-hash", CRC))),
        ("md5", (("x-goog-hash", CRC), ("x-goog-hash", WRONG_MD5))),
        ("md5", {"Content-MD5": WRONG_MD5.removeprefix("md5=")}),
        ("crc32c", {"x-goog-hash": WRONG_CRC}),
    ],
)
def test_wrong_checksums(server, home, url, name, headers):
    server.files["whole.npz"] = SHORT
    server.reply = Reply(headers=headers)
    with pytest.raises(ConnectionError, match=f"its {name} is .*, but the server declares"):
        fetch(url)
    assert len(server.requests_seen) == 2 and files_below(home) == []
    server.reply = Reply()
    server.replies.append(Reply(headers=headers))
    assert fetch(url).read_bytes() == SHORT


@pytest.mark.parametrize("checksum", [MD5, CRC])
def test_the_checksum_of_a_joined_file(server, url, checksum):
    server.files["whole.npz"] = SHORT
    server.replies.append(Reply(cut_after=20_000, headers={"x-goog-hash": checksum}))
    assert fetch(url).read_bytes() == SHORT and len(server.requests_seen) == 2
    part = beside(url, ".part")
    server.replies.append(Reply(cut_after=20_000, headers={"x-goog-hash": checksum}))
    server.replies.extend([Reply(status=503)] * ATTEMPTS)
    with pytest.raises(ConnectionError):
        fetch(url, refresh=True)
    part.write_bytes(b"!" * part.stat().st_size)
    assert fetch(url, refresh=True).read_bytes() == SHORT
    assert [h.get("range") for h in server.headers_seen[-2:]] == ["bytes=20000-", None]


# Refusals.


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416])
def test_refusals_are_not_tried_again(server, home, url, status):
    server.reply = Reply(status=status)
    expected = f"`{url}` could not be downloaded .*{status}.*`BiTBackbone.from_weights`"
    with pytest.raises(ConnectionError, match=expected) as error:
        fetch(url)
    assert str(cache_path(url)) in str(error.value) and "MIRROR" not in str(error.value)
    assert len(server.requests_seen) == 1 and files_below(home) == []


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_servers_in_trouble_are_asked_again(server, url, status):
    server.replies.extend([Reply(status=status)] * (ATTEMPTS - 1))
    assert fetch(url).read_bytes() == CONTENT
    server.requests_seen.clear()
    server.reply = Reply(status=status)
    with pytest.raises(ConnectionError, match=str(status)):
        fetch(url, refresh=True)
    assert len(server.requests_seen) == ATTEMPTS


def test_the_delay_before_further_attempts_doubles(server, monkeypatch, url):
    delays = []
    monkeypatch.setattr(download, "RETRY_DELAY", 0.5)
    monkeypatch.setattr(download.time, "sleep", delays.append)
    server.reply = Reply(status=503)
    with pytest.raises(ConnectionError):
        fetch(url)
    assert delays == [0.5, 1, 2]


def test_no_server(home):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match="refused.*Try again, or download it elsewhere"):
        fetch(f"http://127.0.0.1:{port}/whole.npz")
    assert files_below(home) == []


def test_a_web_page_is_no_file(server, home, url):
    page = Reply(body=b"<html>Log in", headers={"Content-Type": "text/html; charset=utf-8"})
    server.reply = page
    with pytest.raises(ConnectionError, match="sends a web page, text/html, in place"):
        fetch(url)
    assert len(server.requests_seen) == 1 and files_below(home) == []
    server.reply = Reply()
    break_off(server, url)
    server.replies.append(page)
    with pytest.raises(ConnectionError, match="a web page"):
        fetch(url)
    assert fetch(url).read_bytes() == CONTENT
    assert server.headers_seen[-1]["range"] == f"bytes={HALF}-"


@pytest.mark.parametrize(
    "reply, reason",
    [
        (Reply(headers={"Content-Encoding": "gzip"}), "encoded with gzip"),
        (Reply(status=204, length=0), "answers 204"),
        (Reply(status=206), "answers 206"),
    ],
)
def test_answers_to_another_question(server, home, url, reply, reason):
    server.reply = reply
    with pytest.raises(ConnectionError, match=reason):
        fetch(url)
    assert files_below(home) == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_keeps_the_name_and_the_range(server, url, status):
    server.files["elsewhere"] = CONTENT
    moved = Reply(status=status, headers={"Location": "/elsewhere"})
    server.replies.extend([moved, Reply(cut_after=HALF), moved])
    assert fetch(url).read_bytes() == CONTENT
    assert cache_path(url).exists()
    assert server.requests_seen == ["/bit/whole.npz", "/elsewhere"] * 2
    assert server.headers_seen[-1]["range"] == f"bytes={HALF}-"


@pytest.mark.parametrize(
    "target", ["ftp://127.0.0.1/a.npz", "file:///etc/hostname", "/bit/whole.npz"]
)
def test_redirects_elsewhere_or_without_end(server, home, url, target):
    server.reply = Reply(status=302, headers={"Location": target})
    reasons = "redirects from http to|Redirection to url|redirect error"
    with pytest.raises(ConnectionError, match=rf"downloaded \(.*({reasons})"):
        fetch(url)
    assert files_below(home) == []


def test_a_redirect_from_https_to_http_is_refused(server, monkeypatch, url):
    class Plain(http.client.HTTPConnection):
        """Speaks HTTP where HTTPS is asked for: no certificate is needed then."""

        def __init__(self, host, context=None, check_hostname=None, **options):
            super().__init__(host, **options)

    monkeypatch.setattr(http.client, "HTTPSConnection", Plain)
    secure = url.replace("http:", "https:")
    server.replies.append(Reply(status=302, headers={"Location": url}))
    with pytest.raises(ConnectionError, match=f"redirects from https to {url}"):
        fetch(secure)
    assert fetch(secure).read_bytes() == CONTENT


def test_a_proxy_is_asked(server, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    assert fetch("http://bit.invalid/whole.npz").read_bytes() == CONTENT
    assert server.requests_seen == ["http://bit.invalid/whole.npz"]


def test_too_little_room(home, monkeypatch, url):
    usage = shutil.disk_usage(home.parent)._replace(free=len(CONTENT) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"1\.3 MB are needed, and 1\.3 MB are free.*KERAS_HOME"):
        fetch(url)
    assert files_below(home) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(CONTENT)))
    assert fetch(url).read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(home, url):
    home.write_bytes(b"no folder")
    with pytest.raises(OSError, match="cache folder .* cannot be written .*KERAS_HOME"):
        fetch(url)


# What the user sees.


def test_without_a_terminal_one_line_is_shown(server, capsys, url):
    server.replies.append(Reply(cut_after=HALF))
    path = fetch(url)
    output, errors = capsys.readouterr()
    assert output == "" and errors == f"Downloading {url} to {path} (1.3 MB)\n"
    fetch(url)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_bar_on_a_narrow_terminal(server, monkeypatch, capsys, url, chunked):
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich, a terminal
    monkeypatch.setenv("COLUMNS", "40")
    server.reply = Reply(chunked=chunked)
    path = fetch(url)
    output, errors = capsys.readouterr()
    bars = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", errors).replace("\r", "\n").splitlines()[1:]
    state = r"1\.3/\? MB [\d.]+ .B/s" if chunked else r"1\.3/1\.3 MB [\d.]+ .B/s 00:00$"
    assert output == "" and path.name in errors
    assert all(len(line) <= 40 for line in bars)
    assert re.match(f"━+ {state}", bars[-1]), bars


def test_a_cache_that_another_user_has_made_is_not_used(server, tmp_path, monkeypatch):
    server.files["/weights.npz"] = bytes(100)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("KERAS_HOME", str(shared / "keras"))
    path = fetch(f"{server.url}/weights.npz")
    assert all((shared / part).stat().st_mode & 0o77 == 0 for part in ("keras", "keras/keras_bit"))
    refused = pytest.raises(PermissionError, match="nobody else may write.*KERAS_HOME")
    monkeypatch.setattr(os, "getuid", lambda: 99)
    if path.stat().st_uid == 0:  # root is trusted
        os.chown(shared / "keras", 1234, 1234)
    with refused:
        fetch(f"{server.url}/weights.npz")
