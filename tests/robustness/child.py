"""A process that reads damaged files, one after another, and prints what each gave as JSON.

`python -m tests.robustness.child CASES START KIND...` reads CASES files of each kind, or a part of
them where a kind takes long, from number START of the first. Should it hang or crash, whoever
started it sees which file it was by what it printed last.
"""

import faulthandler
import json
import os
import pathlib
import resource
import sys
import tempfile
import time
import traceback
import warnings
import zlib

import numpy as np

from tests.robustness.damage import INSIDE, damaged
from tests.robustness.files import Reported
from tests.robustness.kinds import KINDS

SECONDS = 120  # for a case; a hang has no end
MEMORY = 400 * 2**20  # bytes by which a case may let the process grow
LONGEST = 1500  # characters of a message
SEED = 20_260_101


def cases_of(name, kind, content, count):
    """All bad files of a kind: header bombs, and damage to a good file."""
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    bombs = [(f"bomb: {what}", bomb) for what, bomb in kind.bombs()]
    if len(bombs) > count // 2:
        chosen = rng.permutation(len(bombs))[: count // 2]
        bombs = [bombs[index] for index in sorted(chosen)]
    return [*bombs, *damaged(content, rng, count - len(bombs))]


def outcome_of(kind, path, good, what):
    """Whether a reading gave what it may: what happened, and in what words."""
    expected = (ValueError, OSError, FloatingPointError, Reported)
    try:
        value = kind.read(path)
    except Exception as error:
        message = str(error)
        where = traceback.extract_tb(error.__traceback__)[-1]
        shown = f"{type(error).__name__}: {message}"
        if not isinstance(error, expected):
            return "other exception", f"{shown} [{where.filename}:{where.lineno}]"
        named = (path, *path.parents[:2]) if kind.names_folder else (path,)
        if not any(str(each) in message for each in named):
            return "names no file", shown
        if isinstance(error, FileNotFoundError) or "file not found" in message.lower():
            return "called missing", shown
        lines = message.split("\n")
        if any(not line.startswith("  ") for line in lines[1:]):
            return "several lines", shown
        if len(lines[0]) > LONGEST or not all(map(str.isprintable, lines)):
            return "long or unprintable", shown
        return "clear error", shown
    if same(value, good):
        return "right", ""
    if kind.is_plausible(value, good) and (not kind.has_checksum or what.startswith(INSIDE)):
        return "plausible", ""
    return "wrong result", repr(value)[:300]


def same(value, good):
    if isinstance(good, dict):
        keys = isinstance(value, dict) and value.keys() == good.keys()
        return keys and all(same(value[key], good[key]) for key in good)
    if isinstance(good, np.ndarray):
        return value.dtype == good.dtype and np.array_equal(value, good)
    return value == good


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def run(name, kind, count, start):
    count = round(count * kind.weight)
    if not count:
        return
    for variable in ("KERAS_HOME", "TFHUB_CACHE_DIR"):
        os.environ[variable] = tempfile.mkdtemp(dir=os.environ["TMPDIR"])
    path = kind.make(pathlib.Path(tempfile.mkdtemp(dir=os.environ["TMPDIR"])))
    content = path.read_bytes()
    good = kind.read(path)
    for number, (what, bad) in enumerate(cases_of(name, kind, content, count)):
        if number < start:
            continue
        tell(kind=name, number=number, what=what)
        put(path, bad)
        before, began = peak(), time.monotonic()
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            outcome, message = outcome_of(kind, path, good, what)
        faulthandler.cancel_dump_traceback_later()
        grown = peak() - before
        if grown > MEMORY:
            outcome, message = "memory", f"{grown >> 20} MiB more; {message}"
        for warning in caught:
            if "\n" in str(warning.message):
                outcome, message = "noise", f"{warning.category.__name__}: {warning.message}"
        tell(outcome=outcome, message=message, seconds=round(time.monotonic() - began, 3))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory():
    """What a bomb asks for fails, and does not take the machine with it."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + 8 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def tell(**facts):
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main():
    limit_memory()
    count, start, *names = sys.argv[1:]
    for name in names:
        run(name, KINDS[name], int(count), int(start))
        start = 0


if __name__ == "__main__":
    main()
