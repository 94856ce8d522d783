"""How many training batches a second the input pipeline prepares, and in how much memory.

`python -m benchmarks.preparing` prints two tables of `benchmarks/README.md`; `test_input.py` runs
single cases, and the race of first epochs. Every figure comes from a new process, see
`benchmarks.fresh_pipeline`.

Memory is `RssAnon`: what the process has taken for itself. `RssFile`, which stands beside it, also
counts the pages of memory-mapped caches and libraries; the system takes those back whenever it
needs memory, and they are shared between processes.
"""

import argparse
import os
import statistics
import time
from functools import partial

from benchmarks.fresh_pipeline import COPIED, DISK, IN_MODEL, KERAS, MEMORY
from benchmarks.photographs import Case
from benchmarks.processes import ProcessRace, Quantity, measure

SUPPLIERS = ("keras_bit, float32", "keras_bit, uint8", IN_MODEL, COPIED)
STARTERS = (*SUPPLIERS, KERAS)
HOLDERS = (DISK, MEMORY, COPIED)
# Else a process would find the memory that the one before it has just given back; a virtual
# machine's host takes that within two seconds.
PAUSE = 5  # seconds


def measured(contender, case, timed, cores=None):
    """What `fresh_pipeline.measure` gives for a `Case`."""
    spec = {"contender": contender, "folder": case.folder, "case": case}
    return measure("fresh_pipeline", spec | {"timed": timed, "cores": cores})


def first_epochs(case, rounds):
    """The race of first epochs in new processes, from listing the files to the last batch."""
    contenders = {name: partial(_first_epoch, name, case) for name in STARTERS}
    quantities = Quantity("seconds", "seconds"), Quantity("rate", "images/s", more_is_better=True)
    return ProcessRace(f"new process, first epoch: {case}", rounds, contenders, quantities)


def _first_epoch(contender, case):
    time.sleep(PAUSE)
    seconds = measured(contender, case, timed=1)["first"]
    return {"seconds": seconds, "rate": case.batches * case.batch_size / seconds}


def supply_table(case, timed, rounds):
    """Lines of a table: images per second that one core, and all, prepare in later epochs."""
    rates = {(name, cores): [] for name in SUPPLIERS for cores in (1, None)}
    for _ in range(rounds):
        for (name, cores), found in rates.items():
            found.append(measured(name, case, timed, cores)["rate"])
    lines = [
        f"| contender | one core | {len(os.sched_getaffinity(0))} cores |",
        "|---|---|---|",
    ]
    for name in SUPPLIERS:
        cells = (_median_and_range(rates[name, cores]) for cores in (1, None))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def memory_table(cases):
    """Lines of a table: memory taken by the end of the first epoch, for growing data sets."""
    lines = [
        "| images | contender | cache, MB | RssAnon, MB | RssFile, MB |",
        "|---|---|---|---|---|",
    ]
    for case in cases:
        for name in HOLDERS:
            value_size = 4 if name == COPIED else 1
            cache = case.images * 3 * case.resize_edge**2 * value_size
            found = measured(name, case, timed=2)
            cells = " | ".join(f"{x / 1e6:,.0f}" for x in (cache, found["anon"], found["file"]))
            lines.append(f"| {case.images:,} | {name} | {cells} |")
    return lines


def _median_and_range(rates):
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=("supply", "memory"))
    parser.add_argument("--rounds", type=int, default=3, help="of the supply table")
    chosen = parser.parse_args()
    if chosen.table == "supply":
        lines = supply_table(Case(32, 512, 512, 480, batch_size=64), 20, chosen.rounds)
    else:
        lines = memory_table([Case(count, 512, 512, 480, 16) for count in (8, 32, 128)])
    print("\n".join(lines))
