"""The report of a search: its tables, the file of the outcome, the page and the pictures."""

import csv
import dataclasses
import json
import math
import os
import pathlib

import numpy as np
import pytest
from matplotlib.colors import same_color

from keras_bit import HyperRule
from keras_bit.evaluation.pictures import TEST_COLOR, TRAIN_COLOR
from keras_bit.tuning import pictures, report
from keras_bit.tuning.trials import COMPLETED, FAILED, Comparison, SearchResult, SearchTrial
from tests.evaluation.test_pictures import pixels
from tests.evaluation.test_report import Page

BASELINE = HyperRule(32, 100, 16, schedule_length=40)


def trial(number, score, *, factor=1.0, updates=40, objective="val_accuracy", **fields):
    values = {"learning_rate_factor": factor, "preset": "m-r50x1"}
    history = {objective: [0.5, score or 0.1], "updates": [20, updates]}
    defaults = {
        "values": values,
        "rule": BASELINE.replace(learning_rate=0.001 * factor),
        "decisions": {},
        "status": COMPLETED if score is not None else FAILED,
        "seconds": 30.0,
        "updates": updates,
        "history": history,
        "written": 1_000_000,
    }
    return SearchTrial(number, score=score, **{**defaults, **fields})


def study(*trials, best=0, comparisons=(), **fields):
    defaults = {"objective": "val_accuracy", "direction": "max", "validation_images": 100}
    outcome = trials[best]
    return SearchResult(
        rule=outcome.rule,
        baseline=trials[0].rule,
        trials=trials,
        output=None,
        best=outcome,
        comparisons=tuple(comparisons),
        verdict="Trial <2> is better.",
        **{**defaults, **fields},
    )


def small_study():
    repeats = {7: 0.92, 8: 0.96}
    return study(
        trial(0, 0.9, repeats={7: 0.9, 8: 0.88}),
        trial(1, None, factor=9.5, reason="The loss is <NaN>,\nat $update$ 17.", seconds=5.0),
        trial(2, 0.95, factor=2.0, repeats=repeats, decisions={"preset": "m-r50x1"}),
        trial(3, 0.99, factor=0.5, updates=10),
        trial(4, 0.1, factor=0.1),
        best=2,
        comparisons=[Comparison(2, 0.05, 0.03, (7, 8)), Comparison(4, -0.5, 0.1, (7, 8))],
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a study")
    report.write_study(folder, small_study())
    return folder


def rows_of(folder):
    with open(folder / report.TRIALS_FILE, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_of_trials_is_read_back(written):
    rows = rows_of(written)
    assert [row["number"] for row in rows] == ["0", "1", "2", "3", "4"]
    best = rows[2]
    assert (
        list(best)
        == (
            "number status score seconds updates schedule_length learning_rate_factor preset "
            "repeats_mean repeats written reason"
        ).split()
    )
    assert (best["status"], best["preset"], best["reason"]) == ("completed", "m-r50x1", "")
    numbers = {"score": 0.95, "learning_rate_factor": 2, "repeats_mean": 0.94, "repeats": 2}
    numbers |= {"seconds": 30, "updates": 40, "schedule_length": 40, "written": 1_000_000}
    assert {name: float(best[name]) for name in numbers} == pytest.approx(numbers)
    assert rows[1]["reason"] == "The loss is <NaN>,\nat $update$ 17."
    assert (rows[1]["status"], rows[1]["score"], rows[1]["repeats_mean"]) == ("failed", "", "")


def test_names_and_paths_that_files_take_only_as_other_text(tmp_path):
    values = {"schedule_length": 7, "caf\udce9": None}
    decisions = {"preset": pathlib.Path("my", "weights.npz"), "frozen_blocks": 2}
    result = study(
        trial(0, 0.9, values={}),
        trial(1, 0.8, values=values, reason="caf\udce9", decisions=decisions),
        best=1,
    )
    report.write_study(tmp_path, result)
    first, second = rows_of(tmp_path)
    assert (first["searched_schedule_length"], first["schedule_length"]) == ("", "40")
    assert (second["searched_schedule_length"], second["schedule_length"]) == ("7", "40")
    assert second["caf\\udce9"] == "" and second["reason"] == "caf\\udce9"
    best = json.loads((tmp_path / report.BEST_FILE).read_text())
    assert best["decisions"] == {"preset": os.path.join("my", "weights.npz"), "frozen_blocks": 2}


def test_the_outcome_is_read_back(written):
    best = json.loads((written / report.BEST_FILE).read_text())
    rule = small_study().rule
    assert HyperRule.from_config(best["config"]) == rule != BASELINE
    assert best["decisions"] == {"preset": "m-r50x1"}
    assert best["rule"]["learning_rate"] == 0.002
    assert best["rule"]["boundaries"] == list(rule.boundaries)
    assert (best["trial"], best["verdict"]) == (2, "Trial <2> is better.")


def test_only_whole_files_are_left(written):
    names = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    drawn = {os.path.join(report.PICTURES_FOLDER, name) for name in report.PICTURE_FILES}
    assert names == {report.TRIALS_FILE, report.BEST_FILE, report.PAGE_FILE, *drawn}
    for name in drawn:
        assert np.ptp(pixels(written / name)) > 100, f"{name} is empty"


def test_the_page_holds_the_study(written):
    page = Page((written / report.PAGE_FILE).read_text("utf-8"))
    facts, comparisons, trials, failed, decisions = page.tables
    assert page.text[0] == "Trial <2> is better."
    assert ["trials", "5: 4 completed, 1 failed"] in facts and ["written", "5.0 MB"] in facts
    assert comparisons[1:] == [
        ["2", "+0.05", "0.03", "7, 8", "yes"],
        ["4", "-0.5", "0.1", "7, 8", "no"],
    ]
    assert [row[0] for row in trials[1:]] == ["2", "0", "4", "3"], "the shortened one comes last"
    assert trials[1][1:5] == ["0.95", "0.94 (2)", "2", "m-r50x1"]
    assert trials[4][-3] == "10 of 40"
    assert failed[1][:2] == ["1", "failed"] and "learning_rate_factor 9.5" in failed[1][2]
    assert failed[1][-1] == "The loss is <NaN>,\nat $update$ 17."
    assert decisions == [["preset", "m-r50x1"]]
    assert str(small_study().rule) in page.text
    assert f"keras-bit fine-tune FOLDER --rule '{written / report.BEST_FILE}'" in page.text
    assert any("100 validation images, of which one is worth 0.01." in text for text in page.text)
    assert len(page.sources) == 4 == page.tags.count("img")
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)


def test_names_on_the_page_are_escaped(tmp_path):
    values = {"<script>a</script>": "<img src=x>"}
    result = study(trial(0, 0.9, values=values), objective="val_<b>", validation_images=1)
    report.write_study(tmp_path, result)
    page = Page((tmp_path / report.PAGE_FILE).read_text("utf-8"))
    assert "script" not in page.tags and "b" not in page.tags
    assert len(page.sources) == 4 and "<img src=x>" in page.tables[1][1]
    assert "No trial was compared with the rule over further seeds." in page.text


def dots(axes):
    """The dots of trials: marker, x, y, color, and whether they are filled."""
    lines = [line for line in axes.lines if len(line.get_xdata()) == 1]
    return [
        (
            line.get_marker(),
            *(float(each[0]) for each in (line.get_xdata(), line.get_ydata())),
            line.get_color(),
            not same_color(line.get_markerfacecolor(), "white"),
        )
        for line in lines
        if line.get_marker() in "o<>v^"
    ]


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def test_trials_are_drawn_best_first():
    values, axes = pictures.scores_figure(small_study()).axes
    marks = dots(axes)
    best_first = [("o", 0.95, 0), ("o", 0.9, 1), ("o", 0.1, 2), ("o", 0.99, 3)]
    assert [mark[:3] for mark in marks] == best_first
    assert [mark[4] for mark in marks] == [True, True, True, False], "the shortened one is hollow"
    assert marks[0][3] == TEST_COLOR and marks[1][3] == TRAIN_COLOR
    assert texts_of(axes) == ["The loss is <NaN>, at $update$ 17."]
    # Of other trials only what differs from the rule; the numbers and scores of all.
    assert texts_of(values)[4:] == (
        ["2", "0.95", "2", "", "0", "0.9", "1", "m-r50x1", "4", "0.1", "0.1", ""]
        + ["3", "0.99", "0.5", "", "1", "", "9.5", ""]
    )


def test_the_rule_has_its_standard_error_and_repeats_have_theirs():
    _, axes = pictures.scores_figure(small_study()).axes
    (band,) = [c for c in axes.collections if c.get_label() == pictures._ERROR]
    edges = band.get_paths()[0].get_extents()
    assert (edges.x0, edges.x1) == pytest.approx((0.87, 0.93))  # sqrt(0.9 * 0.1 / 100)
    (line,) = [line for line in axes.lines if list(line.get_xdata()) == [0.9, 0.9]]
    assert list(line.get_ydata()) == [-0.5, 3.5], "beside the trials with a score"
    ticks = [line for line in axes.lines if line.get_marker() == "|" and line.get_markersize() == 6]
    assert [list(line.get_xdata()) for line in ticks[:1]] == [[0.92, 0.96]]
    best, rule = axes.containers
    assert best.lines[0].get_xdata()[0] == pytest.approx(0.94)
    (segment,) = best.lines[2][0].get_segments()
    spread = math.sqrt(2 * 0.02**2)  # of two values 0.04 apart
    error = spread / math.sqrt(2)
    assert segment[:, 0] == pytest.approx([0.94 - error, 0.94 + error])


@pytest.mark.parametrize("direction", ["max", "min"])
def test_scores_far_from_the_better_half_stand_at_the_edge(direction):
    scores = [0.3, 0.28, 0.32, 0.31, 0.05, 9.0, 7.0]  # a loss; an accuracy is the other way round
    sign = 1 if direction == "min" else -1
    trials = [trial(i, sign * score, objective="val_loss") for i, score in enumerate(scores)]
    result = study(*trials, best=1, objective="val_loss", direction=direction)
    axes = pictures.scores_figure(result).axes[1]
    edge = axes.get_xlim()[direction == "min"]
    shown = (0.05, 0.28, 0.3, 0.31, 0.32)
    marks = dots(axes)
    assert [mark[:3] for mark in marks[:5]] == [
        ("o", sign * score, row) for row, score in enumerate(shown)
    ]
    beyond = ">" if direction == "min" else "<"
    assert [mark[:3] for mark in marks[5:]] == [(beyond, edge, 5), (beyond, edge, 6)]
    assert abs(edge) < 1
    assert ("lower" if direction == "min" else "higher") in axes.get_xlabel()
    assert not axes.collections, "a loss has no binomial error"
    across = dots(pictures.hyperparameters_figure(result).axes[0])
    assert {mark[0] for mark in across[5:]} == {"^" if direction == "min" else "v"}


@pytest.mark.parametrize("scores", [[0.9], [None, None], [math.nan, 1.0, None]])
def test_few_scores_are_drawn_too(scores, recwarn):
    result = study(*(trial(i, score, reason="It failed.") for i, score in enumerate(scores)))
    finite = sum(score is not None and math.isfinite(score) for score in scores)
    _, axes = pictures.scores_figure(result).axes
    assert (len(dots(axes)), len(axes.texts)) == (finite, len(scores) - finite)
    for make in (pictures.hyperparameters_figure, pictures.curves_figure, pictures.cost_figure):
        make(result).draw_without_rendering()
    assert not recwarn.list


def test_no_text_lies_on_another():
    long = {f"a_hyperparameter_of_long_name_{i}": 0.123456 * (i + 1) for i in range(4)}
    trials = [
        trial(
            i, 0.9 - i / 100 if i % 9 else None, values={**long, "name": "x" * i}, reason="y " * i
        )
        for i in range(20)
    ]
    figure = pictures.scores_figure(study(*trials))
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
        for index, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:index])
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1


def test_more_trials_than_a_picture_holds():
    trials = [trial(i, i / 200) for i in range(pictures.DRAWN_TRIALS + 20)]
    figure = pictures.scores_figure(study(*trials))
    assert len(dots(figure.axes[1])) == pictures.DRAWN_TRIALS
    assert "20 more" in figure.get_suptitle()


def hyperparameter_axes(values):
    """The axes of one hyperparameter with these values, and where the dots stand."""
    trials = [trial(i, 0.9, values={"x": value}) for i, value in enumerate(values)]
    (axes,) = pictures.hyperparameters_figure(study(*trials)).axes
    # By number again: equal scores keep their order.
    return axes, [mark[1] for mark in dots(axes)]


def test_axes_suit_the_values_of_a_hyperparameter():
    for values, scale in (
        ([0.1, 1.01], "log"),
        ([0.1, 1.0], "linear"),
        ([0.0, 5.0], "linear"),
        ([-1.0, 50.0], "linear"),
    ):
        axes, places = hyperparameter_axes(values)
        assert (axes.get_xscale(), places) == (scale, values)
    for values, labels, expected in (
        (["m", "f", "m"], ["f", "m"], [1, 0, 1]),
        ([True, False], ["False", "True"], [1, 0]),
        ([None, 0.5], ["", "0.5"], [0, 1]),
        ([0.3, 0.3], ["0.3"], [0, 0]),
    ):
        axes, places = hyperparameter_axes(values)
        assert [label.get_text() for label in axes.get_xticklabels()] == labels
        assert places == expected


def test_each_hyperparameter_has_axes_with_the_trials_that_have_it():
    trials = [trial(0, 0.9), trial(1, 0.8, values={"other": 3})]
    axes = pictures.hyperparameters_figure(study(*trials)).axes
    assert [each.get_xlabel() for each in axes] == ["learning_rate_factor", "preset", "other"]
    assert [mark[2] for each in axes for mark in dots(each)] == [0.9, 0.9, 0.8]


def test_curves_end_with_the_rule_and_the_outcome():
    (axes,) = pictures.curves_figure(small_study()).axes
    lines = [line for line in axes.lines if len(line.get_xdata())]
    assert len(lines) == 5
    drawn = {tuple(line.get_ydata()): line for line in lines}
    assert drawn[(0.5, 0.9)].get_color() == TRAIN_COLOR
    assert drawn[(0.5, 0.95)].get_color() == TEST_COLOR
    assert {tuple(line.get_ydata()) for line in lines[-2:]} == {(0.5, 0.9), (0.5, 0.95)}
    assert list(drawn[(0.5, 0.99)].get_xdata()) == [20, 10]
    assert [line.get_linestyle() for line in lines].count(":") == 1, "of the trial that failed"


def test_bars_of_time_and_disk():
    time, disk = pictures.cost_figure(small_study()).axes
    assert [bar.get_height() for bar in time.patches] == [30, 5, 30, 30, 30]
    assert [bar.get_height() for bar in disk.patches] == [1e6] * 5
    assert [bool(bar.get_hatch()) for bar in time.patches] == [False, True, False, False, False]
    assert time.get_ylabel() == "seconds" and "0:02:05" in time.get_title()
    hours = dataclasses.replace(trial(0, 0.9), seconds=9_000.0)
    time, _ = pictures.cost_figure(study(hours)).axes
    assert (time.get_ylabel(), time.patches[0].get_height()) == ("hours", 2.5)
