"""From the logits of a run's model to probabilities and decisions, and the file that says how."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_bit.core.arguments import check_boolean, check_positive_number
from keras_bit.core.file_faults import wrap_read_errors
from keras_bit.core.files import read_json, write_json
from keras_bit.evaluation.calibration import fit_temperature, probabilities_of
from keras_bit.evaluation.scores import DEFAULT_THRESHOLD, SMALLEST_THRESHOLD, best_thresholds

if TYPE_CHECKING:
    from keras_bit.evaluation.evaluation import Evaluation

LABELS_FILE = "label_names.json"
OUTPUTS_FILE = "outputs.json"
COPY_AGAIN = "Copy the run again, or train again."


@dataclasses.dataclass(frozen=True)
class RunOutputs:
    """What the logits of a run's model mean.

    Args:
        multi_label: Whether an image has any number of labels: sigmoids in place of a softmax.
        temperature: What logits are divided by.
        thresholds: With several labels, for each class the probability from which on an image has
            its label. Default: 0.5.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> from keras_bit.evaluation import RunOutputs
    >>> RunOutputs(temperature=2.0).probabilities([[0.0, 2 * np.log(3)]])
    array([[0.25, 0.75]])
    """

    multi_label: bool = False
    temperature: float = 1.0
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_boolean("multi_label", self.multi_label)
        temperature = check_positive_number("temperature", self.temperature)
        object.__setattr__(self, "temperature", temperature)  # the way of frozen dataclasses
        if self.thresholds is not None:
            object.__setattr__(self, "thresholds", _checked(self.thresholds, self.multi_label))

    @classmethod
    def of(cls, evaluation: "Evaluation", temperature: float = 1.0) -> "RunOutputs":
        """Returns how to read the logits of a model, by its evaluation on validation images.

        With several labels, the thresholds are those that maximize the F1 of each class there.
        """
        if not evaluation.multi_label:
            return cls(temperature=temperature)
        probabilities = probabilities_of(evaluation.logits, True, temperature)
        return cls(True, temperature, best_thresholds(evaluation.labels, probabilities))

    @classmethod
    def read(cls, folder: str | os.PathLike, classes: int, name: str = "run") -> "RunOutputs":
        """Returns what `outputs.json` in the folder of a run says.

        Without the file, as in runs of earlier versions, it is a softmax.

        Args:
            folder: The folder.
            classes: Number of classes of the run.
            name: What errors call the argument that named the run.

        Raises:
            ValueError: If the file is damaged, or has thresholds for other classes.
        """
        path = pathlib.Path(folder, OUTPUTS_FILE)
        if not path.exists():
            return cls()
        must = f"`{name}` must hold the JSON of a run's outputs"
        with wrap_read_errors(path, must, COPY_AGAIN):
            content = read_json(path)
            fields = {field.name for field in dataclasses.fields(cls)}
            if not isinstance(content, dict) or set(content) != fields:
                raise ValueError(f"it must hold {', '.join(sorted(fields))}")
            outputs = cls(**content)
        if outputs.thresholds is not None and len(outputs.thresholds) != classes:
            raise ValueError(
                f"`{name}` must hold a threshold for each class name. Received: "
                f"{len(outputs.thresholds)} thresholds in {path}, and {classes} names in "
                f"{path.with_name(LABELS_FILE)}. {COPY_AGAIN}"
            )
        return outputs

    def write(self, folder: str | os.PathLike) -> None:
        """Writes `outputs.json` to the folder of a run."""
        write_json(pathlib.Path(folder, OUTPUTS_FILE), dataclasses.asdict(self))

    def with_temperature(self, temperature: float) -> "RunOutputs":
        """Returns these with another temperature, and thresholds that decide as before."""
        if self.thresholds is None:
            return dataclasses.replace(self, temperature=temperature)
        from scipy.special import logit

        logits = logit(np.array(self.thresholds)) * self.temperature
        thresholds = np.maximum(probabilities_of(logits, True, temperature), SMALLEST_THRESHOLD)
        return RunOutputs(self.multi_label, temperature, tuple(thresholds.tolist()))

    def fit_temperature(self, evaluation: "Evaluation") -> "RunOutputs":
        """Returns these with the temperature that suits the images of an evaluation best.

        Decisions stay as they are.

        Args:
            evaluation: Of images that the model was not trained on.

        Raises:
            ValueError: If no temperature is the best, as where all images are right.
        """
        labels, logits = evaluation.label_matrix, evaluation.logits
        return self.with_temperature(fit_temperature(labels, logits, self.multi_label))

    def probabilities(self, logits: Any) -> np.ndarray:
        """Returns the probabilities of logits `(n, classes)`, in float64."""
        return probabilities_of(logits, self.multi_label, self.temperature)

    def decide(self, logits: Any) -> np.ndarray:
        """Returns class ids `(n,)`, or with several labels 0 and 1 of shape `(n, classes)`."""
        if not self.multi_label:
            return np.argmax(logits, axis=-1)
        probabilities = self.probabilities(logits)
        thresholds = self.all_thresholds(probabilities.shape[-1])
        return (probabilities >= np.array(thresholds)).astype(np.uint8)

    def all_thresholds(self, classes: int) -> tuple[float, ...]:
        """Returns the threshold of each class, where an image has several labels."""
        return self.thresholds or (DEFAULT_THRESHOLD,) * classes


def _checked(thresholds: Sequence[Any], multi_label: bool) -> tuple[float, ...]:
    if not multi_label:
        raise ValueError(
            "`thresholds` must be omitted where an image has one label, which is that with the "
            f"largest probability. Received: {len(thresholds)} thresholds"
        )
    checked = tuple(check_positive_number("thresholds", value) for value in thresholds)
    if max(checked, default=0) > 1:
        raise ValueError(f"`thresholds` must be at most 1. Received: {max(checked)}")
    return checked
