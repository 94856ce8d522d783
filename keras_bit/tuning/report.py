"""The report of a search: tables of its trials, the outcome as a file, and a page with pictures."""

import csv
import os
import pathlib
import shlex

import numpy as np

from keras_bit.core.files import atomic_write, write_json
from keras_bit.core.text import readable_size
from keras_bit.evaluation.page import (
    Picture,
    heading,
    illustration,
    paragraph,
    preformatted,
    table,
    write_page,
)
from keras_bit.evaluation.pictures import save_figure
from keras_bit.tuning.pictures import (
    cost_figure,
    curves_figure,
    hyperparameters_figure,
    scores_figure,
)
from keras_bit.tuning.study_folder import BEST_FILE, PAGE_FILE, PICTURES_FOLDER, TRIALS_FILE
from keras_bit.tuning.summary import (
    describe_objective,
    format_time,
    format_value,
    hyperparameter_names,
    is_accuracy,
    ranked_trials,
)
from keras_bit.tuning.trials import COMPLETED, FAILED, SearchResult

PICTURE_FILES = ("scores.png", "hyperparameters.png", "curves.png", "cost.png")


def write_study(folder: str | os.PathLike, result: SearchResult) -> None:
    """Writes what a search found to files in `folder`.

    They are `trials.csv` with a row for each trial, `best_rule.json` for `keras-bit fine-tune
    --rule`, four pictures in `study`, and `study.html` with everything.
    """
    folder = pathlib.Path(folder)
    (folder / PICTURES_FOLDER).mkdir(parents=True, exist_ok=True)
    _write_trials(folder / TRIALS_FILE, result)
    decisions = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in result.best.decisions.items()
    }
    best = {
        "config": result.rule.get_config(),
        "decisions": decisions,
        "rule": result.rule.decisions(),
        "trial": result.best.number,
        "verdict": result.verdict,
    }
    write_json(folder / BEST_FILE, best)
    drawn = (
        scores_figure(result),
        hyperparameters_figure(result),
        curves_figure(result),
        cost_figure(result),
    )
    described = (
        ("Trials by score", "Best first; a triangle stands for a score beyond the axis."),
        ("Score against each hyperparameter", "One dot a trial; the dotted line is the rule."),
        ("Validation curves", f"{result.objective} after each epoch."),
        ("Time and disk", "Training and validation, and weights of best epochs as written."),
    )
    pictures = []
    for name, figure, texts in zip(PICTURE_FILES, drawn, described, strict=True):
        pictures.append(Picture(folder / PICTURES_FOLDER / name, *texts))
        save_figure(figure, pictures[-1].path)
    write_page(folder / PAGE_FILE, result.verdict, _page_parts(result, pictures, folder))


def _write_trials(path, result):
    before = ["number", "status", "score", "seconds", "updates", "schedule_length"]
    after = ["repeats_mean", "repeats", "written", "reason"]
    names = hyperparameter_names(result)
    columns = [f"searched_{name}" if name in (*before, *after) else name for name in names]
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*before, *columns, *after])
        for trial in result.trials:
            repeats = list(trial.repeats.values())
            writer.writerow(
                [trial.number, trial.status, trial.score, trial.seconds, trial.updates]
                + [trial.rule.schedule_length]
                + [trial.values.get(name) for name in names]
                + [float(np.mean(repeats)) if repeats else None, len(repeats)]
                + [trial.written, trial.reason]
            )


def _page_parts(result, pictures, folder):
    command = f"keras-bit fine-tune FOLDER --rule {shlex.quote(str(folder / BEST_FILE))}"
    return (
        table(_facts(result)),
        *_comparison_parts(result),
        *_trials_tables(result),
        *map(illustration, pictures),
        heading("Outcome"),
        preformatted(str(result.rule)),
        table(result.best.decisions.items()),
        paragraph("Train the final model on your FOLDER of images with this line:"),
        preformatted(command),
    )


def _facts(result):
    trials = result.trials
    counts = [sum(trial.status == status for trial in trials) for status in (COMPLETED, FAILED)]
    return (
        ("outcome", f"trial {result.best.number}{'' if result.best.number else ', the rule'}"),
        ("objective", describe_objective(result)),
        ("validation images", f"{result.validation_images:,}"),
        ("trials", "{:,}: {:,} completed, {:,} failed".format(len(trials), *counts)),
        ("time", format_time(sum(trial.seconds for trial in trials))),
        ("written", readable_size(sum(trial.written for trial in trials))),
    )


def _comparison_parts(result):
    if not result.comparisons:
        return [paragraph("No trial was compared with the rule over further seeds.")]
    how = (
        "The rule and these trials were trained again with the same seeds. A difference is the "
        "mean over pairs of runs with the same seed, positive where the trial is better; it is "
        "more than noise only where it exceeds the margin. "
    )
    images = f"The scores are from {result.validation_images:,} validation images"
    worth = f", of which one is worth {1 / result.validation_images:.2g}"
    rows = [
        (
            comparison.number,
            f"{comparison.difference:+.4g}",
            f"{comparison.margin:.4g}",
            ", ".join(map(str, comparison.seeds)),
            "yes" if comparison.is_better else "no",
        )
        for comparison in result.comparisons
    ]
    names = ("trial", "difference to the rule", "margin", "seeds", "better by more than noise")
    return [
        heading("Comparisons with the rule"),
        paragraph(f"{how}{images}{worth if is_accuracy(result) else ''}."),
        table(rows, names),
    ]


def _trials_tables(result):
    scored, others = ranked_trials(result)
    names = hyperparameter_names(result)
    rows = [
        [trial.number, format_value(trial.score), _repeats(trial)]
        + [format_value(trial.values.get(name)) for name in names]
        + [_updates(trial), format_time(trial.seconds), readable_size(trial.written)]
        for trial in scored
    ]
    titles = [
        "trial",
        result.objective,
        "mean of other seeds",
        *names,
        "updates",
        "time",
        "written",
    ]
    titles = [title.replace("_", " ") for title in titles]
    tables = [heading("Trials"), table(rows, titles)] if scored else []
    if others:
        rows = [[t.number, t.status, _values(t), format_time(t.seconds), t.reason] for t in others]
        titles = ["trial", "status", "hyperparameters", "time", "reason"]
        tables += [heading("Trials without a score"), table(rows, titles)]
    return tables


def _repeats(trial):
    scores = list(trial.repeats.values())
    return f"{np.mean(scores):.4g} ({len(scores)})" if scores else ""


def _updates(trial):
    whole = f" of {trial.rule.schedule_length:,}"
    is_short = trial.updates < trial.rule.schedule_length
    return f"{trial.updates:,}{whole if is_short else ''}"


def _values(trial):
    return ", ".join(f"{name} {format_value(value)}" for name, value in trial.values.items())
