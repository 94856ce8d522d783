import json
import math

import pytest

from keras_bit.tuning.progress import ProgressReader
from keras_bit.tuning.study import _reason
from keras_bit.tuning.study_folder import StudyFolder

pytestmark = pytest.mark.tensorflow
RULE = {"learning_rate_factor": 1.0, "mixup_alpha": 0.0, "tuner/epochs": 5}


def begin(number, **values):
    return {"kind": "begin", "trial": f"{number:04}", "values": {**RULE, **values}, "time": 0.0}


def end(number, score):
    status = "COMPLETED" if math.isfinite(score) else "INVALID"
    metrics = {"val_loss": score, "loss": 9.0}
    return {"kind": "end", "trial": f"{number:04}", "status": status, "metrics": metrics}


@pytest.fixture
def folder(tmp_path):
    folder = StudyFolder(tmp_path / "s")
    folder.open({"objective": ["val_loss", "min"]})
    return folder


def read(folder):
    return ProgressReader(folder.path).read()


def test_a_folder_without_a_search_has_no_progress(folder, tmp_path):
    assert ProgressReader(tmp_path / "nowhere").read() is None
    assert read(folder).trials == () and read(folder).best is None
    (folder.path / "study.json").write_text("{")
    assert read(folder) is None


def test_trials_with_what_differs_from_the_rule(folder):
    folder.write_trial("0000", {"seconds": 3.5})
    folder.write_trial("0002", {"seconds": 0.5, "reason": "no room"})
    longer = {"tuner/epochs": 10, "learning_rate_factor": 3.0}
    folder.write_events(
        [begin(0), begin(1, **longer), begin(2, mixup_alpha=0.1), end(0, 0.5), end(2, math.nan)]
    )
    rule, running, failed = read(folder).trials
    assert (rule.status, rule.changes, rule.score, rule.seconds) == ("completed", {}, 0.5, 3.5)
    assert (running.status, running.changes) == ("running", {"learning_rate_factor": 3.0})
    assert running.score is None and running.seconds > 1e9  # begun in 1970
    assert (failed.status, failed.changes) == ("failed", {"mixup_alpha": 0.1})
    assert (failed.score, failed.reason) == (None, "no room")


def test_the_best_is_the_lowest_loss_of_the_longest_schedule(folder):
    events = [begin(0), end(0, 0.5), begin(1), end(1, 0.2), begin(2, mixup_alpha=0.1), end(2, 0.9)]
    folder.write_events(events[:4])
    assert read(folder).best.number == 1
    events[4]["values"]["tuner/epochs"] = 10
    folder.write_events(events)
    assert read(folder).best.number == 2


def test_runs_with_further_seeds(folder):
    folder.write_repeat("0003-1", {"score": 0.5})
    folder.write_repeat("0003-2", {"score": None})
    folder.write_repeat("0000-1", {"score": 0.75})
    for name in ("0003-1", "0003-3", ".part"):
        (folder.repeats / name).mkdir()
    progress = read(folder)
    assert progress.repeats == {0: {1: 0.75}, 3: {1: 0.5, 2: None}}
    assert progress.repeating == ((3, 3),)


def test_reading_changes_nothing(folder):
    """Whoever works there deals with what is damaged."""
    folder.write_events([begin(0), end(0, 0.5)])
    (folder.trials / "0000.json").write_text("{")
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    assert [trial.seconds for trial in read(folder).trials] == [0.0]
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before
    folder.write_trial("0000", {"seconds": 2.0})
    reader = ProgressReader(folder.path)
    assert [trial.seconds for trial in reader.read().trials] == [2.0]
    assert json.loads((folder.trials / "0000.json").read_text())["seconds"] == 2.0


@pytest.mark.parametrize(
    "end_of_traceback, reason",
    [
        ("keras_tuner.src.errors.FailedTrialError: no room.\n", "no room."),
        (
            "ValueError: Exception encountered when calling A.call().\n\n\x1b[1mToo small.\x1b[0m\n"
            "\nArguments received by A.call():\n  x=1\n",
            "Too small.",
        ),
        ("ValueError: first\nsecond\n", "first"),
        (
            "tensorflow.python.framework.errors_impl.InvalidArgumentError: Graph execution error:\n"
            '\nDetected at node loss defined at (most recent call last):\n  File "x.py", line 3\n'
            "\nReceived a label value of 5\n\t [[{{node loss}}]] [Op:__inference_1]\n",
            "Received a label value of 5",
        ),
        ("mine.Stop: enough\n", "mine.Stop: enough"),
    ],
)
def test_the_reason_of_a_failed_trial_is_one_line(end_of_traceback, reason):
    traceback = 'Traceback (most recent call last):\n  File "x.py", line 1\n    x\n'
    middle = "OSError: other\n\nDuring handling of the above exception:\n\n" + traceback
    assert _reason(traceback + middle + end_of_traceback) == reason
    assert _reason(None) == "it was not run"
