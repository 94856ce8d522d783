"""Interrupted runs of `fine_tune`: what they keep, and how they resume."""

import collections
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_bit
from keras_bit.training import run_folder as folders
from keras_bit.training.run_folder import DONE_FOLDER, LOCK_FILE
from tests.checkpoints.runs import Interrupt, Interrupted
from tests.conftest import exhaustive
from tests.processes import ROOT, run_python
from tests.training.test_run import FILES, RULE, colors, content_of, files_in

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

NETWORK = {"depth": (1, 1, 1, 1), "width": 1 / 8}


@pytest.fixture(scope="module")
def data():
    return keras_bit.ImageDataset.from_arrays(*colors(48), *colors(13, 1))


def run(data, output, *interruptions, **changes):
    settings = {**NETWORK, **RULE, "mixup_alpha": 0.2, "steps_per_epoch": 5, **changes}
    return keras_bit.fine_tune(
        data, **settings, output=output, callbacks=interruptions, verbose=0
    )  # fmt: skip


NOTHING = Interrupt(10**9)  # callbacks must be the same ones when a run resumes


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run that nothing interrupts."""
    return run(data, tmp_path_factory.mktemp("whole") / "output", NOTHING)


def outcome(output):
    """What two equal runs leave, less what tells the time."""
    output = pathlib.Path(output)
    metrics = json.loads((output / "metrics.json").read_text())
    del metrics["training_seconds"]
    model = keras.models.load_model(output / "model.keras")
    pictures = {path.name: path.read_bytes() for path in (output / "report").iterdir()}
    page = (output / "report.html").read_text()
    return {
        "history": (output / "history.csv").read_text(),
        "metrics": metrics,
        "weights": [weight.tolist() for weight in model.get_weights()],
        "pictures": pictures,
        "page": re.sub("<pre>.*</pre>|training seconds</td><td>[^<]*", "", page, flags=re.DOTALL),
        "logs": scalars(output / "logs"),
        "files": {name for name in files_in(output) if "tfevents" not in name},
    }


def scalars(folder):
    """Every value in the logs for TensorBoard, by its name, in the order of writing."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    found = {}
    for path in sorted(folder.rglob("events*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                name = f"{path.parent.name}/{value.tag}"
                number = make_ndarray(value.tensor).tolist()
                found.setdefault(name, []).append((event.step, number))
    return found


def assert_equal(output, whole):
    found, expected = outcome(output), outcome(whole.output)
    for name in expected:
        assert found[name] == expected[name], name


@pytest.mark.parametrize(
    "moments",
    [
        [(5, "test"), (7, "train"), (12, "test")],
        exhaustive([(3, "train")]),
    ],
)
def test_an_interrupted_run_ends_as_one_that_was_not(data, whole, moments, tmp_path):
    for update, during in moments:
        with pytest.raises(Interrupted):
            run(data, tmp_path, Interrupt(update, during))
        keras.backend.clear_session(free_memory=False)
    result = run(data, tmp_path, NOTHING)
    assert_equal(tmp_path, whole)
    assert result.history == whole.history
    np.testing.assert_array_equal(result.evaluation.logits, whole.evaluation.logits)


def interrupted(data, output, **changes):
    with pytest.raises(Interrupted):
        run(data, output, Interrupt(7), **changes)
    keras.backend.clear_session(free_memory=False)


@pytest.mark.exhaustive
def test_dropout_decay_and_frozen_blocks_resume_as_well(data, tmp_path):
    changes = {"depth": None, "width": None, "preset": "f-r14x0.5", "frozen_blocks": 2}
    changes |= {"weight_decay": 0.1, "dropout": 0.5, "report": False}
    whole = run(data, tmp_path / "whole", NOTHING, **changes)
    keras.backend.clear_session(free_memory=False)
    interrupted(data, tmp_path / "again", **changes)
    for name, value in (("frozen_blocks", 1), ("weight_decay", 0), ("dropout", 0.4)):
        with pytest.raises(ValueError, match=f"with what it began.*{name}: "):
            run(data, tmp_path / "again", NOTHING, **{**changes, name: value})
    again = run(data, tmp_path / "again", NOTHING, **changes)
    assert again.history == whole.history
    for one, other in zip(again.model.weights, whole.model.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    saved = keras.models.load_model(tmp_path / "again" / "model.keras")
    start = keras_bit.BiTBackbone.from_preset("f-r14x0.5").named_weights()
    for name, weight in saved.backbone.named_weights().items():
        same = np.array_equal(weight, start[name])
        assert same == name.startswith(("root_block", "block1/", "block2/")), name
    assert saved.backbone.get_config()["frozen"] == ["root_block", "block1", "block2"]
    assert saved.head.dropout == 0.5


def test_what_an_interrupted_run_leaves(data, tmp_path):
    interrupted(data, tmp_path)
    names = files_in(tmp_path)
    assert all(name.startswith("unfinished/") for name in names)
    assert {
        "unfinished/history.csv",
        "unfinished/checkpoints/checkpoint-000001/manifest.json",
    } <= names
    text = folders.describe_interrupted(tmp_path)
    assert text == "the same command resumes after update 5"
    assert folders.describe_interrupted(tmp_path / "elsewhere") == "nothing was kept"


def test_checkpoints_that_cannot_be_read_are_no_run_to_resume(data, tmp_path):
    interrupted(data, tmp_path)
    for manifest in tmp_path.glob("unfinished/checkpoints/*/manifest.json"):
        manifest.write_text('{"format": 1}')
    with (
        pytest.warns(UserWarning, match="format 1, of another version"),
        pytest.raises(FileNotFoundError, match="`resume=True` needs a checkpoint that can be read"),
    ):
        run(data, tmp_path, NOTHING, resume=True)


def test_another_run_is_refused_with_the_differences(data, tmp_path):
    interrupted(data, tmp_path)
    before = content_of(tmp_path / "unfinished" / "checkpoints")
    other = keras_bit.ImageDataset.from_arrays(*colors(48, 3), *colors(13, 1))
    for images, changes, message in (
        (data, {"seed": 1}, "seed: 0, now 1"),
        (data, {"learning_rate": 0.1}, "rule.learning_rate: 0.05, now 0.1"),
        (data, {"preset": "f-r14x0.5", "depth": None, "width": None}, "preset: null, now"),
        (other, {}, "images.train: "),
        (data, {"freeze_backbone": True}, "freeze_backbone: false, now true"),
    ):
        with pytest.raises(ValueError, match=f"with what it began.*{message}.*`resume=False`"):
            run(images, tmp_path, NOTHING, **changes)
    assert content_of(tmp_path / "unfinished" / "checkpoints") == before


@pytest.mark.exhaustive
def test_resume_can_be_forbidden_and_asked_for(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="`resume=True` needs an interrupted run"):
        run(data, tmp_path, NOTHING, resume=True)
    with pytest.raises(ValueError, match="`resume=True` needs an `output`"):
        run(data, None, NOTHING, resume=True)
    with pytest.raises(ValueError, match="`resume` must be True or False"):
        run(data, tmp_path, NOTHING, resume="yes")
    interrupted(data, tmp_path)
    with pytest.raises(FileExistsError, match="an interrupted run. .*leave `resume`.*`overwrite`"):
        run(data, tmp_path, NOTHING, resume=False)
    result = run(data, tmp_path, NOTHING, resume=False, overwrite=True, seed=1)
    assert result.plan.seed == 1 and result.history["updates"] == [5, 10, 12]
    interrupted(data, tmp_path / "second")
    assert run(data, tmp_path / "second", NOTHING, resume=True).history["updates"] == [5, 10, 12]


@pytest.mark.exhaustive
def test_the_finished_run_stays_until_the_new_one_is_complete(data, tmp_path):
    run(data, tmp_path, NOTHING)
    before = content_of(tmp_path)
    interrupted(data, tmp_path, overwrite=True, seed=1)
    after = content_of(tmp_path)
    assert {name: after[name] for name in before} == before
    with pytest.raises(FileExistsError, match="holds a run and an.*`overwrite` to resume"):
        run(data, tmp_path, NOTHING, seed=1)
    text = folders.describe_interrupted(tmp_path)
    assert text == "the same command with --overwrite resumes after update 5"
    run(data, tmp_path, NOTHING, seed=1, overwrite=True)
    assert json.loads((tmp_path / "metrics.json").read_text())["seed"] == 1
    assert FILES <= files_in(tmp_path) and not (tmp_path / "unfinished").exists()


@pytest.mark.parametrize("moment", [0, 9])
@pytest.mark.exhaustive
def test_stopped_while_its_files_are_moved(data, whole, moment, tmp_path, monkeypatch):
    run(data, tmp_path, NOTHING, seed=1, report=False)
    link, left = folders._link_or_copy, [moment]

    def stopped(*paths):
        if not left[0]:
            raise Interrupted
        left[0] -= 1
        link(*paths)

    monkeypatch.setattr(folders, "_link_or_copy", stopped)
    with pytest.raises(Interrupted):
        run(data, tmp_path, NOTHING, overwrite=True)
    text = folders.describe_interrupted(tmp_path)
    assert text == "the same command with --overwrite resumes after update 12"
    # Whoever reads it now gets the new run as a whole.
    image = tmp_path.with_suffix(".png")
    keras.utils.save_img(image, colors(1)[0][0])
    (expected,) = keras_bit.predict_files(whole.output, image)
    assert keras_bit.predict_files(tmp_path, image)[0].classes == expected.classes
    monkeypatch.setattr(folders, "_link_or_copy", link)
    keras.backend.clear_session(free_memory=False)
    with pytest.raises(ValueError, match="seed: 0, now 2"):
        run(data, tmp_path, NOTHING, seed=2, overwrite=True)
    assert keras_bit.predict_files(tmp_path, image)[0].classes == expected.classes
    run(data, tmp_path, NOTHING, overwrite=True)
    assert_equal(tmp_path, whole)


def test_copies_do_where_there_are_no_links(data, whole, tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    run(data, tmp_path, NOTHING)
    assert_equal(tmp_path, whole)


def test_a_disk_that_is_full_at_the_end_loses_nothing(data, whole, tmp_path, monkeypatch):
    usage, free = shutil.disk_usage(tmp_path), [10**9]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=free[0]))
    evaluate = sys.modules["keras_bit.training.run"]._evaluate

    def evaluate_and_fill(*arguments):
        free[0] = 10
        return evaluate(*arguments)

    monkeypatch.setattr(sys.modules["keras_bit.training.run"], "_evaluate", evaluate_and_fill)
    with pytest.raises(OSError, match="The model takes .* has 10 bytes free. Make room"):
        run(data, tmp_path, NOTHING)
    assert folders.describe_interrupted(tmp_path) == "the same command resumes after update 12"
    monkeypatch.undo()
    keras.backend.clear_session(free_memory=False)
    run(data, tmp_path, NOTHING)
    assert_equal(tmp_path, whole)


def test_a_second_run_in_the_same_folder_is_refused(data, tmp_path):
    def begin_another():
        with pytest.raises(BlockingIOError, match="`output` must not be in use"):
            run(data, tmp_path, NOTHING)
        raise Interrupted

    with pytest.raises(Interrupted):
        run(data, tmp_path, Interrupt(6, action=begin_another))
    keras.backend.clear_session(free_memory=False)
    run(data, tmp_path, NOTHING)
    assert FILES <= files_in(tmp_path)


# Devices as in this process: with others TensorFlow sums in another order.
KILLED = """
import resource
import sys
import pytest
import keras_bit
import tests.conftest
from tests.checkpoints.runs import Interrupt
from tests.training.test_resume import NOTHING, colors, run

tests.conftest.pytest_configure(None)
tests.conftest.leave_pictures_white(pytest.MonkeyPatch())
data = keras_bit.ImageDataset.from_arrays(*colors(48), *colors(13, 1))
if sys.argv[2:]:  # as on a full disk: no file may become larger
    resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (int(sys.argv[2]),))
print("begun", flush=True)
run(data, sys.argv[1], NOTHING)
"""


def stage_of(output):
    """What a killed run was about, by what it left."""
    unfinished = output / "unfinished"
    if (output / "complete").exists():
        return "moving the files"
    if (unfinished / "metrics.json").exists():
        return "saving and drawing"
    if any((unfinished / "checkpoints").glob(".*.part")):
        return "writing a checkpoint"
    if any((unfinished / "checkpoints").glob("checkpoint-*")):
        return "training on, validating or evaluating"
    return "training up to the first checkpoint" if unfinished.exists() else "before"


@pytest.mark.exhaustive
def test_a_run_that_could_not_write_ends_as_one_that_could(whole, tmp_path):
    for limit in (100, 600_000, None):  # almost nothing; all but a checkpoint
        arguments = ["-c", KILLED, tmp_path, *([limit] if limit else [])]
        done = run_python(*map(str, arguments))
        assert done.returncode == (1 if limit else 0), done.stderr[-3000:]
        if limit:
            assert "OSError" in done.stderr.splitlines()[-1], done.stderr[-3000:]
    assert_equal(tmp_path, whole)


# Root may write everywhere, until it gives up the capability to override permissions.
READ_ONLY = """
import ctypes
import pathlib
import sys

VERSION, EVERY_ACCESS = 0x20080522, 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
header, sets = (ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)()
libc = ctypes.CDLL(None, use_errno=True)
assert libc.capget(header, sets) == 0
sets[0] &= ~EVERY_ACCESS  # of the effective set; threads started later inherit it
assert libc.capset(header, sets) == 0

import pytest
import keras_bit
import tests.conftest
from tests.checkpoints.runs import Interrupt
from tests.training.test_resume import colors, run

tests.conftest.pytest_configure(None)
tests.conftest.leave_pictures_white(pytest.MonkeyPatch())
data = keras_bit.ImageDataset.from_arrays(*colors(48), *colors(13, 1))
output = pathlib.Path(sys.argv[1])

def close_folders():
    for folder in (output / "unfinished" / "checkpoints", output / "unfinished"):
        folder.chmod(0o555)

run(data, output, Interrupt(7, action=close_folders) if sys.argv[2:] else Interrupt(10**9))
"""


@pytest.mark.exhaustive
def test_a_folder_that_nobody_may_write_to_ends_the_run_which_resumes(whole, tmp_path):
    stopped = run_python("-c", READ_ONLY, str(tmp_path), "closed")
    assert re.match("PermissionError: .*unfinished", stopped.stderr.splitlines()[-1])
    for path in tmp_path.rglob("*"):
        path.chmod(path.stat().st_mode | 0o200)
    resumed = run_python("-c", READ_ONLY, str(tmp_path))
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert_equal(tmp_path, whole)


def test_killed_at_random_moments(whole, tmp_path, capsys):
    rng, wanted = random.Random(0), int(os.environ.get("KERAS_BIT_KILLS", 5))
    duration, stages, finished = 10.0, collections.Counter(), 0
    while stages.total() < wanted or not finished:
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        ) as child:
            child.stdout.readline()
            begun = time.monotonic()
            try:
                child.wait(rng.uniform(0, duration) if stages.total() < wanted else 120)
                assert child.returncode == 0
                duration = 1.1 * (time.monotonic() - begun)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                child.wait()
                stages[stage_of(tmp_path)] += 1
        if (tmp_path / "metrics.json").exists() and not (tmp_path / "complete").exists():
            shutil.rmtree(tmp_path / DONE_FOLDER, ignore_errors=True)  # as another run would
            (tmp_path / LOCK_FILE).unlink(missing_ok=True)
            assert_equal(tmp_path, whole)
            finished += 1
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
    with capsys.disabled():
        print(f"\n{stages.total()} kills, {finished} runs finished as they should: {dict(stages)}")
