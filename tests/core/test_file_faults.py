import functools
import json
import lzma
import os
import re
import zipfile

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_bit.core.file_faults import check_zip, fault_of, wrap_read_errors


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


@pytest.mark.parametrize("saved, newer", [("99.1.0", True), ("3.12.0", False), ("?", False)])
def test_a_file_of_a_newer_keras_is_told(tmp_path, saved, newer):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": saved}))
    cause = f"was saved by Keras {saved}, newer than Keras {keras.__version__} here"
    cause = cause if newer else "is damaged or of another kind"
    with pytest.raises(ValueError) as raised, wrap_read_errors(path, "It must be whole"):
        raise TypeError("Unrecognized arguments")
    assert f"{path}, which {cause}: Unrecognized arguments." in str(raised.value)


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
