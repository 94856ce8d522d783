"""What an export gave, or why it gave nothing."""

import dataclasses
import pathlib

from keras_bit.core.text import readable_size, table


class ExportError(ValueError):
    """The exported file does not do what the Keras model does; it was removed."""


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """An exported file and how it compares with the Keras model; printed, it is a table.

    Attributes:
        path: `pathlib.Path` of the file, or of the folder of a SavedModel.
        labels_file: `pathlib.Path` of the JSON list of class names beside it, or `None`.
        format, quantize: As in `keras_bit.export`.
        images: Number of images that were compared.
        largest_difference: Between the outputs of the file and those of Keras.
        agreement: Share of the images whose class is the same; with several labels an image, share
            of the labels that are.
        accuracy, keras_accuracy: Share of the classes, or labels, that are right, of the file and
            of Keras; `None` where the images have no labels.
        size: Bytes.
        latency, keras_latency: Seconds for one image, medians of interleaved calls.
    """

    path: pathlib.Path
    labels_file: pathlib.Path | None
    format: str
    quantize: str | None
    images: int
    largest_difference: float
    agreement: float
    accuracy: float | None
    keras_accuracy: float | None
    size: int
    latency: float
    keras_latency: float

    def __str__(self) -> str:
        title = f"{self.format}, {self.quantize}" if self.quantize else self.format
        rows = [
            ("file", self.path, readable_size(self.size)),
            ("labels", self.labels_file or "none", ""),
            ("images compared", f"{self.images:,}", ""),
            ("largest difference", f"{self.largest_difference:.2g}", "of the outputs"),
            ("same class", f"{self.agreement:.2%}", "as Keras"),
        ]
        if self.accuracy is not None:
            rows.append(("accuracy", f"{self.accuracy:.2%}", f"Keras {self.keras_accuracy:.2%}"))
        milliseconds = f"{1e3 * self.latency:.1f} ms"
        rows.append(("one image", milliseconds, f"Keras {1e3 * self.keras_latency:.1f} ms"))
        return table(title, rows)
