"""Whole searches in processes that are killed at random moments: they end as if nobody had been."""

import collections
import json
import os
import pathlib
import queue
import random
import signal
import subprocess
import sys
import threading
import time
import traceback

import keras
import numpy as np
import pytest

import keras_bit
import tests.conftest
from keras_bit.tuning.study_folder import StudyFolder
from keras_bit.tuning.tuners import ADDRESS_VARIABLE, ID_VARIABLE
from tests.processes import ROOT

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
]
LOG = "log.txt"
LONGEST = 600  # seconds


class Tiny(keras_bit.HyperBiT):
    """Trains a network without compiling it, and says who does so."""

    log: pathlib.Path

    def make_model(self, hp, rule):
        layers = [
            keras.Input((None, None, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
        model = keras.Sequential(layers)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(rule.optimizer(), loss, metrics=["accuracy"], run_eagerly=True)
        return model

    def make_data(self, hp, rule, seed, initial_step):
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {seed} {initial_step}\n")
        return super().make_data(hp, rule, seed, initial_step)


def search(folder, out):
    """A search; what it found, less times, goes to the file `out`."""
    rng = np.random.default_rng(0)
    labels = np.arange(32) % 2
    images = rng.integers(0, 160, (32, 32, 32, 3)) + 96 * labels[:, None, None, None]
    images = images.astype("uint8")
    data = keras_bit.ImageDataset.from_arrays(images[:24], labels[:24], images[24:], labels[24:])
    rule = keras_bit.HyperRule(
        data.image_size, 24, 8, schedule_length=4, resize_edge=36, crop_size=32
    )
    Tiny.log = folder.with_name(f"{folder.name}-{LOG}")
    result = keras_bit.search(
        Tiny(data, rule, epochs=2),
        trials=3,
        repeats=2,
        objective="val_loss",
        output=folder,
        verbose=0,
    )
    found = [
        [t.number, t.values, t.status, t.score, t.updates, t.history, t.repeats]
        for t in result.trials
    ]
    out.write_text(json.dumps([found, result.verdict]))


def serve():
    """Forks a search for each line of standard input: TensorFlow takes long to import."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        folder, out, environment = json.loads(line)
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.environ.update(environment)
            try:
                tests.conftest.pytest_configure(None)  # devices as in the tests
                search(pathlib.Path(folder), pathlib.Path(out))
                print(f"{os.getpid()} ended", flush=True)
            except BaseException:
                traceback.print_exc()
                print(f"{os.getpid()} failed", flush=True)
            os._exit(0)
        print(f"{pid} begun", flush=True)


class Server:
    def __init__(self):
        code = "from tests.tuning.test_kills import serve; serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines = queue.Queue()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.split())

    def start(self, folder, out, **environment):
        self.process.stdin.write(json.dumps([str(folder), str(out), environment]) + "\n")
        self.process.stdin.flush()
        pid, state = self.lines.get(timeout=LONGEST)
        assert state == "begun"
        return int(pid)

    def ends(self, pid, seconds=LONGEST):
        """Whether a search ends in time."""
        try:
            found, state = self.lines.get(timeout=seconds)
        except queue.Empty:
            return False
        assert (int(found), state) == (pid, "ended")
        return True


@pytest.fixture(scope="module")
def server():
    server = Server()
    with server.process:
        yield server
        server.process.stdin.close()  # it ends
        server.thread.join()


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
    """What a search finds that nothing interrupts, its folder, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("whole") / "search"
    out, begun = folder.with_name("out"), time.monotonic()
    assert server.ends(server.start(folder, out))
    return json.loads(out.read_text()), folder, time.monotonic() - begun


def outcome_of(folder):
    """The files that tell the outcome."""
    best = json.loads((folder / "best_rule.json").read_text())
    repeats = {
        path.name: {name: value for name, value in json.loads(path.read_text()).items()
                    if name not in ("seconds", "written", "crc32c")}
        for path in (folder / "repeats").glob("*.json")
    }  # fmt: skip
    return best, repeats


def stage_of(folder):
    """What a killed search was about, by what it left."""
    search = StudyFolder(folder)
    if (folder / "trials.csv").exists():
        return "the report"
    repeats = len(list(search.repeats.glob("*.json")))
    events = search.events() if folder.exists() else []
    if repeats or events[-1:] == [{"kind": "stop"}]:
        return f"repeat {repeats}"
    begun = [event["trial"] for event in events if event["kind"] == "begin"]
    return f"trial {begun[-1]}" if begun else "before"


@pytest.mark.exhaustive
def test_killed_at_random_moments(server, whole, tmp_path, capsys):
    expected, whole_folder, duration = whole
    rng, wanted = random.Random(0), int(os.environ.get("KERAS_BIT_KILLS", 10))
    stages, finished = collections.Counter(), 0
    while stages.total() < wanted or not finished:
        folder, out = tmp_path / f"search{finished}", tmp_path / f"out{finished}"
        pid = server.start(folder, out)
        wait = rng.uniform(0, 0.6 * duration) if stages.total() < wanted else LONGEST
        if not server.ends(pid, wait):
            os.kill(pid, signal.SIGKILL)
            assert stages.total() < wanted
            stages[stage_of(folder)] += 1
            continue
        assert json.loads(out.read_text()) == expected
        assert outcome_of(folder) == outcome_of(whole_folder)
        assert not list(folder.rglob("checkpoints-*"))
        finished += 1
    with capsys.disabled():
        print(f"\n{stages.total()} kills, {finished} searches ended the same: {dict(stages)}")


def test_a_killed_workers_trial_is_taken_over(server, whole, tmp_path):
    expected, _, _ = whole
    folder, log = tmp_path / "search", tmp_path / f"search-{LOG}"
    address = {ADDRESS_VARIABLE: "127.0.0.1"}
    lost, other = (
        server.start(folder, tmp_path / f"out{i}", **address, **{ID_VARIABLE: f"worker{i}"})
        for i in range(2)
    )
    deadline = time.monotonic() + LONGEST
    while not log.exists() or str(lost) not in log.read_text().split():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(lost, signal.SIGKILL)  # while it holds the trial whose data it has just asked for
    assert server.ends(other)
    trials, verdict = json.loads((tmp_path / "out1").read_text())
    # Which trial draws which values depends on the seed alone, whoever runs it.
    assert [trials, verdict] == expected
    begun = [line.split()[0] for line in log.read_text().splitlines()]
    assert begun.count(str(lost)) == 1 and begun.count(str(other)) == 3 + 6  # with repeats
    events = [event["kind"] for event in StudyFolder(folder).events()]
    assert events.count("begin") == events.count("end") == 3
