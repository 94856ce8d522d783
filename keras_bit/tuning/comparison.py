"""Whether a trial is better than the rule by more than the noise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_bit.tuning.trials import Comparison, SearchTrial

# Chance to take a trial for better than the rule where none is.
SIGNIFICANCE = 0.05


def compare(
    scores: Mapping[int, Sequence[float]],
    seeds: Sequence[int],
    direction: str,
    right: Mapping[int, np.ndarray] | None = None,
) -> tuple[Comparison, ...]:
    """Compares the runs of some trials with runs of the rule, with the same seeds and images.

    The difference is the mean over the seeds of the paired differences. Its variance has two
    parts. Over the seeds (initial head, order, crops, mixes) it is twice the residual variance
    of the table of trials and seeds, divided by the seeds; for one trial this is the paired t-test.
    Where the score is an accuracy, the validation images are a sample as well: the variance of the
    differences image by image, divided by the images, is added. The margin is the one-sided
    quantile of Student's t, with Welch's degrees of freedom, at 5 % divided among the trials
    (Bonferroni). What the two parts share is counted twice, so that the test errs toward the rule.
    With few seeds it is blunt; and it knows nothing of images of another kind than those of
    validation.

    Args:
        scores: The scores of each trial's runs, in the order of the seeds; 0 is the rule.
        seeds: At least 2.
        direction: `"max"` or `"min"`.
        right: For each trial an array (seeds, images) of 0 and 1: which images its runs had right.

    Example:

    >>> from keras_bit.tuning.comparison import compare
    >>> [comparison] = compare({0: [0.80, 0.81], 3: [0.90, 0.92]}, seeds=[1, 2], direction="max")
    >>> round(comparison.difference, 3), round(comparison.margin, 3), comparison.is_better
    (0.105, 0.032, True)
    """
    table = np.array([scores[number] for number in scores])
    effects = table.mean(axis=1, keepdims=True) + table.mean(axis=0) - table.mean()
    freedom = (len(table) - 1) * (len(seeds) - 1)
    by_seed = 2 * ((table - effects) ** 2).sum() / freedom / len(seeds)
    sign = 1 if direction == "max" else -1
    found = []
    for number in scores.keys() - {0}:
        difference = sign * float(np.mean(scores[number]) - np.mean(scores[0]))
        parts = [(by_seed, freedom)]
        if right is not None:
            differences = right[number].mean(axis=0) - right[0].mean(axis=0)
            images = len(differences)
            parts.append((differences.var(ddof=1) / images, images - 1))
        margin = _margin(parts, len(scores) - 1)
        found.append(Comparison(number, difference, margin, tuple(seeds)))
    return tuple(sorted(found, key=lambda comparison: -comparison.difference))


def _margin(parts, comparisons):
    """What a mean must exceed, from the parts of its variance and their degrees of freedom."""
    from scipy.stats import t

    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return float(t.ppf(1 - SIGNIFICANCE / comparisons, freedom) * np.sqrt(variance))


def verdict(best: SearchTrial, comparisons: Sequence[Comparison], objective: str) -> str:
    """Returns the outcome of a search in a sentence."""
    if not comparisons:
        return "The outcome is the rule: there is no other trial that could be compared with it."
    nearest = comparisons[0]
    seeds = f"over {len(nearest.seeds)} further seeds"
    if best.number == 0:
        by, margin = _amount(nearest.difference, objective), _amount(nearest.margin, objective)
        kind = "better" if nearest.difference >= 0 else "worse"
        return (
            f"The outcome is the rule: trial {nearest.number}, {kind} by {by} {seeds}, is not "
            f"better by more than the noise ({margin})."
        )
    [chosen] = [each for each in comparisons if each.number == best.number]
    by, margin = _amount(chosen.difference, objective), _amount(chosen.margin, objective)
    return (
        f"The outcome is trial {best.number} ({describe(best.values)}): better than the rule by "
        f"{by} {seeds}, the noise being {margin}."
    )


def describe(values: Mapping[str, Any]) -> str:
    """Returns hyperparameters as text.

    >>> from keras_bit.tuning.comparison import describe
    >>> describe({"learning_rate_factor": 3.0, "mixup_alpha": 0.1})
    'learning_rate_factor 3, mixup_alpha 0.1'
    """
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )


def _amount(difference, objective):
    if "accuracy" in objective:
        return f"{100 * abs(difference):.2f} points of {objective}"
    return f"{abs(difference):.3g} in {objective}"
