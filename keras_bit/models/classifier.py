"""The classifier: a backbone and its head."""

import os
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bit.core.arguments import check_boolean
from keras_bit.core.saving import register
from keras_bit.layers.backbone import ANY_SIZE, BiTBackbone, network_function
from keras_bit.layers.fusion import wide_dtype
from keras_bit.layers.head import ZeroInitHead
from keras_bit.weights.assign import assign_strictly
from keras_bit.weights.formats import read_outline, read_weights

PR_THRESHOLDS = 1000  # Keras's 200 are too few for the small probabilities of rare labels


@register
class BiTClassifier(keras.Sequential):
    """A `keras.Sequential` of a `BiTBackbone` and a `ZeroInitHead`, built for images of any size.

    To fine-tune on classes of your own, give it a pretrained backbone and a new head:
    `BiTClassifier(BiTBackbone.from_preset("m-r50x1"), num_classes)`. To predict the classes that
    a released network was trained on, use `BiTClassifier.from_preset`.

    Args:
        backbone: A `keras_bit.BiTBackbone` that pools its features.
        head: The number of classes, or a `keras_bit.ZeroInitHead`.
        name: Name of the model.

    Call arguments and `value_range`: those of the backbone. Output: logits (batch, classes),
    float32.

    Raises:
        ValueError: If an argument is of the wrong kind.

    Example:

    >>> model = keras_bit.BiTClassifier(keras_bit.BiTBackbone((1, 1, 1, 1), width=0.25), 10)
    >>> tuple(model(keras.ops.zeros((2, 32, 32, 3))).shape)
    (2, 10)
    """

    def __init__(
        self, backbone: BiTBackbone, head: int | ZeroInitHead, *, name: str | None = None
    ) -> None:
        if not isinstance(backbone, BiTBackbone) or backbone.pooling is None:
            raise ValueError(
                "`backbone` must be a keras_bit.BiTBackbone with `pooling`. "
                f"Received: backbone={backbone!r}"
            )
        head = head if isinstance(head, ZeroInitHead) else ZeroInitHead(head)
        # Without an input of its own a Sequential casts images to the backbone's compute dtype,
        # in which bfloat16 takes white for the gray beside it.
        images = keras.Input(ANY_SIZE[1:], dtype=wide_dtype(backbone.compute_dtype))
        super().__init__([images, backbone, head], name=name)
        self._is_whole = True

    def add(self, layer: Any, rebuild: bool = True) -> None:
        self._refuse_change()
        super().add(layer, rebuild=rebuild)

    def pop(self, rebuild: bool = True) -> Any:
        self._refuse_change()
        return super().pop(rebuild=rebuild)

    def _refuse_change(self):
        # Saved files, `fold` and `export` hold the backbone and the head alone.
        if getattr(self, "_is_whole", False):
            raise ValueError(
                "A BiTClassifier must stay a backbone and a head. Put it in a model with further "
                "layers: `keras.Sequential([classifier, layer])`."
            )

    @classmethod
    def from_preset(
        cls,
        name: str | os.PathLike,
        num_classes: int | None = None,
        load_weights: bool = True,
        **kwargs: Any,
    ) -> "BiTClassifier":
        """Returns a pretrained network with its head.

        Args:
            name: A name of `keras_bit.presets()`, such as `"m-r50x1/ilsvrc2012_classification"`,
                or another source as in `BiTBackbone.from_preset`.
            num_classes: The number of classes that the head must have; any by default.
            load_weights: With `False` the network is that of `name` with random weights and a head
                of zeros, with `num_classes` or else as many classes as the released head, and for
                a preset's name nothing is downloaded.
            **kwargs: Further arguments of `BiTBackbone`, such as `value_range`.

        Raises:
            FileNotFoundError, ValueError, ConnectionError: As `BiTBackbone.from_preset`.
            ValueError: Also if there is no head, or it has another number of classes.
        """
        return cls._from_source(name, num_classes, load_weights, kwargs)

    @classmethod
    def from_weights(
        cls,
        source: str | os.PathLike,
        num_classes: int | None = None,
        load_weights: bool = True,
        **kwargs: Any,
    ) -> "BiTClassifier":
        """Alias of `from_preset`."""
        return cls._from_source(source, num_classes, load_weights, kwargs)

    @classmethod
    def _from_source(cls, source, num_classes, load_weights, kwargs):
        if not check_boolean("load_weights", load_weights):
            classes = read_outline(source).num_classes if num_classes is None else num_classes
            if num_classes is None and not classes:
                raise ValueError(
                    "`num_classes` must be given where there is no released head. "
                    f"Received: {str(source)!r}, num_classes=None"
                )
            return cls(BiTBackbone.from_weights(source, load_weights=False, **kwargs), classes)
        arrays = read_weights(source, network_function)
        head = arrays.only_head()
        if len(head) < 2:
            raise ValueError(
                "The weights must include a head. Received: "
                f"{arrays.source} without one. Use `BiTClassifier(BiTBackbone.from_weights(...), "
                "num_classes)` to put a new head on it."
            )
        (classes,) = head.shapes["head/bias"]
        if num_classes not in (None, classes):
            raise ValueError(
                f"`num_classes` must be that of the released head, {classes} in {arrays.source}. "
                f"Received: num_classes={num_classes}. For classes of your own use "
                "`BiTClassifier(BiTBackbone.from_preset(...), num_classes)`."
            )
        model = cls(BiTBackbone.from_arrays(arrays, **kwargs), classes)
        assign_strictly(model.head.named_weights(), head)
        return model

    @property
    def backbone(self) -> BiTBackbone:
        """The `BiTBackbone`."""
        return self.layers[0]

    @property
    def head(self) -> ZeroInitHead:
        """The `ZeroInitHead`."""
        return self.layers[1]

    def class_maps(self, images: Any, classes: Any = None) -> Any:
        """Returns class activation maps (Zhou et al. 2016): where the logits come from.

        Average pooling and a linear head make each logit the mean of a map over all positions,
        `features @ kernel + bias` at each of them. So these maps are exact and no estimate:
        their mean over height and width is the logit, to the rounding of the compute dtype.
        Positive values speak for the class, negative ones against it. The position (i, j) is
        centered on the pixel (32 i, 32 j).

        Args:
            images: As in a call. A symbolic `keras.Input` gives symbolic maps:
                `keras.Model(inputs, model.class_maps(inputs))` predicts them in batches.
            classes: Class ids `(k,)` of the maps to return, or `(batch, k)` for other classes in
                each image. Default: all classes.

        Returns:
            Tensor `(batch, height / 32, width / 32, k)`, rounded up, in the head's dtype, float32
            by default.

        Raises:
            ValueError: If the backbone's `pooling` is not `"avg"`, or a class id is out of range.

        Example:

        >>> model = keras_bit.BiTClassifier(keras_bit.BiTBackbone((1, 1, 1, 1), width=0.25), 10)
        >>> images = keras.random.uniform((2, 64, 96, 3))
        >>> tuple(model.class_maps(images).shape)
        (2, 2, 3, 10)
        >>> predicted = keras.ops.argmax(model(images), axis=-1)
        >>> tuple(model.class_maps(images, predicted[:, None]).shape)
        (2, 2, 3, 1)
        """
        if self.backbone.pooling != "avg":
            raise ValueError(
                '`pooling` must be "avg": only then is a logit the mean of a map. '
                f"Received: a backbone with pooling={self.backbone.pooling!r}"
            )
        if classes is not None:
            classes = _checked_classes(classes, self.head.num_classes)
        maps = self.head(self.backbone.stages(images)["norm"], training=False)
        if classes is None:
            return maps
        if classes.ndim == 1:
            return ops.take(maps, classes, axis=-1)
        return ops.take_along_axis(maps, classes[:, None, None, :], axis=-1)

    def save_npz(self, path: str | os.PathLike, dtype: str = "float32") -> None:
        """Writes backbone and head in the authors' layout; see `BiTBackbone.save_npz`."""
        self.backbone.save_npz(path, dtype, self.head)

    def save_safetensors(
        self, path: str | os.PathLike, layout: str = "timm", dtype: str = "float32"
    ) -> None:
        """Writes backbone and head for timm or transformers; see `BiTBackbone.save_safetensors`.

        The layout `"huggingface"` is that of `transformers.BitForImageClassification`.
        """
        self.backbone.save_safetensors(path, layout, dtype, self.head)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BiTClassifier":
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("backbone", "head")
        }
        return cls(**parts, name=config["name"])


def _checked_classes(classes: Any, num_classes: int) -> np.ndarray:
    ids = np.asarray(ops.convert_to_numpy(classes))
    whole = ids.size and np.issubdtype(ids.dtype, np.integer)
    if not whole or ids.ndim not in (1, 2) or ids.min() < 0 or ids.max() >= num_classes:
        raise ValueError(
            f"`classes` must be class ids below {num_classes}, integers of shape (k,) or "
            f"(batch, k). Received: classes={classes!r}"
        )
    return ids


def has_finite_weights(model: keras.Model) -> bool:
    """Returns whether no weight is infinite or NaN.

    Compiled ReLUs turn NaN into 0, so that outputs and losses do not tell of every weight.
    """
    finite = [ops.all(ops.isfinite(weight)) for weight in model.weights]
    return bool(ops.all(ops.stack(finite)))


def score_name(multi_label: bool) -> str:
    """Returns the name of the metric that says which of two models is better.

    >>> from keras_bit.models.classifier import score_name
    >>> score_name(multi_label=False), score_name(multi_label=True)
    ('accuracy', 'pr_auc')
    """
    return "pr_auc" if multi_label else "accuracy"


def compile_classifier(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, *, multi_label: bool = False
) -> None:
    """Compiles `model` for one-hot labels, with `"loss"` and `"accuracy"` in its logs.

    With `multi_label` it is compiled for multi-hot labels: the loss is
    `keras.losses.BinaryCrossentropy`, and in place of the accuracy stands `"pr_auc"`, the area
    under the precision-recall curve of each class, on average (`keras.metrics.AUC`).

    The variables of optimizer and metrics are created here: TensorFlow would trace a first step
    that creates them a second time, and an optimizer without variables loads none from a
    checkpoint. The model must be built.

    Args:
        model: A built `keras.Model` with logits (batch, classes) as output.
        optimizer: Such as `keras_bit.HyperRule.optimizer()`.
        multi_label: Whether an image has any number of labels instead of one class.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras_bit.ZeroInitHead(2)])
    >>> keras_bit.compile_classifier(model, keras_bit.HyperRule(32, 100).optimizer())
    >>> model.optimizer.built
    True
    """
    name = score_name(multi_label)
    if multi_label:
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        classes = model.output_shape[-1]
        options = {"multi_label": True, "num_labels": classes, "from_logits": True}
        score = keras.metrics.AUC(PR_THRESHOLDS, curve="PR", name=name, **options)
    else:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        score = keras.metrics.CategoricalAccuracy(name=name)
    # Weighted: see `pipelines` on the test images that several devices share.
    model.compile(optimizer, loss=loss, weighted_metrics=[score])
    model.optimizer.build(model.trainable_variables)
