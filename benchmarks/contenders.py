"""All contenders of the network benchmarks, by name; what they need is imported when they start."""

import importlib
import importlib.util
import os
from typing import NamedTuple

AUTHORS = "KERAS_BIT_AUTHORS"  # environment variable with a checkout of the authors' repository
HAS_TIMM = all(importlib.util.find_spec(name) for name in ("torch", "timm"))
HAS_AUTHORS = AUTHORS in os.environ and importlib.util.find_spec("torch") is not None
HAS_HUB = all(
    importlib.util.find_spec(name)
    for name in ("tensorflow", "tensorflow_hub", "tf_keras", "pkg_resources")
)


class Contender(NamedTuple):
    """A network in a framework.

    Attributes:
        module: Name of the module in `benchmarks` that has `forward` and `training`.
        network: Name of the function in it that makes the network, where there are several.
        options: Further arguments of `forward` and `training`.
    """

    module: str
    network: str | None = None
    options: dict = {}

    def prepare(self):
        """Imports all that is needed, and returns a function that makes the contender.

        That function takes a work, `"forward"` or `"training step"`, a `Case` and its weights, and
        returns a function without arguments that does the work once and gives the features or
        the loss.
        """
        module = importlib.import_module(f"benchmarks.{self.module}")
        options = dict(self.options)
        if self.network is not None:
            options["network"] = getattr(module, self.network)
        works = {"forward": module.forward, "training step": module.training}

        def make(work, case, weights):
            return works[work](case, weights, **options)

        return make


def _keras(name, module, network):
    return {
        name: Contender(module, network),
        f"{name}, jit_compile": Contender(module, network, {"jit_compile": True}),
    }


def _peers():
    peers = _keras("plain Keras 3", "keras_network", "plain")
    if HAS_HUB:
        peers["hub.KerasLayer"] = Contender("hub_network")
    if HAS_TIMM:
        for name, layout in LAYOUTS.items():
            for suffix, compiled in (("", False), (", torch.compile", True)):
                options = {"layout": layout, "compiled": compiled}
                peers[f"timm, {name}{suffix}"] = Contender("timm_network", "timm", options)
    if HAS_AUTHORS:
        peers["authors' PyTorch"] = Contender("torch_network", "authors")
    return peers


# In training, XLA takes a minute to compile `hub.KerasLayer` with one unit in each block.
HUB_COMPILED = Contender("hub_network", None, {"jit_compile": True})
LAYOUTS = {"contiguous": "contiguous_format", "channels_last": "channels_last"}
CONTENDERS = {
    "forward": {
        **_keras("keras_bit", "own_network", "backbone"),
        **_keras("keras_bit, folded", "own_network", "folded"),
        **_peers(),
        **({"hub.KerasLayer, jit_compile": HUB_COMPILED} if HAS_HUB else {}),
    },
    "training step": {
        **_keras("keras_bit", "own_network", "backbone"),
        "keras_bit, remat": Contender("own_network", "recomputing"),
        **_peers(),
    },
}
