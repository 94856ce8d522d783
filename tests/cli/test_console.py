import io
import re
import sys
import warnings

from keras_bit import HyperRule
from keras_bit.cli.console import (
    STDERR,
    STDOUT,
    complain,
    show,
    shown_messages,
    silence,
    track,
    training_progress,
    write,
)
from keras_bit.core.text import announce, table


def console_of(width, **options):
    from rich.console import Console

    return Console(file=io.StringIO(), width=width, color_system=None, **options)


def test_the_bar_of_a_terminal_counts_updates_and_fits_a_narrow_window():
    console = console_of(40, force_terminal=True)
    rule = HyperRule(32, 100, 30, micro_batch_size=3, schedule_length=7)
    logs = {"updates": 7, "loss": 1.0, "accuracy": 0.5, "val_loss": 2.0, "val_accuracy": 0.25}
    with training_progress(console, rule) as callback:
        callback.set_params({"steps": 35})
        callback.on_train_begin(logs={})
        callback.on_epoch_begin(1, logs={})  # A run resumes in its second epoch.
        for batch in range(35):
            callback.on_train_batch_end(batch, logs={})
        callback.on_epoch_end(1, logs)
        callback.on_train_end(logs={})
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", console.file.getvalue())
    assert "7/7" in shown
    assert max(len(line.rstrip()) for line in re.split(r"[\r\n]+", shown)) <= 40
    assert "update 7: loss 1.0000" in shown


def test_a_table_too_wide_for_the_terminal_becomes_a_list():
    text = table("Run", [("weights", "f-r14x0.5", "on synthetic images"), ("seed", 3, "")])
    wide, narrow = console_of(80), console_of(30)
    show(wide, text)
    show(narrow, text)
    assert wide.file.getvalue() == f"{text}\n"
    assert narrow.file.getvalue().splitlines() == [
        "Run",
        "weights: f-r14x0.5 (on",
        "  synthetic images)",
        "seed: 3",
    ]


def test_a_path_is_never_broken_up():
    path = "/mnt/a  long/path with spaces/and-hyphens/in a terminal that is narrow/photos"
    rows = [("weights", path, "trained on synthetic images"), ("cache", "1.6 MB", f"in {path}")]
    console = console_of(30)
    show(console, table("Run", rows), (None, path))
    show(console, f"The images are kept in {path} for other runs.", [path])
    write(console, f"Model: {path}")
    lines = console.file.getvalue().splitlines()
    assert sum(path in line for line in lines) == 4
    assert max(len(line) for line in lines if path not in line) <= 30
    words = " ".join(console.file.getvalue().split())
    assert "(trained on synthetic images)" in words and "for other runs." in words


def test_what_is_logged_is_shown_and_afterwards_no_more():
    console = console_of(80)
    with shown_messages(console):
        announce("inside", verbose=0)
    announce("outside", verbose=0)
    assert console.file.getvalue() == "inside\n"


def test_items_are_passed_on_one_by_one_under_a_bar():
    taken = []
    console = console_of(60, force_terminal=True)
    for item in track(console, map(lambda i: taken.append(i) or i, range(3)), 3, "Images"):
        assert taken == list(range(item + 1))
    assert "Images" in console.file.getvalue() and "3/3" in console.file.getvalue()
    quiet = console_of(60)
    assert list(track(quiet, "ab", 2, "Images")) == ["a", "b"] and quiet.file.getvalue() == ""


def test_silence_hides_all_but_warnings_and_complaints(capsys, monkeypatch):
    def run(arguments):
        print("a result")
        print("a message", file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)
        complain("a complaint")

    def output_of(*streams):
        with silence(streams):
            run(None)
        complain("afterwards")
        return capsys.readouterr()

    monkeypatch.setattr(warnings, "showwarning", lambda message, *rest: complain(message))
    warnings.simplefilter("always")
    said = "keras-bit: a warning\nkeras-bit: a complaint\nkeras-bit: afterwards\n"
    assert output_of(STDERR) == ("a result\n", said)
    assert output_of(STDERR, STDOUT) == ("", said)
    assert output_of() == ("a result\n", f"a message\n{said}")
