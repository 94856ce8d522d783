"""Calibration: reliability diagrams, expected calibration error, temperature scaling."""

import dataclasses
from typing import Any

import numpy as np

BINS = 15  # as in the tables of Guo et al.
_SEARCHED = 1e3  # the largest temperature, and one over the smallest, that is looked for


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """A reliability diagram in numbers: bins of equal width over the probabilities.

    Guo et al. 2017, "On calibration of modern neural networks". Bin `i` of `b` holds the
    probabilities above `i / b`, up to and with `(i + 1) / b`.

    Attributes:
        counts: Number of probabilities in each bin, integers `(bins,)`.
        confidence: Their mean, `(bins,)`; 0 in empty bins.
        accuracy: The share of them that came true, `(bins,)`; 0 in empty bins.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @classmethod
    def of(cls, probabilities: Any, came_true: Any, bins: int = BINS) -> "Calibration":
        """Returns the diagram of some probabilities, and of whether each came true.

        Args:
            probabilities: Floats of any shape, in [0, 1].
            came_true: 0 or 1, or booleans, of the same shape.
            bins: Number of bins.
        """
        values, true = np.ravel(probabilities), np.ravel(came_true).astype(float)
        edges = np.linspace(0, 1, bins + 1)
        index = np.digitize(values, edges[1:-1], right=True)
        counts = np.bincount(index, minlength=bins)
        filled = np.maximum(counts, 1)
        sums = (np.bincount(index, weights=x, minlength=bins) for x in (values, true))
        confidence, accuracy = (total / filled for total in sums)
        return cls(counts, confidence, accuracy)

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of confidence and accuracy."""
        distance = np.abs(self.confidence - self.accuracy)
        return float((self.counts * distance).sum() / self.counts.sum())


def probabilities_of(logits: Any, multi_label: bool = False, temperature: float = 1) -> np.ndarray:
    """Returns the softmax of `logits` (n, classes) over `temperature`, in float64.

    So that no row overflows. With `multi_label` it is the sigmoid of each logit.
    """
    from scipy import special

    scaled = np.asarray(logits, dtype=np.float64) / temperature
    return special.expit(scaled) if multi_label else special.softmax(scaled, axis=-1)


def fit_temperature(labels: np.ndarray, logits: np.ndarray, multi_label: bool = False) -> float:
    """Returns the temperature at which the mean negative log-likelihood of `labels` is lowest.

    It divides the logits. Guo et al. 2017, section 4.2; the loss is convex in 1/temperature, and
    what is found is the zero of its derivative.

    Args:
        labels: 0 or 1 of shape `(n, classes)`: one-hot, or with several labels an image.
        logits: Floats of the same shape, of images that the model was not trained on.
        multi_label: Whether labels are independent: the loss is then binary cross-entropy.

    Raises:
        ValueError: If there is no lowest loss, as where all images are right.

    Example:

    >>> from keras_bit.evaluation.calibration import fit_temperature
    >>> logits = np.array([[8.0, 0.0], [8.0, 0.0], [8.0, 0.0], [8.0, 0.0]])
    >>> labels = np.array([[1, 0], [1, 0], [1, 0], [0, 1]])  # 3 of 4 are right: odds of 3 to 1
    >>> print(f"{fit_temperature(labels, logits):.4f} {8 / np.log(3):.4f}")
    7.2819 7.2819
    """
    from scipy.optimize import brentq

    logits = np.asarray(logits, dtype=np.float64)

    def slope(log_temperature):
        """The derivative of the loss by 1/temperature."""
        temperature = np.exp(log_temperature)
        error = probabilities_of(logits, multi_label, temperature) - labels
        return (error * logits).sum(axis=-1).mean()

    end = np.log(_SEARCHED)
    if slope(end) >= 0:
        raise ValueError(
            "A temperature can be fitted only to images on which the model is better than chance. "
            f"Received: {len(labels):,} images on which the largest logits tell nothing. See "
            "whether the images and their classes belong together."
        )
    if slope(-end) <= 0:
        raise ValueError(
            "A temperature can be fitted only to images of which the model gets some wrong: where "
            f"all are right, the lower the better. Received: {len(labels):,} images, all of them "
            "right. Take more images."
        )
    return float(np.exp(brentq(slope, -end, end, xtol=1e-10)))
