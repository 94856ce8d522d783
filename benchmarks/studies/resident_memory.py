"""Resident memory of a long run: `python -m benchmarks.studies.resident_memory [UPDATES]`.

A whole run of `fine_tune` on the digits, with validations, checkpoints and logs. Printed is how far
the resident memory lies from its median after the first tenth; the picture of
`results/long_run.md` is drawn.
"""

import sys
import tempfile
import threading
import time

import keras
import numpy as np

import keras_bit
from benchmarks.harness.memory import memory
from benchmarks.harness.pictures import FOLDER, import_pyplot, save_picture

PERIOD = 50  # updates between two readings


class ResidentMemory(keras.callbacks.Callback):
    """Reads the resident memory of this process every `PERIOD` updates."""

    def __init__(self):
        super().__init__()
        self.updates, self.megabytes = [], []
        self._count = 0

    def on_train_batch_end(self, batch, logs=None):
        self._count += 1
        if self._count % PERIOD == 0:
            self.updates.append(self._count)
            self.megabytes.append(memory("VmRSS") / 1e6)


def main(updates):
    resident, start = ResidentMemory(), time.monotonic()
    data = keras_bit.digits()
    with tempfile.TemporaryDirectory() as folder:
        keras_bit.fine_tune(
            data,
            batch_size=16,
            crop_size=32,
            schedule_length=updates,
            steps_per_epoch=updates // 20,
            output=folder,
            report=False,
            callbacks=[resident],
            verbose=0,
        )
    readings = np.array(resident.megabytes)
    settled = readings[len(readings) // 10 :]
    middle = np.median(settled)
    low, high = settled.min() / middle - 1, settled.max() / middle - 1
    print(
        f"{updates:,} updates in {time.monotonic() - start:.0f} s, {threading.active_count()} "
        f"threads at the end; median {middle:,.0f} MB, {low:+.2%} to {high:+.2%}"
    )
    _draw(resident.updates, readings)


def _draw(updates, megabytes):
    figure, axes = import_pyplot().subplots(figsize=(8, 3), layout="constrained")
    axes.plot(updates, megabytes, linewidth=1)
    axes.set(xlabel="updates", ylabel="resident memory, MB", ylim=(0, 1.15 * max(megabytes)))
    axes.grid(alpha=0.3)
    save_picture(figure, FOLDER / "long-run.png")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 10_000)
