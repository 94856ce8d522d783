"""The folder of a search: what happened in it, and the results of its trials."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from keras_bit.checkpoints.settings import as_json, differences, list_differences
from keras_bit.core.files import read_json, wrap_read_errors, write_json
from keras_bit.core.locks import exclusive_lock
from keras_bit.core.warn import warn_caller

STUDY_FILE = "study.json"
TRIALS_FOLDER = "trials"
EVENTS_FILE = "events.json"
REPEATS_FOLDER = "repeats"
LOCKS_FOLDER = ".locks"
OUTCOME = ("trials.csv", "best_rule.json", "study.html", "study")
FORMAT_VERSION = 1
_FOLDERS = (TRIALS_FOLDER, REPEATS_FOLDER, LOCKS_FOLDER)


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
        with self.locked():
            if not file.exists():
                write_json(file, study)
                return False
        with wrap_read_errors(file, "`output` must hold an undamaged search", advice=""):
            found = read_json(file)
        if differing := differences(found, study):
            raise ValueError(
                f"A search must resume with what it began with. Received: output={self.path}, "
                f"which holds another one ({list_differences(differing)}). Choose another folder, "
                "or set `overwrite` to replace it."
            )
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock of what happened, for a moment."""
        with exclusive_lock(self._locks / "events", lambda: None):
            yield

    def claim(self, name: str) -> contextlib.AbstractContextManager | None:
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
                events = read_json(path)
                if not all(event["kind"] in ("begin", "end", "idle", "stop") for event in events):
                    raise ValueError("unknown events")
                return events
        except ValueError as error:
            warn_caller(f"{error} It is made again from the trials' own files.")
            events = self._events_of_trials()
            write_json(path, events)
            return events

    def write_events(self, events: list[dict[str, Any]]) -> None:
        """Replaces the list of what happened; only under `locked`."""
        write_json(self.trials / EVENTS_FILE, as_json(events))

    def read_trial(self, trial_id: str) -> dict[str, Any] | None:
        """Returns the result of a trial, or `None` where it is missing or damaged."""
        return self._read(self.trials / f"{trial_id}.json")

    def write_trial(self, trial_id: str, content: dict[str, Any]) -> None:
        """Writes the result of a trial."""
        write_json(self.trials / f"{trial_id}.json", as_json(content))

    def trial_folder(self, trial_id: str) -> pathlib.Path:
        """Returns the folder of a trial's weights and checkpoints."""
        return self.trials / f"trial_{trial_id}"

    def read_repeat(self, name: str) -> dict[str, Any] | None:
        """Returns the result of a run with another seed, or `None`."""
        return self._read(self.repeats / f"{name}.json")

    def write_repeat(self, name: str, content: dict[str, Any]) -> None:
        """Writes the result of a run with another seed."""
        write_json(self.repeats / f"{name}.json", as_json(content))

    def _read(self, path):
        if not path.exists():
            return None
        try:
            with wrap_read_errors(path, "The result of a trial must be whole", advice=""):
                content = read_json(path)
                if not isinstance(content, dict):
                    raise ValueError("no result")
                return content
        except ValueError as error:
            damaged = path.with_name(f"{path.name}.damaged")
            path.replace(damaged)
            warn_caller(f"{error} It lies in {damaged} now.")
            return None

    def _events_of_trials(self):
        """Begins and ends as far as the trials' own files tell, one trial after the other."""
        events = []
        for path in sorted(self.trials.glob("[0-9]*.json")):
            content = self._read(path)
            if content and "end" in content:
                events += [content["begin"], content["end"]]
        return events


def check_search_output(output: str | os.PathLike, overwrite: bool) -> None:
    """Raises where `output` holds something else than a search; with `overwrite` removes one.

    Raises:
        NotADirectoryError: If it is a file.
        FileExistsError: If it holds other files and no search.
    """
    if not os.fspath(output):
        raise ValueError(f"`output` must name a folder. Received: output={output!r}")
    path = pathlib.Path(output)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"`output` must be a folder. Received: output={path}, a file")
    if not path.exists():
        return
    if overwrite and (path / STUDY_FILE).exists():
        for name in (STUDY_FILE, *_FOLDERS, *OUTCOME):
            if (path / name).is_dir():
                shutil.rmtree(path / name)
            else:
                (path / name).unlink(missing_ok=True)
    others = [each for each in path.iterdir() if each.name not in _FOLDERS]
    if others and not (path / STUDY_FILE).exists():
        raise FileExistsError(
            "`output` must be an empty or new folder, or hold a search. Received: "
            f"output={path}, which holds other files. Choose another one."
        )


class _Held(Exception):
    pass


def _refuse():
    raise _Held
