"""What a model answers on a labeled data set, held once: metrics, confusion and mistakes."""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_bit.evaluation.calibration import Calibration
from keras_bit.evaluation.outputs import RunOutputs
from keras_bit.evaluation.scores import average_precisions, wilson_interval

TEMPERATURE, THRESHOLDS = "temperature", "thresholds"
NO_LABEL = "none"


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One image that the model got wrong.

    Attributes:
        index: Its row in the evaluation.
        name: Its name, such as the path of its file.
        true: Class id of its label; with several labels an image, a tuple of class ids.
        predicted: Class id of the prediction, or such a tuple.
        probability: The model's probability of `label`.
        label: Class id of the prediction; with several labels, of the wrong one whose probability
            is the farthest from the truth.
    """

    index: int
    name: str
    true: int | tuple[int, ...]
    predicted: int | tuple[int, ...]
    probability: float
    label: int


class ClassScores(NamedTuple):
    """How good a model is on one class.

    Attributes:
        name: Name of the class.
        support: Number of its images.
        right: How many of them the model found.
        precision: The share of the images given this class that are of it; 0 without such images.
        recall: The share of its images that are found; 0 without images.
        f1: The harmonic mean of precision and recall.
        confused_with: The class it is most often taken for; "" where there is none.
        average_precision: With several labels an image, the mean precision over all thresholds;
            NaN without images.
        threshold: With several labels, the probability from which on an image has this one.
    """

    name: str
    support: int
    right: int
    precision: float
    recall: float
    f1: float
    confused_with: str = ""
    average_precision: float | None = None
    threshold: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Labels, logits and names of the images of one evaluated data set.

    Args:
        labels: Class ids, integers of shape `(n,)`; or 0 and 1 of shape `(n, classes)`, where an
            image has any number of labels.
        logits: Floats of shape `(n, classes)`.
        label_names: Names of the classes.
        names: Names of the images, such as the paths of their files; their numbers by default.
        outputs: A `keras_bit.evaluation.RunOutputs`: temperature and thresholds. Default: no
            temperature, and for several labels the thresholds that maximize the F1 of each class
            on these images.
        fitted_here: Which of `outputs` were chosen on these images, `"temperature"` and
            `"thresholds"`: scores are then somewhat better than on others, as reports say. Default:
            the thresholds where they are chosen here.

    Raises:
        ValueError: If there are no images, the shapes do not fit, or labels are no such numbers.
        FloatingPointError: If a logit is infinite or NaN.

    Example:

    >>> evaluation = keras_bit.Evaluation([0, 1, 1], [[2, 0], [0, 3], [1, 0]], ("cat", "dog"))
    >>> evaluation.confusion.tolist(), evaluation.mistakes()[0].index
    ([[1, 0], [1, 1]], 2)

    Photographs with several labels each:

    >>> evaluation = keras_bit.Evaluation([[1, 1], [0, 1]], [[2, 4], [-3, 1]], ("cat", "dog"))
    >>> evaluation.predictions.tolist(), evaluation.metrics["mean_average_precision"]
    ([[1, 1], [0, 1]], 1.0)
    """

    labels: np.ndarray
    logits: np.ndarray
    label_names: tuple[str, ...]
    names: tuple[str, ...] = ()
    outputs: RunOutputs = None  # type: ignore[assignment]  # set in __post_init__
    fitted_here: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        labels, logits = np.asarray(self.labels), np.asarray(self.logits)
        label_names = tuple(self.label_names)
        _check(labels, logits, len(label_names))
        labels = labels.astype(np.uint8) if labels.ndim == 2 else labels
        names = tuple(self.names) or tuple(map(str, range(len(labels))))
        fields = {"labels": labels, "logits": logits, "names": names, "label_names": label_names}
        for name, value in fields.items():
            object.__setattr__(self, name, value)  # the way of frozen dataclasses
        if self.outputs is None:
            chosen = (THRESHOLDS,) if self.multi_label else ()
            object.__setattr__(self, "fitted_here", (*self.fitted_here, *chosen))
            object.__setattr__(self, "outputs", RunOutputs.of(self))
        if self.outputs.multi_label != self.multi_label:
            raise ValueError(
                "`outputs` must be for labels of this kind. Received: outputs with multi_label="
                f"{self.outputs.multi_label}, labels of shape {labels.shape}"
            )
        if len(names) != len(labels):
            raise ValueError(
                "`names` must hold one for each image. "
                f"Received: {len(names)} names, {len(labels)} images"
            )
        thresholds = self.outputs.thresholds
        if thresholds and len(thresholds) != len(label_names):
            raise ValueError(
                "`outputs` must hold a threshold for each class. Received: "
                f"{len(thresholds)} thresholds, {len(label_names)} classes"
            )

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of labels, and not one."""
        return self.labels.ndim == 2

    @functools.cached_property
    def label_matrix(self) -> np.ndarray:
        """The labels as 0 and 1, uint8 of shape `(n, classes)`."""
        if self.multi_label:
            return self.labels
        return np.eye(len(self.label_names), dtype=np.uint8)[self.labels]

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax, or with several labels sigmoid, of the logits; float64 `(n, classes)`."""
        return self.outputs.probabilities(self.logits)

    @functools.cached_property
    def predictions(self) -> np.ndarray:
        """Class ids of the largest logits `(n,)`; with several labels 0 and 1 `(n, classes)`."""
        return self.outputs.decide(self.logits)

    @property
    def is_right(self) -> np.ndarray:
        """Whether each image is right, with several labels in all of them; booleans `(n,)`."""
        right = self.predictions == self.labels
        return right.all(axis=-1) if self.multi_label else right

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        """Dict of floats.

        With one label an image: `loss`, the mean cross-entropy, `accuracy`; `accuracy_low` and
        `accuracy_high`, Wilson's 95% interval; `mean_class_accuracy`, the mean over the classes
        that occur of the share that is right, which counts small classes as much as large ones
        (scikit-learn's balanced accuracy); `macro_f1`, the mean of these classes' F1;
        `calibration_error`, as in `calibration`.

        With several: `loss`, the mean binary cross-entropy as Keras gives it;
        `mean_average_precision`, the mean over the classes that occur of scikit-learn's average
        precision (NaN where none does); `micro_f1`, over all labels together, and `macro_f1`, the
        mean over the classes that occur; `exact_match`, the share of images of which all labels
        are right, with `exact_match_low` and `exact_match_high`; `calibration_error`.
        """
        metrics = self._multi_label_metrics() if self.multi_label else self._single_label_metrics()
        return {name: float(value) for name, value in metrics.items()}

    def _single_label_metrics(self):
        from sklearn import metrics

        classes = np.arange(len(self.label_names))
        with warnings.catch_warnings():
            # It warns of predicted classes without images, which count for nothing here.
            warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
            warnings.filterwarnings("ignore", message="A single label was found")
            balanced = metrics.balanced_accuracy_score(self.labels, self.predictions)
        return {
            "loss": metrics.log_loss(self.labels, self.probabilities, labels=classes),
            **self._share_right("accuracy"),
            "mean_class_accuracy": balanced,
            "macro_f1": self._macro_f1(),
            "calibration_error": self.calibration.error,
        }

    def _multi_label_metrics(self):
        from sklearn import metrics

        logits = np.asarray(self.logits, np.float64) / self.outputs.temperature
        losses = np.logaddexp(0, logits) - self.labels * logits
        precisions = average_precisions(self.labels, self.probabilities)
        occurring = precisions[~np.isnan(precisions)]
        pair = self.labels, self.predictions
        return {
            "loss": losses.mean(),
            "mean_average_precision": occurring.mean() if len(occurring) else np.nan,
            "micro_f1": metrics.f1_score(*pair, average="micro", zero_division=0),
            "macro_f1": self._macro_f1(),
            **self._share_right("exact_match"),
            "calibration_error": self.calibration.error,
        }

    def _share_right(self, name):
        right, total = int(self.is_right.sum()), len(self.labels)
        low, high = wilson_interval(right, total)
        return {name: right / total, f"{name}_low": low, f"{name}_high": high}

    def _macro_f1(self):
        scores = [scores.f1 for scores in self.class_scores if scores.support]
        return np.mean(scores) if scores else np.nan

    @functools.cached_property
    def calibration(self) -> Calibration:
        """A `keras_bit.evaluation.Calibration` in 15 bins, whose `error` is the expected one.

        Of the probability of each prediction, and whether it is right; with several labels, of
        the probability of every label of every image, and whether the image has it.
        """
        if self.multi_label:
            return Calibration.of(self.probabilities, self.labels)
        return Calibration.of(self.probabilities.max(axis=-1), self.is_right)

    @functools.cached_property
    def confusion(self) -> np.ndarray:
        """Integers `(classes, classes)`: images of the class of the row taken for the column's.

        With several labels `(classes, 2, 2)`, for each class images without it in the first row,
        images with it in the second, as in scikit-learn's `multilabel_confusion_matrix`.
        """
        from sklearn import metrics

        if self.multi_label:
            return metrics.multilabel_confusion_matrix(self.labels, self.predictions)
        classes = np.arange(len(self.label_names))
        return metrics.confusion_matrix(self.labels, self.predictions, labels=classes)

    @functools.cached_property
    def class_scores(self) -> tuple[ClassScores, ...]:
        """A `keras_bit.evaluation.ClassScores` for each class, in the order of the classes."""
        from sklearn import metrics

        classes = range(len(self.label_names))
        precision, recall, f1, support = metrics.precision_recall_fscore_support(
            self.labels, self.predictions, labels=list(classes), zero_division=0
        )
        common = support, self._found, precision, recall, f1
        rows = zip(self.label_names, *(part.tolist() for part in common), strict=True)
        if self.multi_label:
            precisions = average_precisions(self.labels, self.probabilities).tolist()
            thresholds = self.outputs.all_thresholds(len(classes))
            own: list[Any] = [("", *pair) for pair in zip(precisions, thresholds, strict=True)]
        else:
            own = [(self._confused_with(class_id), None, None) for class_id in classes]
        return tuple(ClassScores._make((*a, *b)) for a, b in zip(rows, own, strict=True))

    @property
    def _found(self):
        """How many images of each class are found."""
        return self.confusion[:, 1, 1] if self.multi_label else np.diagonal(self.confusion)

    def _confused_with(self, class_id):
        wrong = self.confusion[class_id].copy()
        wrong[class_id] = 0
        return self.label_names[int(wrong.argmax())] if wrong.any() else ""

    def mistakes(self, limit: int | None = None) -> list[Mistake]:
        """Returns the images that the model got wrong, those with the highest probability first.

        With several labels, those with the wrong label that is the farthest from the truth.

        Args:
            limit: How many to return at most. Default: all.
        """
        wrong = np.flatnonzero(~self.is_right)
        probabilities = self.probabilities[wrong]
        if self.multi_label:
            labels, predicted = self.labels[wrong], self.predictions[wrong]
            error = np.abs(labels - probabilities) * (labels != predicted)
            ids, certainty = error.argmax(axis=-1), error.max(axis=-1)
        else:
            ids, certainty = self.predictions[wrong], probabilities.max(axis=-1)
        order = np.argsort(-certainty, kind="stable")[:limit]
        return [
            Mistake(
                int(wrong[row]),
                self.names[wrong[row]],
                _classes_of(self.labels[wrong[row]]),
                _classes_of(self.predictions[wrong[row]]),
                float(probabilities[row, ids[row]]),
                int(ids[row]),
            )
            for row in order
        ]

    def worst_classes(self) -> list[ClassScores]:
        """Returns the scores of all classes, the lowest F1 first, those without images last."""
        return sorted(self.class_scores, key=lambda scores: scores.f1 if scores.support else 2.0)


def describe_classes(classes: int | tuple[int, ...], label_names: Sequence[str]) -> str:
    """Returns the names of the `true` or `predicted` classes of a `Mistake`.

    >>> from keras_bit.evaluation.evaluation import describe_classes
    >>> describe_classes((0, 1), ("cat", "dog")), describe_classes(1, ("cat", "dog"))
    ('cat, dog', 'dog')
    """
    ids = classes if isinstance(classes, tuple) else (classes,)
    return ", ".join(label_names[class_id] for class_id in ids) or NO_LABEL


def _classes_of(label):
    """A class id, or those of the classes whose entry is 1, as plain integers."""
    return tuple(np.flatnonzero(label).tolist()) if np.ndim(label) else int(label)


def _check(labels, logits, classes):
    if classes < 2:
        raise ValueError(
            f"`label_names` must name at least two classes. Received: {classes}. For one label "
            "name the classes with and without it."
        )
    fits = labels.shape in ((len(logits),), logits.shape) and logits.shape[1:] == (classes,)
    if not np.ndim(labels) or not len(labels) or not fits:
        raise ValueError(
            "`logits` must have the shape (images, classes), with a label for each image, or 0 and "
            f"1 for each class of it. Received: logits of shape {logits.shape}, "
            f"labels of shape {labels.shape}, {classes} classes"
        )
    if not np.isfinite(logits).all():
        raise FloatingPointError(
            "`logits` must be finite. Received: infinite or NaN values. See whether the images "
            "lie in the model's `value_range`, and whether training diverged."
        )
    if labels.ndim == 2 and not np.isin(labels, (0, 1)).all():
        raise ValueError(
            "`labels` of shape (images, classes) must be 0 or 1. Received: values between "
            f"{labels.min()} and {labels.max()}"
        )
    if labels.ndim == 1:
        integers = np.issubdtype(labels.dtype, np.integer)
        if not integers or labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"`labels` must be integers from 0 to {classes - 1}, the ids of {classes} classes. "
                f"Received: {labels.dtype} between {labels.min()} and {labels.max()}"
            )
