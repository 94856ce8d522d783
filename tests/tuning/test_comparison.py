import numpy as np
import pytest
from scipy import stats

from keras_bit.tuning.comparison import compare, describe, verdict
from keras_bit.tuning.trials import SearchTrial

RULE = [0.80, 0.82, 0.79]


def test_one_trial_is_the_paired_t_test():
    other = [0.85, 0.86, 0.80]
    [found] = compare({0: RULE, 4: other}, [5, 6, 7], "max")
    assert (found.number, found.seeds) == (4, (5, 6, 7))
    assert found.difference == pytest.approx(np.mean(other) - np.mean(RULE))
    interval = stats.ttest_rel(other, RULE).confidence_interval(0.90)  # two-sided
    assert found.difference - found.margin == pytest.approx(interval.low)
    test = stats.ttest_rel(other, RULE, alternative="greater")
    assert found.is_better == (test.pvalue < 0.05)


@pytest.mark.parametrize("shift, better", [(0.0, False), (0.002, False), (0.1, True)])
def test_better_by_more_than_the_noise(shift, better):
    other = [score + shift + wobble for score, wobble in zip(RULE, (0.01, -0.01, 0), strict=True)]
    [found] = compare({0: RULE, 1: other}, [1, 2, 3], "max")
    assert found.is_better is better


def test_where_less_is_better_the_signs_turn():
    loss = compare({0: [1.0, 1.1], 1: [0.5, 0.61]}, [1, 2], "min")
    same = compare({0: [-1.0, -1.1], 1: [-0.5, -0.61]}, [1, 2], "max")
    assert loss[0].difference == pytest.approx(0.495) and loss[0].is_better
    assert loss[0].margin == pytest.approx(same[0].margin)


def test_several_trials_share_the_noise_and_are_ordered():
    scores = {0: RULE, 2: [0.81, 0.83, 0.81], 3: [0.90, 0.92, 0.88]}
    table = np.array(list(scores.values()))
    residuals = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    variance = 2 * (residuals**2).sum() / 4 / 3
    first, second = compare(scores, [1, 2, 3], "max")
    assert (first.number, second.number) == (3, 2)
    expected = stats.t.ppf(1 - 0.025, 4) * np.sqrt(variance)
    assert first.margin == pytest.approx(expected) == second.margin


def test_few_images_are_noise_too():
    seeds = [1, 2]
    rng = np.random.default_rng(0)
    rule, other = (rng.random((2, 40)) < chance for chance in (0.7, 0.8))
    other[1] = other[0]
    rule[1] = rule[0]
    scores = {0: rule.mean(1).tolist(), 1: other.mean(1).tolist()}
    [without] = compare(scores, seeds, "max")
    [found] = compare(scores, seeds, "max", {0: rule.astype(int), 1: other.astype(int)})
    assert without.margin == pytest.approx(0, abs=1e-12)
    differences = other[0].astype(float) - rule[0]
    expected = stats.t.ppf(0.95, 39) * stats.sem(differences)
    assert found.margin == pytest.approx(expected)


def test_the_rule_is_kept_where_nothing_is_better():
    """Under equal chances the rule is given up in at most about one search of twenty."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(400):
        right = {n: (rng.random((3, 100)) < 0.8).astype(int) for n in (0, 1, 2)}
        scores = {n: each.mean(1).tolist() for n, each in right.items()}
        wrong += any(c.is_better for c in compare(scores, [1, 2, 3], "max", right))
    assert wrong <= 400 * 0.05


def trial(number, **values):
    return SearchTrial(number, values, None, {}, "completed")


def test_the_verdict_in_a_sentence():
    [found] = compare({0: RULE, 4: [0.95, 0.96, 0.95]}, [5, 6, 7], "max")
    text = verdict(trial(4, rate=3.0), [found], "val_accuracy")
    assert text.startswith("The outcome is trial 4 (rate 3): better than the rule by 15.00 points")
    assert "over 3 further seeds" in text
    text = verdict(trial(0), compare({0: [2.0, 1.0], 4: [1.0, 1.5]}, [5, 6], "min"), "val_loss")
    assert text == (
        "The outcome is the rule: trial 4, better by 0.25 in val_loss over 2 further seeds, is "
        "not better by more than the noise (4.74 in val_loss)."
    )
    assert "no other trial" in verdict(trial(0), (), "val_loss")
    assert describe({"a": "x", "b": True}) == "a x, b True"
