"""Searches whose trials are a formula, and the processes that share them."""

import collections
import contextlib
import itertools
import math
import re
import warnings

import keras_tuner

from keras_bit.tuning.oracle import StudyOracle
from keras_bit.tuning.study_folder import StudyFolder
from keras_bit.tuning.tuners import TUNERS, make_tuner


class Killed(BaseException):
    pass


class Custom(keras_tuner.Oracle):
    """Suggests what depends on what happened."""

    def populate_space(self, trial_id):
        scores = [trial.score or 0.0 for trial in self.trials.values()]
        best = max(scores, default=0.0)
        deep = {"deep": True} if len(scores) % 3 == 2 else {}
        values = {"x": best + len(scores), "n": len(scores) % 3, **deep}
        return {"status": "RUNNING", "values": values}


class Model(keras_tuner.HyperModel):
    """What `make_tuner` asks of a hypermodel."""

    epochs = 4
    plan = type("Plan", (), {"seed": 0})
    has_own_classifier = False

    def build(self, hp):
        pass


KINDS = (*TUNERS, "custom")
LIMITS = {"hyperband": 10}


def space_of(hp):
    hp.Choice("n", [0, 1, 2], default=1)
    with hp.conditional_scope("n", [2]):
        hp.Boolean("deep")
    hp.Float("x", 0.1, 10.0, sampling="log", default=1.0)
    return hp


def score_of(values):
    return round(math.sin(3 * values["x"]) + values["n"] + values.get("tuner/epochs", 4) / 10, 6)


class Worker:
    """One process of a search; `hook` is called with each trial that runs."""

    def __init__(self, path, kind="random", hook=lambda trial: None, limit=None):
        self.folder = StudyFolder(path)
        self.folder.open({})
        self.limit = limit or LIMITS.get(kind, 5)
        self.ran, self.ended, self.hook = [], [], hook
        space = space_of(keras_tuner.HyperParameters())
        objective = keras_tuner.Objective("score", "max")
        if isinstance(kind, str):
            kind = TUNERS.get(kind, Custom)
        if issubclass(kind, keras_tuner.Oracle):
            kind = kind(objective, hyperparameters=space, seed=1)
        self.tuner = make_tuner(kind, Model(), objective, space, path, f"{path}-scratch")
        self.tuner.run_trial = self._run_trial
        if hasattr(self.tuner.oracle, "gpr"):  # a few of its suggestions, and quickly
            self.tuner.oracle.num_initial_points = 3
            self.tuner.oracle.gpr.n_restarts_optimizer = 0
        self.oracle = StudyOracle(
            self.tuner.oracle, self.folder, self._is_over, self._result_of, self.ended.append
        )
        self.tuner.oracle = self.oracle

    def _is_over(self, events):
        return sum(event["kind"] == "begin" for event in events) >= self.limit

    def _result_of(self, trial, metrics):
        return {"score": metrics.get("score")}

    def _run_trial(self, trial, **options):
        self.ran.append(trial.trial_id)
        found = self.hook(trial)
        return found or {"score": score_of(trial.hyperparameters.values)}

    def search(self):
        """Searches to the end; killed, the system gives the locks back."""
        try:
            self.tuner.search(verbose=0)
        finally:
            self.oracle.close()

    def ask(self):
        return self.oracle.create_trial(self.tuner.tuner_id)

    def run(self, trial):
        self.tuner._try_run_and_update_trial(trial)
        self.oracle.end_trial(trial)

    def events(self):
        return self.folder.events()


def killed_at(moment, path, kind="random"):
    """A worker that dies at one of its moments: in a trial, before a write, or after one."""
    left = itertools.count(moment, -1)

    def live(*ignored):
        if not next(left):
            raise Killed

    worker = Worker(path, kind, live)

    def between(write):
        def live_and_write(*arguments):
            live()
            write(*arguments)
            live()

        return live_and_write

    for name in ("write_events", "write_trial"):
        setattr(worker.folder, name, between(getattr(worker.folder, name)))
    return worker


def is_killed(worker):
    """Whether it died; else it has come to the end."""
    try:
        worker.search()
    except Killed:
        return True
    return False


def outcome(path):
    """What began with which values, and ended with which score, in order."""
    found = []
    for event in StudyFolder(path).events():
        if event["kind"] == "begin":
            found.append((event["trial"], event["values"]))
        elif event["kind"] == "end":
            found.append((event["trial"], event["status"], event["metrics"]))
    return found


def scores(path):
    """By trial, whatever the order: values and score."""
    found = collections.defaultdict(list)
    for trial, *rest in outcome(path):
        found[trial] += rest
    return dict(found)


def whole_list(path):
    return StudyFolder(path).events()


@contextlib.contextmanager
def warns(message):
    """Among other warnings there must be this one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert any(re.search(message, str(each.message)) for each in caught), caught
    assert not any("\n" in str(each.message) for each in caught)


def numbers(count):
    return [f"{number:04}" for number in range(count)]
