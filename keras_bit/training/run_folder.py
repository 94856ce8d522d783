"""The output folder of a run: which files it holds, and how they get there."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from keras_bit.checkpoints.files import newest_checkpoint, remove_checkpoints
from keras_bit.core.distribution import processes, wait_for_all
from keras_bit.core.files import atomic_write, check_folder_name
from keras_bit.core.locks import exclusive_lock
from keras_bit.evaluation.outputs import LABELS_FILE, OUTPUTS_FILE
from keras_bit.evaluation.report import PAGE_FILE, PICTURE_FILES, PICTURES_FOLDER
from keras_bit.evaluation.results import METRICS_FILE
from keras_bit.evaluation.saved_run import COMPLETE_FOLDER, MODEL_FILE, RULE_FILE
from keras_bit.evaluation.subject import PLAN_FILE

AUTO = "auto"  # as `resume`: where there is a run to resume
HISTORY_FILE = "history.csv"
LOGS_FOLDER = "logs"
UNFINISHED_FOLDER = "unfinished"
CHECKPOINTS_FOLDER = "checkpoints"
DONE_FOLDER = ".keras_bit.done"
LOCK_FILE = ".keras_bit.lock"
_RUN_PATTERNS = (
    MODEL_FILE,
    LABELS_FILE,
    OUTPUTS_FILE,
    RULE_FILE,
    PLAN_FILE,
    HISTORY_FILE,
    METRICS_FILE,
    PAGE_FILE,
    *(f"{PICTURES_FOLDER}/{name}" for name in PICTURE_FILES),
    f"{LOGS_FOLDER}/*/events.out.tfevents.*",
)


def check_output(
    output: str | os.PathLike, overwrite: bool = False, resume: bool | str = AUTO
) -> None:
    """Raises where `output` is a file, or holds files and `overwrite` is not set.

    A run that was interrupted is no such file where it is to be resumed.
    """
    output = check_folder_name(output)
    interrupted = _interrupted_run(output)
    if resume is True and interrupted is None:
        raise FileNotFoundError(
            f"`resume=True` needs an interrupted run. Received: output={output}, which holds none. "
            "Leave `resume` at its default to begin one."
        )
    if overwrite or not output.exists():
        return
    replaced = "replace the run in it"
    if interrupted and not resume:
        held, advice = "an interrupted run", "leave `resume` out to resume it, "
    elif (output / COMPLETE_FOLDER).is_dir() or not _others(output):
        return
    else:
        held, advice = "a run" if any(_run_files(output)) else "files", ""
        if interrupted:
            held += " and an interrupted run"
            replaced = "resume the interrupted run, whose files replace those of the other"
    raise FileExistsError(
        f"`output` must be an empty or new folder. Received: output={output}, which holds "
        f"{held}. Choose another one, {advice}or set `overwrite` to {replaced}."
    )


@contextlib.contextmanager
def run_folder(
    output: str | os.PathLike, overwrite: bool, resume: bool | str
) -> Iterator[pathlib.Path]:
    """Yields the folder to work in; what a finished run leaves there comes to `output`.

    An earlier run there stays until the new one is complete. A run that fails leaves the folder
    only where it holds a checkpoint. Several processes have the same folder; the first prepares and
    publishes it, while the others wait.
    """
    check_output(output, overwrite, resume)
    output = pathlib.Path(output)
    is_first = processes().index == 0
    wait_for_all("output checked")
    with _own_folder(output, resume) if is_first else contextlib.nullcontext():
        wait_for_all("output prepared")
        yield output / UNFINISHED_FOLDER
    wait_for_all("output published")


@contextlib.contextmanager
def _own_folder(output, resume):
    output.mkdir(parents=True, exist_ok=True)
    lock = output / LOCK_FILE
    with exclusive_lock(lock, lambda: _refuse_second_run(output)):
        folder = output / UNFINISHED_FOLDER
        try:
            shutil.rmtree(output / DONE_FOLDER, ignore_errors=True)
            if (output / COMPLETE_FOLDER).is_dir():  # It was stopped within `_publish`.
                shutil.rmtree(folder, ignore_errors=True)
                _bring_files(output / COMPLETE_FOLDER, output)
                os.replace(output / COMPLETE_FOLDER, folder)
            _remove_run(folder)
            if not resume:
                remove_checkpoints(folder / CHECKPOINTS_FOLDER)
            folder.mkdir(exist_ok=True)
            yield
            _publish(folder, output)
        finally:
            if not _has_checkpoint(folder):
                _remove_run(folder)
                remove_checkpoints(folder / CHECKPOINTS_FOLDER)
                _remove_if_empty(folder)
            with contextlib.suppress(PermissionError):  # Windows removes no open file
                lock.unlink(missing_ok=True)


def describe_interrupted(output: str | os.PathLike) -> str:
    """Returns what an interrupted run in `output` has kept, and how to resume it."""
    output = pathlib.Path(output)
    folder = _interrupted_run(output)
    saved = newest_checkpoint(folder / CHECKPOINTS_FOLDER) if folder else None
    if saved is None:
        return "nothing was kept"
    replacing = "" if not any(_run_files(output)) else " with --overwrite"
    return f"the same command{replacing} resumes after update {saved.content['update']:,}"


def _publish(folder, output):
    """Brings the files of a run to `output`.

    Until all are there, the folder holds all of them, under a name that tells readers to look
    there; the next run to find it brings them, and makes them again from the last checkpoint.
    """
    complete = output / COMPLETE_FOLDER
    os.replace(folder, complete)
    _bring_files(complete, output)
    # Renamed first: a part of it must not be taken for an interrupted run.
    os.replace(complete, output / DONE_FOLDER)
    shutil.rmtree(output / DONE_FOLDER)


def _bring_files(complete, output):
    """Links or copies what a run has written to `output`, and removes what it has not."""
    names = {path.relative_to(complete) for path in _run_files(complete)}
    for name in sorted(names):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(output / name) as temporary:
            _link_or_copy(complete / name, temporary)
    for path in list(_run_files(output)):
        if path.relative_to(output) not in names:
            path.unlink()
    _remove_empty_folders(output)


def _link_or_copy(source, target):
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copyfile(source, target)


def _refuse_second_run(output):
    raise BlockingIOError(
        f"`output` must not be in use. Received: output={output}, to which another run writes. "
        "Choose another one, or wait for that run."
    )


def _interrupted_run(output):
    """The folder of a run that can be resumed, or `None`."""
    folders = (output / COMPLETE_FOLDER, output / UNFINISHED_FOLDER)
    return next(filter(_has_checkpoint, folders), None)


def _has_checkpoint(folder):
    return any((folder / CHECKPOINTS_FOLDER).glob("checkpoint-*"))


def _others(output):
    """What is in a folder beside an interrupted run."""
    ours = (UNFINISHED_FOLDER, DONE_FOLDER, LOCK_FILE)
    return [path for path in output.iterdir() if path.name not in ours]


def _run_files(folder):
    """Yields the files that a run writes, as far as they are in `folder`."""
    for pattern in _RUN_PATTERNS:
        yield from folder.glob(pattern)


def _remove_run(folder):
    """Removes what a run wrote in `folder` beside its checkpoints."""
    for path in list(_run_files(folder)):
        path.unlink(missing_ok=True)
    _remove_empty_folders(folder)


def _remove_empty_folders(folder):
    for path in [*folder.glob(f"{LOGS_FOLDER}/*"), folder / LOGS_FOLDER, folder / PICTURES_FOLDER]:
        _remove_if_empty(path)


def _remove_if_empty(folder):
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
