import os

import pytest

from keras_bit.exporters.files import checked_path, publish
from keras_bit.exporters.formats import FORMATS

NAMES = {"m_onnx": "m.onnx", "m_labels": "m.labels.json", "graph": "saved_model.pb"}
ONNX, SAVED_MODEL = FORMATS["onnx"], FORMATS["tf_saved_model"]


def write(folder, **contents):
    folder.mkdir(exist_ok=True)
    for name, text in contents.items():
        (folder / NAMES.get(name, name)).write_text(text)
    return folder


@pytest.mark.parametrize("name", ["model", "model.tflite", "model.onnx.old"])
def test_a_wrong_ending_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="`path` must end with .onnx"):
        checked_path(tmp_path / name, ONNX)


def test_what_belongs_to_others_is_refused(tmp_path):
    write(tmp_path / "photos", cat="a picture")
    write(tmp_path / "m.onnx")
    (tmp_path / "file").write_text("text")
    for path, format in (("photos", SAVED_MODEL), ("m.onnx", ONNX), ("file", SAVED_MODEL)):
        with pytest.raises(FileExistsError, match="`path` must"):
            checked_path(tmp_path / path, format)
    (tmp_path / "model.bin").write_text("of somebody else")
    with pytest.raises(FileExistsError, match="whose weights would replace model.bin"):
        checked_path(tmp_path / "model.xml", FORMATS["openvino"])
    (tmp_path / "model.xml").write_text("an earlier export")
    assert checked_path(tmp_path / "model.xml", FORMATS["openvino"]) == tmp_path / "model.xml"
    write(tmp_path / "old", graph="x")
    assert checked_path(tmp_path / "old", SAVED_MODEL) == tmp_path / "old"
    assert checked_path(str(tmp_path / "new"), SAVED_MODEL) == tmp_path / "new"


def test_files_take_the_place_of_earlier_ones(tmp_path):
    old = write(tmp_path, m_onnx="old", m_labels="old", other="stays")
    new = write(tmp_path / ".part", m_onnx="new", m_labels="new")
    assert publish(new / "m.onnx", old / "m.onnx", ONNX) == old / "m.labels.json"
    assert (old / "m.onnx").read_text() == (old / "m.labels.json").read_text() == "new"
    assert (old / "other").read_text() == "stays"


def test_class_names_of_an_earlier_file_do_not_stay(tmp_path):
    write(tmp_path, m_onnx="old", m_labels="old")
    new = write(tmp_path / ".part", m_onnx="new")
    assert publish(new / "m.onnx", tmp_path / "m.onnx", ONNX) is None
    assert not (tmp_path / "m.labels.json").exists()


def test_class_names_of_others_stay(tmp_path):
    write(tmp_path, m_labels="by hand")
    new = write(tmp_path / "1", m_onnx="new")
    assert publish(new / "m.onnx", tmp_path / "m.onnx", ONNX) is None  # nothing lay there before
    assert (tmp_path / "m.labels.json").read_text() == "by hand"
    (tmp_path / "m.tflite").write_text("of which these are")
    new = write(tmp_path / "2", m_onnx="newer")
    assert publish(new / "m.onnx", tmp_path / "m.onnx", ONNX) is None
    assert (tmp_path / "m.labels.json").read_text() == "by hand"


def test_class_names_beside_a_folder_may_be_of_a_file(tmp_path):
    write(tmp_path / "m", graph="old")
    write(tmp_path, m_onnx="of which these are", m_labels="names")
    (tmp_path / ".part").mkdir()
    new = write(tmp_path / ".part" / "m", graph="new")
    assert publish(new, tmp_path / "m", SAVED_MODEL) is None
    assert (tmp_path / "m.labels.json").read_text() == "names"
    (tmp_path / "m.onnx").unlink()
    (tmp_path / ".later").mkdir()
    publish(write(tmp_path / ".later" / "m", graph="newer"), tmp_path / "m", SAVED_MODEL)
    assert not (tmp_path / "m.labels.json").exists()


def test_a_folder_takes_the_place_of_an_earlier_one(tmp_path):
    write(tmp_path / "model", graph="old", old="x")
    (tmp_path / ".part").mkdir()
    new = write(tmp_path / ".part" / "model", graph="new")
    publish(new, tmp_path / "model", SAVED_MODEL)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["saved_model.pb"]
    assert (tmp_path / "model" / "saved_model.pb").read_text() == "new"


def test_the_earlier_folder_stays_where_the_new_one_cannot_be_moved(tmp_path, monkeypatch):
    write(tmp_path / "model", graph="old")
    (tmp_path / ".part").mkdir()
    new = write(tmp_path / ".part" / "model", graph="new")
    replace, calls = os.replace, []

    def fails_once(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr("os.replace", fails_once)
    with pytest.raises(OSError, match="no"):
        publish(new, tmp_path / "model", SAVED_MODEL)
    assert (tmp_path / "model" / "saved_model.pb").read_text() == "old"
