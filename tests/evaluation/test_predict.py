import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from keras_bit import predict_files
from keras_bit.evaluation import RunOutputs, saved_run
from keras_bit.evaluation.saved_run import SavedRun
from tests.saved_files import needs_their_keras

pytestmark = pytest.mark.tensorflow

TINY = {"depth": (1, 1, 1, 1), "width": 0.0625}


@pytest.fixture
def photos(tmp_path, rng):
    """A folder of images of noise, of several sizes and formats."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, kind in enumerate(("png", "jpg", "bmp", "gif", "webp", "tiff")):
        noise = rng.integers(0, 255, (30 + index, 40, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.{kind}")
    return folder


@needs_their_keras
def test_a_folder_gives_what_its_files_give(run, photos):
    files = [str(path) for path in sorted(photos.iterdir())]
    found = predict_files(run, photos)
    assert [prediction.file for prediction in found] == files
    assert all(len(prediction.classes) == 3 and not prediction.error for prediction in found)
    assert len({prediction.classes for prediction in found}) == len(files)
    assert predict_files(run / "model.keras", files) == found
    (webp,) = predict_files(run, f"{photos}/*.webp", top=1)
    assert webp.file == files[4] and [name for name, _ in webp.classes] == [found[4].classes[0][0]]
    # A batch of another size sums in another order, which this small network amplifies: 1.2e-4.
    for one, all_at_once in zip(predict_files(run, files, batch_size=1), found, strict=True):
        assert [name for name, _ in one.classes] == [name for name, _ in all_at_once.classes]
        for (_, share), (_, expected) in zip(one.classes, all_at_once.classes, strict=True):
            assert share == pytest.approx(expected, rel=1e-3)


@needs_their_keras
def test_images_are_read_as_they_are_needed(run, photos, monkeypatch, two_workers):
    decoded = []
    read = saved_run.try_transform
    monkeypatch.setattr(
        saved_run, "try_transform", lambda file, *a: decoded.append(file) or read(file, *a)
    )
    files = [str(photos / "0.png")] * 500
    predictions = SavedRun.open(run).predict(files, top=1, batch_size=8)
    assert decoded == []
    next(predictions)
    assert 8 <= len(decoded) < 30
    predictions.close()


@needs_their_keras
def test_damaged_files_are_skipped_or_kept(run, photos):
    jpeg = photos / "1.jpg"
    os.truncate(jpeg, jpeg.stat().st_size - 99)
    reason = "damaged JPEG: Premature end of JPEG file"
    skipped = predict_files(run, photos)
    assert [each.error for each in skipped] == [None, reason, None, None, None, None]
    assert skipped[1].classes == ()
    warned = re.escape(
        f"1 of 6 images are damaged and were decoded as far as they can be: {jpeg} ("
    )
    with pytest.warns(UserWarning, match=warned) as caught:
        kept = predict_files(run, photos, damaged="keep")
    ours = [warning.filename for warning in caught if "damaged" in str(warning.message)]
    assert ours == [__file__]
    assert [each.error for each in kept] == [None] * 6 and len(kept[1].classes) == 3
    with pytest.raises(ValueError, match="`damaged` must be 'skip' or 'keep'. Received: damaged='"):
        predict_files(run, photos, damaged="drop")


@pytest.fixture
def several(run, monkeypatch):
    """A run with several labels an image, whose logits are the mean colors of an image."""
    RunOutputs(True, 2.0, (0.5, 0.6, 0.7)).write(run)
    monkeypatch.setattr(SavedRun, "load", lambda self: None)

    def logits(self, images):
        white = images.mean((1, 2)) / 255
        return 2 * np.log(white / (1 - white))

    monkeypatch.setattr(SavedRun, "logits", logits)
    return run


def shares(prediction):
    return {name: round(share, 2) for name, share in prediction.classes}


def test_all_labels_above_their_thresholds_are_predicted(several, tmp_path):
    for name, color in {"a": (153, 204, 178), "b": (128, 153, 179), "c": (10, 20, 30)}.items():
        Image.new("RGB", (32, 32), color).save(tmp_path / f"{name}.png")
    first, second, third = predict_files(several, f"{tmp_path}/?.png")
    assert [*shares(first).items()] == [("green", 0.8), ("red", 0.6)]  # blue is at 0.698
    assert [*shares(second).items()] == [("blue", 0.7), ("green", 0.6), ("red", 0.5)]
    assert third.classes == () and third.error is None
    first, _, third = predict_files(several, f"{tmp_path}/?.png", top=2)
    assert [*shares(first).items()] == [("green", 0.8), ("blue", 0.7)]
    assert [*shares(third).items()] == [("blue", 0.12), ("green", 0.08)]


@needs_their_keras
def test_the_temperature_of_the_run_is_used(run, photos):
    before = predict_files(run, photos / "0.png")[0]
    RunOutputs(temperature=3.0).write(run)
    after = predict_files(run, photos / "0.png")[0]
    cold, warm = (dict(prediction.classes) for prediction in (before, after))
    roots = {name: share ** (1 / 3) for name, share in cold.items()}
    expected = {name: root / sum(roots.values()) for name, root in roots.items()}
    assert warm == pytest.approx(expected, rel=1e-4) and warm != pytest.approx(cold, rel=0.01)


def test_a_run_of_several_labels_without_its_outputs_is_no_run(run):
    rule = json.loads((run / "rule.json").read_text())
    (run / "rule.json").write_text(json.dumps({**rule, "multi_label": True}))
    with pytest.raises(FileNotFoundError, match="`run` must be.*outputs.json is missing"):
        predict_files(run, "cat.jpg")
    RunOutputs(True).write(run)
    assert SavedRun.open(run).outputs == RunOutputs(True)


def test_no_model_is_loaded_for_nothing(run, monkeypatch):
    monkeypatch.setattr(SavedRun, "load", lambda self: pytest.fail("loaded"))
    assert predict_files(run, []) == []
    (prediction,) = predict_files(run, "none.png")
    assert prediction.error == "No such file or directory" and prediction.classes == ()


@pytest.mark.parametrize(
    "missing, listed",
    [
        ("model", "in which model.keras is missing"),
        ("model label_names", "in which model.keras and label_names.json are missing"),
        ("model label_names rule", "in which model.keras, label_names.json and rule.json are miss"),
    ],
)
def test_all_that_a_run_lacks_is_listed(run, missing, listed):
    for file in run.iterdir():
        if file.name.split(".")[0] in missing.split():
            file.unlink()
    with pytest.raises(FileNotFoundError, match=f"`run` must be.*Received: {run}, {listed}"):
        predict_files(run, "cat.jpg")


def error_of_outputs(run, photos):
    (run / "outputs.json").write_text('{"multi_label"')
    with pytest.raises(ValueError, match="outputs.json") as error:
        predict_files(run, photos)
    (run / "outputs.json").unlink()
    return str(error.value)


@needs_their_keras
def test_a_run_with_damaged_files_is_an_error_that_names_the_file(run, photos):
    def error_of(name, content):
        before = (run / name).read_bytes()
        (run / name).write_bytes(content)
        with pytest.raises(ValueError) as error:
            predict_files(run, photos)
        (run / name).write_bytes(before)
        assert f"{name}" in str(error.value)
        return str(error.value)

    assert "`run` must hold a JSON list of class names" in error_of("label_names.json", b'["red"')
    assert "`run` must hold the JSON of a rule" in error_of("rule.json", b"{}")
    assert "`run` must hold the JSON of a rule" in error_of(
        "rule.json", b'{"config": {"shade": 1}}'
    )
    assert "JSON of a run's outputs" in error_of_outputs(run, photos)
    four = json.dumps(["a", "b", "c", "d"]).encode()
    assert "Received: 4 names, and 3 classes" in error_of("label_names.json", four)
    damaged = bytearray((run / "model.keras").read_bytes())
    damaged[100:20_000] = bytes(19_900)
    assert "`run` must hold a model that keras_bit saved" in error_of("model.keras", bytes(damaged))


def contents(good):
    """Other contents of a file, such as faults of disks and people leave."""
    yield from (b"", b"\x00" * 64, b"\xff\xfe{", good[: len(good) // 2], good[:-3], b"[" * 10_000)
    yield from (
        b"null",
        b"3",
        b'"red"',
        b"{}",
        b"[1, 2, 3]",
        b'[["red"]]',
        b"NaN",
        b'{"config": []}',
    )
    yield from (b'{"config": null}', b'{"config": {"image_size": "large"}}', b'{"config": {}}')


@pytest.mark.parametrize("name", ["label_names.json", "rule.json"])
def test_whatever_stands_in_the_file_of_a_run_the_error_names_it(run, photos, name):
    good = (run / name).read_bytes()
    for content in contents(good):
        (run / name).write_bytes(content)
        with pytest.raises(ValueError, match=name) as error:
            predict_files(run, photos)
        assert "\n" not in str(error.value)
