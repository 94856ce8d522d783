"""When the next save of a run is due."""

import time

EVERY_SECONDS = 60.0
# Of the time that a save holds training up, so that saves take at most 5 % of it.
PAUSE = 20


class SaveInterval:
    """After so many updates, or so many seconds, since the save before.

    Args:
        every: Updates between two saves, or `None`.
        every_seconds: Seconds between two saves where `every` is `None`; more where saves would
            hold training up for more than 5 % of the time.
        batches: Batches of the run from which on to count.
    """

    def __init__(self, every: int | None, every_seconds: float, batches: int) -> None:
        self._every = every
        self._every_seconds = every_seconds
        self._held_up = 0.0  # seconds, by the last save
        self._batches, self._time = batches, time.monotonic()

    def end_save(self, batches: int, started: float) -> None:
        """Counts from here on, after a save that began at this time of `time.monotonic`."""
        self._batches, self._time = batches, time.monotonic()
        self._held_up = self._time - started

    def is_due(self, batches: int, accumulation: int, is_within_epoch: bool) -> bool:
        """Whether a save is due after so many batches, of which `accumulation` make an update."""
        updates = (batches - self._batches) / accumulation
        if self._every is not None:
            return updates >= self._every
        wanted = self._every_seconds if is_within_epoch else 0.0  # an epoch's end is worth a save
        pause = max(wanted, PAUSE * self._held_up)
        return updates > 0 and time.monotonic() - self._time >= pause
