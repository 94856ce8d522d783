"""Pictures of a search: its trials by score, hyperparameter, update, time and disk.

Each `*_figure` function returns a matplotlib figure, which is not saved yet.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_bit.core.arguments import is_number
from keras_bit.core.text import readable_size
from keras_bit.evaluation.pictures import (
    TEST_COLOR,
    TRAIN_COLOR,
    new_figure,
    printable,
    short_number,
    shorten,
)
from keras_bit.tuning.summary import (
    by_score,
    describe_objective,
    finite,
    format_time,
    format_value,
    hyperparameter_names,
    is_accuracy,
    ranked_trials,
)
from keras_bit.tuning.trials import FAILED, SearchResult

DRAWN_TRIALS = 100  # of more, the picture of scores has the best
_OTHER_COLOR = "0.55"
# What legends call the things in a picture, in their order.
_KINDS = (
    _RULE := "the rule",
    _BEST := "the outcome",
    _OTHER := "other trials",
    _SHORT := "stopped before the end of the schedule",
    _FAILED := "failed",
    _ERROR := "standard error of the rule's score",
    _REPEATS := "other seeds: runs, mean, its standard error",
)


def scores_figure(result: SearchResult) -> Any:
    """The trials in rows: the hyperparameters in which they differ from the rule, and the score.

    Further runs with other seeds are ticks, with their mean and its standard error.
    """
    scored, others = ranked_trials(result)
    rows = [*scored, *others][:DRAWN_TRIALS]
    scored, others = rows[: len(scored)], rows[len(scored) :]
    names = hyperparameter_names(result)
    width = 0.8 * (len(names) + 2)
    height = 1.9 + len(rows) * (0.3 if len(rows) <= 30 else 0.22)
    figure = new_figure(width + 5.5, height)
    values, axes = figure.subplots(1, 2, sharey=True, width_ratios=(width, 5.5))
    _draw_values(values, rows, names, result)
    for side in (values, axes):
        for row in range(0, len(rows), 2):
            side.axhspan(row - 0.5, row + 0.5, color="0.96", zorder=0)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(left=False, labelleft=False)
    for row, trial in enumerate(others, len(scored)):
        reason = textwrap.shorten(printable(trial.reason), 80, placeholder=" …") or trial.status
        place = {"transform": axes.get_yaxis_transform(), "va": "center", "parse_math": False}
        axes.text(0.02, row, reason, fontsize=8, color="0.3", **place)
    if scored:
        _draw_scores(axes, scored, result)
    else:
        axes.set_xticks([])
    left_out = len(result.trials) - len(rows)
    figure.suptitle("Trials by score" + (f", without {left_out:,} more" if left_out else ""))
    _legend(figure)
    return figure


def _draw_values(axes, rows, names, result):
    """A table of the trials' numbers, scores and values other than the rule's."""
    rule = result.trials[0].values
    axes.set_axis_off()
    axes.set_xlim(0, len(names) + 2)
    text = {"fontsize": 8, "parse_math": False}
    for column, name in enumerate(("trial", "score", *names)):
        title = "\n".join(shorten(part, 10) for part in name.split("_"))
        axes.text(column, -0.7, title, va="bottom", color="0.3", **text)
    for row, trial in enumerate(rows):
        changed = [
            "" if trial.number and value == rule.get(name) else shorten(format_value(value), 11)
            for name in names
            for value in (trial.values.get(name),)
        ]
        color = _kind(trial, result)[0] if trial.number in (0, result.best.number) else "black"
        for column, value in enumerate((str(trial.number), format_value(trial.score), *changed)):
            axes.text(column, row, value, va="center", color=color, **text)


def _draw_scores(axes, scored, result):
    error = 0.0
    (rule,) = [trial for trial in scored if not trial.number] or [None]
    if rule is not None:
        score = min(max(rule.score, 0.0), 1.0)
        if is_accuracy(result):
            error = math.sqrt(score * (1 - score) / result.validation_images)
            axes.fill_betweenx(
                (-0.5, len(scored) - 0.5),
                rule.score - error,
                rule.score + error,
                color=TRAIN_COLOR,
                alpha=0.15,
                lw=0,
                label=_ERROR,
            )
        axes.plot([rule.score] * 2, (-0.5, len(scored) - 0.5), color=TRAIN_COLOR, lw=1)
    whole = [trial for trial in scored if trial.is_whole]
    limits = _score_limits(scored, whole or scored, error)
    for row, trial in enumerate(scored):
        color, _ = _kind(trial, result)
        repeats = finite(trial.repeats.values())
        if repeats:
            axes.plot(repeats, [row + 0.27] * len(repeats), "|", color=color, ms=6)
            axes.errorbar(
                np.mean(repeats),
                row + 0.27,
                xerr=np.std(repeats, ddof=1) / math.sqrt(len(repeats)) if repeats[1:] else None,
                fmt="D",
                ms=4,
                lw=1,
                capsize=3,
                color=color,
            )
        _draw_point(axes, (trial.score, row), trial, result, limits)
    if any(trial.repeats for trial in scored):
        style = {"marker": "D", "ms": 4, "lw": 1, "color": "0.3"}
        axes.plot([], [], label=_REPEATS, **style)
    axes.set_xlim(limits)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set_xlabel(describe_objective(result))
    axes.grid(axis="x", color="0.9")


def _score_limits(scored, chosen, error=0.0):
    """Limits of an axis of scores: the better half of `chosen` and the rule in full."""
    rule = [trial.score + side for trial in scored if not trial.number for side in (-error, error)]
    repeats = [score for trial in scored for score in finite(trial.repeats.values())]
    better = [trial.score for trial in chosen[: max(3, -(-len(chosen) // 2))]]
    every = [trial.score for trial in scored]
    return _limits([*every, *rule, *repeats], [*better, *rule, *repeats])


def _limits(values, kept):
    """Limits that show all of `kept`, and `values` as far as they leave it half of the axis."""
    span = np.ptp(kept) or abs(kept[0]) / 100 or 1.0
    low = max(min(values), min(kept) - span / 2)
    high = min(max(values), max(kept) + span / 2)
    margin = max(high - low, span) * 0.06
    return float(low - margin), float(high + margin)


def _kind(trial, result):
    """The color of a trial, and what it is called in legends."""
    if not trial.number:
        return TRAIN_COLOR, _RULE
    if trial.number == result.best.number:
        return TEST_COLOR, _BEST
    if trial.status == FAILED:
        return "0.75", _FAILED
    return _OTHER_COLOR, _OTHER


def _draw_point(axes, point, trial, result, limits, along=0):
    """Draws a trial's score, at the edge where it lies beyond the limits; hollow if cut short."""
    color, label = _kind(trial, result)
    shown = float(np.clip(point[along], *limits))
    beyond = int(point[along] > shown) - int(point[along] < shown)
    marker = "o" if not beyond else ("<>", "v^")[along][beyond > 0]
    place = [shown if axis == along else value for axis, value in enumerate(point)]
    face = color if trial.is_whole else "white"
    label = _SHORT if label == _OTHER and not trial.is_whole else label
    front = 3 if color == _OTHER_COLOR else 4
    style = {"color": color, "mfc": face, "ls": "", "ms": 7, "zorder": front}
    axes.plot(*([value] for value in place), marker, clip_on=False, **style)
    axes.plot([], [], "o", label=label, **style)  # in the legend, whatever the marker


def _legend(figure):
    """One legend below all axes, with each label once."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        handles = dict(sorted(handles.items(), key=lambda item: _KINDS.index(item[0])))
        columns = min(3, len(handles))
        place = {"loc": "outside lower center", "ncols": columns, "frameon": False, "fontsize": 9}
        figure.legend(handles.values(), handles.keys(), **place)


def _message(text):
    figure = new_figure(8, 1.2)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=13)
    return figure


def hyperparameters_figure(result: SearchResult) -> Any:
    """The scores over the values of each hyperparameter, in axes of their own."""
    scored, _ = ranked_trials(result)
    names = [
        name
        for name in hyperparameter_names(result)
        if any(name in trial.values for trial in scored)
    ]
    if not names:
        return _message("No completed trial with hyperparameters.")
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(max(3.4 * columns, 5), 2.9 * rows + 0.5)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    limits = _score_limits(scored, by_score(scored, result))
    for axes in grid.flat[len(names) :]:
        axes.remove()
    for axes, name in zip(grid.flat, names, strict=False):
        trials = [trial for trial in scored if name in trial.values]
        places = _places(axes, [trial.values[name] for trial in trials])
        for place, trial in zip(places, trials, strict=True):
            _draw_point(axes, (place, trial.score), trial, result, limits, along=1)
            if not trial.number:
                axes.axhline(trial.score, color=TRAIN_COLOR, lw=1, ls=":")
        axes.set_xlabel(shorten(name, 36), parse_math=False)
        axes.grid(color="0.92")
    for axes in grid[:, 0]:
        axes.set_ylabel(shorten(result.objective), parse_math=False)
    grid[0, 0].set_ylim(limits)
    grid[0, 0].ticklabel_format(axis="y", useOffset=False)
    _legend(figure)
    return figure


def _places(axes, values: Sequence[Any]) -> Sequence[Any]:
    """Where values stand on the x axis, which becomes linear, logarithmic or one of categories."""
    if not all(map(is_number, values)) or len(set(values)) == 1:
        texts = list(map(format_value, values))
        categories = sorted(set(texts))
        labels = [shorten(text, 14) for text in categories]
        turned = {"rotation": 30, "ha": "right"} if len("".join(labels)) > 30 else {}
        axes.set_xticks(range(len(categories)), labels, fontsize=9, parse_math=False, **turned)
        axes.set_xlim(-0.5, len(categories) - 0.5)
        return [categories.index(text) for text in texts]
    if min(values) > 0 and max(values) > 10 * min(values):
        axes.set_xscale("log")
        between = (1, 3) if max(values) < 1000 * min(values) else (1,)
        axes.xaxis.get_major_locator().set_params(subs=between)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    else:
        whole = all(isinstance(value, int) for value in values)
        axes.xaxis.get_major_locator().set_params(nbins=5, integer=whole)
    return values


def curves_figure(result: SearchResult) -> Any:
    """The objective over the updates of all trials, the rule and the outcome in color."""
    first = {0, result.best.number}
    curves = [
        (trial, trial.history["updates"], np.asarray(trial.history[result.objective], dtype=float))
        for trial in sorted(result.trials, key=lambda trial: trial.number in first)
        if np.isfinite(np.asarray(trial.history.get(result.objective, ()), dtype=float)).any()
    ]
    if not curves:
        return _message("No trial was validated.")
    figure = new_figure(9, 4.8)
    axes = figure.add_subplot()
    better = {trial.number for trial in ranked_trials(result)[0][: len(result.trials) // 2]}
    every = [value for _, _, values in curves for value in finite(values)]
    kept = [v for t, _, values in curves if t.number in better | first for v in finite(values)]
    for trial, updates, values in curves:
        color, label = _kind(trial, result)
        colored = trial.number in first
        style = {"lw": 2 if colored else 1, "ls": ":" if trial.status == FAILED else "-"}
        axes.plot(updates, values, marker="o", ms=4 if colored else 2.5, color=color, **style)
        axes.plot([], [], color=color, label=label, **style)
    axes.set_ylim(_limits(every, kept or every))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
    axes.set_xlabel("optimizer updates")
    axes.set_ylabel(describe_objective(result))
    axes.grid(color="0.9")
    _legend(figure)
    return figure


def cost_figure(result: SearchResult) -> Any:
    """Bars of each trial's time, and of the bytes that it wrote."""
    trials = result.trials
    figure = new_figure(float(np.clip(3 + 0.25 * len(trials), 7, 14)), 5.6)
    time, disk = figure.subplots(2, 1, sharex=True)
    longest = max(trial.seconds for trial in trials)
    units = (("hours", 3600), ("minutes", 60), ("seconds", 1))
    unit, size = next((u for u in units if longest >= 2 * u[1]), units[-1])
    for trial in trials:
        color, label = _kind(trial, result)
        failed = {"facecolor": "white", "hatch": "///"} if trial.status == FAILED else {}
        style = {"color": color, "edgecolor": color, **failed}
        time.bar(trial.number, trial.seconds / size, label=label, **style)
        disk.bar(trial.number, trial.written, **style)
    seconds = sum(trial.seconds for trial in trials)
    total = sum(trial.written for trial in trials)
    time.set_title(f"Time: {format_time(seconds)} in all", fontsize=10)
    time.set_ylabel(unit)
    disk.set_title(f"Weights of best epochs: {readable_size(total)} in all", fontsize=10)
    disk.yaxis.set_major_formatter(lambda value, _: readable_size(value))
    if not total:
        disk.set_yticks([0])
    disk.set_xlabel("trial")
    disk.set_xlim(-0.7, max(len(trials), 8) - 0.3)
    disk.set_xticks(range(0, len(trials), -(-len(trials) // 20)))
    for axes in (time, disk):
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
    _legend(figure)
    return figure
