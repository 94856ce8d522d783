"""The same networks as others compute them: a plain Keras 3 rendering, and timm's in PyTorch."""

import functools
import importlib.util
import re
import sys
import types

import keras
from keras import ops

HAS_TIMM = all(importlib.util.find_spec(name) for name in ("torch", "timm"))


class _StandardizedConv(keras.layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        mean, variance = ops.moments(kernel, axes=(0, 1, 2), keepdims=True)
        return super().convolution_op(inputs, (kernel - mean) / ops.sqrt(variance + 1e-10))


def plain_keras(units, weights):
    """R50x1, or fewer units of it, in Keras's own layers: what one would write in an afternoon.

    Args:
        units: Four numbers of units, one for each block.
        weights: Dict of arrays by the names of `BiTBackbone.named_weights`.

    Returns:
        A `keras.Model` from images in [0, 1] to features (batch, 2048).
    """
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(2.0, -1.0)(inputs)
    x = _conv(x, "root_block", 64, 7, 2)
    x = keras.layers.MaxPooling2D(3, 2)(keras.layers.ZeroPadding2D(1)(x))
    for block, count in enumerate(units, 1):
        for unit in range(1, count + 1):
            strides = 2 if unit == 1 and block > 1 else 1
            name = f"block{block}/unit{unit:02d}"
            x = _unit(x, name, 64 * 2 ** (block - 1), strides, project=unit == 1)
    x = keras.layers.GlobalAveragePooling2D()(_norm_relu(x, "group_norm"))
    model = keras.Model(inputs, x)
    for path, array in weights.items():
        layer, variable = path.rsplit("/", 1)
        getattr(model.get_layer(layer.replace("/", "_")), variable).assign(array)
    return model


def _unit(x, name, filters, strides, project):
    normalized = _norm_relu(x, f"{name}/a/group_norm")
    shortcut = _conv(normalized, f"{name}/a/proj", 4 * filters, 1, strides) if project else x
    x = _conv(normalized, f"{name}/a", filters, 1)
    x = _conv(_norm_relu(x, f"{name}/b/group_norm"), f"{name}/b", filters, 3, strides)
    x = _conv(_norm_relu(x, f"{name}/c/group_norm"), f"{name}/c", 4 * filters, 1)
    return keras.layers.Add()([x, shortcut])


def _conv(x, name, filters, size, strides=1):
    if size > 1:
        x = keras.layers.ZeroPadding2D(size // 2)(x)
    name = f"{name}/standardized_conv2d".replace("/", "_")
    return _StandardizedConv(filters, size, strides, use_bias=False, name=name)(x)


def _norm_relu(x, name):
    norm = keras.layers.GroupNormalization(32, epsilon=1e-5, name=name.replace("/", "_"))
    return keras.layers.ReLU()(norm(x))


def timm_network(units, weights, num_classes=0):
    """timm's `resnetv2_50x1_bit`, or fewer units of it.

    Args:
        units: Four numbers of units, one for each block.
        weights: Dict of arrays by the names of `BiTBackbone.named_weights`.
        num_classes: 0 for features (batch, 2048), else for a zero-initialised head.

    Returns:
        A `torch.nn.Module` from images (batch, 3, height, width) in [-1, 1].
    """
    import torch

    _stand_in_for_torchvision()
    from timm.layers import StdConv2d
    from timm.models.resnetv2 import ResNetV2

    # What `timm.create_model("resnetv2_50x1_bit")` hands to it, where `units` is (3, 4, 6, 3).
    conv = functools.partial(StdConv2d, eps=1e-8)
    network = ResNetV2(units, stem_type="fixed", num_classes=num_classes, conv_layer=conv)
    state = {_timm_name(path): _timm_array(array) for path, array in weights.items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    if unexpected or any(not name.startswith("head.") for name in missing):
        raise ValueError(f"timm's network has other arrays: {missing}, {unexpected}")
    for parameter in network.head.parameters():
        torch.nn.init.zeros_(parameter)
    return network


def _timm_name(path):
    path = re.sub(r"^root_block/standardized_conv2d", "stem/conv", path)
    path = re.sub(
        r"^block(\d)/unit(\d+)/",
        lambda found: f"stages/{int(found[1]) - 1}/blocks/{int(found[2]) - 1}/",
        path,
    )
    path = path.replace("a/proj/standardized_conv2d", "downsample/conv")
    for number, letter in enumerate("abc", 1):
        path = path.replace(f"/{letter}/standardized_conv2d", f"/conv{number}")
        path = path.replace(f"/{letter}/group_norm", f"/norm{number}")
    path = re.sub(r"^group_norm", "norm", path)
    for name, theirs in (("kernel", "weight"), ("gamma", "weight"), ("beta", "bias")):
        path = re.sub(rf"/{name}$", f"/{theirs}", path)
    return path.replace("/", ".")


def _timm_array(array):
    import torch

    transposed = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    return torch.from_numpy(transposed.copy())


class _Anything(type):
    """A class whose attributes are classes of the same sort."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _EmptyPackage(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


def _stand_in_for_torchvision():
    """timm imports torchvision for its transforms and data sets, which are not needed here."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision"):
        return
    for name in (
        "torchvision",
        "torchvision.datasets",
        "torchvision.models",
        "torchvision.models.feature_extraction",
        "torchvision.ops",
        "torchvision.ops.misc",
        "torchvision.transforms",
        "torchvision.transforms.functional",
    ):
        sys.modules[name] = _EmptyPackage(name)
