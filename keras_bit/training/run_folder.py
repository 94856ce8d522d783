"""The output folder of a run: which files it holds, and how they get there."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

from keras_bit.evaluation.predict import LABELS_FILE, MODEL_FILE, RULE_FILE
from keras_bit.evaluation.report import PAGE_FILE, PICTURE_FILES, PICTURES_FOLDER

PLAN_FILE = "plan.json"
HISTORY_FILE = "history.csv"
METRICS_FILE = "metrics.json"
LOGS_FOLDER = "logs"
UNFINISHED_FOLDER = "unfinished"
BEST_WEIGHTS_FILE = "best.weights.h5"
_RUN_PATTERNS = (
    MODEL_FILE,
    LABELS_FILE,
    RULE_FILE,
    PLAN_FILE,
    HISTORY_FILE,
    METRICS_FILE,
    PAGE_FILE,
    *(f"{PICTURES_FOLDER}/{name}" for name in PICTURE_FILES),
    f"{LOGS_FOLDER}/*/events.out.tfevents.*",
)


def check_output(output: str | os.PathLike, overwrite: bool = False) -> None:
    """Raises where `output` is a file, or a folder that holds files and `overwrite` is not set."""
    if not os.fspath(output):
        raise ValueError(f"`output` must name a folder. Received: output={output!r}")
    output = pathlib.Path(output)
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"`output` must be a folder. Received: output={output}, a file")
    if output.exists() and not overwrite and any(output.iterdir()):
        what = "a run" if any(_run_files(output)) else "files"
        if (output / UNFINISHED_FOLDER).is_dir():
            what = "an unfinished run"
        raise FileExistsError(
            f"`output` must be an empty or new folder. Received: output={output}, which holds "
            f"{what}. Choose another one, or set `overwrite` to replace the run in it."
        )


@contextlib.contextmanager
def run_folder(output: str | os.PathLike | None, overwrite: bool) -> Iterator[pathlib.Path]:
    """Yields the folder to work in; what a finished run leaves there is moved to `output`.

    Without an output it is a temporary folder. Files of an earlier run are replaced at the end.
    """
    if output is None:
        with tempfile.TemporaryDirectory(prefix="keras_bit-") as temporary:
            yield pathlib.Path(temporary)
        return
    check_output(output, overwrite)
    output = pathlib.Path(output)
    folder = output / UNFINISHED_FOLDER
    _remove_run(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        if not (folder / BEST_WEIGHTS_FILE).exists():
            _remove_run(folder)
        raise
    _remove_run(output)
    for path in list(_run_files(folder)):
        target = output / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
    _remove_run(folder)


def _run_files(folder):
    """Yields the files that a run writes, as far as they are in `folder`."""
    for pattern in _RUN_PATTERNS:
        yield from folder.glob(pattern)


def _remove_run(folder):
    """Removes what a run wrote in `folder`, and the folders that this leaves empty."""
    for path in [*_run_files(folder), folder / BEST_WEIGHTS_FILE]:
        path.unlink(missing_ok=True)
    folders = [*folder.glob(f"{LOGS_FOLDER}/*"), folder / LOGS_FOLDER]
    for path in [*folders, folder / PICTURES_FOLDER, folder]:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
