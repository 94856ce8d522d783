import http.server
import pathlib
import socket
import threading

import numpy as np
import pytest

from keras_bit import BiTBackbone
from keras_bit.weights import presets
from keras_bit.weights.download import fetch
from tests.conftest import as_numpy
from tests.test_formats import random_arrays, save_npz

CONTENT = bytes(range(256)) * 5000  # more than one piece of a copy


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, and `cut` and `chunked`, which break off in the middle."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests_seen.append(self.path)
        self.close_connection = True
        name = self.path.rpartition("/")[2]
        if name == "cut.npz":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
        elif name == "chunked.npz":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % len(CONTENT) + CONTENT[: len(CONTENT) // 2])
        elif name == "moved.npz":
            self.send_response(302)
            self.send_header("Location", "/whole.npz")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif name in self.server.files:
            body = self.server.files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self.send_error(404)

    def log_message(self, format, *arguments):
        """Keeps the test's output clean."""


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files = {"whole.npz": CONTENT}
        server.requests_seen = []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    return tmp_path / "home"


def files_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once(server, home):
    path = fetch(f"{server.url}/bit/whole.npz")
    assert path == home / "keras_bit" / "whole.npz" and path.read_bytes() == CONTENT
    assert fetch(f"{server.url}/bit/whole.npz") == path
    assert server.requests_seen == ["/bit/whole.npz"]
    assert files_below(home) == ["whole.npz"]


def test_a_redirect_keeps_the_name(server, home):
    assert fetch(f"{server.url}/moved.npz").read_bytes() == CONTENT
    assert files_below(home) == ["moved.npz"]


@pytest.mark.parametrize(
    "name, reason",
    [
        ("none.npz", "404"),
        ("cut.npz", f"{len(CONTENT) // 2} of {len(CONTENT)} bytes|IncompleteRead"),
        ("chunked.npz", "IncompleteRead"),
    ],
)
def test_a_failed_download_leaves_nothing_behind(server, home, name, reason):
    with pytest.raises(ConnectionError, match=f"{name}` could not be downloaded.*({reason})"):
        fetch(f"{server.url}/{name}")
    assert files_below(home) == []
    server.files[name] = CONTENT
    assert fetch(f"{server.url}/whole.npz").exists()


def test_no_server(home):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match="could not be downloaded.*from_weights"):
        fetch(f"http://127.0.0.1:{port}/whole.npz")
    assert files_below(home) == []


def test_an_interrupted_download_leaves_nothing_behind(server, home, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfileobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server.url}/whole.npz")
    assert server.requests_seen and files_below(home) == []


def test_the_default_cache_is_that_of_keras(server, tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setattr(pathlib.Path, "home", lambda: tmp_path / "user")
    path = fetch(f"{server.url}/whole.npz")
    assert path == tmp_path / "user" / ".keras" / "keras_bit" / "whole.npz"


def test_from_preset_downloads_and_loads(rng, server, home, monkeypatch, tmp_path):
    arrays = random_arrays(rng)
    path = save_npz(tmp_path / "small.npz", arrays)
    server.files["BiT-M-R50x1.npz"] = path.read_bytes()
    monkeypatch.setattr(presets, "_STORE", f"{server.url}/bit_models")
    images = rng.uniform(0, 1, (2, 40, 40, 3)).astype("float32")
    backbone = BiTBackbone.from_preset("BiT-M-R50x1", pooling="max")
    again = BiTBackbone.from_preset("m-r50x1", pooling="max")
    local = BiTBackbone.from_weights(path, pooling="max")
    for other in (again, local):
        np.testing.assert_array_equal(as_numpy(backbone(images)), as_numpy(other(images)))
    assert server.requests_seen == ["/bit_models/BiT-M-R50x1.npz"]
    assert files_below(home) == ["BiT-M-R50x1.npz"]


def test_from_preset_without_the_file_or_the_name(server, monkeypatch):
    monkeypatch.setattr(presets, "_STORE", server.url)
    with pytest.raises(ConnectionError, match="BiT-S-R50x1.npz"):
        BiTBackbone.from_preset("s-r50x1")
    with pytest.raises(ValueError, match="Did you mean 's-r50x1'"):
        BiTBackbone.from_preset("s-r50x1.npz")
    assert server.requests_seen == ["/BiT-S-R50x1.npz"]
