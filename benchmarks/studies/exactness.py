"""How far from float64 networks are: features and gradients, ours beside the authors' PyTorch.

`python -m benchmarks.studies.exactness FOLDER [NETWORK...]`, with a checkout of
google-research/big_transfer, prints a table in Markdown. Weights are seeded random ones. Each
measurement is a process of its own, which gets what to measure as JSON.
"""

import json
import os
import pathlib
import sys
import tempfile

import numpy as np

from benchmarks.harness.cases import UNITS, Case
from benchmarks.harness.processes import measure
from benchmarks.harness.tables import markdown_row, markdown_table
from benchmarks.implementations.registry import AUTHORS

NETWORKS = ("R50x1", "R101x1", "R50x3", "R101x3", "R152x2", "R152x4")
WITHOUT_GRADIENTS = ("R152x4",)  # whose float64 arrays would take 30 GB
EDGE, IMAGES = 64, 2
GROUPS = ("features", "kernels", "gammas", "betas", "images")
PARTS = {"1": "a", "2": "b", "3": "c"}


def case_of(network):
    depth, width = network.split("x")
    return Case(UNITS[depth], EDGE, IMAGES, int(width))


def make_inputs(case):
    """Images in [-1, 1], and what the features are multiplied by, in float64."""
    rng = np.random.default_rng(1)
    images = rng.uniform(-1, 1, (IMAGES, EDGE, EDGE, 3))
    return images.astype("float32"), rng.normal(size=(IMAGES, 2048 * case.width))


def keras_bit(network, form):
    """Features and gradients of a `BiTBackbone`, by name."""
    import tensorflow as tf

    from benchmarks.implementations.keras_bit_network import backbone

    case = case_of(network)
    images, factors = make_inputs(case)
    layer = backbone(case, case.weights(), value_range=(-1, 1))
    if form == "folded":
        layer = layer.fold()
    if form == "folded" or network in WITHOUT_GRADIENTS:
        return {"features": tf.function(layer)(images).numpy()}
    variables = layer.named_weights()

    @tf.function
    def compute(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            features = layer(images)
            value = tf.reduce_sum(features * tf.constant(factors, features.dtype))
        watched = [variable.value for variable in variables.values()]
        return features, tape.gradient(value, [images, *watched])

    features, (of_images, *of_weights) = compute(tf.constant(images))
    found = {name: grad.numpy() for name, grad in zip(variables, of_weights, strict=True)}
    return {"features": features.numpy(), "images": of_images.numpy(), **found}


def authors(network, dtype):
    """The same of the authors' network in PyTorch."""
    import torch

    from benchmarks.implementations import authors_network

    case = case_of(network)
    images, factors = make_inputs(case)
    model = authors_network.authors(case, case.weights()).to(getattr(torch, dtype)).eval()
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).to(getattr(torch, dtype))
    if network in WITHOUT_GRADIENTS:
        with torch.inference_mode():
            return {"features": model(inputs).numpy()}
    features = model(inputs.requires_grad_())
    (features * torch.tensor(factors, dtype=features.dtype)).sum().backward()
    found = {
        our_name(name): as_ours(parameter.grad) for name, parameter in model.named_parameters()
    }
    return {"features": features.detach().numpy(), "images": as_ours(inputs.grad, False), **found}


def our_name(name):
    """The name that `BiTBackbone.named_weights` gives a parameter of the authors' network."""
    *path, layer, kind = name.split(".")
    if path[:1] == ["body"]:
        part = "a/proj" if layer == "downsample" else PARTS[layer[-1]]
        prefix = f"{path[1]}/{path[2]}/{part}/"
    else:
        prefix = "root_block/" if path == ["root"] else ""
    if layer == "downsample" or layer.startswith("conv"):
        return f"{prefix}standardized_conv2d/kernel"
    return f"{prefix}group_norm/{'gamma' if kind == 'weight' else 'beta'}"


def as_ours(array, is_kernel=True):
    if array.ndim == 4:
        array = array.permute(2, 3, 1, 0) if is_kernel else array.permute(0, 2, 3, 1)
    return array.numpy()


def differences(found, exact):
    """The relative errors of each group: the largest of an array of it, in the L2 norm.

    Of features the largest difference over the largest feature too.
    """
    errors = {group: [] for group in GROUPS}
    for name, array in found.items():
        group = f"{name.rpartition('/')[2]}s" if "/" in name else name
        errors[group].append(np.linalg.norm(array - exact[name]) / np.linalg.norm(exact[name]))
    largest = np.abs(found["features"] - exact["features"]).max() / np.abs(exact["features"]).max()
    return {"largest": largest, **{group: max(e) for group, e in errors.items() if e}}


IMPLEMENTATIONS = {
    "authors' PyTorch": (authors, "float32"),
    "keras_bit": (keras_bit, "trained"),
    "keras_bit, folded": (keras_bit, "folded"),
}


def compare(network):
    """Returns the `differences` of each of the implementations."""
    with tempfile.TemporaryDirectory() as folder:

        def arrays(function, form):
            path = str(pathlib.Path(folder, f"{function.__name__}-{form}.npz"))
            spec = {"function": function.__name__, "network": network, "form": form, "path": path}
            measure("studies.exactness", spec)
            return np.load(path)

        exact = arrays(authors, "float64")
        return {
            name: differences(arrays(*implementation), exact)
            for name, implementation in IMPLEMENTATIONS.items()
        }


def print_table(networks):
    columns = ("largest", *GROUPS)
    print("\n".join(markdown_table(["network", "implementation", *columns], [])))
    for network in networks:
        for name, errors in compare(network).items():
            cells = (f"{errors[c]:.1e}" if c in errors else "" for c in columns)
            print(markdown_row([network, name, *cells]), flush=True)


if __name__ == "__main__":
    if sys.argv[1].startswith("{"):
        spec = json.loads(sys.argv[1])
        function = {"keras_bit": keras_bit, "authors": authors}[spec["function"]]
        np.savez(spec["path"], **function(spec["network"], spec["form"]))
        print("{}")
    else:
        os.environ[AUTHORS] = sys.argv[1]
        print_table(sys.argv[2:] or NETWORKS)
