"""This package's network."""

import functools

from benchmarks.implementations import keras_steps
from benchmarks.implementations.keras_steps import forward
from keras_bit import BiTBackbone
from keras_bit.hyperrule.optimizer import SGD

__all__ = ["backbone", "folded", "forward", "recomputing", "training"]

training = functools.partial(keras_steps.training, optimizer=SGD)


def backbone(case, weights, **options):
    """The `keras_bit.BiTBackbone` of `case` with `weights`, by the names of `named_weights`."""
    layer = BiTBackbone(case.units, case.width, **options)
    for name, variable in layer.named_weights().items():
        variable.assign(weights[name])
    return layer


def folded(case, weights):
    return backbone(case, weights).fold()


def in_bfloat16(case, weights):
    return backbone(case, weights, dtype="mixed_bfloat16")


def folded_in_bfloat16(case, weights):
    return in_bfloat16(case, weights).fold()


def recomputing(case, weights):
    return backbone(case, weights, remat=True)
