import pathlib
import shutil

import pytest

from keras_bit.weights.fetch import cache_path, fetch
from keras_bit.weights.fetch.mirror import STORE

CONTENT = b"an array"


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_mirror(server, monkeypatch, ending):
    monkeypatch.setenv("KERAS_BIT_MIRROR", f"{server.url}/copy/of{ending}")
    server.files |= {"a.npz": CONTENT, "whole.npz": CONTENT}
    path = fetch(f"{STORE}/vtab/a.npz")
    assert path == cache_path(f"{STORE}/vtab/a.npz") and path.read_bytes() == CONTENT
    assert fetch(f"{server.url}/whole.npz").read_bytes() == CONTENT
    assert server.requests_seen == ["/copy/of/vtab/a.npz", "/whole.npz"]


def test_a_mirror_without_the_file(server, monkeypatch):
    monkeypatch.setenv("KERAS_BIT_MIRROR", server.url)
    expected = f"`{STORE}/a.npz` could not be downloaded from {server.url}/a.npz .*404.*MIRROR"
    with pytest.raises(ConnectionError, match=expected):
        fetch(f"{STORE}/a.npz")


@pytest.mark.parametrize("value_of", [str, pathlib.Path.as_uri, lambda folder: f" {folder}/ "])
def test_a_folder_as_mirror(tmp_path, monkeypatch, value_of):
    folder = tmp_path / "my mirror"
    (folder / "vtab").mkdir(parents=True)
    (folder / "vtab" / "a b.npz").write_bytes(CONTENT)
    monkeypatch.setenv("KERAS_BIT_MIRROR", value_of(folder))
    url = f"{STORE}/vtab/a%20b.npz"
    path = fetch(url)
    assert path == cache_path(url) and path.read_bytes() == CONTENT
    shutil.rmtree(folder)
    assert fetch(url) == path
    with pytest.raises(ValueError, match="`KERAS_BIT_MIRROR` must be"):
        fetch(f"{STORE}/b.npz")


def test_a_folder_as_mirror_without_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BIT_MIRROR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="`KERAS_BIT_MIRROR`.*a.npz.*from_weights"):
        fetch(f"{STORE}/a.npz")


@pytest.mark.parametrize(
    "value", ["ftp://example.org", "https://", "http://h/?a=1", "/no/such/folder", "mirror.org/bit"]
)
def test_mirrors_that_are_none(monkeypatch, value):
    monkeypatch.setenv("KERAS_BIT_MIRROR", value)
    with pytest.raises(ValueError, match="`KERAS_BIT_MIRROR` must be a.*Received: '"):
        fetch(f"{STORE}/a.npz")
