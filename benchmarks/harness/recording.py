"""How figures that were measured elsewhere get into pytest-benchmark's table and files."""


class Recording:
    """Hands seconds to pytest-benchmark, which cannot interleave what it times.

    An instance is pytest-benchmark's timer; `play` is what it believes it times.
    """

    def __init__(self):
        self._now = 0.0
        self._seconds = iter(())

    def __call__(self):
        return self._now

    def report(self, benchmark, seconds, extra_info):
        """Reports `seconds`, one for each round, by the fixture `benchmark` with this timer."""
        self._seconds = iter(seconds)
        benchmark.extra_info |= extra_info
        benchmark.pedantic(self.play, rounds=len(seconds))

    def play(self):
        self._now += next(self._seconds)


RECORDING = Recording()
