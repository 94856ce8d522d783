"""Prepares training batches in a process of its own: how many a second, and in how much memory.

`python -m benchmarks.preparing` prints both tables of `benchmarks/README.md`; `test_input.py` runs
single cases. Every figure comes from a fresh process (`... measure CONTENDER ...`), so that none
inherits another's memory or threads.

Memory is `RssAnon`: what the process has taken for itself. `RssFile`, which stands beside it, also
counts the pages of memory-mapped caches and libraries; the system takes those back whenever it
needs memory, and they are shared between processes.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DISK = "keras_bit, cache_dir"
MEMORY = "keras_bit, in memory"
IN_MODEL = "keras_bit, uint8, mix_in_model"
SUPPLIERS = ("keras_bit, float32", "keras_bit, uint8", IN_MODEL, "tf.data as copied")
HOLDERS = (DISK, MEMORY, "tf.data as copied")


def batches_of(contender, folder, cache_dir, rule):
    """An endless iterator of training batches."""
    from benchmarks.peer_pipelines import copied_pipeline

    if contender == "tf.data as copied":
        return copied_pipeline(Path(folder, "train"), Path(cache_dir, "images"), rule)
    import keras_bit

    train, _ = keras_bit.pipelines(
        keras_bit.image_folder(folder),
        rule,
        None if contender == MEMORY else cache_dir,
        dtype="uint8" if "uint8" in contender else "float32",
        mix_in_model=contender == IN_MODEL,
    )
    return iter(train)


def rule_for(images, edge, crop, batch):
    import keras_bit

    return keras_bit.HyperRule(
        edge, images, batch, resize_edge=edge, crop_size=crop, mixup_alpha=0.1
    )


def memory_in_use():
    """`(RssAnon, RssFile)` of this process in bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(status[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))


def measure(contender, folder, images, edge, crop, batch, timed):
    """After one whole epoch: images per second over `timed` batches, and memory before and after.

    Returns:
        Dict of `first` (seconds to the end of the first epoch), `rate`, and `anon` and `file`, the
        growth of `RssAnon` and `RssFile` since the imports.
    """
    for name in ("keras_bit", "tensorflow_probability"):  # what an import takes is not counted
        importlib.import_module(name)
    import tensorflow as tf

    tf.random.stateless_uniform((1,), (0, 0))
    before = memory_in_use()
    with tempfile.TemporaryDirectory(prefix="keras_bit-cache-") as cache_dir:
        start = time.perf_counter()
        batches = batches_of(contender, folder, cache_dir, rule_for(images, edge, crop, batch))
        for _ in range(images // batch):
            next(batches)
        first = time.perf_counter() - start
        after = memory_in_use()
        start = time.perf_counter()
        for _ in range(timed):
            next(batches)
        rate = timed * batch / (time.perf_counter() - start)
    anon, file = (b - a for a, b in zip(before, after, strict=True))
    return {"first": first, "rate": rate, "anon": anon, "file": file}


def measured(contender, folder, *sizes, cores=None):
    """`measure` in a process of its own, on `cores` of the cores that this one may use."""
    allowed = sorted(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.preparing", "measure", contender, folder]
        + [str(size) for size in sizes],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed[:cores]),
        cwd=Path(__file__).parent.parent,
    )
    return json.loads(done.stdout)


def supply_table(per_class, edge, crop, batch, timed, rounds):
    """Lines of a table: images per second that one core, and all, prepare in later epochs."""
    from benchmarks.photographs import CLASSES, photographs

    folder = photographs(per_class, edge).name
    rates = {(name, cores): [] for name in SUPPLIERS for cores in (1, None)}
    for _ in range(rounds):
        for (name, cores), found in rates.items():
            sizes = CLASSES * per_class, edge, crop, batch, timed
            found.append(measured(name, folder, *sizes, cores=cores)["rate"])
    lines = [
        f"| contender | one core | {len(os.sched_getaffinity(0))} cores |",
        "|---|---|---|",
    ]
    for name in SUPPLIERS:
        cells = (_median_and_range(rates[name, cores]) for cores in (1, None))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def memory_table(per_class, edge, crop, batch):
    """Lines of a table: memory taken by the end of the first epoch, for growing data sets."""
    from benchmarks.photographs import CLASSES, photographs

    lines = [
        "| images | contender | cache, MB | RssAnon, MB | RssFile, MB |",
        "|---|---|---|---|---|",
    ]
    for number in per_class:
        images = CLASSES * number
        for name in HOLDERS:
            pixels = images * edge * edge * 3 * (4 if name == "tf.data as copied" else 1)
            found = measured(name, photographs(number, edge).name, images, edge, crop, batch, 2)
            sizes = pixels, found["anon"], found["file"]
            cells = " | ".join(f"{size / 1e6:,.0f}" for size in sizes)
            lines.append(f"| {images:,} | {name} | {cells} |")
    return lines


def _median_and_range(rates):
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        name, folder, *sizes = sys.argv[2:]
        print(json.dumps(measure(name, folder, *map(int, sizes))))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("table", choices=("supply", "memory"))
        parser.add_argument("--rounds", type=int, default=3, help="of the supply table")
        chosen = parser.parse_args()
        if chosen.table == "supply":
            lines = supply_table(32, 512, 480, batch=64, timed=20, rounds=chosen.rounds)
        else:
            lines = memory_table((8, 32, 128), 512, 480, batch=16)
        print("\n".join(lines))
