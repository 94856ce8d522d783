"""The authors' network in PyTorch, and how networks in PyTorch are run."""

import importlib
import os
import sys

import torch

from benchmarks.cases import CLASSES, LEARNING_RATE, MOMENTUM
from benchmarks.contenders import AUTHORS


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
