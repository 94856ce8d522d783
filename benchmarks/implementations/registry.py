"""All implementations of the network that can run here, by name.

What one of them needs is imported when it starts.
"""

import importlib
import importlib.util
import os
import shutil
from typing import NamedTuple

from benchmarks.harness.tables import OWN

BACKEND = os.environ.get("KERAS_BACKEND") or "tensorflow"
AUTHORS = "KERAS_BIT_AUTHORS"  # environment variable with a checkout of the authors' repository
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
HAS_JAX = importlib.util.find_spec("jax") is not None
HAS_TIMM = all(importlib.util.find_spec(name) for name in ("torch", "timm"))
HAS_COMPILER = any(map(shutil.which, ("g++", "clang++")))
HAS_AUTHORS = AUTHORS in os.environ and importlib.util.find_spec("torch") is not None
HAS_HUB = HAS_TENSORFLOW and all(
    importlib.util.find_spec(name) for name in ("tensorflow_hub", "tf_keras", "pkg_resources")
)


class Implementation(NamedTuple):
    """A network in a framework.

    Attributes:
        module: Name of the module in this folder that has `forward` and `training`.
        network: Name of the function in it that makes the network, where there are several.
        options: Further arguments of `forward` and `training`.
    """

    module: str
    network: str | None = None
    options: dict = {}

    def prepare(self):
        """Imports all that is needed, and returns a function that makes the implementation.

        That function takes a work, `"forward"` or `"training step"`, a `Case` and its weights, and
        returns a function without arguments that does the work once and gives the features or
        the loss.
        """
        module = importlib.import_module(f"benchmarks.implementations.{self.module}")
        options = dict(self.options)
        if self.network is not None:
            options["network"] = getattr(module, self.network)
        works = {"forward": module.forward, "training step": module.training}

        def make(work, case, weights):
            return works[work](case, weights, **options)

        return make


COMPILED = ", jit_compile"
PLAIN = "plain Keras 3"


def own_name(work, backend=BACKEND):
    """The form of this package's network that users are told to run on a CPU."""
    return (f"{OWN}, folded" if work == "forward" else OWN) + _suffix(work, backend)


def plain_name(work, backend=BACKEND):
    """The form of plain Keras to compare it with."""
    return PLAIN + _suffix(work, backend)


def _suffix(work, backend):
    """On a CPU, XLA makes TensorFlow's inference faster and training slower; JAX always has it."""
    compiled = backend == "jax" or (backend == "tensorflow" and work == "forward")
    return COMPILED if compiled else ""


def _keras(name, module, network):
    compiled = {f"{name}{COMPILED}": Implementation(module, network, {"jit_compile": True})}
    if BACKEND == "jax":  # which runs one operation at a time otherwise, as nobody does
        return compiled
    return {name: Implementation(module, network), **compiled}


def _peers():
    peers = _keras(PLAIN, "plain_keras", "plain")
    if HAS_HUB:
        peers["hub.KerasLayer"] = Implementation("hub_layer")
    if HAS_TIMM:
        forms = {"": False, **({", torch.compile": True} if HAS_COMPILER else {})}
        for name, layout in LAYOUTS.items():
            for suffix, compiled in forms.items():
                options = {"layout": layout, "compiled": compiled}
                peers[f"timm, {name}{suffix}"] = Implementation("timm_network", "timm", options)
    if HAS_AUTHORS:
        peers["authors' PyTorch"] = Implementation("authors_network", "authors")
    return peers


# In training, XLA takes a minute to compile `hub.KerasLayer` with one unit in each block.
HUB_COMPILED = Implementation("hub_layer", None, {"jit_compile": True})
LAYOUTS = {"contiguous": "contiguous_format", "channels_last": "channels_last"}
IMPLEMENTATIONS = {
    "forward": {
        **_keras(OWN, "keras_bit_network", "backbone"),
        **_keras(f"{OWN}, folded", "keras_bit_network", "folded"),
        **_peers(),
        **({"hub.KerasLayer, jit_compile": HUB_COMPILED} if HAS_HUB else {}),
    },
    "training step": {
        **_keras(OWN, "keras_bit_network", "backbone"),
        f"{OWN}, remat": Implementation(
            "keras_bit_network", "recomputing", {"jit_compile": BACKEND == "jax"}
        ),
        **_peers(),
    },
}


def _timm_in(*precisions):
    if not HAS_TIMM:
        return {}
    return {
        f"timm, {name}, {precision}": Implementation(
            "timm_network", "timm", {"layout": layout, "precision": precision}
        )
        for name, layout in LAYOUTS.items()
        for precision in precisions
    }


# What some processors multiply faster: "autocast" casts weights, "bfloat16" has them in it.
BFLOAT16 = {
    "forward": {
        f"{OWN}, folded, bfloat16": Implementation("keras_bit_network", "folded_in_bfloat16"),
        **_timm_in("autocast", "bfloat16"),
    },
    "training step": {
        f"{OWN}, bfloat16": Implementation("keras_bit_network", "in_bfloat16"),
        **_timm_in("autocast"),
    },
}


def find(work, name):
    """Returns the `Implementation` of a work, in float32 or in bfloat16."""
    return {**IMPLEMENTATIONS[work], **BFLOAT16[work]}[name]


# On a GPU: the names by the module that has what `benchmarks.harness.gpu_process` calls.
_ON_GPU = {
    "forward": {
        "jax_gpu": ("keras_bit", "keras_bit, folded"),
        "tensorflow_gpu": ("keras_bit on TensorFlow", "keras_bit on TensorFlow, folded"),
        "torch_gpu": ("timm, autocast", "timm, bfloat16"),
    },
    "training step": {
        "jax_gpu": ("keras_bit", "keras_bit, train_on_batch"),
        "tensorflow_gpu": ("keras_bit on TensorFlow",),
        "torch_gpu": ("timm, autocast", "timm, autocast, eager"),
    },
}
_INSTALLED = {"jax_gpu": HAS_JAX, "tensorflow_gpu": HAS_TENSORFLOW, "torch_gpu": HAS_TIMM}
GPU_IMPLEMENTATIONS = {
    work: {
        name: module for module, names in modules.items() if _INSTALLED[module] for name in names
    }
    for work, modules in _ON_GPU.items()
}


def not_installed():
    """Returns a dict from the peers that cannot run here to how one gets them."""
    missing = {}
    if not HAS_TIMM:
        missing["timm"] = "not installed: `pip install 'keras_bit[peers]'`"
    elif not HAS_COMPILER:
        missing["torch.compile"] = "no C++ compiler"
    if not HAS_HUB:
        missing["hub.KerasLayer"] = "needs `pip install tensorflow-hub tf_keras 'setuptools<81'`"
    if not HAS_AUTHORS:
        missing["authors' PyTorch"] = "needs `--authors FOLDER`, a checkout of their repository"
    return missing
