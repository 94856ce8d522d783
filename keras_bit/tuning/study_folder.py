"""The folder of a search: what happened in it, and the results of its trials."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from keras_bit.checkpoints.settings import as_json, differences, list_differences
from keras_bit.core.file_faults import wrap_read_errors
from keras_bit.core.files import check_folder_name, json_checksum, read_json, write_json
from keras_bit.core.locks import exclusive_lock
from keras_bit.core.warn import warn_caller

STUDY_FILE = "study.json"
TRIALS_FOLDER = "trials"
EVENTS_FILE = "events.json"
REPEATS_FOLDER = "repeats"
LOCKS_FOLDER = ".locks"
WORKERS_FOLDER = ".workers"  # what workers of the command print
TRIALS_FILE = "trials.csv"
BEST_FILE = "best_rule.json"
PAGE_FILE = "study.html"
PICTURES_FOLDER = "study"
OUTCOME = (TRIALS_FILE, BEST_FILE, PAGE_FILE, PICTURES_FOLDER)
FORMAT_VERSION = 1
_FOLDERS = (TRIALS_FOLDER, REPEATS_FOLDER, LOCKS_FOLDER, WORKERS_FOLDER)


def trial_name(number: int) -> str:
    """Returns what keras-tuner and the files call a trial.

    >>> from keras_bit.tuning.study_folder import trial_name
    >>> trial_name(3)
    '0003'
    """
    return f"{number:04}"


def begun_trials(
    events: list[dict[str, Any]],
) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Returns how each trial began, in their order, and how it ended, if it has."""
    ends = {event["trial"]: event for event in events if event["kind"] == "end"}
    begins = [event for event in events if event["kind"] == "begin"]
    return [(begin, ends.get(begin["trial"])) for begin in begins]


class StudyFolder:
    """A search on disk, which any number of processes may carry on at the same time.

    `study.json` says what is searched. `trials/events.json` lists in their order which trial began
    with which hyperparameters, and which ended how: from it each process brings its tuner to the
    same state. `trials/0003.json` is the result of a trial with its history, `trials/trial_0003`
    its weights and checkpoints, and `repeats` the runs with further seeds. All are replaced as
    whole files. A process holds a lock for each trial that it trains, which ends with it.

    Args:
        path: The folder.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.trials = path / TRIALS_FOLDER
        self.repeats = path / REPEATS_FOLDER
        self._locks = path / LOCKS_FOLDER

    def open(self, study: dict[str, Any]) -> bool:
        """Begins a study, or resumes the one that is there; returns whether there was one.

        Raises:
            ValueError: If it is another study; the message names the differences.
        """
        for folder in (self.trials, self.repeats, self._locks):
            folder.mkdir(parents=True, exist_ok=True)
        file = self.path / STUDY_FILE
        study = as_json({"format": FORMAT_VERSION, **study})
        must = "`output` must hold an undamaged search"
        advice = "Choose another folder, or set `overwrite` to replace it."
        with self.locked():
            if not file.exists():
                if any(self.trials.glob("*.json")):
                    raise ValueError(f"{must}. Received: {file}, which is missing. {advice}")
                _write(file, study)
                return False
        with wrap_read_errors(file, must, advice):
            found = _read(file)
        if differing := differences(found, study):
            raise ValueError(
                f"A search must resume with what it began with. Received: output={self.path}, "
                f"which holds another one ({list_differences(differing)}). {advice}"
            )
        return True

    def check_locks(self) -> None:
        """Raises where several processes could not tell who runs which trial."""
        with exclusive_lock(self._locks / "events", lambda: None) as has_locks:
            if not has_locks:
                raise OSError(
                    "`output` must lie on a disk with file locks where several processes search. "
                    f"Received: output={self.path}. Choose another disk, or search in one process."
                )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock of what happened, for a moment."""
        with exclusive_lock(self._locks / "events", lambda: None):
            yield

    def claim(self, name: str) -> contextlib.ExitStack | None:
        """Returns the held lock of a piece of work, or `None` where another process holds it."""
        stack = contextlib.ExitStack()
        try:
            stack.enter_context(exclusive_lock(self._locks / name, _refuse))
        except _Held:
            return None
        return stack

    def events(self) -> list[dict[str, Any]]:
        """Returns what happened, in its order; from the trials' files where the list is damaged."""
        path = self.trials / EVENTS_FILE
        if not path.exists() and not any(self.trials.glob("*.json")):
            return []
        try:
            with wrap_read_errors(path, "A search resumes from a whole list of events", advice=""):
                return _read(path)["events"]
        except ValueError as error:
            warn_caller(f"{error} It is made again from the trials' own files.")
            return self._events_of_trials()

    def write_events(self, events: list[dict[str, Any]]) -> None:
        """Replaces the list of what happened; only under `locked`."""
        _write(self.trials / EVENTS_FILE, {"events": events})

    def read_trial(self, trial_id: str) -> dict[str, Any] | None:
        """Returns the result of a trial, or `None` where it is missing or damaged."""
        return self._read_result(self.trials / f"{trial_id}.json")

    def write_trial(self, trial_id: str, content: dict[str, Any]) -> None:
        """Writes the result of a trial."""
        _write(self.trials / f"{trial_id}.json", content)

    def trial_folder(self, trial_id: str) -> pathlib.Path:
        """Returns the folder of a trial's weights and checkpoints."""
        return self.trials / f"trial_{trial_id}"

    def read_repeat(self, name: str) -> dict[str, Any] | None:
        """Returns the result of a run with another seed, or `None`."""
        return self._read_result(self.repeats / f"{name}.json")

    def write_repeat(self, name: str, content: dict[str, Any]) -> None:
        """Writes the result of a run with another seed."""
        _write(self.repeats / f"{name}.json", content)

    def _read_result(self, path):
        if not path.exists():
            return None
        try:
            with wrap_read_errors(path, "The result of a trial must be whole", advice=""):
                return _read(path)
        except ValueError as error:
            damaged = path.with_name(f"{path.name}.damaged")
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                path.replace(damaged)
            warn_caller(f"{error} It lies in {damaged} now.")
            return None

    def _events_of_trials(self):
        """Begins and ends by their time; a trial without a file has begun, with unknown values."""
        files = [path for path in self.trials.glob("*.json") if path.stem.isdecimal()]
        read = {int(path.stem): self._read_result(path) for path in files}
        contents = {number: content for number, content in read.items() if content}
        events: list[dict[str, Any]] = []
        following = 0.0
        for number in reversed(range(max(contents, default=-1) + 1)):
            lost = {"kind": "begin", "trial": trial_name(number), "values": {}, "time": following}
            content = contents.get(number, {"begin": lost})
            events = [content[kind] for kind in ("begin", "end") if kind in content] + events
            following = content["begin"]["time"]
        return sorted(events, key=lambda event: event["time"])


def _write(path, content):
    content = as_json(content)
    write_json(path, {"crc32c": json_checksum(content), **content})


def _read(path):
    content = read_json(path)
    if not isinstance(content, dict) or content.pop("crc32c", None) != json_checksum(content):
        raise ValueError("it has another checksum than it states")
    return content


def check_search_output(output: str | os.PathLike, overwrite: bool) -> None:
    """Raises where `output` holds something else than a search; with `overwrite` removes one.

    Raises:
        NotADirectoryError: If it is a file.
        FileExistsError: If it holds other files and no search.
        BlockingIOError: If it would remove a search that a process is running.
    """
    path = check_folder_name(output)
    if not path.exists():
        return
    is_search = (path / STUDY_FILE).exists() or (path / TRIALS_FOLDER / EVENTS_FILE).exists()
    if overwrite and is_search:
        _check_at_rest(path)
        for name in (*OUTCOME, *_FOLDERS, STUDY_FILE):  # the file last: it says what the rest is
            if (path / name).is_dir():
                shutil.rmtree(path / name)
            else:
                (path / name).unlink(missing_ok=True)
        return
    # A search that was killed as it began may have left the part of a file.
    ours = (*_FOLDERS, f".{STUDY_FILE}.part")
    others = [each for each in path.iterdir() if each.name not in ours]
    if others and not (path / STUDY_FILE).exists():
        raise FileExistsError(
            "`output` must be an empty or new folder, or hold a search. Received: "
            f"output={path}, which holds other files. Choose another one."
        )


def _check_at_rest(path):
    """Raises where a process is running the search, as a trial that it trains tells."""
    folder = StudyFolder(path)
    for lock in (path / LOCKS_FOLDER).glob("[!.]*"):
        claimed = folder.claim(lock.name)
        if claimed is None:
            raise BlockingIOError(
                "`output` must be no search that another process runs. Received: "
                f"output={path}, where one holds {LOCKS_FOLDER}/{lock.name}. End it, or choose "
                "another folder."
            )
        claimed.close()


class _Held(Exception):
    pass


def _refuse():
    raise _Held
