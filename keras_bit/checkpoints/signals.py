"""Signals that ask a run to stop, noted while `fit` runs so that it can stop after a whole step."""

import contextlib
import os
import signal
import sys
import threading
import weakref
from typing import Any

import keras

from keras_bit.core.distribution import processes

TERMINATED = 128 + signal.SIGTERM  # as shells report a process that SIGTERM ended


class StopSignals:
    """Ctrl-C and SIGTERM while `model.fit` runs in the main thread.

    The first is noted; a second one, and any outside of that `fit`, does what it would do without
    this. Of several processes the one that gets a signal tells the others.

    Args:
        model: The `keras.Model` in `fit`.
    """

    def __init__(self, model: Any) -> None:
        self.received: int | None = None
        self._model = model
        self._callbacks: Any = None  # of `fit`: a weak reference
        self._previous: dict[int, Any] = {}
        self._is_alone = processes().count == 1
        self._questions = 0

    def install(self) -> None:
        """Notes signals from now on; those that are ignored stay so."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets no other thread set them.
        if frame := self._frame_of_fit(sys._getframe()):
            callbacks = frame.f_locals.get("callbacks")
            if isinstance(callbacks, keras.callbacks.CallbackList):  # else a `fit` of the user's
                self._callbacks = weakref.ref(callbacks)
        # Of several processes each has JAX's own handler of SIGTERM.
        for number in (signal.SIGINT, signal.SIGTERM) if self._is_alone else (signal.SIGINT,):
            previous = signal.getsignal(number)
            if previous not in (signal.SIG_IGN, None):
                self._previous[number] = previous
                signal.signal(number, self._note)

    def remove(self) -> None:
        """Puts back what was there."""
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._note:
                with contextlib.suppress(ValueError):  # in another thread
                    signal.signal(number, previous)
        self._previous = {}

    def ask_to_stop(self) -> bool:
        """Whether to stop now; several processes, which ask at the same steps, agree on one."""
        if not self._is_alone and self.received is None:
            from jax.experimental import multihost_utils

            self._questions += 1
            if multihost_utils.reached_preemption_sync_point(self._questions):
                self.received = signal.SIGTERM
        return self.received is not None

    @property
    def name(self) -> str:
        """What the noted signal is called."""
        return "Ctrl-C" if self.received == signal.SIGINT else "SIGTERM"

    def act(self, number: int | None = None) -> None:
        """Does what a signal, by default the noted one, would have done without this.

        SIGTERM would have ended Python: now it does so with the exit code that shells give it.
        """
        number = number or self.received or signal.SIGTERM
        previous = self._previous.get(number, signal.SIG_DFL)
        self.remove()
        if callable(previous):
            previous(number, None)
        elif number == signal.SIGTERM:
            raise SystemExit(TERMINATED)
        else:
            raise KeyboardInterrupt

    def _note(self, number, frame):
        if self.received is not None or not self._is_in_fit(frame):
            self.act(number)
        elif self._is_alone:
            self.received = number
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    def _is_in_fit(self, frame):
        """Whether that `fit` still runs: after an error in it nobody removes this."""
        frame = self._frame_of_fit(frame)
        if frame is None or self._callbacks is None:
            return frame is not None
        callbacks = self._callbacks()
        return callbacks is not None and frame.f_locals.get("callbacks") is callbacks

    def _frame_of_fit(self, frame):
        while frame is not None:
            if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is self._model:
                return frame
            frame = frame.f_back
        return None
