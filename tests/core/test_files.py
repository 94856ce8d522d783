import functools
import json
import lzma
import os
import pathlib
import re
import zipfile

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_bit.core import files
from keras_bit.core.files import (
    atomic_write,
    cache_folder,
    check_owner,
    check_zip,
    fault_of,
    make_folder,
    read_json,
    wrap_read_errors,
    write_json,
)


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


@pytest.mark.parametrize(
    "error", [KeyError("a"), EOFError(), RuntimeError("x\ny\x1b[31m"), lzma.LZMAError("z" * 10_000)]
)
def test_what_readers_raise_names_the_file(tmp_path, error):
    path = tmp_path / "weights.x"
    path.write_bytes(b"content")
    with pytest.raises(ValueError) as raised, wrap_read_errors(path, "`source` must be whole"):
        raise error
    assert raised.value.__cause__ is error
    message = str(raised.value)
    start = f"`source` must be whole. Received: {path}, which is damaged or of another kind: "
    assert message.startswith(start) and message.isprintable() and len(message) < 700
    assert message.endswith(". Download it again, or save it again.")


def test_what_says_nothing_of_the_file_is_left_alone(tmp_path):
    with pytest.raises(MemoryError), wrap_read_errors(tmp_path, "It must be whole"):
        raise MemoryError
    with pytest.raises(KeyError), wrap_read_errors(tmp_path, "", unless=lambda error: True):
        raise KeyError
    with pytest.raises(KeyboardInterrupt), wrap_read_errors(tmp_path, "It must be whole"):
        raise KeyboardInterrupt


def hdf5(path, **options):
    with h5py.File(path, "w", **options) as file:
        file["a"] = np.zeros(1000)


@pytest.mark.parametrize(
    "write",
    [
        hdf5,
        functools.partial(hdf5, libver="latest"),
        lambda path: save_file({"a": np.zeros(1000), "b": np.zeros(3)}, path),
    ],
)
@pytest.mark.parametrize("left", [60, 1000, -1])
def test_the_length_that_a_file_declares(tmp_path, write, left):
    path = tmp_path / "file"
    write(path)
    whole = path.read_bytes()
    assert fault_of(path) is None
    path.write_bytes(whole[:left])
    size, full = path.stat().st_size, len(whole)
    if left != 60:
        assert fault_of(path) == f"is cut: {size:,} of {full:,} bytes"
    else:  # within the header of safetensors, which tells the length of the header alone
        assert re.fullmatch("is cut: 60 of [0-9,]+ bytes", fault_of(path))


def test_faults_of_files_as_a_whole(tmp_path):
    path = tmp_path / "file"
    assert fault_of(tmp_path) is None
    assert fault_of(path) == "cannot be opened: No such file or directory"
    for content, fault in {
        b"": "is empty",
        b" \n<html>": "is a web page",
        b"PK\x03\x04abc": "is cut: 7 bytes, without the directory that ends a zip file",
        b"\x89HDF": None,
        b"{" * 9: None,
        (2**62).to_bytes(8, "little") + b"{": None,
    }.items():
        path.write_bytes(content)
        assert fault_of(path) == fault, content
    os.mkfifo(tmp_path / "pipe")
    assert fault_of(tmp_path / "pipe") == "is not a regular file"


def zipped(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_zip_files_that_lie(tmp_path):
    good = zipped(tmp_path / "good", [("a", b"content"), ("b", b"more")])
    check_zip(good)
    changed = good.read_bytes().replace(b"content", b"kontent")
    (tmp_path / "bad").write_bytes(changed)
    with pytest.raises(ValueError, match="'a' has another checksum"):
        check_zip(tmp_path / "bad")
    with pytest.raises(ValueError, match="declare more bytes than it has, 1,000,000 and"):
        check_zip(zipped(tmp_path / "zeros", [("a", bytes(10**6))], zipfile.ZIP_DEFLATED))
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped(tmp_path / "twice", [("a", b"x"), ("a", b"y")])
    with pytest.raises(ValueError, match="the same name"):
        check_zip(twice)


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


# Who else may have put a file there.


@pytest.fixture
def shared(tmp_path):
    """A folder such as /tmp."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@pytest.fixture
def belongs_to_another(monkeypatch):
    """A function that gives a file to another user, as far as the tested code can see."""
    lstat, paths = os.lstat, set()

    def lstat_of_others(path, **options):
        status = lstat(path, **options)
        return os.stat_result((*status[:4], 1234, *status[5:])) if str(path) in paths else status

    monkeypatch.setattr(os, "lstat", lstat_of_others)
    return lambda path: paths.add(str(path))


def mode(path):
    return path.stat().st_mode & 0o777


def test_folders_of_downloads_are_private_where_everybody_may_write(shared):
    make_folder(shared / "keras" / "keras_bit" / "example.org")
    assert mode(shared / "keras") == mode(shared / "keras" / "keras_bit" / "example.org") == 0o700
    make_folder(shared / "keras" / "keras_bit")
    check_owner(shared / "keras" / "keras_bit" / "file")


def test_folders_of_downloads_are_as_usual_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_is_shared", lambda folder: False)
    make_folder(tmp_path / "keras" / "keras_bit")
    (tmp_path / "usual").mkdir()
    assert mode(tmp_path / "keras" / "keras_bit") == mode(tmp_path / "usual")


def test_a_folder_of_somebody_else_is_refused(shared, tmp_path, belongs_to_another):
    (shared / "keras").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (shared / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "long way").symlink_to(shared / "keras")
    check_owner(shared / "keras" / "a" / "b")
    belongs_to_another(shared / "keras")
    belongs_to_another(shared / "link")
    for path in (shared / "keras", shared / "link", tmp_path / "long way"):
        for check in (check_owner, make_folder):
            with pytest.raises(PermissionError, match="nobody else may write.*KERAS_HOME") as error:
                check(path / "keras_bit")
            assert "belongs to the user with number" in str(error.value)
    belongs_to_another(tmp_path / "elsewhere")
    check_owner(tmp_path / "elsewhere" / "keras_bit")  # where not everybody may write
