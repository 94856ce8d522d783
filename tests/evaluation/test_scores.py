import numpy as np
import pytest

from keras_bit.evaluation import scores


@pytest.mark.parametrize("right, total", [(0, 1), (0, 10), (8, 10), (274, 372), (10, 10), (1, 1)])
def test_wilson_s_interval_ends_where_the_score_test_does(right, total):
    low, high = scores.wilson_interval(right, total)
    share, z = right / total, 1.959963984540054
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):  # the true shares that a test at 5% just does not reject
        distance = z * np.sqrt(end * (1 - end) / total)
        assert abs(share - end) == pytest.approx(distance, abs=1e-12) or end in (0, 1)


def test_wilson_s_interval_of_hand_examples():
    # statsmodels.stats.proportion.proportion_confint(..., method="wilson")
    assert scores.wilson_interval(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-7)
    assert scores.wilson_interval(0, 10) == pytest.approx((0, 0.2775328), abs=1e-7)
    assert scores.wilson_interval(0, 3)[0] == 0 and scores.wilson_interval(3, 3)[1] == 1


def f1(true, taken):
    return 2 * (true & taken).sum() / (true.sum() + taken.sum())


def test_no_other_threshold_has_a_higher_f1(rng):
    labels = rng.uniform(size=(60, 4)) < (0.5, 0.1, 0.03, 0)
    labels[0, :3] = True
    probabilities = np.round(np.clip(labels * 0.3 + rng.uniform(0, 0.7, (60, 4)), 0, 1), 2)
    found = scores.best_thresholds(labels, probabilities)
    for column, threshold in enumerate(found[:3]):
        true, share = labels[:, column], probabilities[:, column]
        tried = [f1(true, share >= t) for t in np.linspace(0, 1, 1001)]
        assert f1(true, share >= threshold) == pytest.approx(max(tried))
    assert found[3] == 0.5 and all(type(each) is float for each in found)


def test_a_threshold_lies_in_the_middle_and_near_a_half():
    column = np.array([[0.125], [0.5], [0.75], [1.0]])
    assert scores.best_thresholds(np.array([[0], [0], [1], [1]]), column) == (0.625,)
    assert scores.best_thresholds(np.array([[1], [1], [1], [1]]), column) == (0.0625,)
    # To take the first alone, or all four, gives an F1 of 2/3: 0.75 is nearer to a half than 0.15.
    column = np.array([[0.9], [0.6], [0.5], [0.3]])
    assert scores.best_thresholds(np.array([[1], [0], [0], [1]]), column) == (0.75,)


def test_a_threshold_is_above_zero_even_where_all_probabilities_are_zero():
    (threshold,) = scores.best_thresholds(np.array([[1], [0]]), np.zeros((2, 1)))
    assert 0 < threshold < 1e-300


def test_average_precision_of_a_hand_example():
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 0]])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.4]])
    first, without = scores.average_precisions(labels, probabilities)
    assert first == pytest.approx(0.5 * 1 + 0.5 * 2 / 3) and np.isnan(without)


def test_imbalance():
    assert scores.imbalance([30, 0, 10]) == 3 and scores.imbalance([0, 0]) == 1
