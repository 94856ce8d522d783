"""Thousands of bad files of every kind that is read: none may hang, crash, lie or swell.

Each is read in another process. It must give what the good file gives, or one line that names it;
where the format has no checksum, changed values of the right shape will do. The quick form reads
about a thousand, always the same; KERAS_BIT_CASES sets how many of each kind are read.
"""

import collections
import json
import os
import subprocess
import sys

import pytest

from tests.processes import ROOT
from tests.robustness.kinds import KINDS

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does"),
]
CASES = int(os.environ.get("KERAS_BIT_CASES", 38))
GOOD = ("right", "plausible", "clear error")


def outcomes(kinds, folder):
    """A dict from kind to what each of its files gave, with what was done to the file."""
    found, first, kinds = collections.defaultdict(list), 0, list(kinds)
    while kinds:
        process = subprocess.run(
            [sys.executable, "-m", "tests.robustness.child", str(CASES), str(first), *kinds],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TMPDIR": str(folder)},
            capture_output=True,
            text=True,
        )
        lines = [json.loads(line) for line in process.stdout.splitlines()]
        begun, ended = lines[::2], lines[1::2]
        for case, outcome in zip(begun, ended, strict=False):
            found[case["kind"]].append({**case, **outcome})
        if process.returncode == 0:
            return found
        assert len(begun) > len(ended), process.stderr  # else a good file could not be read
        case = begun[-1]
        fault = {"outcome": "hang or crash", "message": process.stderr[-2000:]}
        found[case["kind"]].append({**case, **fault})
        kinds, first = kinds[kinds.index(case["kind"]) :], case["number"] + 1
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return outcomes(KINDS, tmp_path_factory.mktemp("bad"))


@pytest.mark.parametrize("kind", KINDS)
def test_bad_files(results, kind):
    bad = [result for result in results[kind] if result["outcome"] not in GOOD]
    assert not bad, "\n".join(map(json.dumps, bad))


def test_a_thousand_are_read(results):
    assert sum(map(len, results.values())) >= 1000 or CASES < 38
