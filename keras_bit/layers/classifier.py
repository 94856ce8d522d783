"""The backbone and its head in a row: a classifier."""

import keras

from keras_bit.layers.backbone import BiTBackbone, compared
from keras_bit.layers.head import ZeroInitHead
from keras_bit.weights.assign import assign_strictly
from keras_bit.weights.formats import read_preset, read_weights
from keras_bit.weights.npz import write_npz
from keras_bit.weights.presets import EMBEDDED

ANY_SIZE = (None, None, None, 3)


@keras.saving.register_keras_serializable(package="keras_bit")
class BiTClassifier(keras.Sequential):
    """A `keras.Sequential` of a `BiTBackbone` and a `ZeroInitHead`, built for images of any size.

    To fine-tune on classes of your own, give it a pretrained backbone and a new head:
    `BiTClassifier(BiTBackbone.from_preset("m-r50x1"), num_classes)`. To predict the classes that
    a released network was trained on, take `BiTClassifier.from_preset`.

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

    def __init__(self, backbone, head, *, name=None):
        if not isinstance(backbone, BiTBackbone) or backbone.pooling is None:
            raise ValueError(
                "`backbone` must be a keras_bit.BiTBackbone with `pooling`. "
                f"Received: backbone={backbone!r}"
            )
        head = head if isinstance(head, ZeroInitHead) else ZeroInitHead(head)
        super().__init__([backbone, head], name=name)
        self.build(ANY_SIZE)

    @classmethod
    def from_preset(cls, name, num_classes=None, **kwargs):
        """Returns a released network with its released head.

        Args:
            name: A name of `keras_bit.presets()`, such as `"m-r50x1/ilsvrc2012_classification"`;
                or else a source as `from_weights` takes it.
            num_classes: The number of classes that the head must have; any by default.
            **kwargs: Further arguments of `BiTBackbone`, such as `value_range`.

        Raises:
            ValueError: If there is no such preset, or its head has other classes.
            ConnectionError: If the weights cannot be downloaded.
        """
        return cls._from_arrays(compared(read_preset(name)), num_classes, kwargs)

    @classmethod
    def from_weights(cls, source, num_classes=None, **kwargs):
        """Returns a network with its head; depth, width and classes are read off the weights.

        Args:
            source: As in `BiTBackbone.from_weights`.
            num_classes: The number of classes that the head must have; any by default.
            **kwargs: Further arguments of `BiTBackbone`, such as `value_range`.

        Raises:
            FileNotFoundError, ValueError, ConnectionError: As `BiTBackbone.from_weights`; and if
                there is no head, or one of other classes.
        """
        return cls._from_arrays(compared(read_weights(source)), num_classes, kwargs)

    @classmethod
    def _from_arrays(cls, arrays, num_classes, kwargs):
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
    def backbone(self):
        """The `BiTBackbone`."""
        return self.layers[0]

    @property
    def head(self):
        """The `ZeroInitHead`."""
        return self.layers[1]

    def save_npz(self, path, dtype="float32"):
        """Writes backbone and head in the authors' layout; see `BiTBackbone.save_npz`."""
        weights = self.backbone.named_weights() | self.head.named_weights()
        write_npz(path, weights, dtype)

    def get_config(self):
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
        }

    @classmethod
    def from_config(cls, config):
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("backbone", "head")
        }
        return cls(**parts, name=config["name"])


def chosen_preset(preset, depth, width):
    """Returns the preset to start from, or `None` for random weights.

    Without any of the three it is the one that comes with the package; a depth or width asks for
    random weights.

    Raises:
        ValueError: If a depth or width stands beside a preset, which has its own.
    """
    if depth is None and width is None:
        return preset or EMBEDDED
    if preset is not None:
        raise ValueError(
            "`depth` and `width` must be left out beside `preset`, which decides them. "
            f"Received: preset={preset!r}, depth={depth}, width={width}"
        )
    return None


def build_classifier(
    num_classes, *, preset=None, depth=None, width=None, freeze_backbone=False, remat=False
):
    """Returns a `BiTClassifier` with a new head.

    Args:
        num_classes: Number of classes.
        preset: Name of pretrained weights for the backbone, or a source as
            `BiTBackbone.from_weights` takes it. Without preset, depth and width it is the small
            one that comes with the package.
        depth: Depth of a backbone with random weights; 50 beside a `width`.
        width: Width of a backbone with random weights; 1 beside a `depth`.
        freeze_backbone: Whether only the head is to be trained.
        remat: As in `BiTBackbone`.

    Raises:
        ValueError: If a depth or width stands beside a preset.
    """
    preset = chosen_preset(preset, depth, width)
    if preset is None:
        network = 50 if depth is None else depth, 1 if width is None else width
        backbone = BiTBackbone(*network, remat=remat)
    else:
        backbone = BiTBackbone.from_preset(preset, remat=remat)
    backbone.trainable = not freeze_backbone
    return BiTClassifier(backbone, num_classes)


def compile_classifier(model, optimizer):
    """Compiles `model` for one-hot labels, with `"loss"` and `"accuracy"` in its logs.

    The variables of optimizer and metrics are made here: TensorFlow would trace a first step that
    makes them a second time, and an optimizer without any takes none from a checkpoint.

    Args:
        model: A built `BiTClassifier`, or a model with its inputs and outputs.
        optimizer: `keras.optimizers.Optimizer`.
    """
    model.compile(
        optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)
