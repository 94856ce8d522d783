"""The network as timm computes it in PyTorch."""

import functools
import importlib.util
import re
import sys
import types

import torch

from benchmarks.implementations.torch_steps import forward, training

__all__ = ["forward", "timm", "training"]


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


_stand_in_for_torchvision()
from timm.layers import StdConv2d  # noqa: E402
from timm.models.resnetv2 import ResNetV2  # noqa: E402


def timm(case, weights, num_classes=0):
    """timm's `resnetv2_50x1_bit`, or another of its kind; called like `authors_network.authors`."""
    # What `timm.create_model("resnetv2_50x1_bit")` hands to it for the units (3, 4, 6, 3).
    network = ResNetV2(
        case.units,
        stem_type="fixed",
        num_classes=num_classes,
        conv_layer=functools.partial(StdConv2d, eps=1e-8),
        width_factor=case.width,
    )
    state = {_timm_name(path): _torch_array(array) for path, array in weights.items()}
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


def _torch_array(array):
    transposed = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    return torch.from_numpy(transposed.copy())
