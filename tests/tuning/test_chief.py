import contextvars

import pytest

import keras_bit
from keras_bit.tuning.tuners import chief_of

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("undrawn")]


@pytest.fixture
def search(quick, data, rule):
    def search(**options):
        given = {"epochs": 1, "repeats": 2, "trials": 1, "space": ["rate"], **options}
        return keras_bit.search(data, rule.replace(schedule_length=2), verbose=0, **given)

    return search


@pytest.fixture
def role(monkeypatch):
    def role(name):
        monkeypatch.setenv("KERASTUNER_TUNER_ID", name)
        monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")

    return role


class Workers:
    """Does the work where it is asked whether it is done."""

    def __init__(self, work):
        self.work = work
        self.asked = 0

    def have_ended(self):
        self.asked += 1
        contextvars.Context().run(self.work)
        return True


@pytest.mark.slow
def test_a_chief_announces_what_workers_do_and_writes_the_outcome(search, role, tmp_path, caplog):
    def work():
        role("worker0")
        search(output=tmp_path, trials=trials)
        assert not (tmp_path / "study.html").exists() or trials > 1

    trials = 1
    workers = Workers(work)
    with chief_of(workers), caplog.at_level("INFO", "keras_bit"):
        search(output=tmp_path, trials=1)
        assert (tmp_path / "study.html").exists() and workers.asked == 1
        caplog.clear()
        search(output=tmp_path, trials=1)
        assert workers.asked == 1 and "Trial 0:" not in caplog.text
        trials = 2
        result = search(output=tmp_path, trials=2)
    assert workers.asked == 2 and len(result.trials) == 2
    assert "Trial 1:" in caplog.text and "Trial 0:" not in caplog.text
    assert "Trial 1 again, seed 2:" in caplog.text


@pytest.mark.slow
def test_the_chief_of_a_finished_search_waits_for_nobody(search, role, tmp_path):
    role("worker0")
    search(output=tmp_path)
    assert not (tmp_path / "study.html").exists()
    role("chief")
    search(output=tmp_path)
    assert (tmp_path / "study.html").exists()


def test_processes_must_share_a_folder_and_leave_it(search, role, tmp_path):
    role("chief")
    with pytest.raises(ValueError, match="`output` must be a folder that the processes.*=chief"):
        search()
    role("worker3")
    with pytest.raises(ValueError, match="`overwrite` must be set in the chief.*ID=worker3"):
        search(output=tmp_path, overwrite=True)
