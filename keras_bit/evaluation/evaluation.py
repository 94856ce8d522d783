"""What a model answers on a labeled data set, held once: metrics, confusion and mistakes."""

import dataclasses
import functools
import warnings
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One image that the model got wrong.

    Attributes:
        index: Its row in the evaluation.
        name: Its name, such as the path of its file.
        true: Class id of its label.
        predicted: Class id of the prediction.
        probability: The model's probability of the prediction.
    """

    index: int
    name: str
    true: int
    predicted: int
    probability: float


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Labels, logits and names of the images of one evaluated data set.

    Args:
        labels: Class ids, integers of shape `(n,)`.
        logits: Floats of shape `(n, classes)`.
        label_names: Names of the classes.
        names: Names of the images, such as the paths of their files; their numbers by default.

    Raises:
        ValueError: If there are no images, or the shapes do not fit.
        FloatingPointError: If a logit is infinite or NaN.

    Example:

    >>> evaluation = keras_bit.Evaluation([0, 1, 1], [[2, 0], [0, 3], [1, 0]], ("cat", "dog"))
    >>> evaluation.confusion.tolist(), evaluation.mistakes()[0].index
    ([[1, 0], [1, 1]], 2)
    """

    labels: np.ndarray
    logits: np.ndarray
    label_names: tuple[str, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        labels, logits = np.asarray(self.labels), np.asarray(self.logits)
        if not len(labels) or logits.shape != (len(labels), len(self.label_names)):
            raise ValueError(
                "`logits` must have the shape (images, classes), with a label for each image. "
                f"Received: logits of shape {logits.shape}, {len(labels)} labels, "
                f"{len(self.label_names)} classes"
            )
        if not np.isfinite(logits).all():
            raise FloatingPointError(
                "`logits` must be finite. Received: infinite or NaN values. See whether the images "
                "lie in the model's `value_range`, and whether training diverged."
            )
        names = tuple(self.names) or tuple(map(str, range(len(labels))))
        fields = {"labels": labels, "logits": logits, "names": names}
        for name, value in {**fields, "label_names": tuple(self.label_names)}.items():
            object.__setattr__(self, name, value)  # the way of frozen dataclasses

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits in float64, shape `(n, classes)`."""
        return probabilities_of(self.logits)

    @property
    def predictions(self) -> np.ndarray:
        """Class ids of the largest logits, shape `(n,)`."""
        return self.logits.argmax(axis=-1)

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        """Dict of `loss`, the mean cross-entropy, `accuracy` and `mean_class_accuracy`.

        The last is the mean over the classes that occur of the share that is right, which counts
        small classes as much as large ones (scikit-learn's balanced accuracy).
        """
        from sklearn import metrics

        classes = np.arange(len(self.label_names))
        with warnings.catch_warnings():
            # It warns of predicted classes without images, which count for nothing here.
            warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
            balanced = metrics.balanced_accuracy_score(self.labels, self.predictions)
        return {
            "loss": float(metrics.log_loss(self.labels, self.probabilities, labels=classes)),
            "accuracy": float(metrics.accuracy_score(self.labels, self.predictions)),
            "mean_class_accuracy": float(balanced),
        }

    @functools.cached_property
    def confusion(self) -> np.ndarray:
        """Integers `(classes, classes)`: images of the class of the row taken for the column's."""
        from sklearn import metrics

        classes = np.arange(len(self.label_names))
        return metrics.confusion_matrix(self.labels, self.predictions, labels=classes)

    def mistakes(self, limit: int | None = None) -> list[Mistake]:
        """Returns the images that the model got wrong, those with the highest probability first.

        Args:
            limit: How many to return at most. Default: all.
        """
        confidence = self.probabilities.max(axis=-1)
        wrong = np.flatnonzero(self.predictions != self.labels)
        order = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
        return [
            Mistake(
                int(index),
                self.names[index],
                int(self.labels[index]),
                int(self.predictions[index]),
                float(confidence[index]),
            )
            for index in order
        ]

    def class_rows(self) -> list[tuple[str, int, int, str]]:
        """Returns one row per class for a table, the worst classes first.

        Each is a tuple of the class's name, the number of its images, how many are right, and the
        class it is most often taken for ("" where there is none). Classes without images come last.
        """
        rows = []
        for index, name in enumerate(self.label_names):
            wrong = self.confusion[index].copy()
            right, wrong[index] = int(wrong[index]), 0
            confused = self.label_names[int(wrong.argmax())] if wrong.any() else ""
            rows.append((name, right + int(wrong.sum()), right, confused))
        return sorted(rows, key=lambda row: row[2] / row[1] if row[1] else 2.0)


def probabilities_of(logits: Any) -> np.ndarray:
    """Returns the softmax of `logits` (n, classes), in float64 so that no row overflows."""
    from scipy.special import softmax

    return softmax(np.asarray(logits, dtype=np.float64), axis=-1)
