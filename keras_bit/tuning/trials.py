"""The trials of a search, and what it returns."""

import dataclasses
import pathlib
from typing import Any

from keras_bit.hyperrule.rule import HyperRule

RUNNING, COMPLETED, FAILED = "running", "completed", "failed"


def status_of(end: dict[str, Any] | None) -> str:
    """Returns the status of a trial by the event that ended it, if it has ended."""
    if not end:
        return RUNNING
    return COMPLETED if end["status"] == "COMPLETED" else FAILED


@dataclasses.dataclass(frozen=True)
class SearchTrial:
    """One trial of a search.

    Attributes:
        number: 0 for the rule itself, then in the order in which they began.
        values: The hyperparameters that were searched, by name.
        rule: The `keras_bit.HyperRule` that the trial was trained with.
        decisions: What else it decides, as arguments of `keras_bit.plan`, such as `preset` and
            `frozen_blocks`.
        status: `"running"`, `"completed"` or `"failed"`.
        score: The objective's best value over the epochs, `None` unless completed.
        seconds: Of training and validation, without interruptions.
        planned_updates: Optimizer updates that were to be made; under Hyperband perhaps fewer than
            `rule.schedule_length`.
        updates: Those that were made, fewer than planned where a callback such as
            `keras.callbacks.EarlyStopping` ended training.
        history: Dict of lists with one value an epoch: `loss`, `accuracy`, `val_loss`,
            `val_accuracy`, `learning_rate`, `updates`.
        reason: Why it failed, `""` otherwise.
        written: Bytes of weights that it wrote at epochs better than all before.
        repeats: The scores of further runs with other seeds, by seed; empty for most trials.
    """

    number: int
    values: dict[str, Any]
    rule: HyperRule
    decisions: dict[str, Any]
    status: str
    score: float | None = None
    seconds: float = 0.0
    planned_updates: int = 0
    updates: int = 0
    history: dict[str, list] = dataclasses.field(default_factory=dict)
    reason: str = ""
    written: int = 0
    repeats: dict[int, float] = dataclasses.field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether its rule's whole schedule was the plan, though a callback may have ended it."""
        planned = max(self.planned_updates, self.updates)
        return self.status == COMPLETED and planned >= self.rule.schedule_length


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A trial beside the rule, over runs with the same further seeds.

    Attributes:
        number: Of the trial.
        difference: Mean over the seeds of the trial's score less the rule's; positive where the
            trial is better, whatever the objective's direction.
        margin: What the difference must exceed to be more than noise.
        seeds: The seeds of the runs.
    """

    number: int
    difference: float
    margin: float
    seeds: tuple[int, ...]

    @property
    def is_better(self) -> bool:
        """Whether the trial is better than the rule by more than the noise."""
        return self.difference > self.margin


@dataclasses.dataclass(frozen=True, eq=False)
class SearchResult:
    """What `keras_bit.search` returns.

    Attributes:
        rule: The `keras_bit.HyperRule` to train with: `baseline`, unless a trial was better by more
            than the noise.
        baseline: The rule that was searched around.
        trials: Tuple of `SearchTrial`, by number; trial 0 is the baseline.
        output: `pathlib.Path` of the output folder, or `None`.
        best: The `SearchTrial` that `rule` and `decisions` come from.
        comparisons: Tuple of `Comparison`, of the best trials.
        verdict: The outcome in a sentence.
        objective: Name of the metric that was compared.
        direction: `"max"` or `"min"`.
        validation_images: Number of images that the scores are from.
    """

    rule: HyperRule
    baseline: HyperRule
    trials: tuple[SearchTrial, ...]
    output: pathlib.Path | None
    best: SearchTrial
    comparisons: tuple[Comparison, ...]
    verdict: str
    objective: str
    direction: str
    validation_images: int

    @property
    def decisions(self) -> dict[str, Any]:
        """Arguments of `keras_bit.fine_tune` that train with the outcome, `rule` among them."""
        return {"rule": self.rule, **self.best.decisions}
