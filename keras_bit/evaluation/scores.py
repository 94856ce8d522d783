"""What scores are computed of: shares with an interval, and thresholds of labels."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

NORMAL_95 = 1.959963984540054  # the standard normal lies between -this and this in 95% of cases
DEFAULT_THRESHOLD = 0.5
SMALLEST_THRESHOLD = float(np.finfo(np.float64).tiny)  # at 0 every image would have the label


def with_intervals(
    metrics: Mapping[str, Any],
) -> Iterator[tuple[str, Any, tuple[Any, Any] | None]]:
    """Yields name, value and interval of each metric; the interval's ends are none themselves.

    >>> from keras_bit.evaluation.scores import with_intervals
    >>> metrics = {"accuracy": 0.8, "accuracy_low": 0.49, "accuracy_high": 0.94, "loss": 0.5}
    >>> list(with_intervals(metrics))
    [('accuracy', 0.8, (0.49, 0.94)), ('loss', 0.5, None)]
    """
    ends = {name: (f"{name}_low", f"{name}_high") for name in metrics if f"{name}_low" in metrics}
    hidden = {end for pair in ends.values() for end in pair}
    for name, value in metrics.items():
        if name in ends:
            low, high = ends[name]
            yield name, value, (metrics[low], metrics[high])
        elif name not in hidden:
            yield name, value, None


def wilson_interval(right: int, total: int, z: float = NORMAL_95) -> tuple[float, float]:
    """Returns the lower and the upper end of Wilson's score interval of a share.

    Where images are drawn independently, it holds the true share in about 95% of cases; unlike
    the textbook's interval, also for few images and shares near 0 and 1 (Wilson 1927, "Probable
    inference, the law of succession, and statistical inference"; recommended by Brown, Cai and
    DasGupta 2001, "Interval estimation for a binomial proportion").

    Args:
        right: How many are right.
        total: Of how many, at least one.
        z: Quantile of the standard normal; that of 95% by default.

    Example:

    >>> from keras_bit.evaluation.scores import wilson_interval
    >>> [round(end, 4) for end in wilson_interval(8, 10)]
    [0.4902, 0.9433]
    """
    share = right / total
    center = share + z**2 / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    low, high = (center - spread) / scale, (center + spread) / scale
    return low if right else 0.0, high if right < total else 1.0  # exactly, not nearly


def best_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, ...]:
    """Returns for each class the threshold on its probability that maximizes its F1.

    A threshold lies in the middle between the two probabilities that it divides; of equally good
    ones it is the nearest to 0.5, which is also that of classes that have no image.

    Args:
        labels: 0 or 1 of shape `(n, classes)`.
        probabilities: Floats of the same shape.

    Example:

    >>> from keras_bit.evaluation.scores import best_thresholds
    >>> best_thresholds(np.array([[0], [0], [1]]), np.array([[0.125], [0.5], [0.75]]))
    (0.625,)
    """
    columns = zip(labels.T, probabilities.T, strict=True)
    return tuple(_best_threshold(label, probability) for label, probability in columns)


def _best_threshold(labels, probabilities):
    from sklearn.metrics import precision_recall_curve

    if not labels.any():
        return DEFAULT_THRESHOLD
    precision, recall, taken = precision_recall_curve(labels, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    # `taken` are the distinct probabilities: from each of them on, images have the label.
    middles = (taken + np.concatenate([[0.0], taken[:-1]])) / 2
    best = middles[np.isclose(f1[:-1], f1[:-1].max(), rtol=1e-9)]
    nearest = best[np.abs(best - DEFAULT_THRESHOLD).argmin()]
    return max(float(nearest), SMALLEST_THRESHOLD)


def average_precisions(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns scikit-learn's average precision of each class, `(classes,)`, NaN without images.

    Args:
        labels: 0 or 1 of shape `(n, classes)`.
        probabilities: Floats of the same shape.
    """
    from sklearn.metrics import average_precision_score

    columns = zip(labels.T, probabilities.T, strict=True)
    scores = [average_precision_score(y, p) if y.any() else math.nan for y, p in columns]
    return np.array(scores)


def imbalance(counts: Sequence[int]) -> float:
    """Returns how many times the images of the smallest class the largest one has.

    Classes without images count for nothing.

    >>> from keras_bit.evaluation.scores import imbalance
    >>> imbalance([30, 0, 10])
    3.0
    """
    present = [count for count in counts if count]
    return max(present) / min(present) if present else 1.0
