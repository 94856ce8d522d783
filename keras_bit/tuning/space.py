"""The hyperparameters of a search, and what they change of a run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras_tuner

from keras_bit.core.warn import warn_caller
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.layers.image_input import MIN_EDGE

DEFAULT_SPACE = ("rate", "length", "mixup")
SCHEDULE_FACTORS = (0.5, 1.0, 2.0)
CROP_STEP = 8  # pixels
OTHER_DECISIONS = ("frozen_blocks", "weight_decay", "dropout")  # than those of rule and network


class Hyperparameter(NamedTuple):
    """A hyperparameter: its name for keras-tuner, the values to try, and what the rule has.

    `None` as values: there are none but those of the user.
    """

    name: str
    values: tuple[Any, ...] | None
    default: Any


def hyperparameters(
    rule: HyperRule,
    preset: str | None,
    frozen_blocks: int = 0,
    weight_decay: float = 0.0,
    dropout: float = 0.0,
) -> dict[str, Hyperparameter]:
    """Returns the hyperparameters around a run, by the short names of `search`."""
    alpha, warmup = rule.mixup_alpha, rule.warmup_steps > 0
    crops = tuple(
        f for f in (0.75, 1.0, 1.25) if f * rule.crop_size >= min(MIN_EDGE, rule.crop_size)
    )
    return {
        "rate": Hyperparameter("learning_rate_factor", (0.3, 1.0, 3.0), 1.0),
        "length": Hyperparameter("schedule_factor", SCHEDULE_FACTORS, 1.0),
        "mixup": Hyperparameter("mixup_alpha", tuple(sorted({0.0, 0.1, alpha})), alpha),
        "crop": Hyperparameter("crop_factor", crops, 1.0),
        "batch": Hyperparameter("batch_factor", (0.5, 1.0, 2.0), 1.0),
        "warmup": Hyperparameter("warmup", (False, True), warmup),
        "preset": Hyperparameter("preset", None, preset),
        "frozen": Hyperparameter("frozen_blocks", (0, 2, 4), frozen_blocks),
        "decay": Hyperparameter("weight_decay", (0.0, 1e-4, 1e-3), weight_decay),
        "dropout": Hyperparameter("dropout", (0.0, 0.2, 0.5), dropout),
    }


def make_space(
    given: keras_tuner.HyperParameters | Mapping[str, Sequence] | Sequence[str] | None,
    rule: HyperRule,
    preset: str | None,
    **others: Any,
) -> keras_tuner.HyperParameters:
    """Returns the search space that `search` was given; see there.

    What is searched by default and not in `given` is fixed at what the rule has. `preset` and
    `others` are what the run has, as for `hyperparameters`.
    """
    known = hyperparameters(rule, preset, **others)
    space = keras_tuner.HyperParameters()
    if isinstance(given, keras_tuner.HyperParameters):
        space, chosen = _with_defaults(given, known.values()), {}
    elif isinstance(given, Mapping):
        chosen = dict(given)
    else:
        chosen = dict.fromkeys(_checked_names(given, known))
    _checked_names(chosen, known)
    for short, values in chosen.items():
        name, usual, default = known[short]
        values = _checked_values(short, values if values is not None else usual, default)
        space.Choice(name, values, default=default if default in values else values[0])
    names = {each.name for each in space.space}  # also those that are inactive at first
    for short in DEFAULT_SPACE:
        if known[short].name not in names:
            space.Fixed(known[short].name, known[short].default)
    return space


def _with_defaults(space, known):
    """A copy whose defaults are what the rule has, where it allows that.

    keras-tuner's are the smallest or the first values, and the first trial takes defaults.
    """
    config = space.get_config()
    wanted = {each.name: each.default for each in known}
    for hp, entry in zip(space.space, config["space"], strict=True):
        default = wanted.get(hp.name)
        if default is None or isinstance(hp, keras_tuner.engine.hyperparameters.Fixed):
            continue
        if _allows(hp, default):
            entry["config"]["default"] = default
            if hp.name in config["values"]:
                config["values"][hp.name] = default
        elif space.is_active(hp):
            warn_caller(
                f"The first trial is not the rule: `space` does not allow its {hp.name}={default}, "
                f"and the trial takes {hp.default}."
            )
    return keras_tuner.HyperParameters.from_config(config)


def _allows(hp, value):
    if hasattr(hp, "min_value"):
        return hp.min_value <= value <= hp.max_value
    return value in hp.values


def changed_rule(rule: HyperRule, values: Mapping[str, Any]) -> HyperRule:
    """Returns the rule with the decisions of a trial's values, by the names of keras-tuner."""
    batch = values.get("batch_factor", 1.0)
    batch_size = max(1, round(batch * rule.batch_size))
    # As the rule scales them with the batch size: the rate in proportion, the length inversely.
    rate = values.get("learning_rate_factor", 1.0) * batch_size / rule.batch_size
    length = values.get("schedule_factor", 1.0) * rule.batch_size / batch_size
    changes: dict[str, Any] = {
        "learning_rate": rate * rule.learning_rate,
        "schedule_length": max(1, round(length * rule.schedule_length)),
        "mixup_alpha": values.get("mixup_alpha", rule.mixup_alpha),
    }
    if batch_size != rule.batch_size:
        changes["batch_size"] = batch_size
        changes["micro_batch_size"] = math.gcd(batch_size, rule.micro_batch_size)
    if "warmup" in values:
        changes["warmup"] = bool(values["warmup"])
    if values.get("crop_factor", 1.0) != 1.0:
        crop = _multiple_of_step(values["crop_factor"] * rule.crop_size)
        changes["crop_size"] = crop
        changes["resize_edge"] = max(crop, round(crop * rule.resize_edge / rule.crop_size))
    return rule.replace(**changes)


def changed_decisions(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a trial's values change of a plan beside rule and network."""
    return {name: values[name] for name in OTHER_DECISIONS if name in values}


def _multiple_of_step(pixels):
    return max(CROP_STEP, CROP_STEP * round(pixels / CROP_STEP))


def _checked_names(given, known):
    names = DEFAULT_SPACE if given is None else given
    if isinstance(names, str):
        names = (names,)
    for name in names:
        if name not in known:
            raise ValueError(
                f"`space` must name hyperparameters among {', '.join(known)}, or be a "
                f"keras_tuner.HyperParameters. Received: {name!r}"
            )
    return names


def _checked_values(name, values, default):
    """The values of a hyperparameter, what the rule has among them where there are several."""
    if values is None:
        raise ValueError(
            f"`space` must give the values of {name!r}, which has no usual ones. Received: none. "
            f"Write, for example, space={{{name!r}: ('m-r50x1', 'm-r101x1')}}."
        )
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    kind = str if default is None else type(default)
    accepted = (int, float) if kind is float else kind
    wrong = [
        v for v in values if not isinstance(v, accepted) or isinstance(v, bool) != (kind is bool)
    ]
    if wrong or not values:
        raise ValueError(
            f"`space` must give values of {name!r} of the type {kind.__name__}. Received: {values}"
        )
    values = [kind(value) for value in values]
    if len(values) > 1 and default is not None:
        values = [*values, *({default} - set(values))]
    return sorted(set(values)) if kind in (int, float) else list(dict.fromkeys(values))
