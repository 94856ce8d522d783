"""What a run keeps and writes while it trains."""

import contextlib
import csv
import io
import pathlib
import shutil
import time
from typing import Any

import keras

from keras_bit.core.files import atomic_write
from keras_bit.core.keras_internals import updates_of
from keras_bit.models.classifier import has_finite_weights


class Progress(keras.callbacks.Callback):
    """Counts updates and seconds, and ends a run whose weights are no longer finite.

    Attributes:
        seconds: Of training so far, without those in which the run was interrupted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._last = 0.0

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._last = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self._count_seconds()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._count_seconds()
        updates = updates_of(self.model.optimizer)
        if logs is not None:
            logs["updates"] = updates
        if not has_finite_weights(self.model):
            raise FloatingPointError(
                f"Weights have become infinite or NaN by update {updates:,}. Lower "
                "`learning_rate`, or set `warmup`."
            )

    def _count_seconds(self):
        now = time.monotonic()
        self.seconds += now - self._last
        self._last = now


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights with the best validation score, the earliest of equals, in memory.

    Args:
        score: Name of a metric, the higher the better.

    Attributes:
        best: The highest value of it on validation.
        best_weights: List of arrays.
    """

    def __init__(self, score: str = "accuracy") -> None:
        super().__init__()
        self.score = f"val_{score}"
        self.best: float | None = None
        self.best_weights: list[Any] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        score = (logs or {})[self.score]
        if self.best is None or score > self.best:
            self.best, self.best_weights = float(score), self.model.get_weights()


class HistoryFile(keras.callbacks.Callback):
    """Writes the history as a CSV file, a row for every epoch.

    Args:
        path: The file, which is replaced as a whole at each epoch's end.
    """

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self._path = path

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        # Keras's own callback takes this epoch in only after this.
        self._write([*history_rows(self.model), {"epoch": epoch, **(logs or {})}])

    def on_train_end(self, logs: dict | None = None) -> None:
        self._write(history_rows(self.model))

    def _write(self, rows):
        if not rows:
            return
        text = io.StringIO()
        names = ["epoch", *sorted({name for row in rows for name in row} - {"epoch"})]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with atomic_write(self._path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's callback; that of a resumed run also writes the epochs before it.

    Args:
        folder: Folder of the logs. What another run has left there is removed.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder, write_graph=False)
        self._folder = folder
        self._written = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        super().on_train_begin(logs)

    def on_test_begin(self, logs: dict | None = None) -> None:
        with self._explain_write_errors():
            self._catch_up()
            super().on_test_begin(logs)

    def on_test_end(self, logs: dict | None = None) -> None:
        with self._explain_write_errors():
            super().on_test_end(logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        with self._explain_write_errors():
            super().on_epoch_end(epoch, logs)
        self._written += 1

    def on_train_end(self, logs: dict | None = None) -> None:
        with self._explain_write_errors():
            self._catch_up()
            super().on_train_end(logs)

    @contextlib.contextmanager
    def _explain_write_errors(self):
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError as error:
            raise OSError(
                f"The logs for TensorBoard cannot be written to {self._folder}: "
                f"{error.message.splitlines()[0]}. Make room, and start the run again: it resumes."
            ) from error

    def _catch_up(self):
        for row in history_rows(self.model)[self._written :]:
            epoch = row.pop("epoch")
            training = {name: value for name, value in row.items() if not name.startswith("val_")}
            validation = {name[4:]: row[name] for name in row.keys() - training.keys()}
            self._write(self._train_writer, "epoch_{}", training, epoch)
            self._write(self._val_writer, "epoch_{}", validation, epoch)
            self._write(self._val_writer, "evaluation_{}_vs_iterations", validation, row["updates"])
            self._written += 1

    def _write(self, writer, name, values, step):
        """Writes values as Keras does at the end of an epoch and of a validation."""
        with writer.as_default():
            for key, value in values.items():
                self.summary.scalar(name.format(key), value, step=step)


def history_rows(model: keras.Model) -> list[dict[str, Any]]:
    """Returns a dict for each epoch that the history of a model in `fit` has.

    It lacks what the user's callbacks have logged of some epochs only: Keras keeps no record of
    which.
    """
    epochs, columns = model.history.epoch, model.history.history
    whole = {name: values for name, values in columns.items() if len(values) == len(epochs)}
    return [
        {"epoch": epoch, **{name: values[i] for name, values in whole.items()}}
        for i, epoch in enumerate(epochs)
    ]
