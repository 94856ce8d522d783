"""How many training batches a second the input pipeline prepares, and in how much memory.

    python -m benchmarks.studies.pipeline_supply supply
    python -m benchmarks.studies.pipeline_supply memory

Each prints a table of `results/input_pipeline.md`. Every figure comes from a new process.

Memory is `RssAnon`: what the process has taken for itself. `RssFile`, which stands beside it, also
counts the pages of memory-mapped caches and libraries; the system takes those back whenever it
needs memory, and they are shared between processes.
"""

import argparse
import os

from benchmarks.harness.photographs import PipelineCase
from benchmarks.harness.processes import measure_pipeline
from benchmarks.harness.tables import markdown_table, median_and_range
from benchmarks.implementations.input_pipelines import COPIED, DIRECTORY, DISK, MEMORY, PIPELINES

SUPPLIERS = [name for name in PIPELINES if name not in (MEMORY, DIRECTORY)]
HOLDERS = (DISK, MEMORY, COPIED)


def supply_table(case, timed, rounds):
    """Lines of a table: images per second that one core, and all, prepare in later epochs."""
    rates = {(name, cores): [] for name in SUPPLIERS for cores in (1, None)}
    for _ in range(rounds):
        for (name, cores), found in rates.items():
            found.append(measure_pipeline(name, case, timed, cores)["rate"])
    rows = [
        [name, *(median_and_range(rates[name, cores], ",.0f") for cores in (1, None))]
        for name in SUPPLIERS
    ]
    cores = len(os.sched_getaffinity(0))
    return markdown_table(["implementation", "one core", f"{cores} cores"], rows)


def memory_table(cases):
    """Lines of a table: memory taken by the end of the first epoch, for growing data sets."""
    rows = []
    for case in cases:
        for name in HOLDERS:
            value_size = 4 if name == COPIED else 1
            cache = case.images * 3 * case.resize_edge**2 * value_size
            found = measure_pipeline(name, case, timed=2)
            sizes = [f"{x / 1e6:,.0f}" for x in (cache, found["anon"], found["file"])]
            rows.append([f"{case.images:,}", name, *sizes])
    return markdown_table(
        ["images", "implementation", "cache, MB", "RssAnon, MB", "RssFile, MB"], rows
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("supply", "memory"))
    parser.add_argument("--rounds", type=int, default=3, help="of the supply table")
    chosen = parser.parse_args()
    if chosen.table == "supply":
        lines = supply_table(PipelineCase(32, 512, 512, 480, batch_size=64), 20, chosen.rounds)
    else:
        lines = memory_table([PipelineCase(count, 512, 512, 480, 16) for count in (8, 32, 128)])
    print("\n".join(lines))
