"""What the rule decides: its tables, and the arithmetic between arguments and decisions."""

import math
from fractions import Fraction
from typing import Any, NamedTuple

from keras_bit.weights.recipe import Recipe

MOMENTUM = 0.9
SMALL_IMAGE_AREA = 96 * 96


class Regime(NamedTuple):
    """What the rule says of a data-set size, in steps at a batch of 512."""

    dataset_below: float
    schedule_length: int
    boundaries: tuple[int, ...]
    warmup_steps: int
    mixup_alpha: float


REGIMES = (
    Regime(20_000, 500, (200, 300, 400), 100, 0.0),
    Regime(500_000, 10_000, (3_000, 6_000, 9_000), 500, 0.1),
    Regime(float("inf"), 20_000, (6_000, 12_000, 18_000), 500, 0.1),
)
BIT = Recipe(
    "BiT-HyperRule",
    batch_size=512,
    learning_rate=0.003,
    schedule_length=REGIMES[0].schedule_length,
    warmup=False,
    small_images=(160, 128),
    large_images=(512, 480),
    few_images=(512, 480),
    few_below=0,
)


def regime_of(dataset_size: int) -> Regime:
    """Returns the row of the table for a data-set size."""
    return next(regime for regime in REGIMES if dataset_size < regime.dataset_below)


def decide(given: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Returns every decision of a `HyperRule`, by attribute, from its checked arguments."""
    regime = regime_of(given["dataset_size"])
    batch_size, rate = given["batch_size"], given["learning_rate"]
    if rate is None:
        rate = recipe.learning_rate * batch_size / recipe.batch_size
    if given["schedule_length"] is None:
        share = Fraction(recipe.schedule_length, BIT.schedule_length)
        scale = share * Fraction(recipe.batch_size, batch_size)
    else:
        scale = Fraction(given["schedule_length"], regime.schedule_length)
    warmup = _first(given["warmup"], recipe.warmup)
    size = given["image_size"]
    height, width = size if isinstance(size, tuple) else (size, size)
    sizes = recipe.large_images
    if height * width < SMALL_IMAGE_AREA:
        sizes = recipe.small_images
    elif given["dataset_size"] < recipe.few_below:
        sizes = recipe.few_images
    edge, crop = _resize_and_crop(
        *sizes, given["resize_edge"], given["crop_size"], given["random_crop"]
    )
    micro_batch = _micro_batch_size(batch_size, given["micro_batch_size"])
    return {
        "image_size": (height, width),
        "dataset_size": given["dataset_size"],
        "batch_size": batch_size,
        "micro_batch_size": micro_batch,
        "accumulation_steps": batch_size // micro_batch,
        "resize_edge": edge,
        "crop_size": crop,
        "random_crop": given["random_crop"],
        "random_flip": given["random_flip"],
        "mixup_alpha": _first(given["mixup_alpha"], recipe.mixup_alpha, regime.mixup_alpha),
        "schedule_length": max(1, _round_half_up(regime.schedule_length * scale)),
        "boundaries": tuple(_round_half_up(step * scale) for step in regime.boundaries),
        "warmup_steps": _round_half_up(regime.warmup_steps * scale) if warmup else 0,
        "learning_rate": rate,
        "momentum": MOMENTUM,
    }


def _resize_and_crop(table_edge, table_crop, resize_edge, crop_size, random_crop):
    if not random_crop:
        return _edge_without_crop(resize_edge, crop_size, table_crop)
    if resize_edge is None and crop_size is None:
        return table_edge, table_crop
    proportion = Fraction(table_crop, table_edge)
    if resize_edge is None:
        return _round_half_up(crop_size / proportion), crop_size
    if crop_size is None:
        return resize_edge, max(1, _round_half_up(resize_edge * proportion))
    if crop_size > resize_edge:
        raise ValueError(
            "`crop_size` must not exceed `resize_edge`. Received: "
            f"crop_size={crop_size}, resize_edge={resize_edge}"
        )
    return resize_edge, crop_size


def _edge_without_crop(resize_edge, crop_size, table_crop):
    if None not in (resize_edge, crop_size) and resize_edge != crop_size:
        raise ValueError(
            "`resize_edge` must equal `crop_size` with `random_crop=False`: training images are "
            "resized straight to the crop size. Received: "
            f"resize_edge={resize_edge}, crop_size={crop_size}. Give `crop_size` alone."
        )
    edge = crop_size or resize_edge or table_crop
    return edge, edge


def _micro_batch_size(batch_size, micro_batch_size):
    if micro_batch_size is None:
        return batch_size
    if batch_size % micro_batch_size:
        raise ValueError(
            "`micro_batch_size` must divide `batch_size`, so that all micro-batches weigh the "
            f"same. Received: micro_batch_size={micro_batch_size}, batch_size={batch_size}"
        )
    return micro_batch_size


def _first(*values):
    """The first value that is given."""
    return next(value for value in values if value is not None)


def _round_half_up(fraction):
    return math.floor(fraction + Fraction(1, 2))
