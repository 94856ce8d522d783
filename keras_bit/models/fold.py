"""Models for inference, in which every backbone is folded."""

from typing import Any

import keras

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

    Raises:
        ValueError: If there is no `BiTBackbone` in the model, or it is a subclass of `keras.Model`
            with a `call` of its own.

    Example:

    >>> backbone = keras_bit.BiTBackbone((1, 1, 1, 1), width=0.25)
    >>> model = keras.Sequential([keras.Input((64, 64, 3)), backbone, keras.layers.Dense(2)])
    >>> keras_bit.fold(model).layers[0].standardize
    False
    """
    if isinstance(model, BiTBackbone):
        return model.fold()
    if isinstance(model, BiTClassifier):
        folded = BiTClassifier(model.backbone.fold(), _copy(model.head), name=model.name)
        if model.compiled:
            folded.compile_from_config(model.get_compile_config())
        return folded
    if not isinstance(model, keras.Sequential) and not _is_functional(model):
        raise ValueError(
            "`model` must be a BiTBackbone, a BiTClassifier, or a keras.Sequential or functional "
            f"model. Received: model={model!r}. Fold the backbone in it: `backbone.fold()`."
        )
    if not holds_backbone(model):
        raise ValueError(
            "`model` must have a BiTBackbone among its layers. Received: the layers "
            f"{[layer.name for layer in model.layers]}"
        )

    def folded_or_copied(layer):
        return fold(layer) if holds_backbone(layer) else _copy(layer)

    return keras.models.clone_model(model, clone_function=folded_or_copied)


def holds_backbone(layer: Any) -> bool:
    """Whether a layer or model is a `BiTBackbone` or has one among its layers."""
    return isinstance(layer, BiTBackbone) or any(map(holds_backbone, getattr(layer, "layers", ())))


def _is_functional(model):
    return isinstance(model, keras.Model) and hasattr(model, "operations")


def _copy(layer):
    if not isinstance(layer, keras.Layer):
        return layer  # An operation of `keras.ops`, which has no weights.
    copy = type(layer).from_config(layer.get_config())
    if layer.built:
        copy.build_from_config(layer.get_build_config())
        copy.set_weights(layer.get_weights())
    return copy
