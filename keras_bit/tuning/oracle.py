"""An oracle of keras-tuner whose every step is on disk, for one process or many."""

import copy
import itertools
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_bit.checkpoints.settings import as_json
from keras_bit.core.warn import warn_caller
from keras_bit.tuning.study_folder import StudyFolder, begun_trials

POLL_SECONDS = 0.5
PATIENCE = 20  # questions to an oracle that waits where nothing runs
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
            taken = filter(None, map(self._take, self.running_trials()))
            trial = next(taken, None) or self._next()
        if trial.status == TrialStatus.IDLE:
            time.sleep(POLL_SECONDS)
        return trial

    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Trial:
        """Takes the metrics of a trial that has run."""
        self._oracle._check_objective_found(metrics)
        self._reported[trial_id] = ({k: float(v) for k, v in metrics.items()}, int(step))
        return self._oracle.get_trial(trial_id)

    def end_trial(self, trial: Trial) -> None:
        """Writes how a trial has ended."""
        trial_id = trial.trial_id
        metrics, step = self._reported.pop(trial_id, ({}, 0))
        self._check_score(trial, metrics)
        end = as_json(
            {
                "kind": "end",
                "trial": trial_id,
                "status": trial.status,
                "metrics": metrics,
                "step": step,
                "message": trial.message,
                "hyperparameters": trial.hyperparameters.get_config(),
                "time": time.time(),
            }
        )
        result = self._result_of(trial, metrics)  # may raise: the trial then counts as not run
        with self._folder.locked():
            self._catch_up()
            if trial_id in self.running_trials():
                [begin] = [e for e in self._events if _key(e) == ("begin", trial_id)]
                self._folder.write_trial(trial_id, {**result, "begin": begin, "end": end})
                self._end(end)
        if lock := self._locks.pop(trial_id, None):
            lock.close()

    def running_trials(self) -> list[str]:
        """Returns the trials that were begun and have not ended."""
        return [begin["trial"] for begin, end in begun_trials(self._events) if end is None]

    def save(self, *args: Any) -> None:
        """Does nothing: all is on disk."""

    def close(self) -> None:
        """Gives back the trial under way, for whoever resumes it."""
        for lock in self._locks.values():
            lock.close()
        self._locks.clear()

    def _take(self, trial_id):
        """A copy of a trial to run, unless another process runs it or it has run."""
        lock = self._locks.get(trial_id) or self._folder.claim(trial_id)
        if lock is None:
            return None
        if end := (self._folder.read_trial(trial_id) or {}).get("end"):
            self._end(end)  # who ran it was killed before the end was among the events
            lock.close()
            return None
        self._locks[trial_id] = lock
        hyperparameters = self._oracle.get_trial(trial_id).hyperparameters.copy()
        return Trial(hyperparameters, trial_id, TrialStatus.RUNNING)

    def _next(self):
        """What to do where there is no trial to take over."""
        running, is_over = self.running_trials(), self._is_over(self._events)
        if is_over and not running:
            return self._stop()
        # What has not changed gets the same answer, which may cost the oracle suggestions.
        if not is_over and not (running and self._events[-1] == IDLE):
            trial = self._ask()
            if trial.status == TrialStatus.RUNNING:
                return self._begin(trial) or self._without_values(TrialStatus.IDLE)
            is_silent = self._events[-PATIENCE:] == [IDLE] * PATIENCE
            if (trial.status == TrialStatus.STOPPED or is_silent) and not running:
                return self._stop()
            self._append(IDLE)
        return self._without_values(TrialStatus.IDLE)

    def _begin(self, trial):
        trial_id, values = trial.trial_id, dict(trial.hyperparameters.values)
        begin = {"kind": "begin", "trial": trial_id, "values": values, "time": time.time()}
        self._append(as_json(begin))
        self._folder.write_trial(trial_id, {"begin": begin})
        return self._take(trial_id)

    def _end(self, end):
        self._tell(end)
        self._append(end)
        self._on_ended(end["trial"])

    def _stop(self):
        if self._events[-1:] != [STOP]:
            self._append(STOP)
        return self._without_values(TrialStatus.STOPPED)

    def _append(self, event):
        self._events.append(event)
        self._folder.write_events(self._events)

    def _without_values(self, status):
        return Trial(self._oracle.get_space(), status=status)

    def _check_score(self, trial, metrics):
        """A score that cannot be compared fails a trial, as in `HyperBiT`."""
        name = self._oracle.objective.name
        score = metrics.get(name, math.nan)
        if trial.status == TrialStatus.COMPLETED and not math.isfinite(score):
            trial.status = TrialStatus.INVALID
            trial.message = f"The objective {name!r} has become {score}."

    def _catch_up(self):
        """Repeats to the oracle what happened since."""
        events = self._folder.events()
        known = [_key(event) for event in self._events]
        if [_key(event) for event in events[: len(known)]] == known:
            events = events[len(known) :]
        else:  # made again from the trials' files
            events = [e for e in events if "trial" in e and _key(e) not in known]
        for event in events:
            if event["kind"] == "end":
                self._tell(event)
            elif event != STOP:
                trial = self._ask(event if event != IDLE else None)
                if event.get("values") == {}:  # lost
                    event["values"] = as_json(trial.hyperparameters.values)
            self._events.append(event)

    def _ask(self, begin=None):
        """The oracle's next trial, with the values that it had where it has begun before."""
        oracle = self._oracle
        # A grid begins with the defaults by itself, and must know its own first trial.
        is_grid = isinstance(oracle, keras_tuner.oracles.GridSearchOracle)
        suggest = oracle.populate_space if oracle.trials or is_grid else self._defaults

        def populate_space(trial_id):
            answer = suggest(trial_id)
            if begin is None:
                return answer
            if is_grid and answer["status"] != TrialStatus.RUNNING:
                oracle._ordered_ids.insert(trial_id)
            return _as_it_began(answer, begin)

        oracle.populate_space = populate_space
        try:
            with warnings.catch_warnings():
                # Of a Gaussian process that few trials hardly bind.
                warnings.filterwarnings("ignore", module=r"sklearn\.")
                # An identity for each trial: an oracle gives the same one its own trial again.
                return oracle.create_trial(f"trial {len(oracle.trials)}")
        finally:
            del oracle.populate_space

    def _defaults(self, trial_id):
        space = self._oracle.get_space()
        values = {hp.name: hp.default for hp in space.space if space.is_active(hp)}
        return {"status": TrialStatus.RUNNING, "values": values}

    def _tell(self, end):
        """Tells the oracle how a trial has ended."""
        oracle, trial_id = self._oracle, end["trial"]
        if end["status"] == TrialStatus.COMPLETED:
            oracle.update_trial(trial_id, end["metrics"], end["step"])
        # A copy: `from_config` changes what it is given.
        config = copy.deepcopy(end["hyperparameters"])
        hyperparameters = keras_tuner.HyperParameters.from_config(config)
        oracle.end_trial(Trial(hyperparameters, trial_id, end["status"], end["message"]))


def _key(event):
    return event["kind"], event.get("trial")


def _as_it_began(answer, begin):
    """An oracle's answer with the values that the trial had; warns where it suggests others."""
    values, suggested = begin["values"], answer.get("values") or {}
    # keras-tuner draws what an oracle leaves out, without a seed.
    same = all(values.get(name, value) == value for name, value in suggested.items())
    if not same or answer["status"] != TrialStatus.RUNNING:
        warn_caller(
            f"The tuner suggests other hyperparameters for trial {begin['trial']} than it did; "
            "those of then are used. Does it draw random numbers without its seed?"
        )
    return {"status": TrialStatus.RUNNING, "values": dict(values or suggested)}


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
