"""The network of BiT as one Keras layer."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bit.core.arguments import check_boolean, check_positive_number
from keras_bit.core.saving import register
from keras_bit.layers.blocks import Block, RootBlock, norm_relu
from keras_bit.layers.freezing import freeze, freeze_inside, frozen_paths
from keras_bit.layers.fusion import wide_dtype
from keras_bit.layers.image_input import (
    add_guard,
    check_image_dtype,
    check_image_shape,
    check_value_range,
    rescale,
)
from keras_bit.layers.recompute import recomputed
from keras_bit.layers.standardized_conv import EPSILON, skip_init
from keras_bit.weights.architecture import architecture_of, check_depth, check_width, units_of
from keras_bit.weights.arrays import WeightArrays
from keras_bit.weights.assign import assign_strictly, check_fit
from keras_bit.weights.formats import read_outline, read_weights
from keras_bit.weights.npz import write_npz
from keras_bit.weights.torch_files import check_portable, write_safetensors

ANY_SIZE = (None, None, None, 3)
_SMALL_EPSILON = 1e-6  # of which the largest variance of folded kernels shows nothing
STAGES = ("stem", "block1", "block2", "block3", "block4", "norm")
# With `remat` the first so many parts, whose activations are the largest, are recomputed as wholes:
# of the first block not even its units' inputs are saved, and its units recompute twice.
WHOLE_PARTS = 2


@register
class BiTBackbone(keras.layers.Layer):
    """The network of BigTransfer (Kolesnikov et al. 2020, arXiv 1912.11370) as one Keras layer.

    A pre-activation ResNet with group norm in place of batch norm and standardized kernels, equal
    to the authors' code to float precision. All its weights are trainable: BiT fine-tunes the
    whole network. Parts can be frozen before the model is compiled:

    ```python
    backbone = keras_bit.BiTBackbone()
    backbone.root_block.trainable = False
    backbone.blocks[0].trainable = False
    ```

    Frozen parts stay frozen when a model is saved and loaded.

    Args:
        depth: 50, 101 or 152, or four numbers of units, one for each block.
        width: The factor on all channel counts: 1, 2, 3 or 4 in the released networks, or a
            fraction for small ones; `64 * width` must be a whole multiple of 4. Narrow layers have
            fewer than 32 groups in their group norms, at least two channels in each.
        value_range: Range of the images' values: `(0, 1)` as for the TensorFlow Hub modules,
            `(0, 255)`, or `(-1, 1)` as for the authors' npz files. They are rescaled to [-1, 1].
        pooling: `"avg"` as in the paper, `"max"`, or `None` for the feature map.
        frozen: Names of parts to freeze: `"root_block"`, `"block1"` to `"block4"`, `"group_norm"`;
            or of layers in them, such as `"block1/unit01"` or `"block1/unit01/a/group_norm"`.
        standardize: With `False` kernels are used as they are; `fold` makes such a backbone.
        remat: Whether training saves only the inputs of units and recomputes all other activations
            in the backward pass (Chen et al. 2016, arXiv 1604.06174): the same gradients with a
            third of the memory for activations or less, in about a third more time.
        kernel_epsilon: Positive float, added to a kernel's variance: 1e-10 as in the authors'
            code, 1e-8 in timm's and Hugging Face's ports.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        images: Tensor (batch, height, width, 3), float of any precision, or of an integer dtype
            with `value_range=(0, 255)`. Any size from 32x32 up. Under mixed precision begin a
            `keras.Sequential` with `keras.Input((None, None, 3))`: without it, Keras casts images
            to the compute dtype before they are rescaled.

    Output shape: (batch, 2048 * width), or (batch, height / 32, width / 32, 2048 * width), rounded
    up, with `pooling=None`; in the compute dtype.

    Raises:
        ValueError: If an argument is out of range, the images have another rank, channel count or
            dtype, or are smaller than 32 pixels. Floats far outside of `value_range` (uint8
            images that Keras has cast) are an error in eager mode; compiled code cannot raise, and
            gives NaN for each such image instead of a plausible wrong answer.

    Example:

    >>> backbone = keras_bit.BiTBackbone(depth=50, width=1)
    >>> tuple(backbone(keras.random.uniform((2, 64, 64, 3))).shape)
    (2, 2048)
    """

    def __init__(
        self,
        depth: int | Sequence[int] = 50,
        width: float = 1,
        *,
        value_range: Sequence[float] = (0, 1),
        pooling: str | None = "avg",
        frozen: Sequence[str] = (),
        standardize: bool = True,
        remat: bool = False,
        kernel_epsilon: float = EPSILON,
        **kwargs: Any,
    ) -> None:
        # Images are rescaled in float32 first and cast to the compute dtype after.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.depth = check_depth(depth)
        self.width = check_width(width)
        self.value_range = check_value_range(value_range)
        self.pooling = _check_pooling(pooling)
        self.standardize = check_boolean("standardize", standardize)
        self.remat = check_boolean("remat", remat)
        self.kernel_epsilon = check_positive_number("kernel_epsilon", kernel_epsilon)
        channels = int(64 * self.width)
        conv_options = {"standardize": self.standardize, "epsilon": self.kernel_epsilon}
        options = {"conv_options": conv_options, "dtype": self.dtype_policy}
        self.root_block = RootBlock(channels, name="root_block", **options)
        self.blocks = []
        input_channels = channels
        for number, units in enumerate(units_of(self.depth), 1):
            strides = 1 if number == 1 else 2
            name = f"block{number}"
            block = Block(
                units, input_channels, channels, strides, remat=self.remat, name=name, **options
            )
            self.blocks.append(block)
            input_channels, channels = 4 * channels, 2 * channels
        self.norm = norm_relu(input_channels, self.dtype_policy)
        freeze(self._parts(), frozen)
        freeze_inside(self)

    @classmethod
    def from_preset(
        cls, name: str | os.PathLike, load_weights: bool = True, **kwargs: Any
    ) -> "BiTBackbone":
        """Returns the backbone with pretrained weights, of the depth and width that they have.

        Args:
            name: A name of `keras_bit.presets()`, such as `"m-r50x1"`, whose weights are
                downloaded into Keras's cache folder. Or the path or URL of an `.npz` file in the
                authors' layout; of a `.safetensors`, `.pth` or `.bin` file of timm, Hugging Face
                or the authors' PyTorch code; of a `.weights.h5` or `.keras` file of this package,
                or the authors' `.h5`; or of a TensorFlow SavedModel, as a folder or `.tar.gz`,
                whose own function and the layer made of it are compared on two images. Or a handle
                such as `"hf://google/bit-50"`, `"https://tfhub.dev/google/bit/m-r50x1/1"` or
                `"kaggle://google/bit/tensorFlow2/m-r50x1"`.
            load_weights: With `False` depth and width alone are those of `name`, the weights are
                random, and for a preset's name nothing is downloaded.
            **kwargs: Further arguments of the layer, such as `value_range` and `pooling`;
                `kernel_epsilon` is by default that of the saved layer, which `.keras` and
                `.safetensors` files tell, or of the library that wrote the file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If there is no such preset; if a file is damaged, of another kind, or holds
                no BiT network, another than the preset's or more than one; or if a SavedModel's
                own function gives other features than the layer.
            ConnectionError: If it cannot be downloaded, a preset's from none of its places.
        """
        return cls._from_source(name, load_weights, kwargs)

    @classmethod
    def from_weights(
        cls, source: str | os.PathLike, load_weights: bool = True, **kwargs: Any
    ) -> "BiTBackbone":
        """Alias of `from_preset`."""
        return cls._from_source(source, load_weights, kwargs)

    @classmethod
    def _from_source(cls, source, load_weights, kwargs):
        for name in {"depth", "width"} & kwargs.keys():
            raise ValueError(
                f"`{name}` must be omitted: the weights decide it. Received: {name}={kwargs[name]}"
            )
        if check_boolean("load_weights", load_weights):
            return cls.from_arrays(read_weights(source, network_function), **kwargs)
        architecture, _, epsilon = read_outline(source)
        return cls(*architecture, **{"kernel_epsilon": epsilon, **kwargs})

    @classmethod
    def from_arrays(cls, arrays: WeightArrays, **kwargs: Any) -> "BiTBackbone":
        """Returns the backbone with the weights in `arrays`.

        Args:
            arrays: What `keras_bit.weights.read_weights` returns; a head is skipped.
            **kwargs: Further arguments of the layer.

        Raises:
            ValueError: If an array is missing, unknown, or of another shape, or the kernels were
                not standardized where `standardize` is `False`.
        """
        depth, width = architecture_of(arrays)
        if kwargs.get("standardize") is False:
            _check_folded(arrays, kwargs.get("kernel_epsilon", arrays.epsilon))
        backbone = cls(depth, width, **{"kernel_epsilon": arrays.epsilon, **kwargs})
        arrays = arrays.without_head()
        check_fit(backbone.weight_shapes(), arrays)  # before the memory for them is allocated
        with skip_init():
            backbone.build(ANY_SIZE)
        assign_strictly(backbone.named_weights(), arrays)
        return backbone

    def save_npz(self, path: str | os.PathLike, dtype: str = "float32", head: Any = None) -> None:
        """Writes the weights in the authors' layout, which their PyTorch and JAX code reads.

        The file does not tell another `kernel_epsilon` than the authors': pass it with
        `from_preset`.

        Args:
            path: File to write.
            dtype: `"float32"`, or `"float16"` for half the size.
            head: A `ZeroInitHead` to write beside it.

        Raises:
            ValueError: If `dtype` is another one, or the network is folded.
        """
        if not self.standardize:
            raise ValueError(
                "The network must have standardized kernels, as whoever reads the file "
                "standardizes them. Received: standardize=False. Save it before `fold`."
            )
        write_npz(path, self._weights_with(head), dtype)

    def save_safetensors(
        self,
        path: str | os.PathLike,
        layout: str = "timm",
        dtype: str = "float32",
        head: Any = None,
    ) -> None:
        """Writes the weights for timm or Hugging Face's transformers; PyTorch is not needed.

        timm reads them with `create_model("resnetv2_50x1_bit", num_classes=0,
        checkpoint_path=path)`, transformers with `BitModel.from_pretrained(folder)`, its
        `config.json` beside the file `model.safetensors`. Those networks add 1e-8 to a kernel's
        variance, this one `kernel_epsilon`: outputs differ where kernels are very small.

        Args:
            path: File to write.
            layout: `"timm"`, or `"huggingface"` for `transformers.BitModel`.
            dtype: `"float32"`, or `"float16"` for half the size.
            head: A `ZeroInitHead` to write beside it.

        Raises:
            ValueError: If `layout` or `dtype` is another one, or the network is folded or narrow.
        """
        check_portable(self.standardize, {norm.groups for _, norm, _ in self._norms()})
        write_safetensors(path, self._weights_with(head), layout, dtype, self.kernel_epsilon)

    def build(self, input_shape: Sequence[int | None]) -> None:
        shape = check_image_shape(input_shape)
        for part in self._parts():
            part.build(shape)
            shape = part.compute_output_shape(shape)

    def call(self, images: Any) -> Any:
        x, nan_guard = rescale(images, self.value_range, self.compute_dtype)
        features = self._feature_maps(x)["norm"]
        if self.pooling is None:
            return add_guard(features, nan_guard)
        pool = ops.max if self.pooling == "max" else ops.mean
        # A mean over a thousand float16 values would lose digits, or overflow.
        wide = ops.cast(features, wide_dtype(self.compute_dtype))
        pooled = ops.cast(pool(wide, axis=(1, 2)), self.compute_dtype)
        return add_guard(pooled, nan_guard)

    def stages(self, images: Any) -> dict[str, Any]:
        """Returns the feature maps of all stages, for detection and segmentation.

        Args:
            images: As in a call; a symbolic `keras.Input` gives symbolic maps, from which a
                `keras.Model` can be made.

        Returns:
            A dict of maps (batch, height, width, channels): `"stem"` and `"block1"` with a
            quarter of the images' height and width, `"block2"`, `"block3"` and `"block4"` with an
            eighth, a 16th and a 32nd, all before activation; and `"norm"`, the last map after
            group norm and ReLU.
        """
        if not self.built:
            self.build(images.shape)
        x, nan_guard = rescale(images, self.value_range, self.compute_dtype)
        maps = self._feature_maps(x)
        return {name: add_guard(feature, nan_guard) for name, feature in maps.items()}

    def fold(self) -> "BiTBackbone":
        """Returns an equal backbone for inference, whose kernels are standardized beforehand.

        It is not trainable: training would change the mean and variance of its kernels.
        """
        changes = {"standardize": False, "remat": False, "trainable": False}
        config = self.get_config() | changes
        folded = type(self).from_config(config)
        with skip_init():
            folded.build(ANY_SIZE)
        self._build_if_needed()
        sources, targets = self.named_weights(), folded.named_weights()
        for name, conv, _ in self._convs():
            targets.pop(name).assign(conv.effective_kernel())
        for name, target in targets.items():
            # JAX would share the array, and delete it once one of the two models has been run.
            target.assign(ops.copy(sources[name]))
        return folded

    def named_weights(self) -> dict[str, keras.Variable]:
        """Returns a dict from names as in the authors' npz files to variables.

        Names lack the files' leading `resnet/`. Builds the layer if needed.
        """
        self._build_if_needed()
        weights = {name: conv.kernel for name, conv, _ in self._convs()}
        for name, norm, _ in self._norms():
            weights[f"{name}/gamma"] = norm.gamma
            weights[f"{name}/beta"] = norm.beta
        return weights

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns a dict from the names of `named_weights` to shapes, without building anything."""
        shapes: dict[str, tuple[int, ...]] = {
            name: (conv.kernel_size, conv.kernel_size, channels, conv.filters)
            for name, conv, channels in self._convs()
        }
        for name, _, channels in self._norms():
            shapes |= {f"{name}/gamma": (channels,), f"{name}/beta": (channels,)}
        return shapes

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        shape = check_image_shape(input_shape)
        for part in self._parts():
            shape = part.compute_output_shape(shape)
        return tuple(shape) if self.pooling is None else (shape[0], shape[-1])

    def compute_output_spec(self, images: Any) -> keras.KerasTensor:
        check_image_dtype(images.dtype, self.value_range)
        return keras.KerasTensor(self.compute_output_shape(images.shape), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "depth": self.depth,
            "width": self.width,
            "value_range": self.value_range,
            "pooling": self.pooling,
            "frozen": list(frozen_paths(self._parts())),
            "standardize": self.standardize,
            "remat": self.remat,
            "kernel_epsilon": self.kernel_epsilon,
        }

    def _weights_with(self, head):
        return self.named_weights() | (head.named_weights() if head else {})

    def _parts(self):
        return [self.root_block, *self.blocks, self.norm]

    def _build_if_needed(self):
        if not self.built:
            self.build(ANY_SIZE)

    def _units(self):
        for block in self.blocks:
            for unit in block.units:
                yield f"{block.name}/{unit.name}", unit

    def _convs(self):
        """Yields the kernels' names, the convolutions, and their input channels."""
        yield "root_block/standardized_conv2d/kernel", self.root_block.conv, 3
        for path, unit in self._units():
            for part in (unit.a, unit.b, unit.c):
                channels = part.input_filters
                yield f"{path}/{part.name}/standardized_conv2d/kernel", part.conv, channels
            if unit.proj is not None:
                channels = unit.input_filters
                yield f"{path}/a/proj/standardized_conv2d/kernel", unit.proj, channels

    def _norms(self):
        """Yields the group norms' names, the norms, and their channels."""
        for path, unit in self._units():
            for part in (unit.a, unit.b, unit.c):
                yield f"{path}/{part.name}/group_norm", part.norm, part.input_filters
        channels = 4 * self.blocks[-1].filters
        yield "group_norm", self.norm, channels

    def _feature_maps(self, x):
        maps = {}
        for number, (name, part) in enumerate(zip(STAGES, self._parts(), strict=True)):
            whole = self.remat and number < WHOLE_PARTS
            maps[name] = x = recomputed(part, x) if whole else part(x)
        return maps


def network_function(arrays: WeightArrays) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function that a network with these weights computes, to verify SavedModels.

    It takes images (n, height, width, 3) in [0, 1] and returns features, or logits where the
    arrays have a head.
    """
    backbone = BiTBackbone.from_arrays(arrays, dtype="float32")
    head = arrays.only_head()

    def outputs(images):
        features = ops.convert_to_numpy(backbone(ops.convert_to_tensor(images)))
        return features @ head["head/kernel"] + head["head/bias"] if head else features

    return outputs


def _check_folded(arrays, epsilon):
    """Raises where kernels that are to be used as they are were never standardized."""
    kernel = arrays["root_block/standardized_conv2d/kernel"].astype("float64")
    kernel = kernel.reshape(-1, kernel.shape[-1])
    # Such means are left in bfloat16; a large epsilon makes variances small.
    least = 0.9 if epsilon <= _SMALL_EPSILON else 0.0
    if np.abs(kernel.mean(0)).max() > 1e-2 or not least <= kernel.var(0).max() < 1.1:
        raise ValueError(
            "`standardize=False` needs kernels that were standardized, as `fold` leaves them. "
            f"Received: {arrays.source}, whose kernels have other means or variances. Leave it "
            "out, and call `fold`."
        )


def _check_pooling(pooling):
    if pooling not in ("avg", "max", None):
        raise ValueError(f'`pooling` must be "avg", "max" or None. Received: pooling={pooling!r}')
    return pooling
