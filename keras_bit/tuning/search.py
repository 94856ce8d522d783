"""A whole search: trials, the best of them again beside the rule, and the outcome."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import keras_tuner

from keras_bit.core.arguments import check_boolean, check_integer, check_positive_number
from keras_bit.core.text import announce
from keras_bit.data.dataset import ImageDataset
from keras_bit.hyperrule.callback import DEFAULT_EPOCHS
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.training.resolve import check_arguments
from keras_bit.tuning.hypermodel import HyperBiT
from keras_bit.tuning.report import write_study
from keras_bit.tuning.space import OTHER_DECISIONS, make_space
from keras_bit.tuning.study import Study
from keras_bit.tuning.study_folder import StudyFolder, check_search_output
from keras_bit.tuning.trials import SearchResult
from keras_bit.tuning.tuners import (
    CHIEF,
    WORKER,
    check_role,
    make_tuner,
    own_workers,
    processes_of_search,
    role_in_search,
)


def search(
    data: ImageDataset | HyperBiT,
    rule: HyperRule | None = None,
    *,
    trials: int = 12,
    space: keras_tuner.HyperParameters | Mapping[str, Sequence] | Sequence[str] | None = None,
    tuner: Any = "random",
    objective: Any = "val_accuracy",
    repeats: int = 3,
    keep: int = 1,
    epochs: int = DEFAULT_EPOCHS,
    hours: float | None = None,
    output: str | os.PathLike | None = None,
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: bool | int | str = "auto",
    **decisions: Any,
) -> SearchResult:
    """Searches around a rule with keras-tuner, and returns it unless another is surely better.

    Trial 0 is the rule itself. At the end the two best trials and the rule are trained again with
    further seeds; the rule is the outcome unless the better of the two beats it by more than the
    noise, compared seed by seed and image by image. Train the final model with
    `keras_bit.fine_tune(data, **result.decisions)`.

    Killed at any moment, the same call resumes: trials that ended are not run again, and the one
    under way resumes from its checkpoint. Several processes that call it with the same `output` on
    a disk that they share carry on the same search; the trial of a process that was lost is taken
    over by another.

    Args:
        data: A `keras_bit.ImageDataset`. Trials are compared on its test images, which the final
            model's accuracy should not be taken from. Or a `keras_bit.HyperBiT`, perhaps with a
            model of your own, which takes the place of `rule`, `epochs` and `decisions`.
        rule: A `keras_bit.HyperRule`; by default the one that suits the network, as in
            `keras_bit.plan`.
        trials: Number of trials, the rule among them. With Hyperband the training of so many
            trials, which is shared by more and shorter ones.
        space: What is searched: names among `"rate"`, `"length"`, `"mixup"` (these three by
            default), `"crop"`, `"batch"`, `"warmup"`, `"preset"`, `"frozen"`, `"decay"` and
            `"dropout"`; or a dict of such names with their values, one value to pin it; or a
            `keras_tuner.HyperParameters` with the names that `keras_bit.HyperBiT` lists.
        tuner: `"random"`, `"bayesian"`, `"grid"`, `"hyperband"`, a class of keras-tuner's tuners,
            a tuner that has not searched yet, or a `keras_tuner.Oracle`.
        objective: Name of a metric of the logs, or a `keras_tuner.Objective`. (A tuner or an oracle
            has its own, and its own space.)
        repeats: Further seeds, at least 2, with which the best and the rule are trained again.
        keep: Number of best trials whose weights are kept.
        epochs: Validations that make up the schedule of a trial.
        hours: No trial begins that would, with what follows, end later than this.
        output: Folder for everything: `study.json` (what is searched), `trials` with a JSON file a
            trial, `trials.csv`, `best_rule.json` and `study.html`. By default nothing is kept.
        overwrite: Whether a search in `output` is replaced. By default it is resumed, which needs
            the same data, rule, network, space, seed and versions.
        callbacks: Further callbacks for the trials, which must be deep-copyable.
        verbose: Whether to print a line for each trial.
        **decisions: Arguments of `keras_bit.plan` for all trials: `preset`, `depth`, `width`,
            `freeze_backbone`, `frozen_blocks`, `weight_decay`, `dropout`, `class_weight`, `remat`,
            `dtype`, `micro_batch_size`, `seed`, `cache_dir`, and those of `HyperRule`.

    Returns:
        A `SearchResult`: `rule`, `baseline`, `trials`, `output`, `verdict`, `decisions`.

    Raises:
        ValueError: If an argument is out of range, or `output` holds another search.
        FileExistsError: If `output` holds other files.
        RuntimeError: If the rule itself cannot be trained; the message says why.
        OSError: If the disk has too little room.

    Example:

    ```python
    import keras_bit

    data = keras_bit.digits(examples_per_class=2)
    result = keras_bit.search(
        data, trials=2, space=["rate"], repeats=2, epochs=1, schedule_length=2, crop_size=32,
        verbose=0,
    )
    print(result.verdict)
    ```
    """
    numbers: dict[str, Any] = {
        "trials": check_integer("trials", trials, minimum=1),
        "repeats": check_integer("repeats", repeats, minimum=2),
        "keep": check_integer("keep", keep, minimum=0),
        "hours": None if hours is None else check_positive_number("hours", hours),
    }
    overwrite = check_boolean("overwrite", overwrite)
    check_role(role_in_search(), output, overwrite)
    hypermodel = data
    if not isinstance(hypermodel, HyperBiT):
        hypermodel = HyperBiT(data, rule, epochs=epochs, verbose=verbose, **decisions)
    elif rule is not None or decisions:
        given = ", ".join(["rule"] * (rule is not None) + sorted(decisions))
        raise ValueError(
            "`data` must be a keras_bit.ImageDataset beside arguments of trials, which a HyperBiT "
            f"has. Received: a HyperBiT and {given}."
        )
    if space is not None and not isinstance(tuner, (str, type)):
        raise ValueError(
            "`space` must not stand beside a tuner or an oracle, which has its own. Received: "
            f"space={space!r}, tuner={tuner!r}. Give the tuner `hyperparameters`."
        )
    plan = hypermodel.plan
    others = {name: getattr(plan, name) for name in OTHER_DECISIONS}
    chosen = make_space(space, hypermodel.rule, plan.preset, **others)
    _check_values(hypermodel, chosen)
    with _folder(output, overwrite) as folder, processes_of_search() as role:
        with hypermodel.traced_once(), tempfile.TemporaryDirectory() as scratch:
            made = make_tuner(tuner, hypermodel, objective, chosen, folder.path, scratch)
            study = Study(made, folder, verbose=verbose, **numbers)
            study.open()
            if role is not None:
                folder.check_locks()
            if role == CHIEF:
                study.wait(own_workers())
            else:
                study.run(callbacks)
            result = study.result(None if output is None else folder.path)
        if output is not None and role != WORKER:
            write_study(folder.path, result)
    announce(result.verdict, verbose)
    return result


def _check_values(hypermodel, space):
    """Raises where a run cannot have one of the values to try."""
    for parameter in space.space:
        for value in getattr(parameter, "values", ()):
            hp = space.copy()
            hp.values[parameter.name] = value
            try:
                rule = hypermodel.rule_for(hp)
                check_arguments(**hypermodel.decisions_for(hp), rule=rule)
            except (ValueError, TypeError, OSError) as error:
                raise ValueError(
                    "`space` must give values that a run can have. Received: "
                    f"{parameter.name}={value!r}. {error}"
                ) from error


@contextlib.contextmanager
def _folder(output, overwrite):
    if output is not None:
        check_search_output(output, overwrite)
        yield StudyFolder(pathlib.Path(output))
        return
    with tempfile.TemporaryDirectory(prefix="keras_bit_search_") as folder:
        yield StudyFolder(pathlib.Path(folder))
