"""An oracle of keras-tuner whose every step is on disk, for one process or many."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_bit.core.warn import warn_caller
from keras_bit.tuning.study_folder import StudyFolder

POLL_SECONDS = 0.5
IDLE, STOP = {"kind": "idle"}, {"kind": "stop"}


class StudyOracle:
    """Stands in for the oracle of a tuner, as keras-tuner's own client of a distant oracle does.

    The oracle's state is not stored but made again: its suggestions depend on its seed and on what
    happened alone, so that each process repeats to an oracle of its own what stands in the events
    of a `StudyFolder`. A trial that was begun and not ended, and whose lock nobody holds, is taken
    over first. The first trial has the default of every hyperparameter.

    Args:
        oracle: A fresh `keras_tuner.Oracle`.
        folder: The `StudyFolder`.
        is_over: Called with the events; whether no further trial may begin.
        result_of: Called with the `Trial` that has just run and its metrics; returns what to write
            of it, as a dict.
        on_ended: Called with the name of each trial that this process has ended.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        folder: StudyFolder,
        is_over: Callable[[list[dict[str, Any]]], bool],
        result_of: Callable[[Any, dict[str, float]], dict[str, Any]],
        on_ended: Callable[[str], None],
    ) -> None:
        self._oracle = oracle
        self._folder = folder
        self._is_over = is_over
        self._result_of = result_of
        self._on_ended = on_ended
        self._events: list[dict[str, Any]] = []
        self._reported: dict[str, tuple[dict[str, float], int]] = {}
        self._locks: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)

    def create_trial(self, tuner_id: str) -> Trial:
        """Returns a trial to run; an idle one where others must end first, or a stopped one."""
        with self._folder.locked():
            self._catch_up()
            running = self.running_trials()
            for trial_id in running:
                if lock := self._claim(trial_id):
                    self._locks[trial_id] = lock
                    return self._again(trial_id)
            if not running and self._is_over(self._events):
                return self._stop()
            # What has not changed gets the same answer, which may cost the oracle suggestions.
            if self._events[-1:] != [IDLE] and not self._is_over(self._events):
                trial = self._ask()
                if trial.status == TrialStatus.RUNNING:
                    self._begin(trial)
                    return trial
                if trial.status == TrialStatus.STOPPED and not running:
                    return self._stop()
                self._append(IDLE)
        time.sleep(POLL_SECONDS)
        return self._without_values(TrialStatus.IDLE)

    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Trial:
        """Takes the metrics of a trial that has run."""
        self._reported[trial_id] = ({k: float(v) for k, v in metrics.items()}, int(step))
        return self._oracle.get_trial(trial_id)

    def end_trial(self, trial: Trial) -> None:
        """Writes how a trial has ended."""
        trial_id = trial.trial_id
        metrics, step = self._reported.pop(trial_id, ({}, 0))
        end = {
            "kind": "end",
            "trial": trial_id,
            "status": trial.status,
            "metrics": metrics,
            "step": step,
            "message": trial.message,
            "hyperparameters": trial.hyperparameters.get_config(),
        }
        result = self._result_of(trial, metrics)  # may raise: the trial then counts as not run
        with self._folder.locked():
            self._catch_up()
            if trial_id in self.running_trials():
                [begin] = [
                    e for e in self._events if (e["kind"], e.get("trial")) == ("begin", trial_id)
                ]
                self._folder.write_trial(trial_id, {**result, "begin": begin, "end": end})
                self._append(end)
                self._tell(end)
                self._on_ended(trial_id)
        if lock := self._locks.pop(trial_id, None):
            lock.close()

    def running_trials(self) -> list[str]:
        """Returns the trials that were begun and have not ended."""
        return running_trials(self._events)

    def refresh(self) -> list[dict[str, Any]]:
        """Takes in what other processes have done, and returns all events."""
        with self._folder.locked():
            self._catch_up()
        return self._events

    def save(self, *args: Any) -> None:
        """Does nothing: all is on disk."""

    def close(self) -> None:
        """Gives back the trial under way, for whoever resumes it."""
        for lock in self._locks.values():
            lock.close()
        self._locks.clear()

    def _claim(self, trial_id):
        return None if trial_id in self._locks else self._folder.claim(trial_id)

    def _begin(self, trial):
        self._locks[trial.trial_id] = self._claim(trial.trial_id)
        values = dict(trial.hyperparameters.values)
        begin = {"kind": "begin", "trial": trial.trial_id, "values": values, "time": time.time()}
        self._append(begin)

    def _stop(self):
        if self._events[-1:] != [STOP]:
            self._append(STOP)
        return self._without_values(TrialStatus.STOPPED)

    def _append(self, event):
        self._events.append(event)
        self._folder.write_events(self._events)

    def _again(self, trial_id):
        """A fresh copy of a trial that was interrupted."""
        hyperparameters = self._oracle.get_trial(trial_id).hyperparameters.copy()
        return Trial(hyperparameters, trial_id, TrialStatus.RUNNING)

    def _without_values(self, status):
        return Trial(self._oracle.get_space(), status=status)

    def _catch_up(self):
        """Repeats to the oracle what happened since."""
        events = self._folder.events()
        for event in events[len(self._events) :]:
            self._events.append(event)
            if event["kind"] == "end":
                self._tell(event)
            elif event != STOP:
                trial = self._ask()
                if event != IDLE:
                    self._agree(trial, event)

    def _ask(self):
        # An identity for each trial: an oracle gives the same one its own trial again.
        with self._first_is_default():
            return self._oracle.create_trial(f"trial {len(self._oracle.trials)}")

    def _tell(self, end):
        """Tells the oracle how a trial has ended."""
        oracle, trial_id = self._oracle, end["trial"]
        if end["status"] == TrialStatus.COMPLETED:
            oracle.update_trial(trial_id, end["metrics"], end["step"])
        hyperparameters = keras_tuner.HyperParameters.from_config(end["hyperparameters"])
        trial = Trial(hyperparameters, trial_id, end["status"], end["message"])
        oracle.end_trial(trial)

    def _agree(self, trial, begin):
        """Gives the oracle the values that a trial had, where it suggests others now."""
        trial_id, values = begin["trial"], begin["values"]
        if trial.trial_id == trial_id and dict(trial.hyperparameters.values) == values:
            return
        warn_caller(
            f"The tuner suggests other hyperparameters for trial {trial_id} than it did; those of "
            "then are used. Does it draw random numbers without its seed?"
        )
        hyperparameters = self._oracle.get_space()
        hyperparameters.values = dict(values)
        forced = Trial(hyperparameters, trial_id, TrialStatus.RUNNING)
        self._oracle.trials[trial_id] = forced
        self._oracle.ongoing_trials[f"trial {trial_id}"] = forced

    @contextlib.contextmanager
    def _first_is_default(self) -> Iterator[None]:
        oracle = self._oracle
        # A grid begins with the defaults by itself, and must know its own first trial.
        if oracle.trials or isinstance(oracle, keras_tuner.oracles.GridSearchOracle):
            yield
            return
        space = oracle.get_space()
        values = {hp.name: hp.default for hp in space.space if space.is_active(hp)}
        answer = {"status": TrialStatus.RUNNING, "values": values}
        oracle.populate_space = lambda trial_id: answer
        try:
            yield
        finally:
            del oracle.populate_space


def running_trials(events: list[dict[str, Any]]) -> list[str]:
    """Returns the trials that were begun and have not ended."""
    ended = {event["trial"] for event in events if event["kind"] == "end"}
    begun = (event["trial"] for event in events if event["kind"] == "begin")
    return [trial_id for trial_id in begun if trial_id not in ended]


def needed_weights(oracle: keras_tuner.Oracle, running: list[str]) -> set[str]:
    """Returns the trials whose weights a later trial may continue from (Hyperband's)."""
    needed = {
        oracle.get_trial(trial_id).hyperparameters.values.get("tuner/trial_id")
        for trial_id in running
    }
    for bracket in getattr(oracle, "_brackets", ()):
        for number, (this, following) in enumerate(itertools.pairwise(bracket["rounds"]), 1):
            if len(following) < oracle._get_size(bracket["bracket_num"], number):
                promoted = {info["past_id"] for info in following}
                needed |= {info["id"] for info in this} - promoted
    return needed - {None}
