"""Models for inference, in which every backbone is folded."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_bit.core.warn import warn_caller
from keras_bit.layers.backbone import BiTBackbone
from keras_bit.models.classifier import BiTClassifier


def fold(model: Any) -> Any:
    """Returns an equal model for inference, whose kernels are standardized beforehand.

    Args:
        model: A `BiTBackbone`, a `BiTClassifier`, or a `keras.Sequential` or functional model with
            at least one `BiTBackbone` among its layers, or among those of models inside it.

    Returns:
        A new object with copies of all weights, of the same kind, compiled where `model` is. Its
        backbones are not trainable, which would change the mean and variance of their kernels.
        `Lambda` layers are the same objects in both.

    Warns, and leaves it uncompiled, where `model` is compiled with what Keras cannot find by its
    name, such as a function that is not registered.

    Raises:
        ValueError: If there is no `BiTBackbone` in the model, or it is a subclass of `keras.Model`
            with a `call` of its own.

    Example:

    >>> backbone = keras_bit.BiTBackbone((1, 1, 1, 1), width=0.25)
    >>> model = keras.Sequential([keras.Input((64, 64, 3)), backbone, keras.layers.Dense(2)])
    >>> keras_bit.fold(model).layers[0].standardize
    False
    """
    folded = folded_copy(model)
    if getattr(model, "compiled", False):
        try:
            folded.compile_from_config(model.get_compile_config())
        except (NotImplementedError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            warn_caller(f"The folded model is not compiled; compile it yourself. Keras: {reason}")
    return folded


def folded_copy(model: Any) -> Any:
    """Returns what `fold` does, not compiled."""
    if isinstance(model, BiTBackbone):
        return model.fold()
    if isinstance(model, BiTClassifier) and not _has_own_call(model):
        return BiTClassifier(model.backbone.fold(), _copy(model.head), name=model.name)
    if _has_own_call(model) or not (isinstance(model, keras.Sequential) or _is_functional(model)):
        raise ValueError(
            "`model` must be a BiTBackbone, a BiTClassifier, or a keras.Sequential or functional "
            f"model, without a `call` of its own. Received: model={model!r}. Fold the backbone in "
            "it: `backbone.fold()`."
        )
    if not holds_backbone(model):
        raise ValueError(
            "`model` must have a BiTBackbone among its layers. Received: the layers "
            f"{[layer.name for layer in model.layers]}"
        )

    def folded_or_copied(layer):
        return folded_copy(layer) if holds_backbone(layer) else _copy(layer)

    return _clone(model, folded_or_copied)


def holds_backbone(layer: Any) -> bool:
    """Whether a layer or model is a `BiTBackbone` or has one among its layers."""
    return isinstance(layer, BiTBackbone) or any(map(holds_backbone, getattr(layer, "layers", ())))


def _has_own_call(model):
    return isinstance(model, keras.Sequential) and type(model).call is not keras.Sequential.call


def _is_functional(model):
    return isinstance(model, keras.Model) and hasattr(model, "operations")


def _clone(model, clone_function):
    with uncompiled(model):
        return keras.models.clone_model(model, clone_function=clone_function)


@contextlib.contextmanager
def uncompiled(model: keras.Model) -> Iterator[None]:
    """Keeps Keras from compiling clones of a model, and from saving what it is compiled with."""
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled


def copy_weights(source: keras.Layer, target: keras.Layer) -> None:
    """Gives an equal layer or model the weights of another, and what follows from them."""
    target.set_weights(source.get_weights())
    for layer in target._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def _copy(layer):
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.layers.Lambda):
        return layer  # Without weights; the first is an operation of `keras.ops`.
    is_sequential = isinstance(layer, keras.Sequential) and not _has_own_call(layer)
    if is_sequential or _is_functional(layer):
        return _clone(layer, _copy)
    copy = type(layer).from_config(layer.get_config())
    if layer.built:
        copy.build_from_config(layer.get_build_config())
        copy_weights(layer, copy)
    return copy
