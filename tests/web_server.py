"""A real HTTP server on 127.0.0.1 whose every answer a test can spoil."""

import collections
import dataclasses
import email.utils
import hashlib
import http.server
import re
import threading
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Reply:
    """How a request is answered.

    Attributes:
        status: 200: with the file, or a 206 where the request asks for a part; another one: with
            that error, or as a redirect if `headers` has a `Location`.
        body: In place of the file.
        headers: Further ones, a dict, or pairs where a name comes twice; `None` omits one.
        ranges: Whether `Range` is honored.
        if_range: Whether `If-Range` is.
        length: `Content-Length` in place of the true one.
        chunked: Whether the body goes in chunks, without a length.
        cut_after: After how many bytes of the body the connection breaks off.
        stall_after: After how many bytes the server goes silent, until `released` is set.
    """

    status: int = 200
    body: bytes | None = None
    headers: Mapping | tuple = ()
    ranges: bool = True
    if_range: bool = True
    length: int | None = None
    chunked: bool = False
    cut_after: int | None = None
    stall_after: int | None = None


class WebServer(http.server.ThreadingHTTPServer):
    """Serves `files`; a context manager.

    Attributes:
        url: Such as `http://127.0.0.1:1234`.
        files: Dict from path (`/bit_models/a.npz`), or last name, to bytes.
        reply: The `Reply` to every request ...
        replies: ... but these come first, one a request: a deque.
        requests_seen: List of paths.
        headers_seen: List of dicts, with names in lower case.
        stalled: An event: a reply has gone silent.
        released: An event: resume the silent ones.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, files=()):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files = dict(files)
        self.reply = Reply()
        self.replies = collections.deque()
        self.requests_seen = []
        self.headers_seen = []
        self.stalled = threading.Event()
        self.released = threading.Event()

    def __enter__(self):
        options = {"poll_interval": 0.01}
        self._thread = threading.Thread(target=self.serve_forever, kwargs=options, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *arguments):
        self.released.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that went away is what some tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests_seen.append(self.path)
        server.headers_seen.append({k.lower(): v for k, v in self.headers.items()})
        reply = server.replies.popleft() if server.replies else server.reply
        name = self.path.partition("?")[0]
        body = server.files.get(name, server.files.get(name.rpartition("/")[2]))
        body = body if reply.body is None else reply.body
        self.close_connection = True
        if reply.status != 200:
            self._send(reply.status, b"spoiled", {}, reply)
        elif body is None:
            self._send(404, b"nothing here", {}, reply)
        else:
            self._send_file(body, reply)

    def _send_file(self, body, reply):
        headers = {
            "ETag": f'"{hashlib.sha256(body).hexdigest()}"',
            "Last-Modified": email.utils.formatdate(1.7e9, usegmt=True),
            **dict(reply.headers),
        }
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, *headers.values())
        if not wanted or not reply.ranges or (reply.if_range and not same):
            self._send(200, body, headers, reply)
        elif int(wanted[1]) >= len(body):
            self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"}, reply)
        else:
            part = f"bytes {wanted[1]}-{len(body) - 1}/{len(body)}"
            self._send(206, body[int(wanted[1]) :], {"Content-Range": part, **headers}, reply)

    def _send(self, status, body, headers, reply):
        self.send_response(status)
        pairs = reply.headers.items() if isinstance(reply.headers, Mapping) else reply.headers
        named = {name for name, _ in pairs}
        for name, value in [*((n, v) for n, v in headers.items() if n not in named), *pairs]:
            if value is not None:
                self.send_header(name, value)
        if reply.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(reply.length or len(body)))
        self.end_headers()
        stop = min(x for x in (reply.cut_after, reply.stall_after, len(body)) if x is not None)
        self._write(body[:stop], reply.chunked)
        if reply.stall_after is not None:
            self.server.stalled.set()
            self.server.released.wait()
            self._write(body[stop:], reply.chunked)
        if reply.chunked and reply.cut_after is None:
            self.wfile.write(b"0\r\n\r\n")

    def _write(self, data, chunked):
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)

    def log_message(self, format, *arguments):
        """Keeps the test's output clean."""
