import copy
import io
import json
import os
import pathlib
import re
import shlex
import signal
import sys
import time
import types

import pytest

import keras_bit
from keras_bit.cli import workers as workers_module
from keras_bit.cli.main import main, make_parser
from keras_bit.cli.trials_table import live_table, trials_table
from keras_bit.cli.workers import Workers
from keras_bit.hyperrule import HyperRule
from keras_bit.training.rule_files import read_rule_file
from keras_bit.tuning.progress import SearchProgress, TrialProgress
from keras_bit.tuning.study import UntrainableRuleError
from keras_bit.tuning.study_folder import StudyFolder
from keras_bit.tuning.tuners import own_workers
from tests.cli.conftest import TINY, in_terminal, start
from tests.conftest import exhaustive

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore:Skipped")]
NAMES = {"learning_rate_factor": "rate", "schedule_factor": "length", "mixup_alpha": "mixup"}
QUICK = ("--schedule-length", "8", "--trials", "3", "--repeats", "2", "--epochs", "2")
EVENTS = [
    {"kind": "begin", "trial": "0000", "values": {}, "time": 0.0},
    {"kind": "end", "trial": "0000", "status": "COMPLETED", "metrics": {}},
    {"kind": "begin", "trial": "0001", "values": {}, "time": 0.0},
]


@pytest.fixture
def fake_search(monkeypatch):
    """A `keras_bit.search` that searches nothing; the dictionary of what it was called with."""
    seen = {"decisions": {"rule": None}}

    def search(data, rule=None, **arguments):
        seen.update(arguments, data=data, rule=rule, workers=own_workers())
        return types.SimpleNamespace(
            verdict="The outcome is the rule.",
            decisions=seen["decisions"],
            best=types.SimpleNamespace(values=seen.get("values", {})),
        )

    monkeypatch.setattr(keras_bit, "search", search)
    return seen


def begin_search(folder, events=EVENTS):
    study = StudyFolder(folder)
    study.open({"objective": ["val_accuracy", "max"]})
    study.write_events(events)


def error_of(arguments, capsys):
    assert main(["search", "no folder", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("keras-bit: error: ")


@pytest.mark.parametrize(
    "options, expected",
    [
        ([], {"trials": 12, "tuner": "random", "repeats": 3, "keep": 1, "epochs": 10}),
        ([], {"space": None, "rule": None, "overwrite": False}),
        (
            "--trials 4 --tuner grid --repeats 2 --keep 0 --hours 1.5 --epochs 5".split(),
            {"trials": 4, "tuner": "grid", "repeats": 2, "keep": 0, "hours": 1.5, "epochs": 5},
        ),
        (["--vary", "rate,warmup"], {"space": {"rate": None, "warmup": None}}),
        (
            "--vary rate=0.3,1 --vary frozen=1 --vary warmup=yes,no --vary crop".split(),
            {"space": {"rate": [0.3, 1], "frozen": [1], "warmup": [True, False], "crop": None}},
        ),
        (["--vary", "preset=m-r50x1,m-r101x1"], {"space": {"preset": ["m-r50x1", "m-r101x1"]}}),
        (["--preset", "s-r50x1", "--dropout", "0.5"], {"preset": "s-r50x1", "dropout": 0.5}),
        (["--schedule-length", "7", "--no-random-flip"], {"schedule_length": 7}),
    ],
)
def test_search_is_called_with_its_options(photos, fake_search, tmp_path, options, expected):
    output = str(tmp_path / "new")
    assert main(["search", str(photos), "--output", output, *options]) == 0
    assert {name: fake_search[name] for name in expected} == expected
    assert fake_search["output"] == output and fake_search["verbose"] == 0
    assert fake_search["data"].train_size == 54 and fake_search["workers"] is None


def test_the_rule_of_a_file_is_searched_around(photos, fake_search, tmp_path):
    file = tmp_path / "rule.json"
    file.write_text(json.dumps({"config": HyperRule(32, 20).get_config()}))
    assert main(["search", str(photos), "--output", str(tmp_path / "s"), "--rule", str(file)]) == 0
    assert fake_search["rule"] == read_rule_file(file, {})["rule"]


@pytest.mark.parametrize(
    "options, message",
    [
        ("--vary rat", "`--vary` must name some of rate, length, .*'rat'. Did you mean 'rate'?"),
        ("--vary rate,", "`--vary` must name some of rate, .*Received: ''"),
        ("--vary rate --vary rate=1", "`--vary` must name 'rate' once. Received: rate and rate=1"),
        ("--vary preset", "values of 'preset', which has no usual ones: --vary 'preset=m-r50x1"),
        ("--vary preset=m-r50x7", "values of 'preset' that a run can have.*m-r50x7'. .*Did you"),
        ("--vary rate=fast", "must give numbers as the values of 'rate'. Received: 'rate=fast'"),
        ("--vary rate=1,", "must give numbers as the values of 'rate'. Received: 'rate='"),
        ("--vary rate=-1", "values of 'rate' that a run can have. Received: 'rate=-1.0'. "),
        ("--vary rate=nan", "values of 'rate' that a run can have. Received: 'rate=nan'. "),
        ("--vary frozen=1.5", "must give integers as the values of 'frozen'"),
        ("--vary frozen=5", "values of 'frozen' that a run can have. Received: 'frozen=5'"),
        ("--vary frozen --freeze-backbone", "values of 'frozen' that a run can have"),
        ("--vary warmup=maybe", "must give yes or no as the values of 'warmup'"),
        ("--vary dropout=1", "values of 'dropout' that a run can have. Received: 'dropout=1.0'"),
        ("--trials 0", "`--trials` must be an integer of at least 1. Received: --trials 0"),
        ("--repeats 1", "`--repeats` must be an integer of at least 2"),
        ("--keep -1", "`--keep` must be an integer of at least 0"),
        ("--epochs 0", "`--epochs` must be"),
        ("--workers 0", "`--workers` must be an integer of at least 1"),
        ("--hours 0", "`--hours` must be a positive finite number. Received: --hours 0.0"),
        ("--batch-size 0", "`--batch-size`"),
    ],
)
def test_what_can_be_checked_is_checked_before_the_images_are_read(options, message, capsys):
    line = error_of(options.split(), capsys)
    assert re.search(message, line), line


def test_an_unknown_tuner_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["search", "no folder", "--tuner", "genetic"])
    message = "`--tuner` must be random, bayesian, grid or hyperband. Received: 'genetic'"
    assert message in capsys.readouterr().err


def test_a_folder_of_other_files_is_refused_and_left_as_it_is(tmp_path, capsys):
    (tmp_path / "letter.txt").touch()
    for options in ([], ["--overwrite"]):
        line = error_of(["--output", str(tmp_path), *options], capsys)
        assert "`--output` must be an empty or new folder, or hold a search" in line
    begin_search(tmp_path / "s")
    before = sorted(tmp_path.rglob("*"))
    assert "must be a folder that exists" in error_of(
        ["--output", str(tmp_path / "s"), "--overwrite"], capsys
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_processes_that_are_started_one_by_one(monkeypatch, photos, fake_search, tmp_path, capsys):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker7")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "10.0.0.1")
    output = ["--output", str(tmp_path / "new")]
    line = error_of(["--overwrite", *output], capsys)
    assert "`--overwrite` must be set in the chief alone" in line and "worker7" in line
    assert "`--workers` must be 1 where" in error_of(["--workers", "2", *output], capsys)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    assert main(["search", str(photos), "--overwrite", *output]) == 0
    assert fake_search["overwrite"] is True


def test_the_line_to_type_next_has_the_same_data_and_network(photos, fake_search, tmp_path, capsys):
    options = "--seed 3 --depth 1,1,1,1 --width 0.25 --remat --frozen-blocks 1 --batch-size 8"
    arguments = ["search", str(photos), "--output", str(tmp_path / "new"), *options.split()]
    fake_search["decisions"] = {"rule": None, "frozen_blocks": 2}
    assert main(arguments) == 0
    *_, report, last = capsys.readouterr().out.splitlines()
    assert report == f"Report: {tmp_path}/new/study.html"
    command = last.removeprefix("Train with it: keras-bit ").split()
    rule = ["--rule", f"{tmp_path}/new/best_rule.json"]
    beside = "--seed 3 --depth 1,1,1,1 --width 0.25 --remat".split()
    assert command == ["fine-tune", str(photos), *rule, *beside]
    fake_search["values"] = {"dropout": 0.0}  # better than the given one, and the default
    assert main([*arguments, "--dropout", "0.5"]) == 0
    assert "--dropout" not in capsys.readouterr().out.splitlines()[-1]
    automatic = ["--micro-batch-size", "auto"]
    assert main([*arguments, *automatic]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(shlex.join([*beside, *automatic]))


def test_a_rule_that_cannot_be_trained_is_no_bug(photos, monkeypatch, tmp_path, capsys):
    def search(*args, **arguments):
        raise UntrainableRuleError("The rule itself cannot be trained: no room")

    monkeypatch.setattr(keras_bit, "search", search)
    assert main(["search", str(photos), "--output", str(tmp_path)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "keras-bit: error: The rule itself cannot be trained: no room"


@pytest.mark.parametrize(
    "options, kept",
    [
        ([], "trials done: 1; the same command resumes"),
        (["--overwrite"], "trials done: 1; the same command without --overwrite resumes"),
    ],
)
def test_an_interruption_says_what_is_kept(photos, monkeypatch, tmp_path, capsys, options, kept):
    def search(*args, **arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(keras_bit, "search", search)
    arguments = ["search", str(photos), "--output", str(tmp_path / "s"), *options]
    assert main(arguments) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "keras-bit: stopped; nothing was kept"
    begin_search(tmp_path / "s")
    assert main(arguments) == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"keras-bit: stopped; {kept}"


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_python_loses_stops_the_next_trial(
    photos, monkeypatch, tmp_path, number, code
):
    class Dying:
        def __del__(self):
            signal.raise_signal(number)

    def search(*args, callbacks, **arguments):
        Dying()
        reached.append("after the signal")
        copy.deepcopy(callbacks)[0].on_train_begin({})
        reached.append("in the next trial")

    reached = []
    monkeypatch.setattr(keras_bit, "search", search)
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: reached.append("a traceback"))
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert main(["search", str(photos), "--output", str(tmp_path / "s")]) == code
    assert reached == ["after the signal"]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_help_names_all_that_can_be_varied(capsys, monkeypatch):
    from keras_bit.tuning.space import hyperparameters
    from keras_bit.tuning.tuners import TUNERS

    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit, match="0"):
        main(["search", "--help"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40 and "--steps-per-epoch" not in out
    text = " ".join(out.split())
    *names, last = hyperparameters(HyperRule(512, 1000, 64), None)
    assert f"{', '.join(names)} and {last}" in text
    *names, last = TUNERS
    assert f"{', '.join(names)} or {last}" in text
    assert make_parser().parse_args(text.split("Example: keras-bit ")[1].split()).run


def trial(number, status="completed", score=0.5, **changes):
    reason = "The loss has become nan. " + 20 * "It is long. " if status == "failed" else ""
    return TrialProgress(number, status, changes, score, 12.3, reason, 10)


def progress_of(*trials, repeats=None, repeating=()):
    return SearchProgress("val_accuracy", "max", trials, repeats or {}, repeating)


def console_of(width, height=24):
    from rich.console import Console

    return Console(
        file=io.StringIO(), width=width, height=height, color_system=None, force_terminal=True
    )


def drawn(progress, width, height=24):
    console = console_of(width, height)
    console.print(trials_table(progress, NAMES, console))
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert max(map(len, lines)) <= width and len(lines) <= height
    return lines


def test_the_table_at_60_columns():
    changed = {"learning_rate_factor": 0.3, "schedule_factor": 2.0}
    trials = (
        trial(0),
        trial(1, "failed", None, **changed),
        trial(2, "running", None, mixup_alpha=0.1),
    )
    assert drawn(progress_of(*trials), 60) == [
        "",
        " trial   status    changes               score   time",
        " ────────────────────────────────────────────────────",
        "     0   done      the rule             0.5000   12 s",
        "     1   failed    rate 0.3, length 2            12 s",
        "     2   running   mixup 0.1                     12 s",
        "",
        "Trial 1 has failed: The loss has become nan. It is long. It",
        "is long. It is long. It is long. It is long. It is long. ...",
        "Best val_accuracy so far: trial 0.",
        "Running: trial 2.",
    ]


@pytest.mark.parametrize("width, height", [(45, 24), (60, 12), (60, 24), (60, 60), (100, 24)])
def test_of_many_trials_the_last_and_the_best_are_listed(width, height):
    values = {"learning_rate_factor": 0.3, "schedule_factor": 2.0, "mixup_alpha": 0.1}
    trials = [trial(i, score=0.9 if i == 3 else 0.5, **values) for i in range(39)]
    lines = drawn(progress_of(*trials, trial(39, "running", None, **values)), width, height)
    numbers = [int(n) for line in lines for n in re.findall(r"^ +(\d+)   \w", line)]
    assert numbers[0] == 3 and numbers[1:] == list(range(40 - len(numbers[1:]), 40))
    assert len(numbers) <= 10 and len(numbers) >= min(10, height // 6)
    text = " ".join(" ".join(lines).split())
    assert f"{40 - len(numbers)} further trials are not listed." in text
    assert "Best val_accuracy so far: trial 3. Running: trial 39." in text


def test_the_runs_with_further_seeds_are_listed():
    repeats = {0: {1: 0.5, 2: None}, 2: {1: 0.75}}
    lines = drawn(progress_of(trial(0), trial(2), repeats=repeats, repeating=((2, 3),)), 60)
    assert lines[-2:] == ["  trial 0: 0.5000, failed", "  trial 2: 0.7500, seed 3 is running"]


def test_messages_stand_above_the_live_table(monkeypatch):
    """What goes to the terminal's stderr would else destroy the table."""
    console = console_of(60)
    stderr = types.SimpleNamespace(isatty=lambda: True, write=pytest.fail, flush=lambda: None)
    monkeypatch.setattr("sys.stderr", stderr)
    with live_table(console, lambda: progress_of(trial(0)), NAMES):
        print("a warning", file=sys.stderr)
        assert not sys.stderr.isatty()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    assert shown.index("a warning") < shown.rindex("trial   status")
    assert sys.stderr is stderr


WORKER = """
import os, pathlib, signal, sys, time
mine = os.environ["KERASTUNER_TUNER_ID"]
folder = pathlib.Path(os.environ["FOLDER"])
starts = folder / mine
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
(folder / f"{mine}.env").write_text(" ".join(f"{k}={v}" for k, v in os.environ.items()))
{action}
"""


@pytest.fixture
def make_workers(tmp_path, monkeypatch):
    """`Workers` whose processes run a few lines of Python in place of the command."""
    monkeypatch.setenv("FOLDER", str(tmp_path))

    def make(action, count=2):
        script = tmp_path / "script.py"
        script.write_text(WORKER.replace("{action}", action))
        workers = Workers([], count, tmp_path / "logs")
        for worker in workers._workers:
            worker._command = [sys.executable, "-S", str(script)]
        return workers

    return make


def wait_for(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen")


def starts(folder):
    return [len((folder / f"worker{i}").read_text()) for i in range(2)]


def test_workers_share_the_machine(make_workers, tmp_path, monkeypatch):
    for name in workers_module.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(workers_module, "visible_gpus", lambda: ["2", "5"])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(9)), raising=False)
    workers = make_workers("")
    wait_for(workers.have_ended)
    for index, gpu in enumerate("25"):
        variables = (tmp_path / f"worker{index}.env").read_text().split()
        assert {
            f"CUDA_VISIBLE_DEVICES={gpu}",
            "TF_NUM_INTRAOP_THREADS=4",
            "TF_NUM_INTEROP_THREADS=4",
            "OMP_NUM_THREADS=4",
            f"KERASTUNER_TUNER_ID=worker{index}",
            "KERASTUNER_ORACLE_IP=127.0.0.1",
            f"KERAS_BIT_CHIEF={os.getpid()}",
        } <= set(variables)


def test_a_worker_that_dies_is_started_again_at_most_twice(make_workers, tmp_path, capsys):
    kill = "if mine == 'worker0': os.kill(os.getpid(), signal.SIGKILL)"
    wait_for(make_workers(kill).have_ended)
    assert starts(tmp_path) == [3, 1]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all("Worker 0 of the search has failed (SIGKILL" in x for x in lines)
    ends = [line.split(". It is ")[-1].split(". The ")[-1] for line in lines]
    assert ends == ["started again.", "started again.", "search continues without it."]


def test_errors_of_all_workers_are_one_error(make_workers, tmp_path):
    fail = "print('keras-bit: error: no such thing.', file=sys.stderr); sys.exit(2)"
    workers = make_workers(fail)
    with pytest.raises(
        ChildProcessError, match=r"\(exit code 2; .*worker0.log\): no such thing\.$"
    ):
        wait_for(workers.have_ended)
    assert starts(tmp_path) == [1, 1]


def test_one_worker_is_enough(make_workers, tmp_path, capsys):
    workers = make_workers("sys.exit(2 if mine == 'worker0' else 0)")
    wait_for(workers.have_ended)
    assert starts(tmp_path) == [1, 1]
    assert workers.have_ended() and len(workers.failed) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "Worker 0 of the search has failed (exit code 2" in line
    assert line.endswith("The search continues without it.")


@pytest.mark.parametrize("error, name", [(KeyboardInterrupt, "SIGINT"), (ValueError, "SIGTERM")])
def test_signals_reach_the_workers_once(make_workers, tmp_path, error, name, capsys):
    note = (
        "def note(number, frame):\n"
        "    (folder / 'seen').open('a').write(signal.Signals(number).name + ' ')\n"
        "    sys.exit(0)\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, note)\n"
        "(folder / (mine + '.ready')).touch()\n"
        "time.sleep(60)"
    )
    workers = make_workers(note)
    with pytest.raises(error), workers:
        assert not workers.have_ended()
        wait_for(lambda: len(list(tmp_path.glob("*.ready"))) == 2)
        # A terminal sends Ctrl-C to all of its group.
        pids = [worker._process.pid for worker in workers._workers]
        assert [os.getpgid(pid) for pid in pids] == pids
        raise error
    assert (tmp_path / "seen").read_text().split() == [name, name]
    assert not any(worker.is_running for worker in workers._workers)
    assert "waiting until 2 workers have saved their state" in capsys.readouterr().err


def test_workers_share_a_cache_that_is_removed(photos, fake_search, tmp_path, monkeypatch):
    output = tmp_path / "s"
    arguments = ["search", str(photos), "--output", str(output), "--workers", "2"]
    assert main(arguments) == 0
    assert fake_search["cache_dir"] == str(output / "trials" / ".cache")
    assert isinstance(fake_search["workers"], Workers) and own_workers() is None
    assert main([*arguments, "--cache-dir", str(tmp_path / "mine")]) == 0
    assert fake_search["cache_dir"] == str(tmp_path / "mine")
    # A worker of the same command.
    monkeypatch.setenv("KERAS_BIT_CHIEF", str(os.getppid()))
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker0")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    assert main([*arguments, "--overwrite"]) == 0
    assert fake_search["overwrite"] is False and fake_search["workers"] is None
    assert fake_search["cache_dir"] == str(output / "trials" / ".cache")


@pytest.fixture(scope="session")
def whole_search(photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("search") / "s"
    with start(("search", photos, *TINY, *QUICK, "--output", output)) as process:
        out, error = process.communicate(timeout=600)
    return types.SimpleNamespace(output=output, code=process.returncode, out=out, error=error)


@pytest.mark.slow
def test_a_whole_search_prints_a_line_for_each_run(whole_search, photos, fake_fine_tune, tmp_path):
    assert whole_search.code == 0, whole_search.error
    lines = whole_search.out.splitlines()
    assert [line[:8] for line in lines if re.match(r"Trial \d:", line)] == [
        f"Trial {i}:" for i in range(3)
    ]
    assert len([line for line in lines if " again, seed " in line]) == 6
    assert lines[-3].startswith("The outcome is ") and "Traceback" not in whole_search.error
    assert lines[-2] == f"Report: {whole_search.output / 'study.html'}"
    command = lines[-1].removeprefix("Train with it: keras-bit ").split()
    assert main([*command, "--output", str(tmp_path / "run")]) == 0
    assert fake_fine_tune["plan"].width == 0.25
    rule = read_rule_file(whole_search.output / "best_rule.json", {})["rule"]
    assert fake_fine_tune["plan"].rule == rule and isinstance(rule, HyperRule)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, exhaustive(100)])
def test_a_search_in_a_terminal(photos, tmp_path, columns):
    arguments = ("search", photos, *TINY, *QUICK, "--trials", "2", "--output", tmp_path / "s")
    code, lines = in_terminal(arguments, columns)
    assert code == 0
    table = [line.rstrip() for line in lines if line.startswith(" ")]
    assert max(map(len, table)) <= columns
    assert any(re.match(r"^ +0   done +the rule +\d\.\d{4} +\d+ s", line) for line in lines)
    assert not any("Traceback" in line for line in lines)


def wait_for_trials(process, output):
    """Returns when trials run."""
    end = time.monotonic() + 600
    while len(StudyFolder(output).events()) < 2:
        assert process.poll() is None and time.monotonic() < end, process.stderr.read()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, code, workers", [exhaustive(signal.SIGINT, 130, "1"), (signal.SIGTERM, 143, "2")]
)
def test_an_interrupted_search_resumes(
    photos, whole_search, tmp_path, number, code, workers, capsys
):
    output = tmp_path / "s"
    arguments = ("search", photos, *TINY, *QUICK, "--output", output, "--workers", workers)
    with start(arguments) as process:
        wait_for_trials(process, output)
        process.send_signal(number)
        _, error = process.communicate(timeout=600)
    assert process.returncode == code
    last = error.splitlines()[-1]
    kept = r"keras-bit: stopped; trials done: \d(, further runs: \d)?; the same command resumes"
    assert re.fullmatch(kept, last)
    with start(arguments) as process:
        out, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    assert out.splitlines()[-3] == whole_search.out.splitlines()[-3]
    assert scores(output) == scores(whole_search.output)
    assert not (output / ".workers").exists() and not (output / "trials" / ".cache").exists()


def scores(output):
    table = (pathlib.Path(output) / "trials.csv").read_text().splitlines()
    return sorted(line.split(",")[:3] for line in table)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc"), reason="a worker is found in /proc")
@pytest.mark.exhaustive
def test_the_trial_of_a_killed_worker_is_taken_over(photos, whole_search, tmp_path):
    output = tmp_path / "s"
    arguments = ("search", photos, *TINY, *QUICK, "--output", output, "--workers", "2")
    with start(arguments) as process:
        wait_for_trials(process, output)
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
        _, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    assert "(SIGKILL" in error and "It is started again." in error
    assert scores(output) == scores(whole_search.output)
