"""Damaged and half-written files of searches."""

import contextlib
import json
import shutil
import warnings

import pytest

from keras_bit.tuning.study_folder import StudyFolder, check_search_output
from tests.tuning.formula import (
    KINDS,
    LIMITS,
    Killed,
    Worker,
    numbers,
    outcome,
    score_of,
    scores,
    warns,
)

pytestmark = [
    pytest.mark.usefixtures("no_waiting"),
]


def damage(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.fixture
def broken(whole, tmp_path):
    """A copy of a finished search whose files are damaged; its folder."""

    def make(kind, *names):
        source = StudyFolder(whole(kind))
        copy = StudyFolder(tmp_path)
        copy.open({})
        for path in source.trials.glob("*.json"):
            (copy.trials / path.name).write_bytes(path.read_bytes())
        for name in names:
            damage(copy.trials / name)
        return tmp_path

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_list_is_made_again(whole, broken, kind):
    path = broken(kind, "events.json")
    worker = Worker(path, kind)
    with warns("events.json.*made again from the trials' own files"):
        worker.search()
    assert worker.ran == []
    assert outcome(path) == outcome(whole(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", [("0000",), ("0001",), ("0004",), ("0000", "0002", "0003")])
def test_a_trial_whose_every_trace_is_lost_is_run_again(whole, broken, kind, lost):
    path = broken(kind, "events.json", *(f"{name}.json" for name in lost))
    worker = Worker(path, kind)
    with warns(f"{lost[-1]}.json"):
        worker.search()
    assert set(worker.ran) == set(lost)
    assert list(scores(path)) == numbers(LIMITS.get(kind, 5))
    for trial, (values, status, metrics) in scores(path).items():
        assert values != {} and (status, metrics["score"]) == ("COMPLETED", score_of(values))
        if kind == "random" or trial not in lost:  # else it depends on how others ended
            assert scores(path)[trial] == scores(whole(kind))[trial]
    again = Worker(path, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would not have suggested these in the order of now
        again.search()
    assert again.ran == [] and not again.oracle.ongoing_trials


def test_a_trials_damaged_file_costs_its_history_alone(whole, broken):
    path = broken("random", "0001.json")
    worker = Worker(path, "random")
    worker.search()
    assert worker.ran == [] and outcome(path) == outcome(whole("random"))
    with warns("0001.json, which is .*0001.json.damaged now"):
        assert worker.folder.read_trial("0001") is None
    assert worker.folder.read_trial("0001") is None
    assert worker.folder.read_trial("0002")["score"] == scores(path)["0002"][2]["score"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_list_is_damaged_while_two_search(tmp_path, kind):
    a, b = Worker(tmp_path, kind, limit=4), Worker(tmp_path, kind, limit=4)
    of_a, of_b = a.ask(), b.ask()
    events = tmp_path / "trials" / "events.json"
    damage(events)
    with warns("events.json"):
        b.run(of_b)
    damage(events)
    c = Worker(tmp_path, kind, limit=4)
    with warns("events.json"):
        of_c = c.ask()
    assert of_c.trial_id == "0002"
    damage(events)
    with warns("events.json"):
        a.run(of_a)
    damage(events)
    with warns("events.json"):
        c.run(of_c)
    for worker in (a, b, c):
        worker.search()
    assert sorted(a.ran + b.ran + c.ran) == numbers(4)
    assert all(len(found) == 3 for found in scores(tmp_path).values())


def test_a_list_that_was_made_again_keeps_the_order(tmp_path):
    a, b = Worker(tmp_path), Worker(tmp_path)
    of_a, of_b = a.ask(), b.ask()
    b.run(of_b)
    a.run(of_a)
    before = outcome(tmp_path)
    assert [each[0] for each in before] == ["0000", "0001", "0001", "0000"]
    damage(tmp_path / "trials" / "events.json")
    with warns("events.json"):
        assert outcome(tmp_path) == before


def test_who_has_waited_takes_in_a_list_that_was_made_again(tmp_path):
    a, b, c, d = (Worker(tmp_path, "grid") for _ in range(4))
    of_a, of_b = a.ask(), b.ask()
    assert c.ask().status == "IDLE"
    damage(tmp_path / "trials" / "events.json")
    a.oracle.close()
    with warns("events.json"):
        again = d.ask()
        d.run(again)
    assert again.trial_id == of_a.trial_id
    c.ask()
    assert c.oracle.running_trials() == ["0001"]
    b.run(of_b)
    assert max(map(len, scores(tmp_path).values())) == 3


def test_a_changed_number_does_not_pass(tmp_path):
    Worker(tmp_path, limit=2).search()
    before = outcome(tmp_path)
    path = tmp_path / "trials" / "events.json"
    content = json.loads(path.read_text())
    content["events"][1]["metrics"]["score"] = 9.0
    path.write_text(json.dumps(content))
    with warns("another checksum"):
        assert outcome(tmp_path) == before


def test_foreign_files_are_left_out(tmp_path):
    Worker(tmp_path, limit=1).search()
    before = outcome(tmp_path)
    for name in ("99999999.json", "notes.json", "7.json"):
        (tmp_path / "trials" / name).write_text("{}")
    damage(tmp_path / "trials" / "events.json")
    with warns("99999999.json"):
        assert outcome(tmp_path) == before


def test_a_search_without_its_study_is_not_begun_again(tmp_path):
    Worker(tmp_path, limit=1).search()
    (tmp_path / "study.json").unlink()
    with pytest.raises(ValueError, match="study.json, which is missing.*`overwrite`"):
        StudyFolder(tmp_path).open({})


@pytest.mark.parametrize("name", ["trials", "repeats", ".locks", "study.json", "trials.csv"])
def test_killed_while_it_is_replaced(tmp_path, monkeypatch, name):
    Worker(tmp_path, limit=1).search()
    (tmp_path / "trials.csv").write_text("x")

    def stop(path, *ignored, **options):
        if path.name == name:
            raise Killed
        original(path, *ignored, **options)

    for owner, method in ((shutil, "rmtree"), (type(tmp_path), "unlink")):
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            original = getattr(owner, method)
            patch.setattr(owner, method, stop)
            check_search_output(tmp_path, overwrite=True)
    check_search_output(tmp_path, overwrite=True)
    assert not list(tmp_path.iterdir())


def test_killed_as_it_begins(tmp_path):
    (tmp_path / ".study.json.part").write_text("{")
    check_search_output(tmp_path, overwrite=False)
    (tmp_path / "letter.txt").write_text("x")
    with pytest.raises(FileExistsError):
        check_search_output(tmp_path, overwrite=True)


def test_a_disk_without_locks_is_for_one_process(tmp_path, monkeypatch):
    folder = StudyFolder(tmp_path)
    folder.open({})
    folder.check_locks()

    @contextlib.contextmanager
    def no_lock(path, on_wait):
        yield False

    monkeypatch.setattr("keras_bit.tuning.study_folder.exclusive_lock", no_lock)
    with pytest.raises(OSError, match="`output` must lie on a disk with file locks"):
        folder.check_locks()
