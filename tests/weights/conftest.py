"""A cache folder and a web server of their own for the tests of weights."""

import os

import pytest

from keras_bit.weights.fetch import download
from tests.web_server import WebServer


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Keras's folder; downloads go below it, at once and straight to the server."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "hub"))
    proxies = {"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "KERAS_BIT_MIRROR"}
    for name in {name for name in os.environ if name.startswith(("HF_", "HUGGING"))} | proxies:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging_face"))
    monkeypatch.setattr(download, "RETRY_DELAY", 0)
    return tmp_path / "home"


@pytest.fixture
def server():
    with WebServer() as server:
        yield server
