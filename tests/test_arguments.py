"""Wrong arguments of every public function: an error that names the argument, and no work done."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_bit
from keras_bit import HyperRule

JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**20), st.floats(), st.text(max_size=4),
    st.binary(max_size=2), st.lists(st.integers(-1, 600), max_size=3), st.just(np.nan),
    st.builds(np.int64, st.integers(-3, 5000)), st.builds(np.float32, st.floats(width=32)),
    st.builds(np.bool_, st.booleans()), st.just({}), st.just(object()),
)  # fmt: skip
RULE_ARGUMENTS = (
    "image_size", "dataset_size", "batch_size", "micro_batch_size", "warmup", "schedule_length",
    "learning_rate", "resize_edge", "crop_size", "mixup_alpha", "random_crop", "random_flip",
    "recipe",
)  # fmt: skip
BACKBONE_ARGUMENTS = (
    "depth", "width", "value_range", "pooling", "frozen", "standardize", "remat", "kernel_epsilon"
)  # fmt: skip
SMALL = {"depth": (1, 1, 1, 1), "width": 1 / 16}


def is_named(error, arguments):
    return any(f"`{name}`" in str(error) for name in arguments)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(RULE_ARGUMENTS), JUNK, max_size=3))
def test_a_rule_is_right_or_names_what_is_wrong(changes):
    try:
        rule = HyperRule(**{"image_size": 32, "dataset_size": 1000, **changes})
    except ValueError as error:
        assert is_named(error, changes), error
        return
    assert HyperRule.from_config(json.loads(json.dumps(rule.get_config()))) == rule
    assert rule.crop_size <= rule.resize_edge and rule.batch_size % rule.micro_batch_size == 0
    assert 0 < rule.learning_rate < math.inf and 0 <= rule.mixup_alpha < math.inf
    assert list(rule.boundaries) == sorted(rule.boundaries)
    assert json.dumps(rule.decisions()) and str(rule)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(BACKBONE_ARGUMENTS), JUNK, min_size=1, max_size=2))
def test_a_backbone_is_right_or_names_what_is_wrong(changes):
    try:
        backbone = keras_bit.BiTBackbone(**{**SMALL, **changes})
    except ValueError as error:
        assert is_named(error, changes), error
        return
    config = json.loads(json.dumps(backbone.get_config()))
    assert keras_bit.BiTBackbone.from_config(config).get_config() == backbone.get_config()


WRONG = {
    "flag": ("no", "false", None, 2, -1, float("nan"), []),
    "count": (0, -1, 1.5, "3", True, float("nan"), float("inf"), [], np.float32(2)),
    "number": (0, -1.0, "1", True, float("nan"), float("inf"), [], 1j),
    "seed": (-1, 1.5, "0", True, float("nan"), []),
    "small seed": (-1, 1.5, 2**32),
}
RULE = HyperRule(32, 8, 4, schedule_length=2, crop_size=32)
DATA = keras_bit.ImageDataset.from_arrays(
    np.zeros((8, 32, 32, 3), np.uint8), np.arange(8) % 2,
    np.zeros((2, 32, 32, 3), np.uint8), np.arange(2),
)  # fmt: skip
ARRAYS = np.zeros((8, 32, 32, 3), np.uint8), np.arange(8) % 2


def plan(**arguments):
    return keras_bit.plan(DATA, **arguments)


def fine_tune(**arguments):
    return keras_bit.fine_tune(DATA, verbose=0, **arguments)


def evaluation(**arguments):
    return keras_bit.Evaluation([0, 1], [[2, 0], [0, 3]], ("cat", "dog")).mistakes(**arguments)


CASES = [
    (plan, "freeze_backbone", "flag"),
    (plan, "remat", "flag"),
    (plan, "seed", "seed"),
    (plan, "seed", "small seed"),
    (plan, "steps_per_epoch", "count"),
    (plan, "batch_size", "count"),
    (plan, "schedule_length", "count"),
    (plan, "learning_rate", "number"),
    (plan, "random_flip", "flag"),
    (plan, "micro_batch_size", "count"),
    (plan, "width", "number"),
    (fine_tune, "overwrite", "flag"),
    (fine_tune, "report", "flag"),
    (keras_bit.ZeroInitHead, "num_classes", "count"),
    (keras_bit.MixUp, "alpha", "number"),
    (keras_bit.MixUp, "seed", "small seed"),
    (lambda **a: keras_bit.Augment(RULE, **a), "seed", "small seed"),
    (lambda **a: keras_bit.HyperRule.for_preset("f-r14x0.5", 32, 8, **a), "random_crop", "flag"),
    (keras_bit.digits, "examples_per_class", "count"),
    (keras_bit.digits, "validation_split", "number"),
    (keras_bit.digits, "seed", "seed"),
    (lambda **a: keras_bit.fit_hyperrule(RULE, **a), "steps_per_epoch", "count"),
    (lambda **a: keras_bit.pipelines(DATA, RULE, **a), "mix_in_model", "flag"),
    (lambda **a: keras_bit.pipelines(DATA, RULE, **a), "seed", "seed"),
    (lambda **a: keras_bit.pipelines(DATA, RULE, **a), "initial_step", "seed"),
    (lambda **a: keras_bit.pipelines(DATA, RULE, **a), "test_edge", "count"),
    (lambda **a: keras_bit.HyperBiT(DATA, RULE, **a), "epochs", "count"),
    (lambda **a: keras_bit.HyperBiT(DATA, RULE, **a), "remat", "flag"),
    (lambda **a: keras_bit.HyperBiT(DATA, RULE, **a), "seed", "seed"),
    (lambda **a: keras_bit.GroupNorm(**a), "epsilon", "number"),
    (lambda **a: keras_bit.StandardizedConv2D(**{"filters": 4, "kernel_size": 3, **a}),
     "filters", "count"),
    (lambda **a: keras_bit.StandardizedConv2D(**{"filters": 4, "kernel_size": 3, **a}),
     "kernel_size", "count"),
    (lambda **a: keras_bit.ImageDataset.from_arrays(*ARRAYS, **a), "validation_split", "number"),
    (lambda **a: keras_bit.ImageDataset.from_arrays(*ARRAYS, **a), "seed", "seed"),
]  # fmt: skip


@pytest.mark.tensorflow
@pytest.mark.parametrize("function, argument, kind", CASES)
def test_wrong_values_are_refused_by_name(function, argument, kind):
    for value in WRONG[kind]:
        with pytest.raises((ValueError, TypeError), match=f"`{argument}`"):
            function(**{argument: value})
