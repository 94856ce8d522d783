"""How far a search is, read from its folder alone: whoever does the work, and without a tuner."""

import contextlib
import dataclasses
import math
import pathlib
import time
from typing import Any

from keras_bit.core.files import read_json
from keras_bit.tuning.study_folder import EVENTS_FILE, STUDY_FILE, StudyFolder, begun_trials
from keras_bit.tuning.trials import COMPLETED, status_of


@dataclasses.dataclass(frozen=True)
class TrialProgress:
    """A trial of a search that may still run.

    Attributes:
        number, status, score, seconds, reason: As in `SearchTrial`.
        changes: The hyperparameters that are not those of the rule, by keras-tuner's names.
        epochs: Of its schedule; infinite except under Hyperband.
    """

    number: int
    status: str
    changes: dict[str, Any]
    score: float | None
    seconds: float
    reason: str
    epochs: float


@dataclasses.dataclass(frozen=True)
class SearchProgress:
    """How far a search is.

    Attributes:
        objective: Name of the metric that is compared.
        direction: `"max"` or `"min"`.
        trials: Tuple of `TrialProgress`, by number.
        repeats: Scores of the runs with further seeds, by trial and seed; `None` of a run that
            failed.
        repeating: Tuple of trial and seed of the runs that have begun and not ended.
    """

    objective: str
    direction: str
    trials: tuple[TrialProgress, ...]
    repeats: dict[int, dict[int, float | None]]
    repeating: tuple[tuple[int, int], ...]

    @property
    def best(self) -> TrialProgress | None:
        """The completed trial with the best score, of those with the longest schedule."""
        sign = 1 if self.direction == "max" else -1
        completed = [trial for trial in self.trials if trial.status == COMPLETED]
        rank = {trial.number: (trial.epochs, sign * (trial.score or 0)) for trial in completed}
        return max(completed, key=lambda trial: rank[trial.number], default=None)


class ProgressReader:
    """Reads the progress of a search again and again, and leaves its folder as it is.

    Args:
        path: The output folder of the search.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._folder = StudyFolder(path)
        self._results: dict[str, dict[str, Any]] = {}  # of what has ended, which does not change

    def read(self) -> SearchProgress | None:
        """Returns how far the search is; `None` where there is none, or none that can be read."""
        study = self._read(self._folder.path / STUDY_FILE)
        events = (self._read(self._folder.trials / EVENTS_FILE) or {}).get("events", [])
        if study is None:
            return None
        objective, direction = study["objective"]
        begun = begun_trials(events)
        repeats, repeating = self._repeats()
        return SearchProgress(
            objective=objective,
            direction=direction,
            trials=tuple(
                self._trial(begin, end, begun[0][0]["values"], objective) for begin, end in begun
            ),
            repeats=repeats,
            repeating=tuple(repeating),
        )

    def _trial(self, begin, end, rule, objective):
        values, status, reason = begin["values"], status_of(end), ""
        result: dict[str, Any] = {}
        if end:
            result = self._result(self._folder.trials / f"{begin['trial']}.json")
            reason = result.get("reason", "")
        return TrialProgress(
            number=int(begin["trial"]),
            status=status,
            changes={
                name: value
                for name, value in values.items()
                if value != rule.get(name) and not name.startswith("tuner/")
            },
            score=end["metrics"].get(objective) if status == COMPLETED else None,
            seconds=result.get("seconds", 0.0) if end else time.time() - begin["time"],
            reason=reason,
            epochs=values.get("tuner/epochs", math.inf),
        )

    def _repeats(self):
        """The scores of runs with further seeds, and the runs that have not ended."""
        scores: dict[int, dict[int, float | None]] = {}
        repeating = []
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self._folder.repeats.iterdir()):
                number, _, seed = path.stem.partition("-")
                if not (number.isdecimal() and seed.isdecimal()):
                    continue
                if path.suffix == ".json":
                    score = self._result(path).get("score")
                    scores.setdefault(int(number), {})[int(seed)] = score
                else:
                    repeating.append((int(number), int(seed)))
        return scores, [run for run in repeating if run[1] not in scores.get(run[0], {})]

    def _result(self, path):
        if path.name not in self._results:
            if (content := self._read(path)) is None:
                return {}
            self._results[path.name] = content
        return self._results[path.name]

    @staticmethod
    def _read(path):
        try:
            return read_json(path)
        except (OSError, ValueError):  # damaged: whoever works in the folder deals with it
            return None
