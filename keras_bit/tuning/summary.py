"""What the tables and the pictures of a search have in common."""

import datetime
import math
import operator
from collections.abc import Iterable

from keras_bit.tuning.trials import SearchResult, SearchTrial


def ranked_trials(result: SearchResult) -> tuple[list[SearchTrial], list[SearchTrial]]:
    """Returns the trials with a finite score, best first, and the others by number.

    Those that were trained to the end of their schedule come before the ones that were not.
    """
    scored = [trial for trial in result.trials if finite([trial.score])]
    others = [trial for trial in result.trials if not finite([trial.score])]
    return sorted(by_score(scored, result), key=lambda trial: not trial.is_whole), others


def by_score(trials: Iterable[SearchTrial], result: SearchResult) -> list[SearchTrial]:
    """Returns trials that have a score, best first."""
    return sorted(trials, key=operator.attrgetter("score"), reverse=result.direction == "max")


def hyperparameter_names(result: SearchResult) -> list[str]:
    """Returns the names of the hyperparameters of all trials; a trial may lack some of them."""
    return list(dict.fromkeys(name for trial in result.trials for name in trial.values))


def finite(values: Iterable[float | None]) -> list[float]:
    """Returns the values that are finite numbers."""
    return [value for value in values if value is not None and math.isfinite(value)]


def is_accuracy(result: SearchResult) -> bool:
    """Whether the objective is the share of the validation images that is right."""
    return result.objective.removeprefix("val_") == "accuracy"


def describe_objective(result: SearchResult) -> str:
    """Returns the objective's name and direction, for people."""
    return f"{result.objective} ({'lower' if result.direction == 'min' else 'higher'} is better)"


def format_value(value: object) -> str:
    """Returns a score or the value of a hyperparameter as text, `""` for `None`."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def format_time(seconds: float) -> str:
    """Returns a time for people, in whole seconds.

    >>> format_time(4503.2)
    '1:15:03'
    """
    return str(datetime.timedelta(seconds=round(seconds)))
