"""The authors' network in PyTorch."""

import importlib
import os
import sys

import torch

from benchmarks.implementations.registry import AUTHORS
from benchmarks.implementations.torch_steps import forward, training

__all__ = ["authors", "forward", "training"]


def authors(case, weights, num_classes=0):
    """The network of the authors' `bit_pytorch/models.py`.

    Args:
        case: The `Case` that says which.
        weights: Dict of arrays by the names of `BiTBackbone.named_weights`.
        num_classes: 0 for features (batch, 2048 * width), else for a zero-initialized head.

    Returns:
        A `torch.nn.Module` from images (batch, 3, height, width) in [-1, 1].
    """
    folder = os.environ[AUTHORS]
    if folder not in sys.path:
        sys.path.insert(0, folder)
    models = importlib.import_module("bit_pytorch.models")
    network = models.ResNetV2(case.units, case.width, max(1, num_classes), zero_head=True)
    network.load_from({f"resnet/{name}": array for name, array in weights.items()})
    if not num_classes:
        network.head.conv = torch.nn.Identity()
    return network
