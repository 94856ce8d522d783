import re

import pytest
from PIL import Image

from keras_bit import BiTBackbone, HyperRule, presets, training_memory
from keras_bit.cli.main import main
from keras_bit.core.text import readable_size
from keras_bit.training import RunPlan, duration
from keras_bit.weights.presets import EMBEDDED

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore:Skipped")]


def lines_without_paths(text, *paths):
    """Lines of `text`, less those that hold a path, which must not be broken up."""
    return [line for line in text.splitlines() if not any(str(path) in line for path in paths)]


def test_plan_shows_data_rule_and_cache_without_training(photos, capsys):
    options = ("--batch-size", "32", "--micro-batch-size", "8", "--schedule-length", "50")
    sizes = ("--resize-edge", "100", "--crop-size", "80", "--no-random-flip", "--warmup")
    assert main(["plan", str(photos), *options, *sizes]) == 0
    captured = capsys.readouterr()
    words = [line.split() for line in captured.out.splitlines()]
    assert ["blue", "[b]", "18", "2"] in words
    assert ["3", "classes", "54", "6"] in words
    rule = HyperRule(
        (40, 36),
        54,
        32,
        micro_batch_size=8,
        schedule_length=50,
        resize_edge=100,
        crop_size=80,
        random_flip=False,
        warmup=True,
        recipe=presets()[EMBEDDED].recipe,
    )
    assert str(rule) in captured.out
    assert ["cache", "1.6", "MB", "+", "115.2", "kB", "in", "memory"] in words
    assert "Skipped: 1" in captured.out and "blue [b]/broken.jpg: " in captured.out


def test_plan_shows_the_memory_of_a_network_without_its_weights(photos, capsys):
    options = ("--preset", "m-r50x1", "--batch-size", "32", "--micro-batch-size", "8")
    assert main(["plan", str(photos), *options, "--dtype", "mixed_bfloat16"]) == 0
    out = capsys.readouterr().out
    rule = HyperRule((40, 36), 54, 32, micro_batch_size=8)
    plain, lean = (
        training_memory(BiTBackbone(50, 1, dtype="mixed_bfloat16", remat=remat), 3, rule)
        for remat in (False, True)
    )
    words = " ".join(out.split())
    for name, value, remark in plain.rows():
        assert " ".join(f"{name} {value} {remark}".split()) in words
    assert "times 8 in a step" in words and "in mixed_bfloat16" in words
    assert f"with remat {readable_size(lean.total)}" in words
    main(["plan", str(photos), *options, "--dtype", "mixed_bfloat16", "--remat"])
    words = " ".join(capsys.readouterr().out.split())
    assert f"in all {readable_size(lean.total)}" in words and "with remat" not in words


def test_plan_as_json(photos, capsys):
    options = ("--batch-size", "32", "--seed", "3", "--steps-per-epoch", "5")
    assert main(["plan", str(photos), *options, "--json"]) == 0
    plan = RunPlan.from_json(capsys.readouterr().out)
    assert (plan.seed, plan.steps_per_epoch, plan.rule.batch_size) == (3, 5, 32)
    assert main(["plan", str(photos), *options, "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert RunPlan.from_json(captured.out).rule == plan.rule and captured.err == ""
    assert plan.data.label_names == ("blue [b]", "green", "red") and plan.data.skipped == 1


def test_plan_in_a_narrow_window_loses_nothing(photos, capsys, monkeypatch):
    monkeypatch.setattr("keras_bit.core.device.available_memory", lambda: 16e9)  # else it changes
    monkeypatch.setattr(duration, "matrix_product_rate", lambda dtype: 1e11)
    main(["plan", str(photos)])
    wide = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "40")
    main(["plan", str(photos)])
    narrow = capsys.readouterr().out
    assert max(map(len, lines_without_paths(narrow, photos))) <= 40
    wide_words, narrow_words = (set(re.findall(r"[\w./-]+", text)) for text in (wide, narrow))
    assert {"learning", "rate", "divided", "optimizer", "SGD"} <= narrow_words
    assert not {word for word in wide_words - narrow_words if word.isdigit()}


def test_plan_breaks_no_path(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    cache = tmp_path / "a long name with spaces" / "and-hyphens-for-the cache"
    weights = tmp_path / "a long name with spaces" / "and more-of-them.npz"
    weights.parent.mkdir()
    BiTBackbone((1, 1, 1, 1), 0.25).save_npz(weights)
    options = ("--cache-dir", str(cache), "--preset", str(weights))
    assert main(["plan", str(photos), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    paths = (cache, weights, photos / "blue [b]" / "broken.jpg")
    assert [sum(str(path) in line for line in lines) for path in paths] == [1, 1, 1]
    assert max(map(len, lines_without_paths("\n".join(lines), *paths))) <= 50


def test_plan_lists_no_more_classes_than_a_page_holds(tmp_path, capsys):
    for index in range(33):
        (tmp_path / f"class{index:02}").mkdir()
        for number in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / f"class{index:02}" / f"{number}.png")
    assert main(["plan", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "class29" in out and "class30" not in out and "and 3 more" in out
