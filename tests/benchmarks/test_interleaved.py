"""Interleaved runs: what one failure takes along, and what it leaves."""

from types import SimpleNamespace

import pytest

from benchmarks import conftest
from benchmarks.harness import interleaved
from benchmarks.harness.interleaved import (
    InterleavedRun,
    Round,
    interleave,
    interleave_all,
    last_line,
)
from benchmarks.harness.processes import InterleavedProcesses, Quantity


def failing(after=0):
    """A function that returns so many times, and then fails."""
    left = iter(range(after))

    def call():
        try:
            return next(left)
        except StopIteration:
            raise RuntimeError("measuring failed (1):\nTraceback\nNo compiler found") from None

    return call


def test_a_call_that_fails_leaves_the_others():
    lines = []
    calls = {"works": failing(3), "fails": failing(), "fails later": failing(1)}
    found, failed = interleave(calls, 3, lines.append)
    assert found == {"works": [0, 1, 2]}
    assert {name: last_line(reason) for name, reason in failed.items()} == {
        "fails": "No compiler found",
        "fails later": "No compiler found",
    }
    assert all("in call" in reason for reason in failed.values())
    assert [line.strip() for line in lines if "failed" not in line] == [
        f"round {number} of 3" for number in (1, 2, 3)
    ]
    assert sum("fails failed: No compiler found" in line for line in lines) == 1


def test_an_interruption_ends_everything():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interleave({"interrupted": interrupt}, 1)


def test_where_all_must_succeed():
    assert interleave_all({"works": failing(2)}, 2) == {"works": [0, 1]}
    with pytest.raises(RuntimeError, match="fails failed:\n(.|\n)*No compiler found"):
        interleave_all({"works": failing(2), "fails": failing()}, 2)


def test_a_run_without_those_that_fail(monkeypatch):
    monkeypatch.setattr(interleaved, "matrix_product_rate", lambda: 1e9)
    played = []

    def made():
        return Round(*(lambda name=name: played.append(name) for name in Round._fields))

    run = InterleavedRun(
        "title",
        images=8,
        rounds=2,
        implementations={
            "works": made,
            "is not made": failing(),
            "fails later": lambda: Round(lambda: None, failing(2)),
        },
        operations=1,
    )
    outcome = run.run(list(run.implementations))
    assert set(outcome.failed) == {"is not made", "fails later"}
    assert set(outcome.seconds) == set(outcome.extra_info) == {"works"}
    assert len(outcome.seconds["works"]) == 2
    assert played == ["before", "timed", "after"] * 3  # once before the rounds
    assert "matrix product's 1 GFLOP/s" in "\n".join(outcome.lines)
    assert not any("fails later" in line for line in outcome.lines)


def test_what_comes_after_is_not_timed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(interleaved.time, "perf_counter", lambda: now[0])

    def takes(seconds):
        return lambda: now.__setitem__(0, now[0] + seconds)

    each = Round(takes(1), takes(10), takes(100))
    outcome = InterleavedRun("title", 1, 1, {"works": lambda: each}).run(["works"])
    assert outcome.seconds == {"works": [10]}


@pytest.mark.parametrize("names", [["works", "fails"], ["fails"]])
def test_processes_that_fail(names):
    calls = {"works": lambda: {"seconds": 2.0}, "fails": failing()}
    run = InterleavedProcesses("title", 2, calls, (Quantity("seconds", "seconds"),))
    outcome = run.run(names)
    works = [name for name in names if name == "works"]
    assert list(outcome.seconds) == list(outcome.extra_info) == works
    assert list(outcome.failed) == ["fails"]
    assert sum(line.startswith("| works") for line in outcome.lines) == len(works)


def test_a_run_that_fails_is_not_made_again():
    runs = []

    def fail(names):
        runs.append(names)
        raise RuntimeError("no space")

    names = ["one", "another"]
    config = SimpleNamespace(stash={conftest.OUTCOMES: {}, conftest.SELECTED: {"title": names}})
    run = SimpleNamespace(title="title", run=fail)
    outcomes = [conftest.made_once(config, run) for _ in names]
    assert runs == [names]
    for outcome in outcomes:
        assert list(outcome.failed) == names and outcome.lines == []
        assert all("RuntimeError: no space" in reason for reason in outcome.failed.values())
