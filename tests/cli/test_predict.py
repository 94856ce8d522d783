import csv
import io
import json
import os
import shutil

import keras
import numpy as np
import pytest

from keras_bit.cli.main import main
from keras_bit.evaluation import FilePrediction
from keras_bit.evaluation.saved_run import SavedRun
from tests.cli.conftest import COLORS, in_terminal, photograph

pytestmark = pytest.mark.tensorflow


def test_predict_names_the_classes_of_new_images(whole_run, photos, tmp_path, capsys):
    rng = np.random.default_rng(7)
    images = []
    for channel, name in enumerate(("red", "green", "blue [b]")):
        images.append(tmp_path / f"{name}.png")
        photograph(channel, rng).save(images[-1])
    assert main(["predict", str(whole_run.output), *map(str, images), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["image"] for result in results] == list(map(str, images))
    for result, image in zip(results, images, strict=True):
        classes = [prediction["class"] for prediction in result["predictions"]]
        assert classes[0] == image.stem and set(classes) == set(COLORS)
        shares = [prediction["probability"] for prediction in result["predictions"]]
        assert sum(shares) == pytest.approx(1) and shares == sorted(shares, reverse=True)


def test_predict_needs_the_model_s_folder_alone(whole_run, tmp_path, capsys, monkeypatch):
    for name in ("model.keras", "label_names.json", "rule.json"):
        shutil.copy(whole_run.output / name, tmp_path)
    photograph(1, np.random.default_rng(3)).save(tmp_path / "a [b] photograph.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["predict", "model.keras", "a [b] photograph.png", "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    row = next(line for line in out.splitlines() if "%" in line)
    assert "green" in row and "a [b]" in out and "red" not in out


def test_predict_reports_unreadable_images_and_continues(whole_run, photos, tmp_path, capsys):
    broken = photos / "blue [b]" / "broken.jpg"
    missing = tmp_path / "missing.png"
    images = [broken, photos / "red" / "0.png", missing]
    assert main(["predict", str(whole_run.output), *map(str, images)]) == 1
    captured = capsys.readouterr()
    assert "red" in captured.out and "broken" not in captured.out
    assert [line.split(": ")[1] for line in captured.err.splitlines()] == [
        str(broken),
        str(missing),
    ]
    assert main(["predict", str(whole_run.output), *map(str, images), "--json"]) == 1
    results = json.loads(capsys.readouterr().out)
    assert ["error" in result for result in results] == [True, False, True]


@pytest.mark.filterwarnings("always")
def test_predict_keeps_damaged_images_where_asked(whole_run, tmp_path, capsys):
    photograph(1, np.random.default_rng(3)).save(tmp_path / "cut.jpg")
    os.truncate(tmp_path / "cut.jpg", 900)
    command = ["predict", str(whole_run.output), str(tmp_path / "cut.jpg"), "--top", "1"]
    assert main(command) == 1
    assert "cut.jpg: damaged JPEG: Premature end of JPEG file" in capsys.readouterr().err
    assert main([*command, "--damaged", "keep"]) == 0
    captured = capsys.readouterr()
    assert "%" in captured.out and "warning: 1 of 1 images are damaged and" in captured.err


@pytest.mark.filterwarnings("always:Skipped")
def test_predict_takes_folders_and_patterns(whole_run, photos, capsys, monkeypatch):
    monkeypatch.chdir(photos.parent)
    folder, run = photos.name, str(whole_run.output)

    def images(*arguments):
        assert main(["predict", run, *arguments, "--json"]) == 0
        captured = capsys.readouterr()
        return [each["image"] for each in json.loads(captured.out)], captured.err.splitlines()

    expected = sorted(str(path.relative_to(photos.parent)) for path in photos.rglob("*.png"))
    found, (warning,) = images(folder)
    assert sorted(found) == expected and len(found) == 60
    assert warning.startswith("keras-bit: warning: Skipped: 1, which are no images (JPEG, PNG, ")
    assert warning.endswith(f"{folder}/blue [b]/broken.jpg")
    assert images(f"{folder}/**/1?.png") == ([path for path in found if path[-6] == "1"], [])
    twice = images(f"{folder}/red/0.png", f"{folder}/red/[0].png")
    assert twice == ([f"{folder}/red/0.png"] * 2, [])


def test_predict_as_csv(whole_run, photos, tmp_path, capsys):
    names = ("red, or", 'not "red"', "line\nbreak")
    images = [tmp_path / f"{name}.png" for name in names]
    for image in images:
        shutil.copy(photos / "red" / "0.png", image)
    arguments = ["predict", str(whole_run.output), *map(str, [*images, tmp_path / "none"])]
    assert main([*arguments, "--csv", "--top", "2"]) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    header, *rows = csv.reader(io.StringIO(captured.out, newline=""), strict=True)
    assert header == ["image", "class", "probability", "error"]
    assert main([*arguments, "--json", "--top", "2"]) == 1
    *results, failed = json.loads(capsys.readouterr().out)
    assert rows == [
        [result["image"], each["class"], str(each["probability"]), ""]
        for result in results
        for each in result["predictions"]
    ] + [[failed["image"], "", "", failed["error"]]]


def test_all_labels_of_an_image_or_none(whole_run, photos, tmp_path, capsys, monkeypatch):
    names = ("two", "none", "bad")
    files = [tmp_path / f"{name}.png" for name in names]
    for file in files:
        shutil.copy(photos / "red" / "0.png", file)
    found = [(("red", 0.9), ("green", 0.5)), (), ()]
    errors = (None, None, "unreadable")

    def predict(self, given, top):
        assert top is None
        yield from map(FilePrediction, given, found, errors)

    monkeypatch.setattr(SavedRun, "predict", predict)
    command = ["predict", str(whole_run.output), *map(str, files)]
    assert main(command) == 1
    captured = capsys.readouterr()
    _, first, second, none = captured.out.splitlines()
    assert first.split() == [str(files[0]), "red", "90.0%"] and second.split() == ["green", "50.0%"]
    assert none.split() == [str(files[1]), "none"] and "bad.png: unreadable" in captured.err
    monkeypatch.setenv("COLUMNS", "20")
    assert main(command) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [str(files[1]), "  none"]
    monkeypatch.delenv("COLUMNS")
    assert main([*command, "--json"]) == 1
    results = json.loads(capsys.readouterr().out)
    assert [len(result["predictions"]) for result in results[:2]] == [2, 0]
    assert main([*command, "--csv"]) == 1
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.partition(",")[2] for row in rows] == [
        "red,0.9,", "green,0.5,", ",,", ",,unreadable"
    ]  # fmt: skip


@pytest.mark.parametrize("options", [[], ["--csv"], ["--json"]])
def test_rows_are_written_as_they_come(whole_run, photos, capsys, monkeypatch, options):
    written = []

    def predict(self, files, top):
        for file in files:
            yield FilePrediction(file, (("red", 1.0),))
            written.append(capsys.readouterr().out)

    monkeypatch.setattr(SavedRun, "predict", predict)
    assert main(["predict", str(whole_run.output), str(photos / "red"), *options]) == 0
    assert len(written) == 20
    assert all(f"{index}.png" in out for index, out in zip([0, 1, 10], written, strict=False))


@pytest.mark.slow
def test_predict_in_a_narrow_terminal_breaks_no_path(whole_run, photos, tmp_path):
    folder = tmp_path / "a folder with a long name, spaces" / "and-hyphens-in-it"
    folder.mkdir(parents=True)
    for index in range(2):
        shutil.copy(photos / "green" / f"{index}.png", folder)
    code, lines = in_terminal(("predict", whole_run.output, folder, "--top", "1"), 50)
    shown = [line.rstrip() for line in lines]
    assert code == 0
    for index in range(2):
        assert shown.count(str(folder / f"{index}.png")) == 1
    (share, other) = [line for line in shown if "%" in line]
    assert share.startswith("  green: ") and other.startswith("  green: ")
    bar = next(line for line in shown if line.startswith("Images "))
    assert "/2" in bar and len(bar) <= 50


def test_quiet_leaves_the_table_and_the_errors(whole_run, photos, tmp_path, capsys):
    images = [str(photos / "red" / "0.png"), str(tmp_path / "none.png")]
    assert main(["predict", str(whole_run.output), *images]) == 1
    loud = capsys.readouterr()
    assert main(["predict", str(whole_run.output), *images, "--quiet"]) == 1
    assert capsys.readouterr() == loud
    assert loud.err == f"keras-bit: {images[1]}: No such file or directory\n"


def test_a_run_that_is_none_is_told_before_anything_is_loaded(
    whole_run, impatient, photos, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(SavedRun, "predict", lambda *arguments: pytest.fail("loaded"))
    image, page = tmp_path / "cat.jpg", tmp_path / "page.keras"
    shutil.copy(photos / "red" / "0.png", tmp_path / "a photograph")
    page.write_text("<html>")
    os.mkfifo(tmp_path / "pipe")
    alone = shutil.copy(whole_run.output / "model.keras", tmp_path / "alone.keras")
    for model, what in (
        (tmp_path / "none", "none, which does not exist."),
        (image, "cat.jpg, an image. `MODEL` comes first, and then the images."),
        (tmp_path / "a photograph", "an image. `MODEL` comes first"),
        (tmp_path, ", in which model.keras, label_names.json and rule.json are missing. A run"),
        (alone, "alone.keras, beside which label_names.json and rule.json are missing. A run"),
        (page, "page.keras, which is no Keras model."),
        (tmp_path / "pipe", "pipe, which is not a regular file."),
    ):
        assert main(["predict", str(model), str(photos)]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith("keras-bit: error: `MODEL` must be the output folder of a run, or")
        assert f"Received: {tmp_path}" in error and what in error


def test_images_that_are_none_are_told_before_the_model_is_loaded(
    whole_run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(SavedRun, "predict", lambda *arguments: pytest.fail("loaded"))
    (tmp_path / "notes.txt").write_text("no image")
    for image in (tmp_path, tmp_path / "*.txt", tmp_path / "**" / "*.jpg"):
        assert main(["predict", str(whole_run.output), str(image)]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith("keras-bit: error: `IMAGE` must be images (JPEG, PNG, BMP, GIF, W")
        assert f"Received: {image}, with no image among" in error


def test_a_model_with_nan_weights_is_an_error(whole_run, photos, tmp_path, capsys):
    for name in ("label_names.json", "rule.json"):
        shutil.copy(whole_run.output / name, tmp_path)
    for index, value, what in ((0, np.nan, "weights"), (-1, np.inf, "weights"), (-2, 3e38, "outp")):
        model = keras.models.load_model(whole_run.output / "model.keras")
        weight = model.weights[index]
        weight.assign(np.full(weight.shape, value))
        model.save(tmp_path / "model.keras")
        assert main(["predict", str(tmp_path), str(photos / "red")]) == 2
        captured = capsys.readouterr()
        (error,) = captured.err.splitlines()
        assert not captured.out and error.startswith(f"keras-bit: error: The {what}")
        assert "of a model must be finite. Received: " in error
        assert f"{tmp_path / 'model.keras'} with infinite or NaN ones." in error


def test_predict_draws_maps(whole_run, photos, tmp_path, capsys):
    run, folder = str(whole_run.output), tmp_path / "maps"
    images = [str(photos / name / "0.png") for name in ("red", "green")]
    assert main(["predict", run, *images, "--csv", "--top", "1", "--maps", str(folder)]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["image", "class", "probability", "error", "map"]
    assert [row[4] for row in rows] == [str(folder / "0.png.png"), str(folder / "0.png-2.png")]
    assert sorted(map(str, folder.iterdir())) == sorted(row[4] for row in rows)
    assert main(["predict", run, images[0], "--maps", str(folder)]) == 2
    assert f"`--maps` must be an empty or new folder. Received: --maps {folder}, which holds" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_predict_names_maps_in_each_form(whole_run, photos, tmp_path, capsys):
    arguments = ["predict", str(whole_run.output), str(photos / "red" / "0.png")]
    assert main([*arguments, "--json", "--maps", str(tmp_path / "one")]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["map"] == str(tmp_path / "one" / "0.png.png")
    assert main([*arguments, "--maps", str(tmp_path / "two")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Maps: {tmp_path / 'two'}"
