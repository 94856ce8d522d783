"""From the arguments of a run to its network and its rule, checked before anything is read."""

import os
from typing import Any

import keras

from keras_bit.core.arguments import check_boolean, check_integer, check_seed, is_number
from keras_bit.core.device import resolve_policy
from keras_bit.data.class_weight import ClassWeight, check_class_weight
from keras_bit.data.pipeline import check_cache_dir
from keras_bit.hyperrule.rule import AUTO, HyperRule
from keras_bit.layers.backbone import BiTBackbone
from keras_bit.layers.head import check_dropout
from keras_bit.layers.image_input import MIN_EDGE
from keras_bit.weights.architecture import Architecture
from keras_bit.weights.formats import read_architecture
from keras_bit.weights.presets import EMBEDDED, presets

BATCH_SIZE = 64
# In the order in which `frozen_blocks` freezes them.
FREEZABLE_PARTS = ("root_block", "block1", "block2", "block3", "block4")
MOST_FROZEN = len(FREEZABLE_PARTS) - 1


def check_arguments(
    preset: str | os.PathLike | None = None,
    depth: int | tuple[int, ...] | None = None,
    width: float | None = None,
    freeze_backbone: bool = False,
    frozen_blocks: int = 0,
    weight_decay: float = 0.0,
    dropout: float = 0.0,
    class_weight: ClassWeight | None = None,
    remat: bool = False,
    dtype: str | keras.DTypePolicy | None = None,
    rule: HyperRule | None = None,
    micro_batch_size: int | str | None = None,
    steps_per_epoch: int | None = None,
    seed: int = 0,
    cache_dir: str | os.PathLike | None = None,
    **rule_arguments: Any,
) -> None:
    """Raises what `plan` would raise of its arguments, whatever the data: before a scan of them."""
    check_options(remat, cache_dir)
    check_frozen(freeze_backbone, frozen_blocks)
    check_regularization(weight_decay, dropout)
    check_class_weight(class_weight)
    check_numbers(seed, steps_per_epoch)
    _, network = resolve_network(preset, depth, width)
    resolve_policy(dtype)
    resolve_rule(1, 1, network, rule, micro_batch_size, rule_arguments)


def resolve_preset(
    preset: str | os.PathLike | None, depth: int | tuple[int, ...] | None, width: float | None
) -> str | os.PathLike | None:
    """Returns the preset to start from, or `None` for random weights.

    Without any of the three it is the preset embedded in the package; a depth or width selects
    random weights, and may not be given together with a preset.
    """
    if depth is None and width is None:
        return EMBEDDED if preset is None else preset
    if preset is not None:
        raise ValueError(
            "`depth` and `width` must be omitted where `preset` is given, which decides them. "
            f"Received: preset={preset!r}, depth={depth}, width={width}"
        )
    return None


def check_options(remat: Any, cache_dir: str | os.PathLike | None) -> bool:
    """Returns `remat` as a boolean; raises where it is none, or `cache_dir` no path."""
    check_cache_dir(cache_dir)
    return check_boolean("remat", remat)


def check_frozen(freeze_backbone: Any, frozen_blocks: Any) -> tuple[bool, int]:
    """Returns the two as a boolean and an integer; raises where one is wrong, or both are given."""
    freeze_backbone = check_boolean("freeze_backbone", freeze_backbone)
    frozen_blocks = check_integer("frozen_blocks", frozen_blocks, minimum=0)
    if frozen_blocks > MOST_FROZEN:
        raise ValueError(
            f"`frozen_blocks` must be at most {MOST_FROZEN}, the number of blocks. "
            f"Received: frozen_blocks={frozen_blocks}"
        )
    if freeze_backbone and frozen_blocks:
        raise ValueError(
            "`frozen_blocks` must be omitted where `freeze_backbone` is set, which freezes all of "
            f"the backbone. Received: frozen_blocks={frozen_blocks}"
        )
    return freeze_backbone, frozen_blocks


def frozen_parts(frozen_blocks: int) -> tuple[str, ...]:
    """Returns the names of the backbone's first parts: the root block, and so many blocks.

    >>> frozen_parts(0), frozen_parts(1)
    ((), ('root_block', 'block1'))
    """
    return FREEZABLE_PARTS[: frozen_blocks + 1] if frozen_blocks else ()


def check_regularization(weight_decay: Any, dropout: Any) -> tuple[float, float]:
    """Returns the two as floats; raises where one is out of range."""
    if not is_number(weight_decay) or weight_decay < 0:
        raise ValueError(
            "`weight_decay` must be a finite number of at least 0. "
            f"Received: weight_decay={weight_decay!r}"
        )
    return float(weight_decay), check_dropout(dropout)


def check_numbers(seed: Any, steps_per_epoch: Any) -> tuple[int, int | None]:
    """Returns the two as plain integers; raises where one is out of range."""
    seed = check_seed("seed", seed)
    if steps_per_epoch is not None:
        steps_per_epoch = check_integer("steps_per_epoch", steps_per_epoch, minimum=1)
    return seed, steps_per_epoch


def resolve_network(
    preset: str | os.PathLike | None, depth: int | tuple[int, ...] | None, width: float | None
) -> tuple[str | os.PathLike | None, Architecture]:
    """Returns the preset, or `None` for random weights; and the `Architecture`."""
    preset = resolve_preset(preset, depth, width)
    if preset is not None:
        return preset, read_architecture(preset)
    given: dict[str, Any] = {
        name: v for name, v in (("depth", depth), ("width", width)) if v is not None
    }
    config = BiTBackbone(**given).get_config()
    return None, Architecture(config["depth"], config["width"])


def resolve_rule(
    image_size: int | tuple[int, int],
    train_size: int,
    network: Architecture,
    rule: HyperRule | None,
    micro_batch_size: int | str | None,
    arguments: dict[str, Any],
) -> HyperRule:
    """Returns the rule that was given, or else the one of its arguments that suits the network."""
    if micro_batch_size not in (None, AUTO):
        arguments = {**arguments, "micro_batch_size": micro_batch_size}
    if rule is None:
        defaults = {"batch_size": BATCH_SIZE, "recipe": _recipe_of(network)}
        rule, arguments = HyperRule(image_size, train_size, **{**defaults, **arguments}), {}
    if not isinstance(rule, HyperRule):
        raise ValueError(f"`rule` must be a keras_bit.HyperRule. Received: rule={rule!r}")
    if arguments:
        received = ", ".join(f"`{name}`" for name in arguments)
        raise ValueError(
            "Arguments of HyperRule must not stand beside `rule`, which decides them. "
            f"Received: {received}. Leave them out, or change the rule: `rule.replace(...)`."
        )
    if rule.crop_size < MIN_EDGE:
        raise ValueError(
            f"`crop_size` must be at least {MIN_EDGE}: the network halves images five times. "
            f"Received: crop_size={rule.crop_size}"
        )
    return rule


def _recipe_of(network):
    """The recipe of the preset of this architecture; whoever trained the weights, it suits them."""
    of_same_size = (p for p in presets().values() if (p.depth, p.width) == network)
    return next((preset.recipe for preset in of_same_size), None)
