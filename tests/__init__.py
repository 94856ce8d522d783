"""The tests, and what must be set before TensorFlow is imported."""

import os
import pathlib
import runpy

# By path: the package itself imports Keras.
_ONEDNN = pathlib.Path(__file__).parent.parent / "keras_bit" / "core" / "onednn.py"
runpy.run_path(str(_ONEDNN))["enable_onednn"]()
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:
    # Shared out among the workers; the processes that tests start compute as their worker does.
    for threads in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(threads, str(max(1, (os.cpu_count() or 1) // WORKERS)))
