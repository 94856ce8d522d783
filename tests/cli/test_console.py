import io
import re

from keras_bit import HyperRule
from keras_bit.cli.console import show, shown_messages, training_progress
from keras_bit.core.text import announce, table


def console_of(width, **options):
    from rich.console import Console

    return Console(file=io.StringIO(), width=width, color_system=None, **options)


def test_the_bar_of_a_terminal_counts_updates_and_fits_a_narrow_window():
    console = console_of(40, force_terminal=True)
    rule = HyperRule(32, 100, 30, micro_batch_size=3, schedule_length=7)
    logs = {"updates": 7, "loss": 1.0, "accuracy": 0.5, "val_loss": 2.0, "val_accuracy": 0.25}
    with training_progress(console, rule) as callback:
        callback.on_train_begin(logs={})
        for batch in range(70):
            callback.on_train_batch_end(batch, logs={})
        callback.on_epoch_end(0, logs)
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


def test_what_is_logged_is_shown_and_afterwards_no_more():
    console = console_of(80)
    with shown_messages(console):
        announce("inside", verbose=0)
    announce("outside", verbose=0)
    assert console.file.getvalue() == "inside\n"
