import json

import pytest

from keras_bit.cli.main import main

pytestmark = pytest.mark.tensorflow


@pytest.mark.slow
def test_pretrain_writes_weights_where_it_says(monkeypatch, tmp_path, capsys):
    options = ("--families", "textures", "--classes", "2", "--image-size", "32")
    options += ("--batch-size", "4", "--steps", "2", "--width", "0.0625", "--learning-rate", "0.01")
    folder = tmp_path / "synthetic"
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["pretrain", *options, "--output", str(folder)]) == 0
    *progress, last = capsys.readouterr().out.splitlines()
    assert last == f"Weights: {folder / 'backbone.npz'}" and (folder / "backbone.npz").is_file()
    assert [line.split(":")[0] for line in progress] == ["step 1 of 2", "step 2 of 2"]
    assert json.loads((folder / "settings.json").read_text())["learning_rate"] == 0.01
    assert main(["pretrain", *options, "--output", str(folder), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["pretrain", *options, "--seed", "1", "--output", str(folder)]) == 2
    assert "`--output` must be a new folder" in capsys.readouterr().err
