import keras
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from keras_bit import Evaluation
from keras_bit.evaluation import Mistake, RunOutputs
from keras_bit.evaluation.evaluation import describe_classes

NAMES = ("cat", "dog", "fox")


def of_probabilities(labels, probabilities, label_names=NAMES, **options):
    return Evaluation(labels, np.log(probabilities), label_names, **options)


@pytest.fixture
def hand_example():
    probabilities = [[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.5, 0.4, 0.1]]
    return lambda labels: of_probabilities(labels, probabilities)


def test_metrics_of_a_hand_example(hand_example):
    metrics = hand_example([0, 0, 1, 1]).metrics
    assert metrics["loss"] == pytest.approx(-np.log([0.5, 0.5, 0.8, 0.4]).mean())
    assert metrics["accuracy"] == 0.75
    assert metrics["mean_class_accuracy"] == 0.75
    metrics = hand_example([0, 0, 0, 1]).metrics
    assert metrics["accuracy"] == pytest.approx(0.5)
    assert metrics["mean_class_accuracy"] == pytest.approx((2 / 3 + 0) / 2)
    assert {type(value) for value in metrics.values()} == {float}


@pytest.mark.filterwarnings("error")
def test_classes_that_do_not_occur_count_for_nothing(hand_example):
    assert hand_example([1, 1, 1, 1]).metrics["mean_class_accuracy"] == pytest.approx(0.25)


def test_a_class_with_no_probability_gives_a_finite_loss():
    assert np.isfinite(Evaluation([1], [[1e5, 0.0]], ("a", "b")).metrics["loss"])


def test_probabilities_of_a_hand_example_and_of_huge_logits():
    evaluation = Evaluation([0, 1], [[0.0, np.log(3.0)], [1e5, -1e5]], ("a", "b"))
    np.testing.assert_allclose(evaluation.probabilities, [[0.25, 0.75], [1, 0]])
    assert evaluation.predictions.tolist() == [1, 0]


def test_confusion_of_a_hand_example():
    predicted = np.eye(4)[[0, 1, 1, 1, 0, 0]]
    evaluation = Evaluation([0, 0, 0, 1, 1, 3], predicted, "abcd")
    expected = [[1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert evaluation.confusion.tolist() == expected
    rows = [(s.name, s.support, s.right, s.confused_with) for s in evaluation.worst_classes()]
    assert rows == [("d", 1, 0, "a"), ("a", 3, 1, "b"), ("b", 2, 1, "a"), ("c", 0, 0, "")]


def test_names_and_thresholds_must_be_as_many_as_images_and_classes():
    with pytest.raises(ValueError, match="`names` must hold one.*3 names, 2 images"):
        Evaluation([0, 1], np.eye(2), "ab", names="xyz")
    outputs = RunOutputs(multi_label=True, thresholds=(0.5,))
    with pytest.raises(ValueError, match="`outputs` must hold a thr.*1 thresholds, 2 classes"):
        Evaluation([[0, 1], [1, 0]], np.eye(2), "ab", outputs=outputs)


def test_mistakes_are_the_wrong_ones_in_order_of_their_probability():
    probabilities = [[0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]
    files = tuple(f"{index}.png" for index in range(4))
    evaluation = of_probabilities([1, 1, 1, 0], probabilities, ("a", "b"), names=files)
    found = evaluation.mistakes()
    assert [(m.index, m.name, m.true, m.predicted) for m in found] == [
        (2, "2.png", 1, 0),
        (3, "3.png", 0, 1),
        (0, "0.png", 1, 0),
    ]
    assert [m.probability for m in found] == pytest.approx([0.8, 0.7, 0.6])
    assert evaluation.mistakes(limit=1) == found[:1] and isinstance(found[0], Mistake)
    assert of_probabilities([0, 1, 0, 1], probabilities, ("a", "b")).mistakes() == []


def test_the_interval_the_f1_and_the_calibration_error_of_a_hand_example(hand_example):
    metrics = hand_example([0, 0, 1, 1]).metrics
    # Predicted are 0, 0, 1, 0: cat 2 of 3 precise and all found, dog precise and half of it found.
    assert metrics["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    z = 1.96**2 / 4  # Wilson, with n = 4 and p = 0.75
    spread = np.sqrt(0.75 * 0.25 * z + z**2 / 4)
    ends = [(0.75 + z / 2 + side * spread) / (1 + z) for side in (-1, 1)]
    assert [metrics["accuracy_low"], metrics["accuracy_high"]] == pytest.approx(ends, abs=1e-4)
    # Three predictions of 0.5 of which two are right, and a right one of 0.8.
    assert metrics["calibration_error"] == pytest.approx(3 / 4 * (2 / 3 - 0.5) + 1 / 4 * 0.2)


def test_scores_of_each_class_of_a_hand_example():
    predicted = np.eye(4)[[0, 1, 1, 1, 0, 0]]
    scores = Evaluation([0, 0, 0, 1, 1, 3], predicted, "abcd").class_scores
    assert [each.name for each in scores] == list("abcd")
    assert [each.support for each in scores] == [3, 2, 0, 1]
    assert [each.right for each in scores] == [1, 1, 0, 0]
    assert [each.precision for each in scores] == pytest.approx([1 / 3, 1 / 3, 0, 0])
    assert [each.recall for each in scores] == pytest.approx([1 / 3, 1 / 2, 0, 0])
    assert [each.f1 for each in scores] == pytest.approx([1 / 3, 0.4, 0, 0])
    assert [each.confused_with for each in scores] == ["b", "a", "", "a"]
    assert {each.threshold for each in scores} == {None}


def test_a_temperature_changes_probabilities_and_no_prediction(hand_example):
    before = hand_example([0, 0, 1, 1])
    after = Evaluation(before.labels, before.logits, NAMES, outputs=RunOutputs(temperature=2.0))
    roots = np.sqrt([[2, 1, 1], [2, 1, 1], [1, 8, 1], [5, 4, 1]])
    np.testing.assert_allclose(after.probabilities, roots / roots.sum(axis=1, keepdims=True))
    assert after.predictions.tolist() == before.predictions.tolist()
    assert after.metrics["accuracy"] == before.metrics["accuracy"]
    assert after.metrics["loss"] != before.metrics["loss"]


LABELS = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 0, 0]])
LOGITS = np.array([[2.0, -1, 3], [-2, 1, -1], [1, 2, -3], [-1, -2, 1]])


@pytest.fixture
def several():
    """Images with several labels each, decided at a probability of a half."""
    return Evaluation(LABELS, LOGITS, NAMES, tuple("abcd"), RunOutputs(True))


def test_metrics_of_several_labels(several):
    metrics = several.metrics
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    expected = float(loss(LABELS.astype("float32"), LOGITS.astype("float32")))
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    # Wrong: b has "dog", and not "fox"; d has "fox". Right: 2 cats, 1 dog, 1 fox.
    assert several.predictions.tolist() == [[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert metrics["exact_match"] == 0.5
    assert metrics["micro_f1"] == pytest.approx(2 * 4 / (2 * 4 + 2 + 1))
    assert metrics["macro_f1"] == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    # Average precisions: 1; 1; of fox, in order true, false, true.
    assert metrics["mean_average_precision"] == pytest.approx((1 + 1 + (1 + 2 / 3) / 2) / 3)
    oracle = sklearn_metrics.average_precision_score(LABELS, several.probabilities)
    assert metrics["mean_average_precision"] == pytest.approx(oracle)
    assert {type(value) for value in metrics.values()} == {float}
    assert several.confusion.tolist() == [[[2, 0], [0, 2]], [[2, 1], [0, 1]], [[1, 1], [1, 1]]]


def test_scores_and_rows_of_several_labels(several):
    cat, dog, fox = several.class_scores
    assert (dog.support, dog.right, dog.precision, dog.recall) == (1, 1, 0.5, 1)
    assert (fox.support, fox.right, fox.f1, fox.threshold) == (2, 1, 0.5, 0.5)
    assert fox.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert [each.name for each in several.worst_classes()] == ["fox", "dog", "cat"]


def test_mistakes_of_several_labels(several):
    second, fourth = several.mistakes()
    share = 1 / (1 + np.exp(-1))
    # Of b, "dog" at 0.73 and "fox" at 0.27 are equally far from the truth: the first is told.
    assert (second.name, second.true, second.predicted, second.label) == ("b", (2,), (1,), 1)
    assert (fourth.name, fourth.true, fourth.predicted, fourth.label) == ("d", (), (2,), 2)
    assert second.probability == fourth.probability == pytest.approx(share)
    assert describe_classes(fourth.true, NAMES) == "none"
    assert several.mistakes(limit=1) == [second]


def test_a_mistake_is_a_wrong_label_however_far_the_right_ones_are():
    logits = np.log([[0.15 / 0.85, 0.6 / 0.4]])
    outputs = RunOutputs(True, 1.0, (0.1, 0.5))
    (mistake,) = Evaluation([[0, 1]], logits, ("cat", "dog"), outputs=outputs).mistakes()
    assert mistake.label == 0 and mistake.probability == pytest.approx(0.15)


def test_calibration_of_several_labels_is_that_of_every_label(several):
    shares, labels = several.probabilities.ravel(), LABELS.ravel()
    by_bin = {}
    for share, label in zip(shares, labels, strict=True):
        by_bin.setdefault(int(np.ceil(share * 15)), []).append(share - label)
    expected = sum(abs(sum(differences)) for differences in by_bin.values()) / 12
    assert several.metrics["calibration_error"] == pytest.approx(expected)


def test_thresholds_are_chosen_here_where_none_are_given():
    evaluation = Evaluation(LABELS, LOGITS, NAMES)
    assert evaluation.multi_label and evaluation.fitted_here == ("thresholds",)
    assert evaluation.metrics["micro_f1"] > 2 * 4 / (2 * 4 + 2 + 1)
    given = Evaluation(LABELS, LOGITS, NAMES, outputs=evaluation.outputs)
    assert given.fitted_here == () and given.metrics == evaluation.metrics
    assert Evaluation([0], [[1.0, 0]], "ab").fitted_here == ()


@pytest.mark.filterwarnings("error")
def test_labels_that_no_image_has_count_for_nothing():
    labels = LABELS * (1, 1, 0)
    metrics = Evaluation(labels, LOGITS, NAMES, outputs=RunOutputs(True)).metrics
    assert metrics["mean_average_precision"] == 1
    assert metrics["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
    none = Evaluation(0 * labels, LOGITS, NAMES).metrics
    assert np.isnan(none["mean_average_precision"]) and np.isnan(none["macro_f1"])
    assert none["exact_match"] == 0 and np.isfinite(none["loss"])


def test_refuses_what_does_not_fit():
    for labels, logits in (
        ([0], [[1.0, 0, 0]]), ([0, 1], [[1.0, 0]]), ([], np.zeros((0, 2))), (0, [[1.0, 0]]),
        ([[0]], [[1.0, 0]]), ([[0, 1, 1]], [[1.0, 0]]), ([0], [1.0]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="`logits` must have the shape.*Received: logits of"):
            Evaluation(labels, logits, ("a", "b"))
    with pytest.raises(ValueError, match="`label_names` must name at least two classes.*: 1"):
        Evaluation([[1], [0]], [[2.0], [-1.0]], ("cat",))
    for bad in (np.nan, np.inf):
        with pytest.raises(FloatingPointError, match="`logits` must be finite"):
            Evaluation([0], [[bad, 0.0]], ("a", "b"))
    for labels in ([2], [-1], [0.0], [True]):
        with pytest.raises(ValueError, match="`labels` must be integers from 0 to 1"):
            Evaluation(labels, [[1.0, 0.0]], ("a", "b"))
    for labels in ([[0, 2]], [[0.5, 0]], [[np.nan, 0]]):
        with pytest.raises(ValueError, match="`labels` of shape .* must be 0 or 1"):
            Evaluation(labels, [[1.0, 0.0]], ("a", "b"))
    with pytest.raises(ValueError, match="`outputs` must be for labels of this kind"):
        Evaluation([[0, 1]], [[1.0, 0.0]], ("a", "b"), outputs=RunOutputs())
