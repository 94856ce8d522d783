import threading
import types

from keras_bit.data import threads
from keras_bit.data.threads import map_headers


def test_headers_are_read_in_threads_only_where_that_waits(monkeypatch):
    clock = {"wall": 0.0, "busy": 0.0}
    clocks = types.SimpleNamespace(
        perf_counter=lambda: clock["wall"], thread_time=lambda: clock["busy"]
    )
    monkeypatch.setattr(threads, "time", clocks)
    monkeypatch.setattr(threads, "_HEADERS_CHUNK", 3)

    def work(item):
        clock["wall"] += 1
        clock["busy"] += item < 4  # the others wait
        return item, threading.current_thread() is threading.main_thread()

    results = list(map_headers(work, range(20)))
    assert [item for item, _ in results] == list(range(20))
    # That the second chunk has waited shows at its end.
    assert [is_main for _, is_main in results] == [True] * 6 + [False] * 14
    assert list(map_headers(work, [])) == []
