"""What to say of an evaluation, in sentences."""

from collections.abc import Sequence

from keras_bit.core.text import list_some
from keras_bit.evaluation.evaluation import TEMPERATURE, THRESHOLDS, Evaluation
from keras_bit.evaluation.scores import imbalance, with_intervals

UNEQUAL = 3  # how many times as many images make classes unequal
_NAMED = 5
_FITTED = {
    THRESHOLDS: (
        "The thresholds were chosen on these images: on others, precision, recall and F1 are "
        "somewhat lower."
    ),
    TEMPERATURE: (
        "The temperature was fitted on these images: on others, loss and calibration error are "
        "somewhat higher."
    ),
}


def headline(evaluation: Evaluation) -> str:
    """Returns the main result, as the title of a report has it.

    >>> from keras_bit.evaluation.notes import headline
    >>> headline(keras_bit.Evaluation([0, 1], [[2, 0], [0, 3]], ("cat", "dog")))
    '100.00% right'
    """
    if evaluation.multi_label:
        return f"mean average precision {evaluation.metrics['mean_average_precision']:.3f}"
    return f"{evaluation.metrics['accuracy']:.2%} right"


def score_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Returns rows of name, value and remark of the metrics, for a table.

    >>> from keras_bit.evaluation.notes import score_rows
    >>> score_rows(keras_bit.Evaluation([0, 1], [[2, 0], [0, 3]], ("cat", "dog")))[1]
    ('accuracy', '1.0000', '95% interval: 0.3424 to 1.0000')
    """
    temperature = evaluation.outputs.temperature
    rows = []
    for name, value, interval in with_intervals(evaluation.metrics):
        remark = ""
        if interval is not None:
            remark = "95% interval: {:.4f} to {:.4f}".format(*interval)
        elif name == "calibration_error" and temperature != 1:
            remark = f"with the temperature {temperature:.4g}"
        rows.append((name.replace("_", " "), f"{value:.4f}", remark))
    return rows


def notes(evaluation: Evaluation, train_counts: Sequence[int] | None = None) -> list[str]:
    """Returns what one has to know to read the scores of an evaluation, in sentences.

    Args:
        evaluation: The evaluation.
        train_counts: The number of training images of each class, as far as they are known.
    """
    said = [_FITTED[name] for name in evaluation.fitted_here]
    absent = [scores.name for scores in evaluation.class_scores if not scores.support]
    if absent:
        verb = "class has" if len(absent) == 1 else "classes have"
        said.append(
            f"{len(absent):,} {verb} no image here and count for nothing in means over the "
            f"classes: {list_some(absent, _NAMED)}."
        )
    return said + _unequal(evaluation, train_counts)


def _unequal(evaluation, train_counts):
    names = evaluation.label_names
    counts = train_counts
    if counts is None:
        counts = [scores.support for scores in evaluation.class_scores]
    if (times := imbalance(counts)) < UNEQUAL:
        return []
    largest = max(range(len(counts)), key=counts.__getitem__)
    smallest = min((i for i in range(len(counts)) if counts[i]), key=counts.__getitem__)
    where = "Of these images" if train_counts is None else "In training"
    advice = "macro F1."
    if not evaluation.multi_label:
        advice = (
            "mean class accuracy; in training they do with "
            'class_weight="balanced" of keras_bit.fine_tune, or --class-weight balanced.'
        )
    return [
        f"{where}, the largest class ({names[largest]}: {counts[largest]:,}) has {times:.3g} times "
        f"the images of the smallest ({names[smallest]}: {counts[smallest]:,}). Small classes "
        f"count as much as large ones in {advice}"
    ]
