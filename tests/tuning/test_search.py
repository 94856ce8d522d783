import csv
import json
import os
import threading
import time

import keras
import keras_tuner
import numpy as np
import pytest

import keras_bit
from keras_bit import HyperBiT, HyperRule
from keras_bit.tuning import hypermodel
from keras_bit.tuning.oracle import needed_weights
from keras_bit.tuning.study_folder import StudyFolder, check_search_output
from tests.conftest import exhaustive

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("undrawn")]
QUICK = {"epochs": 2, "repeats": 2, "verbose": 0}


@pytest.fixture
def rule(rule):
    return rule.replace(schedule_length=4)


@pytest.fixture
def search(quick, data, rule):
    def search(**options):
        return keras_bit.search(data, rule, **{**QUICK, "trials": 3, **options})

    return search


def outcome(result):
    """All of a result that is not time."""
    trials = [
        (t.number, t.values, t.status, t.score, t.updates, t.history, t.repeats, t.reason)
        for t in result.trials
    ]
    return trials, result.rule, result.comparisons, result.verdict


def test_a_silent_search_plans_in_silence(data, rule, monkeypatch):
    def plan(*arguments, verbose, **options):
        raise InterruptedError(f"{verbose=}")

    monkeypatch.setattr(hypermodel, "plan", plan)
    with pytest.raises(InterruptedError, match="verbose=0"):
        keras_bit.search(data, rule, verbose=0)


class Spy(HyperBiT):
    """Counts runs, and does something at one of them."""

    runs = 0
    action = None
    at = None

    def make_data(self, hp, rule, seed, initial_step):
        Spy.runs += 1
        if Spy.runs == Spy.at:
            Spy.at = None
            Spy.action()
        return super().make_data(hp, rule, seed, initial_step)


@pytest.fixture
def spy(quick, data, rule):
    def make(action=None, at=None):
        Spy.runs, Spy.action, Spy.at = 0, staticmethod(action), at
        return Spy(data, rule, epochs=2)

    return make


@pytest.mark.slow
def test_trial_0_is_the_rule_and_the_output_tells_all(search, rule, tmp_path):
    result = search(output=tmp_path / "s")
    first = result.trials[0]
    assert first.rule == rule == result.baseline and first.number == 0
    assert set(first.values.values()) == {1.0, 0.0}
    assert [t.status for t in result.trials] == ["completed"] * 3
    assert [t.updates for t in result.trials] == [t.rule.schedule_length for t in result.trials]
    assert len({tuple(t.values.items()) for t in result.trials}) == 3
    assert all(t.score == max(t.history["val_accuracy"]) for t in result.trials)
    assert result.decisions == {"rule": result.rule, **result.best.decisions}
    repeated = [t.number for t in result.trials if t.repeats]
    assert repeated == [0, *sorted(c.number for c in result.comparisons)]
    assert all(set(t.repeats) == {1, 2} for t in result.trials if t.repeats)
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert {"study.json", "trials", "trials.csv", "best_rule.json", "study.html"} <= names
    content = json.loads((tmp_path / "s" / "trials" / "0001.json").read_text())
    assert content["history"] == result.trials[1].history
    with open(tmp_path / "s" / "trials.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3
    best = json.loads((tmp_path / "s" / "best_rule.json").read_text())
    assert HyperRule.from_config(best["config"]) == result.rule
    kept = list((tmp_path / "s").rglob("*.h5"))
    assert len(kept) == 1
    ranked = max(result.trials, key=lambda t: t.score)
    assert result.trials[int(kept[0].parent.name[-4:])].score == ranked.score
    assert not list((tmp_path / "s").rglob("checkpoints-*"))


@pytest.mark.slow
def test_a_finished_search_runs_nothing_again(spy, tmp_path):
    first = keras_bit.search(spy(), trials=2, output=tmp_path, **QUICK)
    runs = Spy.runs
    again = keras_bit.search(spy(), trials=2, output=tmp_path, **QUICK)
    assert runs > 2 and Spy.runs == 0
    assert outcome(first) == outcome(again)
    more = keras_bit.search(spy(), trials=3, output=tmp_path, **QUICK)
    assert len(more.trials) == 3 and more.trials[:2] != ()


@pytest.mark.slow
@pytest.mark.parametrize(
    "tuner, at", [("random", 2), exhaustive("random", 7), exhaustive("hyperband", 4)]
)
def test_interrupted_anywhere_it_ends_the_same(spy, tmp_path, tuner, at):
    def stop():
        raise KeyboardInterrupt

    options = {"trials": 4, "tuner": tuner, "space": ["rate", "mixup"], **QUICK}
    whole = keras_bit.search(spy(), output=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        keras_bit.search(spy(stop, at), output=tmp_path / "s", **options)
    resumed = keras_bit.search(spy(), output=tmp_path / "s", **options)
    assert outcome(resumed) == outcome(whole)


@pytest.mark.slow
def test_a_trial_that_fails_does_not_win(spy, tmp_path):
    def fail():
        raise FloatingPointError("The training loss has become nan by update 1.")

    result = keras_bit.search(spy(fail, 2), trials=3, output=tmp_path, **QUICK)
    failed = result.trials[1]
    assert (failed.status, failed.score) == ("failed", None)
    assert failed.reason == "The training loss has become nan by update 1."
    assert [t.status for t in result.trials] == ["completed", "failed", "completed"]
    assert "nan by update 1" in (tmp_path / "study.html").read_text()


@pytest.mark.slow
def test_a_rule_that_cannot_be_trained_ends_the_search(spy, tmp_path):
    def fail():
        raise MemoryError("no room")

    with pytest.raises(RuntimeError, match="rule itself cannot be trained: The trial ran out of"):
        keras_bit.search(spy(fail, 1), output=tmp_path, **QUICK)
    result = keras_bit.search(spy(), trials=2, output=tmp_path, **QUICK)
    assert result.trials[0].status == "completed"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seed": 1}, "plan.seed: 0, now 1"),
        ({"space": ["rate"]}, "space"),
        ({"tuner": "grid"}, 'tuner: "RandomSearch", now "GridSearch"'),
        ({"objective": "val_loss"}, 'objective.0.: "val_accuracy", now "val_loss"'),
        ({"epochs": 1}, "epochs: 2, now 1"),
        ({"dropout": 0.5}, "dropout"),
    ],
)
@pytest.mark.slow
def test_another_study_is_refused(search, tmp_path, change, message):
    class Enough(Exception):
        pass

    class Stop(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise Enough

    options = {"output": tmp_path, "callbacks": [Stop()]}
    with pytest.raises(RuntimeError, match="rule itself"):
        search(**options)
    with pytest.raises(ValueError, match=f"which holds another one.*{message}"):
        search(**options, **change)
    with pytest.raises(RuntimeError, match="rule itself"):
        search(**options, **change, overwrite=True)


@pytest.mark.slow
def test_another_data_set_is_refused(search, quick, data, rule, tmp_path):
    search(output=tmp_path, trials=1)
    other = keras_bit.ImageDataset.from_arrays(
        *(
            255 - np.stack(list(s.map(lambda image: image))) if i == 0 else s.labels
            for s in (data.train, data.test)
            for i in (0, 1)
        )
    )
    with pytest.raises(ValueError, match="holds another one.*images"):
        keras_bit.search(other, rule, output=tmp_path, trials=1, **QUICK)


def test_other_files_are_left_alone(search, tmp_path):
    (tmp_path / "letter.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="`output` must be an empty or new folder"):
            search(output=tmp_path, overwrite=overwrite)
    assert os.listdir(tmp_path) == ["letter.txt"]
    with pytest.raises(NotADirectoryError):
        search(output=tmp_path / "letter.txt")


def test_a_search_that_is_running_is_not_replaced(tmp_path):
    folder = StudyFolder(tmp_path)
    folder.open({"seed": 0})
    with folder.claim("0003"):
        with pytest.raises(BlockingIOError, match="another process runs.* holds .locks/0003"):
            check_search_output(tmp_path, overwrite=True)
        assert (tmp_path / "study.json").exists()
    check_search_output(tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, text", [("events.json", "{"), ("0001.json", ""), ("0000.json", "{}")]
)
@pytest.mark.slow
def test_damaged_files_are_named_and_survived(spy, tmp_path, name, text):
    options = {"trials": 2, "output": tmp_path, **QUICK}
    whole = keras_bit.search(spy(), **options)
    (tmp_path / "trials" / name).write_text(text)
    with pytest.warns(UserWarning, match=name):
        again = keras_bit.search(spy(), **options)
    assert Spy.runs == 0
    assert [t.score for t in again.trials] == [t.score for t in whole.trials]
    assert again.verdict == whole.verdict


@pytest.mark.slow
def test_a_damaged_study_is_named(search, tmp_path):
    search(output=tmp_path, trials=1)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(ValueError, match="study.json, which is"):
        search(output=tmp_path, trials=1)


@pytest.mark.slow
def test_weights_of_the_best_are_kept(search, tmp_path):
    search(output=tmp_path / "none", keep=0)
    assert not list(tmp_path.rglob("*.h5"))
    search(output=tmp_path / "two", keep=2)
    assert len(list(tmp_path.rglob("*.h5"))) == 2


def test_no_room_is_seen_before_the_start(search, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("keras_bit.core.files.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="The search takes.*10 bytes free"):
        search(output=tmp_path)


@pytest.mark.slow
def test_hours_end_the_trials(search, tmp_path):
    assert len(search(hours=1e-9, trials=3).trials) == 1
    assert len(search(hours=10, trials=2).trials) == 2


@pytest.mark.slow
def test_a_full_disk_ends_the_search_and_not_the_trials(spy, tmp_path):
    def fill():
        raise OSError("Make room: 10 bytes free.")

    options = {"trials": 3, "output": tmp_path / "s", **QUICK}
    with pytest.raises(OSError, match="Make room"):
        keras_bit.search(spy(fill, 2), **options)
    resumed = keras_bit.search(spy(), **options)
    assert [trial.status for trial in resumed.trials] == ["completed"] * 3
    assert outcome(resumed) == outcome(keras_bit.search(spy(), **options, overwrite=True))


@pytest.mark.slow
def test_trials_that_a_callback_ends_are_compared(search):
    stop = keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=1e9)
    result = search(epochs=4, callbacks=[stop])
    assert all(trial.updates < trial.rule.schedule_length for trial in result.trials)
    assert all(trial.is_whole for trial in result.trials) and result.comparisons
    assert len(search(epochs=4, callbacks=[stop], hours=1e-9).trials) == 1


@pytest.mark.slow
def test_hyperband_keeps_its_plan_and_ranks_whole_trials_first(search, tmp_path):
    result = search(tuner="hyperband", epochs=3, trials=4, output=tmp_path, space=["rate", "mixup"])
    assert result.trials[0].is_whole
    planned = {}
    for path in sorted((tmp_path / "trials").glob("0*.json")):
        content = json.loads(path.read_text())
        values = content["begin"]["values"]
        share = values.get("tuner/epochs", 3) / 3
        planned[content["number"]] = max(1, round(share * 4))
    assert {t.number: t.updates for t in result.trials} == planned
    assert min(planned.values()) < 4
    assert all(result.trials[c.number].is_whole for c in result.comparisons)


def test_which_weights_hyperband_still_needs():
    oracle = keras_tuner.oracles.HyperbandOracle("val_loss", max_epochs=4, factor=2, seed=1)
    oracle.hyperparameters.Choice("x", list(range(50)))
    oracle._save_trial = oracle.save = lambda *args: None
    oracle.verbose = 0
    trials = []
    for i in range(4):
        trials.append(oracle.create_trial(f"t{i}"))
    for score, trial in enumerate(trials):
        oracle.update_trial(trial.trial_id, {"val_loss": float(score)})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    ids = {trial.trial_id for trial in trials}
    assert needed_weights(oracle, []) >= ids
    promoted = next(
        t
        for t in iter(lambda: oracle.create_trial("next"), None)
        if "tuner/trial_id" in t.hyperparameters.values
    )
    source = promoted.hyperparameters.values["tuner/trial_id"]
    assert source not in needed_weights(oracle, [])
    assert source in needed_weights(oracle, [promoted.trial_id])


class Custom(keras_tuner.Oracle):
    def populate_space(self, trial_id):
        rate = 0.5 + len(self.trials)
        values = {"learning_rate_factor": rate, "schedule_factor": 1.0, "mixup_alpha": 0.0}
        return {"status": "RUNNING", "values": values}


class Anything(keras_tuner.RandomSearch):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


@pytest.mark.slow
def test_an_oracle_and_a_tuner_of_ones_own(search, quick, data, rule, tmp_path):
    oracle = Custom("val_accuracy")
    result = search(tuner=oracle, trials=3)
    assert [t.values["learning_rate_factor"] for t in result.trials] == [1.0, 1.5, 2.5]
    tuner = keras_tuner.RandomSearch(
        HyperBiT(data, rule, epochs=2), "val_accuracy", max_trials=1, directory=tmp_path
    )
    assert len(search(tuner=tuner, trials=2).trials) == 2
    with pytest.raises(ValueError, match="`tuner` must not have searched before"):
        search(tuner=tuner, trials=2)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tuner": "genetic"}, "`tuner` must be one of random, bayesian, grid, hyperband.*genetic"),
        ({"tuner": 3}, "`tuner` must be one of random.*3"),
        ({"trials": 0}, "`trials`.*0"),
        ({"repeats": 1}, "`repeats`.*1"),
        ({"keep": -1}, "`keep`.*-1"),
        ({"hours": 0}, "`hours`.*0"),
        ({"space": ["speed"]}, "`space` must name"),
        ({"space": {"rate": (0.0, 1.0)}}, "`learning_rate` must be a positive"),
        ({"space": {"frozen": (0, 5)}}, "`frozen_blocks` must be at most 4"),
        ({"space": {"dropout": (0.0, 1.0)}}, "`dropout` must be"),
        ({"space": {"preset": ["m-r50x1", "m-r50x7"]}}, "m-r50x7"),
        ({"output": ""}, "`output` must name a folder"),
        ({"tuner": Custom("val_loss"), "space": ["rate"]}, "`space` must not stand beside a tuner"),
        ({"overwrite": 3}, "`overwrite`"),
        (
            {"space": {"crop": (0.5, 1.0)}},
            "`space` must give.*crop_factor=0.5. `crop_size` must be",
        ),
        ({"tuner": Anything}, "`tuner` must be a class that names `objective`.*Anything"),
    ],
)
def test_refuses_bad_arguments(search, options, message):
    with pytest.raises((ValueError, TypeError, OSError), match=message):
        search(**options)


def test_a_hypermodel_brings_rule_and_network(spy, rule):
    with pytest.raises(ValueError, match="`data` must be.*a HyperBiT and rule, seed"):
        keras_bit.search(spy(), rule, seed=3)


def test_a_misspelled_objective_ends_it_before_training(search):
    with pytest.raises(ValueError, match="`objective` must name a metric.*'val_acc'"):
        search(objective="val_acc")


@pytest.mark.slow
def test_a_lost_workers_trial_is_taken_over(spy, tmp_path):
    """A trial that another process began and holds is waited for, and run when it is lost."""

    def stop():
        raise KeyboardInterrupt

    options = {"trials": 2, "output": tmp_path, **QUICK}
    with pytest.raises(KeyboardInterrupt):
        keras_bit.search(spy(stop, 2), **options)
    lock = StudyFolder(tmp_path).claim("0001")
    assert lock is not None
    released = []

    def release():
        time.sleep(1.5)
        released.append(time.monotonic())
        lock.close()

    thread = threading.Thread(target=release)
    thread.start()
    result = keras_bit.search(spy(), **options)
    ended = time.monotonic()
    thread.join()
    assert len(result.trials) == 2 and ended > released[0]
