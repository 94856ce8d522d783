import numpy as np
import pytest

from keras_bit import Evaluation
from keras_bit.evaluation import Mistake

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
    rows = evaluation.class_rows()
    assert rows == [("d", 1, 0, "a"), ("a", 3, 1, "b"), ("b", 2, 1, "a"), ("c", 0, 0, "")]


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


def test_refuses_what_does_not_fit():
    for labels, logits in (([0], [[1.0, 0, 0]]), ([0, 1], [[1.0, 0]]), ([], np.zeros((0, 2)))):
        with pytest.raises(ValueError, match="`logits` must have the shape.*Received: logits of"):
            Evaluation(labels, logits, ("a", "b"))
    for bad in (np.nan, np.inf):
        with pytest.raises(FloatingPointError, match="`logits` must be finite"):
            Evaluation([0], [[bad, 0.0]], ("a", "b"))
