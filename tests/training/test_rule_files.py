import json
import os
import pathlib
import warnings

import numpy as np
import pytest

import keras_bit
from keras_bit.cli.main import main
from keras_bit.training.rule_files import read_rule_file, warn_of_other_data

RULE = keras_bit.HyperRule((40, 36), 48, 16, micro_batch_size=4, mixup_alpha=0.3, warmup=True)
SAVED = pathlib.Path(__file__).parent.parent / "saved" / "run" / "rule.json"


@pytest.fixture
def write(tmp_path):
    def write(**content):
        path = tmp_path / "rule.json"
        path.write_text(json.dumps(content))
        return path

    return write


def test_rules_of_runs_and_of_searches(write):
    path = write(**RULE.decisions(), config=RULE.get_config())
    assert read_rule_file(path, {}) == {"rule": RULE}
    decisions = {"preset": "m-r50x1", "frozen_blocks": 2, "weight_decay": 0, "dropout": 0.1}
    path = write(config=RULE.get_config(), decisions=decisions, verdict="better")
    for given in ({}, decisions, {"weight_decay": 0.0, "remat": True}):
        assert read_rule_file(path, given) == {"rule": RULE, **decisions}
    path = write(config=RULE.get_config(), decisions={"preset": None})
    assert read_rule_file(path, {"depth": 50}) == {"rule": RULE}
    assert read_rule_file(SAVED, {})["rule"].schedule_length == 20


CONFIG = RULE.get_config()
WRONG = [
    ({}, "it holds no `config` of a rule"),
    ({"config": 5}, "it holds no `config` of a rule"),
    ({"config": {**CONFIG, "shade": 1}}, "unexpected keyword argument 'shade'"),
    ({"config": {**CONFIG, "batch_size": 0}}, "`batch_size` must be an integer of at least 1"),
    ({"config": {**CONFIG, "learning_rate": float("nan")}}, "`learning_rate` must be a positive"),
    ({"config": CONFIG, "decisions": []}, "its `decisions` must be among preset, frozen_blocks"),
    ({"config": CONFIG, "decisions": {"speed": True}}, "its `decisions` must be among"),
    ({"config": CONFIG, "decisions": {"preset": 5}}, "its `preset` must be a name"),
    ({"config": CONFIG, "decisions": {"preset": " "}}, "its `preset` must be a name"),
    ({"config": CONFIG, "decisions": {"frozen_blocks": 5}}, "`frozen_blocks` must be at most 4"),
    ({"config": CONFIG, "decisions": {"weight_decay": -1}}, "`weight_decay` must be"),
    ({"config": CONFIG, "decisions": {"dropout": 1}}, "`dropout` must be"),
    ({"config": CONFIG, "decisions": {"class_weight": [1, -1]}}, "`class_weight` must have"),
]


@pytest.mark.parametrize("content, message", WRONG)
def test_a_file_of_another_kind(content, message, write):
    path = write(**content)
    with pytest.raises(ValueError, match="`rule` must be a JSON file") as error:
        read_rule_file(path, {})
    assert str(path) in str(error.value) and message in str(error.value)


@pytest.mark.tensorflow
def test_broken_files_are_one_line_on_the_command_line(write, tmp_path, capsys):
    whole = write(config=CONFIG).read_bytes()
    files = {"empty": b"", "cut": whole[:-9], "list": b"[1]", "binary": bytes(range(256))}
    files |= {"deep": b"[" * 100_000, "page": b"<html>", "utf-16": whole.decode().encode("utf-16")}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    for name in (*files, "pipe", "missing", ""):
        assert main(["plan", "no folder", "--rule", str(tmp_path / name)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "error: `--rule` must be a JSON file: rule.json of a run, or best_rule.json" in line
        assert f"Received: {tmp_path / name}, which " in line


def test_a_rule_for_data_of_other_sizes_is_told():
    images = np.zeros((48, 40, 36, 3), np.uint8)
    data = keras_bit.ImageDataset.from_arrays(images, np.arange(48) % 3, images, np.arange(48) % 3)
    for rule in (RULE, RULE.replace(dataset_size=50, image_size=41)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warn_of_other_data(rule, data)
    rule = keras_bit.HyperRule(500, 20_000, 512, crop_size=480)
    message = (
        "made for 20,000 training images of 500x500 pixels. Received: 48 of 40x36, for which it "
        "would decide otherwise.*: mixup_alpha 0.1, not 0.0; schedule_length 10000, not 500; b"
    )
    with pytest.warns(UserWarning, match=message):
        warn_of_other_data(rule.replace(resize_edge=512), data)
