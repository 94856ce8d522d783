import dataclasses

import numpy as np

from keras_bit import Evaluation
from keras_bit.evaluation import RunOutputs
from keras_bit.evaluation.notes import headline, notes, score_rows


def counted(*counts, names="abcdefgh"):
    """An evaluation of so many images of each class, the first of which is wrong."""
    labels = np.repeat(np.arange(len(counts)), counts)
    logits = 2.0 * np.eye(len(counts))[labels]
    logits[0] = -logits[0]
    return Evaluation(labels, logits, tuple(names[: len(counts)]))


def test_equal_classes_need_no_words():
    assert notes(counted(5, 6, 14)) == [] == notes(counted(5, 50), train_counts=[90, 100])


def test_unequal_classes_are_told_with_what_one_can_do():
    (note,) = notes(counted(20, 5))
    assert note.startswith("Of these images, the largest class (a: 20) has 4 times the images of ")
    assert "the smallest (b: 5)" in note and "mean class accuracy" in note
    assert 'class_weight="balanced" of keras_bit.fine_tune, or --class-weight balanced' in note
    (note,) = notes(counted(5, 5), train_counts=[10, 1_250])
    assert note.startswith("In training, the largest class (b: 1,250) has 125 times")
    several = Evaluation([[1, 0]] * 4 + [[0, 1]], np.zeros((5, 2)), "ab", outputs=RunOutputs(True))
    assert "macro F1" in notes(several)[0]


def test_classes_without_images_are_named():
    (note,) = notes(counted(3, 0, 3, 0))
    assert note.startswith("2 classes have no image here") and note.endswith("classes: b, d.")
    assert notes(counted(3, 0, 3))[0].startswith("1 class has no image here")


def test_what_was_fitted_on_the_same_images_is_told():
    evaluation = Evaluation([[1, 0], [0, 1]], np.eye(2), "ab")
    (note,) = notes(evaluation)
    assert note.startswith("The thresholds were chosen on these images: on others, precision, ")
    both = dataclasses.replace(evaluation, fitted_here=("thresholds", "temperature"))
    assert notes(both)[1].startswith("The temperature was fitted on these images")


def test_headline_and_rows():
    evaluation = counted(4, 4)
    assert headline(evaluation) == "87.50% right"
    rows = {name: (value, remark) for name, value, remark in score_rows(evaluation)}
    assert rows["accuracy"] == ("0.8750", "95% interval: 0.5291 to 0.9776")
    assert "accuracy low" not in rows and rows["macro f1"][1] == ""
    warm = dataclasses.replace(evaluation, outputs=RunOutputs(temperature=2.0))
    assert ("calibration error", "0.1439", "with the temperature 2") in score_rows(warm)
    several = Evaluation([[1, 0], [0, 1]], np.eye(2), "ab")
    assert headline(several) == "mean average precision 1.000"
