"""The course of a search: its trials, the best of them again, and what comes of it."""

import pathlib
import re
import shutil
import time
from collections.abc import Sequence

import keras
import keras_tuner
import numpy as np

from keras_bit import __version__
from keras_bit.core.files import check_room
from keras_bit.core.text import announce, first_line, readable_size
from keras_bit.training.memory import FLOAT32_SIZE
from keras_bit.tuning.comparison import compare, describe, verdict
from keras_bit.tuning.hypermodel import HyperBiT
from keras_bit.tuning.oracle import POLL_SECONDS, STOP, StudyOracle, needed_weights
from keras_bit.tuning.study_folder import StudyFolder, begun_trials, trial_name
from keras_bit.tuning.trials import COMPLETED, FAILED, RUNNING, SearchResult, SearchTrial, status_of
from keras_bit.tuning.tuners import CHIEF, Workers, describe_tuner

CANDIDATES = 2  # trials that are compared with the rule
# Weights with momentum: the best epoch, and two checkpoints with a third being written.
COPIES_OF_TRIAL = 4


class UntrainableRuleError(RuntimeError):
    """The rule of a search cannot be trained."""


class Study:
    """A search in a `StudyFolder`.

    Args:
        tuner: Of `make_tuner`.
        folder: The `StudyFolder`.
        trials, repeats, keep, hours, verbose: As in `keras_bit.search`.
    """

    def __init__(
        self,
        tuner: keras_tuner.Tuner,
        folder: StudyFolder,
        *,
        trials: int,
        repeats: int,
        keep: int,
        hours: float | None,
        verbose: bool | int | str,
    ) -> None:
        self.hypermodel: HyperBiT = tuner.hypermodel
        self.objective = tuner.oracle.objective
        self._tuner = tuner
        self._folder = folder
        self._limit = trials
        self._seeds = [self.hypermodel.plan.seed + 1 + i for i in range(repeats)]
        self._keep = keep
        self._seconds = None if hours is None else 3600 * hours
        self._began = time.monotonic()
        self._verbose = verbose
        self._settings = describe_tuner(tuner)
        self.oracle = StudyOracle(
            tuner.oracle, folder, self._is_over, self._result_of, self._on_ended
        )
        tuner.oracle = self.oracle

    def open(self) -> None:
        """Begins or resumes the search in its folder, and says what it is going to do."""
        resumed = self._folder.open(self._study())
        size = 2 * FLOAT32_SIZE * self.hypermodel.plan.parameters
        room = size * (self._keep + COPIES_OF_TRIAL)
        check_room(self._folder.path, room, "The search")
        ended = [trial for trial in self.trials() if trial.status != RUNNING]
        done = f"Resuming the search in {self._folder.path} after {len(ended)} trials. " * resumed
        runs = len(self._seeds) * (CANDIDATES + 1)
        announce(
            f"{done}{self._limit} trials of {self.hypermodel.rule.schedule_length:,} updates by "
            f"the rule, then {runs} runs to compare the best with it. Disk: up to "
            f"{readable_size(room)} while a trial runs, {readable_size(self._keep * size)} at "
            "the end.",
            self._verbose,
        )

    def run(self, callbacks: Sequence[keras.callbacks.Callback] = ()) -> None:
        """Runs trials until there are no more, and then the comparisons."""
        try:
            self._tuner.search(callbacks=list(callbacks), verbose=0)
            self._compare(callbacks)
        except keras_tuner.errors.FatalRuntimeError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise
        finally:
            self.oracle.close()

    def wait(self, workers: Workers | None = None) -> None:
        """Waits until other processes have done everything, and announces what they have done.

        Args:
            workers: Those that say themselves when they are done; by default the folder tells.
        """
        # One that had stopped may have more to do now: then a further trial begins, for others.
        if self._folder.events()[-1:] == [STOP]:
            self.oracle.create_trial(CHIEF)
            self.oracle.close()
        if self._has_stopped():
            return
        announced = set(self._outcomes())
        if workers is None:
            announce(f"Waiting for workers in {self._folder.path}.", self._verbose)
        is_over = False
        while not is_over:
            is_over = workers.have_ended() if workers else self._has_stopped()
            for outcome in self._outcomes():
                if outcome not in announced:
                    announced.add(outcome)
                    announce(outcome, self._verbose)
            if not is_over:
                time.sleep(POLL_SECONDS)

    def trials(self) -> tuple[SearchTrial, ...]:
        """Returns all trials so far."""
        events = self._folder.events()
        return tuple(self._trial(begin, end) for begin, end in begun_trials(events))

    def result(self, output: pathlib.Path | None) -> SearchResult:
        """Returns what the search has found."""
        trials = self.trials()
        rule = trials[0]
        comparisons = self._comparisons(trials)
        better = [trials[comparison.number] for comparison in comparisons if comparison.is_better]
        best = better[0] if better else rule
        return SearchResult(
            rule=best.rule,
            baseline=rule.rule,
            trials=trials,
            output=output,
            best=best,
            comparisons=comparisons,
            verdict=verdict(best, comparisons, self.objective.name),
            objective=self.objective.name,
            direction=self.objective.direction,
            validation_images=self.hypermodel.plan.data.test_size,
        )

    def _study(self):
        """What must be the same when the search resumes."""
        hypermodel = self.hypermodel
        plan = hypermodel.plan
        images = hypermodel.data_settings(hypermodel.rule)
        backend = keras.backend.backend()
        return {
            "images": images or [plan.data.train_fingerprint, plan.data.test_fingerprint],
            "plan": plan.settings(),
            "hypermodel": type(hypermodel).__qualname__,
            "epochs": hypermodel.epochs,
            "space": self.oracle.get_space().get_config()["space"],
            "objective": [self.objective.name, self.objective.direction],
            **self._settings,
            "versions": {
                "keras_bit": __version__,
                "keras": f"{keras.version()} on {backend}",
                "keras_tuner": keras_tuner.__version__,
            },
        }

    def _is_over(self, events):
        """Whether no further trial may begin; short trials of Hyperband count by their epochs."""
        epochs = self.hypermodel.epochs
        begun = [event["values"] for event in events if event["kind"] == "begin"]
        spent = sum(
            values.get("tuner/epochs", epochs) - values.get("tuner/initial_epoch", 0)
            for values in begun
        )
        return bool(begun) and (spent >= self._limit * epochs or self._is_late())

    def _is_late(self):
        """Whether a further trial, and the comparisons, would take longer than they may."""
        if self._seconds is None:
            return False
        taken = [trial.seconds for trial in self.trials() if trial.is_whole]
        runs = 1 + len(self._seeds) * (CANDIDATES + 1)
        left = self._seconds - (time.monotonic() - self._began)
        return bool(taken) and left < runs * float(np.mean(taken))

    def _result_of(self, trial, metrics):
        """What is written of a trial that has just run."""
        run, values = self.hypermodel.last_run, dict(trial.hyperparameters.values)
        is_complete = trial.status == "COMPLETED"
        reason = "" if is_complete else _reason(trial.message)
        if trial.trial_id == trial_name(0) and not is_complete:
            raise UntrainableRuleError(f"The rule itself cannot be trained: {reason}")
        hp = self._hyperparameters(values)
        return {
            "number": int(trial.trial_id),
            "values": values,
            "rule": self.hypermodel.rule_for(hp).get_config(),
            "decisions": self.hypermodel.decisions_for(hp),
            "status": COMPLETED if is_complete else FAILED,
            "score": metrics.get(self.objective.name) if is_complete else None,
            "reason": reason,
            **(run.summary() if run else {}),
        }

    def _on_ended(self, trial_id):
        trials = self.trials()
        [trial] = [trial for trial in trials if trial.number == int(trial_id)]
        self._drop_weights(trials)
        announce(self._outcome(trial), self._verbose)

    def _outcome(self, trial):
        score = f"{self.objective.name} {trial.score:.4f}" if trial.status == COMPLETED else ""
        what = f"{score or trial.reason}, {trial.seconds:.0f} s"
        return f"Trial {trial.number}: {what} ({describe(trial.values)})"

    def _outcome_again(self, number, seed, score):
        return f"Trial {number} again, seed {seed}: {self.objective.name} {score:.4f}"

    def _outcomes(self):
        """A line for each run that has ended."""
        trials = self.trials()
        lines = [self._outcome(trial) for trial in trials if trial.status != RUNNING]
        for trial in trials:
            again = trial.repeats.items()
            lines += [self._outcome_again(trial.number, seed, score) for seed, score in again]
        return lines

    def _has_stopped(self):
        return self._folder.events()[-1:] == [STOP] and not self._missing_repeats()

    def _drop_weights(self, trials):
        """Removes weights that nobody needs any more."""
        running = self.oracle.running_trials()
        kept = {trial_name(trial.number) for trial in self._ranked(trials)[: self._keep]}
        kept |= needed_weights(self.oracle, running)
        for trial in trials:
            name = trial_name(trial.number)
            if trial.status == RUNNING:
                continue
            folder = self._folder.trial_folder(name)
            for checkpoints in folder.glob("checkpoints-*"):
                shutil.rmtree(checkpoints, ignore_errors=True)
            if name not in kept:
                for path in folder.glob("checkpoint*.h5"):
                    path.unlink(missing_ok=True)

    def _ranked(self, trials):
        """Completed trials, the best first, those that were trained to the end before others."""
        sign = -1 if self.objective.direction == "max" else 1
        completed = [trial for trial in trials if trial.status == COMPLETED]
        return sorted(completed, key=lambda trial: (not trial.is_whole, sign * trial.score))

    def _candidates(self, trials):
        """The trials that are compared with the rule."""
        ranked = [trial for trial in self._ranked(trials) if trial.is_whole and trial.number > 0]
        different = [trial for trial in ranked if trial.values != trials[0].values]
        return different[:CANDIDATES]

    def _compare(self, callbacks):
        """Trains the best trials and the rule again, with further seeds."""
        while missing := self._missing_repeats():
            claimed = False
            for trial, seed in missing:
                name = _repeat_name(trial.number, seed)
                lock = self._folder.claim(name)
                if lock is None:
                    continue
                with lock:
                    claimed = True
                    if self._folder.read_repeat(name) is None:
                        self._folder.write_repeat(name, self._run_again(trial, seed, callbacks))
            if not claimed:
                time.sleep(POLL_SECONDS)

    def _missing_repeats(self):
        trials = self.trials()
        candidates = self._candidates(trials)
        compared = [trials[0], *candidates] if candidates else []
        return [
            (trial, seed)
            for seed in self._seeds
            for trial in compared
            if self._folder.read_repeat(_repeat_name(trial.number, seed)) is None
        ]

    def _run_again(self, trial, seed, callbacks):
        folder = self._folder.repeats / _repeat_name(trial.number, seed)
        hp = self._hyperparameters(trial.values)
        try:
            outcome = self.hypermodel.run_again(hp, seed, folder, self.objective, callbacks)
        except keras_tuner.errors.FailedTrialError as error:
            outcome = {"score": None, "reason": str(error)}
        shutil.rmtree(folder, ignore_errors=True)
        if outcome["score"] is not None:
            announce(self._outcome_again(trial.number, seed, outcome["score"]), self._verbose)
        return outcome

    def _comparisons(self, trials):
        """The comparisons with the rule, of trials none of whose runs has failed."""
        compared = [trials[0].number, *(trial.number for trial in self._candidates(trials))]
        runs = {number: self._repeats(number) for number in compared}
        runs = {
            number: list(by_seed.values())
            for number, by_seed in runs.items()
            if len(by_seed) == len(self._seeds)
            and all(run["score"] is not None for run in by_seed.values())
        }
        if 0 not in runs or len(runs) < 2:
            return ()
        scores = {number: [run["score"] for run in each] for number, each in runs.items()}
        right = None
        if all(run.get("right") for each in runs.values() for run in each):
            right = {
                number: np.array([list(map(int, run["right"])) for run in each])
                for number, each in runs.items()
            }
        return compare(scores, self._seeds, self.objective.direction, right)

    def _repeats(self, number):
        names = {seed: _repeat_name(number, seed) for seed in self._seeds}
        found = {seed: self._folder.read_repeat(name) for seed, name in names.items()}
        return {seed: outcome for seed, outcome in found.items() if outcome}

    def _trial(self, begin, end):
        content = (self._folder.read_trial(begin["trial"]) if end else None) or {}
        hp = self._hyperparameters(begin["values"])
        status = status_of(end)
        number = int(begin["trial"])
        repeats = {seed: outcome["score"] for seed, outcome in self._repeats(number).items()}
        planned = self._planned_updates(begin, hp)
        return SearchTrial(
            number=number,
            values=dict(hp.values),
            rule=self.hypermodel.rule_for(hp),
            decisions=self.hypermodel.decisions_for(hp),
            status=status,
            score=end["metrics"].get(self.objective.name) if status == COMPLETED else None,
            seconds=content.get("seconds", 0.0) if end else time.time() - begin["time"],
            planned_updates=planned,
            updates=content.get("updates", planned if end else 0),
            history=content.get("history", {}),
            reason=_reason(end["message"]) if status == FAILED else "",
            written=content.get("written", 0),
            repeats={seed: score for seed, score in repeats.items() if score is not None},
        )

    def _planned_updates(self, begin, hp):
        epochs = self.hypermodel.epochs
        share = begin["values"].get("tuner/epochs", epochs) / epochs
        return self.hypermodel.rule_for(hp).shortened(share).schedule_length

    def _hyperparameters(self, values):
        hp = self.oracle.get_space()
        hp.values = {k: v for k, v in values.items() if not k.startswith("tuner/")}
        return hp


def _repeat_name(number, seed):
    return f"{trial_name(number)}-{seed}"


def _reason(message):
    """What a traceback says in the end, in a line, and without what Keras writes around it."""
    error = (message or "it was not run").split("Traceback (most recent call last):")[-1].strip()
    named = re.split(r"^[\w.]+(?:Error|Exception): ", error, flags=re.MULTILINE)
    of_keras = re.search(r"\x1b\[1m(.+?)\x1b\[0m", error, re.DOTALL)
    text = (of_keras[1] if of_keras else named[-1]).strip()
    return first_line(text) if of_keras or len(named) > 1 else text.splitlines()[-1]
