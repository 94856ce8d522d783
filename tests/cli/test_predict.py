import json
import shutil

import numpy as np
import pytest

from keras_bit.cli.main import main
from tests.cli.conftest import COLORS, photograph

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


def test_predict_without_a_model(tmp_path, capsys):
    assert main(["predict", str(tmp_path), "image.png"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("keras-bit: error: `run` must be") and str(tmp_path) in error
