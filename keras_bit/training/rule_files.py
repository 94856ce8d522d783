"""Rules from files: `rule.json` of a run, and `best_rule.json` of a search."""

import os
from typing import Any

from keras_bit.core.arguments import check_boolean
from keras_bit.core.file_faults import check_whole, wrap_read_errors
from keras_bit.core.files import read_json
from keras_bit.core.warn import warn_caller
from keras_bit.data.class_weight import check_class_weight
from keras_bit.data.dataset import ImageDataset
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.layers.backbone import BiTBackbone
from keras_bit.training.resolve import check_frozen, check_regularization

# What a file may decide beside its rule, and the options that leave no room for that.
_EXCLUDED = {
    "preset": ("depth", "width", "from_scratch"),
    "frozen_blocks": ("freeze_backbone",),
    "weight_decay": (),
    "dropout": (),
    "class_weight": (),
    "depth": ("preset", "from_scratch"),
    "width": ("preset", "from_scratch"),
    "freeze_backbone": ("frozen_blocks",),
    "remat": (),
    "dtype": (),
}


def read_rule_file(path: str | os.PathLike, given: dict[str, Any]) -> dict[str, Any]:
    """Returns what a JSON file decides, as arguments of `keras_bit.plan`, `rule` among them.

    Args:
        path: A file whose `config` is that of a `keras_bit.HyperRule`: `rule.json` of a run, or
            `best_rule.json` of a search. The latter's `decisions` may also hold arguments of the
            network: `preset` or `depth` and `width`, `freeze_backbone` or `frozen_blocks`,
            `weight_decay`, `dropout`, `class_weight`, `remat` and `dtype`.
        given: The options that stand beside the file, by name.

    Raises:
        ValueError: If the file is damaged or of another kind, or an option contradicts it.
    """
    must = "`rule` must be a JSON file: rule.json of a run, or best_rule.json of a search"
    with wrap_read_errors(path, must, advice=""):
        check_whole(path)
        if os.path.isdir(path):
            raise ValueError("a folder. Name the file in it")
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
            raise ValueError("it holds no `config` of a rule")
        rule = HyperRule.from_config(content["config"])
        decisions = _checked_decisions(content.get("decisions", {}))
    _refuse_contradictions(path, decisions, given)
    return {"rule": rule, **decisions}


def warn_of_other_data(rule: HyperRule, data: ImageDataset) -> None:
    """Warns where a rule was made for data of other sizes, for which it would decide otherwise."""
    sizes = {"image_size": data.image_size, "dataset_size": data.train_size}
    fitting = rule.replace(**sizes).decisions()
    pairs = [(name, ours, fitting[name]) for name, ours in rule.decisions().items()]
    differing = [
        f"{name} {ours}, not {theirs}"
        for name, ours, theirs in pairs
        if ours != theirs and name not in sizes
    ]
    if differing:
        (height, width), (data_height, data_width) = rule.image_size, data.image_size
        warn_caller(
            f"The rule was made for {rule.dataset_size:,} training images of {height}x{width} "
            f"pixels. Received: {data.train_size:,} of {data_height}x{data_width}, for which it "
            f"would decide otherwise. It is used as it is: {'; '.join(differing)}."
        )


def _checked_decisions(decisions):
    if not isinstance(decisions, dict) or not set(decisions) <= set(_EXCLUDED):
        raise ValueError(f"its `decisions` must be among {', '.join(_EXCLUDED)}")
    made = {name: value for name, value in decisions.items() if value is not None}
    preset = made.get("preset", "default")
    if not isinstance(preset, str) or not preset.strip():
        raise ValueError(f"its `preset` must be a name. Received: preset={preset!r}")
    for name in ("depth", "class_weight"):
        if isinstance(made.get(name), list):
            made[name] = tuple(made[name])
    check_boolean("remat", made.get("remat", False))
    network = {name: made[name] for name in ("depth", "width") if name in made}
    BiTBackbone(**network)
    check_frozen(made.get("freeze_backbone", False), made.get("frozen_blocks", 0))
    check_regularization(made.get("weight_decay", 0), made.get("dropout", 0))
    check_class_weight(made.get("class_weight"))
    return made


def _refuse_contradictions(path, decisions, given):
    for name, value in decisions.items():
        contradicting = [other for other in _EXCLUDED[name] if other in given]
        if given.get(name, value) != value:
            contradicting.append(name)
        if contradicting:
            other = contradicting[0]
            raise ValueError(
                f"`{other}` must not contradict the file of `rule`. Received: "
                f"{other}={given[other]} beside rule={path}, which decides {name} {value}. Leave "
                "the option out."
            )
