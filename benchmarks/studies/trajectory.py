"""How far 50 updates of training lead from those in float64, ours beside the authors' PyTorch.

`python -m benchmarks.studies.trajectory FOLDER`, with a checkout of google-research/big_transfer,
prints a table in Markdown: R50x1 from seeded random weights on random images of 64 px. It takes
most of an hour on two cores; PyTorch computes slowly in float64 on a CPU.
"""

import os
import sys

import numpy as np

from benchmarks.harness.tables import markdown_table
from benchmarks.implementations.registry import AUTHORS
from benchmarks.studies.exactness import as_ours, case_of, our_name

NETWORK = "R50x1"
UPDATES, LISTED = 50, (10, 25, 50)
BATCH, EDGE, CLASSES = 8, 64, 10
RATE, MOMENTUM = 0.003, 0.9


def batches():
    rng = np.random.default_rng(2)
    for _ in range(UPDATES):
        images = rng.uniform(-1, 1, (BATCH, EDGE, EDGE, 3)).astype("float32")
        yield images, rng.integers(0, CLASSES, BATCH)


def keras_bit():
    """The loss of each update, and the backbone's weights after those that are listed."""
    import keras

    from benchmarks.implementations.keras_bit_network import backbone
    from keras_bit import ZeroInitHead

    case = case_of(NETWORK)
    layer = backbone(case, case.weights(), value_range=(-1, 1))
    model = keras.Sequential([keras.Input((EDGE, EDGE, 3)), layer, ZeroInitHead(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE, momentum=MOMENTUM), loss=loss, jit_compile=False)
    losses, weights = [], {}
    for update, (images, labels) in enumerate(batches(), 1):
        losses.append(float(model.train_on_batch(images, labels)))
        if update in LISTED:
            variables = layer.named_weights().items()
            weights[update] = {name: np.asarray(variable) for name, variable in variables}
    return losses, weights


def authors(dtype):
    """The same of the authors' network in PyTorch."""
    import torch

    from benchmarks.implementations import authors_network

    case, dtype = case_of(NETWORK), getattr(torch, dtype)
    model = authors_network.authors(case, case.weights()).to(dtype).train()
    head = torch.nn.Linear(2048, CLASSES, dtype=dtype)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, RATE, MOMENTUM)
    losses, weights = [], {}
    for update, (images, labels) in enumerate(batches(), 1):
        optimizer.zero_grad()
        inputs = torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype)
        loss = torch.nn.functional.cross_entropy(head(model(inputs)), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if update in LISTED:
            weights[update] = {
                our_name(name): as_ours(parameter.detach().clone())
                for name, parameter in model.named_parameters()
            }
    return losses, weights


def distance(found, exact, first):
    """How far all weights together are from `exact`, over how far these have moved."""
    off, moved = (
        sum(np.square(exact[name] - other[name]).sum() for name in exact)
        for other in (found, first)
    )
    return np.sqrt(off / moved)


def rows():
    first = case_of(NETWORK).weights()
    exact_losses, exact = authors("float64")
    for name, (losses, weights) in (
        ("authors' PyTorch, float32", authors("float32")),
        ("keras_bit", keras_bit()),
    ):
        of_losses = (abs(losses[update - 1] - exact_losses[update - 1]) for update in LISTED)
        of_weights = (distance(weights[update], exact[update], first) for update in LISTED)
        yield [name, *(f"{value:.1e}" for value in (*of_losses, *of_weights))]


if __name__ == "__main__":
    os.environ[AUTHORS] = sys.argv[1]
    heads = [f"{what} {update}" for what in ("loss", "weights") for update in LISTED]
    print(*markdown_table(["implementation", *heads], rows()), sep="\n")
