"""Worker processes of a search on this machine."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from keras_bit.cli.console import complain
from keras_bit.cli.parser import FAILED
from keras_bit.core.child_process import import_environment

CHIEF_VARIABLE = "KERAS_BIT_CHIEF"  # a worker's: the number of the process that started it
MOST_STARTS = 3
# What TensorFlow and NumPy heed.
THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


class Workers:
    """Processes that run the same command as this one, and share its output folder.

    They are started when `have_ended` is first asked, and those that die again. Used as a context
    that ends with an error, such as Ctrl-C, it asks them to stop and waits for them.

    Args:
        command: The arguments of `keras-bit`.
        count: Number of processes.
        logs: Folder for what they print.
    """

    def __init__(self, command: Sequence[str], count: int, logs: pathlib.Path) -> None:
        gpus = visible_gpus()
        self._workers = [
            _Worker(command, index, logs / f"worker{index}.log", _environment(index, count, gpus))
            for index in range(count)
        ]

    def have_ended(self) -> bool:
        """Whether all have ended, one of them at least with success; warns of those that failed.

        Raises:
            ChildProcessError: If all have failed.
        """
        for worker in self._workers:
            worker.keep_running()
        if self.failed == self._workers:
            raise ChildProcessError(self._workers[0].failure)
        for worker in self.failed:
            worker.tell_of_failure()
        return not any(worker.is_running for worker in self._workers)

    @property
    def failed(self) -> list["_Worker"]:
        """Those that have ended without success, for good."""
        return [worker for worker in self._workers if worker.has_failed]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = [worker for worker in self._workers if worker.is_running]
        if running:
            number = signal.SIGINT if kind is KeyboardInterrupt else signal.SIGTERM
            complain(f"waiting until {len(running)} workers have saved their state")
            for worker in running:
                worker.stop(number)
        try:
            for worker in running:
                worker.wait()
        finally:  # also after a second Ctrl-C
            for worker in running:
                worker.stop(signal.SIGKILL)
                worker.wait()


class _Worker:
    def __init__(self, command, index, log, environment):
        self._command = [sys.executable, "-m", "keras_bit", *command]
        self._index = index
        self._log = log
        self._environment = environment
        self._process: Any = None
        self._starts = 0
        self._is_told = False

    @property
    def code(self):
        """The exit code, `None` as long as it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def is_running(self):
        return self._process is not None and self.code is None

    @property
    def has_failed(self):
        """Whether it has ended with an error that it reported, or has died too often."""
        code = self.code
        return code == FAILED or (code not in (None, 0) and self._starts >= MOST_STARTS)

    @property
    def failure(self):
        """How it has ended, in a sentence."""
        code = self.code
        how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
        said = ""
        with contextlib.suppress(OSError):
            lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
            said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        said = said.removeprefix("keras-bit: ").removeprefix("error: ").rstrip(".")
        said = f": {said}" if said else ""
        return f"Worker {self._index} of the search has failed ({how}; see {self._log}){said}."

    def keep_running(self):
        """Starts it, or starts it again where it has died; an error that it reports stays one."""
        if self._process is None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._log.unlink(missing_ok=True)
            self._start()
        elif self.code not in (None, 0) and not self.has_failed:
            complain(f"warning: {self.failure} It is started again.")
            self._start()

    def tell_of_failure(self):
        if not self._is_told:
            self._is_told = True
            complain(f"warning: {self.failure} The search continues without it.")

    def stop(self, number):
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def wait(self):
        self._process.wait()

    def _start(self):
        self._starts += 1
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # else Ctrl-C would reach it twice
            )


def is_started_by_chief() -> bool:
    """Whether this process is one of the `Workers` of another."""
    return CHIEF_VARIABLE in os.environ


def stop_with_chief() -> None:
    """Sends this worker SIGTERM when its chief ends without a word, as after SIGKILL."""
    chief = int(os.environ[CHIEF_VARIABLE])

    def watch():
        while os.getppid() == chief:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def visible_gpus() -> list[str]:
    """Returns the GPUs that the backend sees, by their names for CUDA_VISIBLE_DEVICES."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        count = sum(device.platform == "gpu" for device in jax.local_devices())
    elif keras.backend.backend() == "torch":
        import torch

        count = torch.cuda.device_count()
    else:
        import tensorflow as tf

        count = len(tf.config.list_physical_devices("GPU"))
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = chosen.split(",") if chosen else map(str, range(count))
    return list(names)[:count]


def _environment(index, count, gpus):
    """The variables of a worker: its role, and its part of the machine."""
    from keras_bit.core.device import usable_cores

    threads = str(max(1, usable_cores() // count))
    chosen = {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if len(gpus) > 1 else {}
    return {
        **dict.fromkeys(THREAD_VARIABLES, threads),
        **import_environment(),
        **chosen,
        "KERASTUNER_TUNER_ID": f"worker{index}",
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": "0",
        CHIEF_VARIABLE: str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
    }
