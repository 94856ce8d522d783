"""Work on many items in threads."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from keras_bit.core.device import usable_cores

_Result = TypeVar("_Result")
_MAX_WORKERS = 16
_HEADERS_CHUNK = 64


def threaded_map(
    function: Callable[[Any], _Result], items: Iterable[Any], chunk_size: int = 1
) -> Generator[_Result, None, None]:
    """Yields `function(item)` in order, computed ahead in threads within a bounded window.

    Each thread takes `chunk_size` items together: more than 1 for work so short that handing it
    over takes longer.
    """
    items = iter(items)
    workers = min(usable_cores(), _MAX_WORKERS)
    executor = ThreadPoolExecutor(workers, thread_name_prefix="keras_bit-images")
    pending: deque[Future[list[_Result]]] = deque()
    try:
        while chunk := list(islice(items, chunk_size)):
            pending.append(executor.submit(list, map(function, chunk)))
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def map_headers(
    function: Callable[[Any], _Result], items: Iterable[Any]
) -> Generator[_Result, None, None]:
    """`threaded_map` for work that is short, from where on it waits for a disk.

    Until then it runs in this thread: threads that do not wait only get in each other's way.
    """
    items, waited = iter(items), False
    while not waited and (chunk := list(islice(items, _HEADERS_CHUNK))):
        start, busy = time.perf_counter(), time.thread_time()
        results = [function(item) for item in chunk]
        waited = time.thread_time() - busy < (time.perf_counter() - start) / 2
        yield from results
    yield from threaded_map(function, items, _HEADERS_CHUNK)


class Budget:
    """An amount of which threads take shares; they wait while too little is left."""

    def __init__(self, amount: int):
        self._amount = self._left = amount
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, share: int) -> Iterator[None]:
        share = min(share, self._amount)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= share)
            self._left -= share
        try:
            yield
        finally:
            with self._changed:
                self._left += share
                self._changed.notify_all()
