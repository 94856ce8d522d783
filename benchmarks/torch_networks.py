"""The network in PyTorch: timm's, and the authors' own."""

import functools
import importlib
import importlib.util
import os
import re
import sys
import types

import torch

from benchmarks.cases import CLASSES, LEARNING_RATE, MOMENTUM
from benchmarks.contenders import AUTHORS


def timm(case, weights, num_classes=0):
    """timm's `resnetv2_50x1_bit`, or another of its kind.

    Args:
        case: The `Case` that says which.
        weights: Dict of arrays by the names of `BiTBackbone.named_weights`.
        num_classes: 0 for features (batch, 2048 * width), else for a zero-initialised head.

    Returns:
        A `torch.nn.Module` from images (batch, 3, height, width) in [-1, 1].
    """
    _stand_in_for_torchvision()
    from timm.layers import StdConv2d
    from timm.models.resnetv2 import ResNetV2

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


def authors(case, weights, num_classes=0):
    """The network of the authors' `bit_pytorch/models.py`; arguments as for `timm`."""
    folder = os.environ[AUTHORS]
    if folder not in sys.path:
        sys.path.insert(0, folder)
    models = importlib.import_module("bit_pytorch.models")
    network = models.ResNetV2(case.units, case.width, max(1, num_classes), zero_head=True)
    network.load_from({f"resnet/{name}": array for name, array in weights.items()})
    if not num_classes:
        network.head.conv = torch.nn.Identity()
    return network


def forward(case, weights, network, layout="contiguous_format", compiled=False):
    """Returns a function that gives the features of the batch of `case`."""
    network, images, _ = _prepared(case, network(case, weights), layout)
    network.eval()
    if compiled:
        network = torch.compile(network)

    def features():
        with torch.inference_mode():
            return network(images).numpy()

    return features


def training(case, weights, network, layout="contiguous_format", compiled=False):
    """Returns a function that takes a training step and gives the loss before it."""
    network, images, labels = _prepared(case, network(case, weights, CLASSES), layout)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=MOMENTUM)
    if compiled:
        network = torch.compile(network)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _prepared(case, network, layout):
    layout = getattr(torch, layout)
    images, labels = map(torch.from_numpy, case.batch())
    images = (2 * images - 1).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    return network.to(memory_format=layout), images, labels


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
