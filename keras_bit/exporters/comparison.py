"""An exported file beside the Keras model that it was made of."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from keras_bit.exporters.contents import Run

TOLERANCE = 1e-3  # of the largest output, or of 1
# Resized pixels are rounded to 8 bits, a few of them in another direction than Keras's.
RESIZED_TOLERANCE = 1e-2
ROUNDS = 15
SECONDS = 10.0  # after which no further round of timing begins
Batch = tuple[np.ndarray, list]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How outputs compare; the attributes are those of `ExportResult`.

    Attributes:
        bound: What `largest_difference` may be in float32.
        finite: Whether all outputs of the file are finite.
    """

    images: int
    largest_difference: float
    agreement: float
    accuracy: float | None
    keras_accuracy: float | None
    bound: float
    finite: bool

    def figures(self) -> dict[str, Any]:
        """Returns the attributes that an `ExportResult` has."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in ("bound", "finite")}

    def fault(self, quantized: bool, min_agreement: float) -> str | None:
        """Returns why the file must not be kept, or `None`."""
        if not self.finite:
            return "outputs that are infinite or NaN"
        if quantized:
            if self.agreement >= min_agreement:
                return None
            return f"the same class as Keras for {self.agreement:.1%} of {self.images} images"
        if self.largest_difference <= self.bound:
            return None
        return f"outputs that differ by up to {self.largest_difference:.2g} from those of Keras"


def compare(
    run: Run, keras_run: Run, decide: Run, batches: Iterable[Batch], tolerance: float = TOLERANCE
) -> Comparison:
    """Compares the outputs of two functions of uint8 images, that of a file and Keras's.

    `decide` turns outputs into classes (n,), or into labels (n, classes).
    """
    pairs = [(run(images), keras_run(images), labels) for images, labels in batches]
    found, expected = (np.concatenate(each) for each in list(zip(*pairs, strict=True))[:2])
    labels = [label for *_, each in pairs for label in each]
    decided, keras_decided = decide(found), decide(expected)
    labeled = labels[0] is not None
    return Comparison(
        images=len(found),
        largest_difference=float(np.abs(found - expected).max()),
        agreement=float(np.mean(decided == keras_decided)),
        accuracy=float(np.mean(decided == labels)) if labeled else None,
        keras_accuracy=float(np.mean(keras_decided == labels)) if labeled else None,
        bound=tolerance * max(1.0, float(np.abs(expected).max())),
        finite=bool(np.isfinite(found).all()),
    )


def latencies(calls: tuple[Callable[[], object], ...]) -> list[float]:
    """Returns the median seconds of each of some calls, interleaved, after one to warm up."""
    for call in calls:
        call()
    seconds: list[list[float]] = [[] for _ in calls]
    begin = time.perf_counter()
    for number in range(ROUNDS):
        if number and time.perf_counter() - begin > SECONDS:
            break
        for call, found in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in seconds]
