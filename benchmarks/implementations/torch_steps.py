"""How networks in PyTorch are run: a forward pass, and a training step."""

import torch

from benchmarks.harness.cases import CLASSES, LEARNING_RATE, MOMENTUM


def forward(case, weights, network, layout="contiguous_format", compiled=False, precision=None):
    """Returns a function that gives the features of the batch of `case`."""
    network, images, _ = _prepared(case, network(case, weights), layout)
    network.eval()
    if precision == "bfloat16":
        network, images = network.bfloat16(), images.bfloat16()
    if compiled:
        network = torch.compile(network)

    def features():
        with torch.inference_mode(), _precision(precision):
            return network(images).float().numpy()

    return features


def training(case, weights, network, layout="contiguous_format", compiled=False, precision=None):
    """Returns a function that takes a training step and gives the loss before it."""
    network, images, labels = _prepared(case, network(case, weights, CLASSES), layout)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=MOMENTUM)
    if compiled:
        network = torch.compile(network)

    def step():
        optimizer.zero_grad()
        with _precision(precision):
            logits = network(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _precision(precision):
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast")


def _prepared(case, network, layout):
    layout = getattr(torch, layout)
    images, labels = map(torch.from_numpy, case.batch())
    images = (2 * images - 1).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    return network.to(memory_format=layout), images, labels
