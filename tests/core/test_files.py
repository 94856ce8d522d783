import json
import pathlib

import pytest

from keras_bit.core.files import atomic_write, cache_folder, read_json, write_json


def test_the_cache_is_in_kerass_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "keras_bit"
    monkeypatch.delenv("KERAS_HOME")
    assert cache_folder() == pathlib.Path.home() / ".keras" / "keras_bit"


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": [1, 2]})
    assert json.loads(path.read_text()) == {"a": [1, 2]} and path.read_text().endswith("}\n")
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [1, 2]}
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "9" * 5000, "\x00"])
def test_json_that_is_none(tmp_path, content):
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(ValueError):
        read_json(tmp_path / "file.json")


def test_json_of_any_size_is_not_read_into_memory(tmp_path):
    with open(tmp_path / "file.json", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="1.1 TB of JSON"):
        read_json(tmp_path / "file.json")
