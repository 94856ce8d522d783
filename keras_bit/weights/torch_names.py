"""The names and shapes of BiT's arrays in PyTorch's libraries: timm, transformers, bit_pytorch."""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Library(NamedTuple):
    """How a library names the layers, and the epsilon of its weight standardization.

    `unit` is the path of a unit, with the numbers of block and unit counted from `first`.
    """

    root: str
    norm: str
    head: str
    unit: str
    first: int
    epsilon: float


# timm's and transformers' convolutions standardize with
# `F.batch_norm(weight.reshape(1, out_channels, -1), None, None, training=True, eps=1e-8)`, which
# is (w - mean) / sqrt(variance + 1e-8) with the mean and the biased variance of every output
# channel over I, H and W. timm's class has the default 1e-6, but every `resnetv2_*_bit` is made
# with 1e-8. The authors' `bit_pytorch` adds 1e-10, as here. All three keep kernels as they were
# trained, not standardized.
TIMM = Library("stem.conv", "norm", "head.fc", "stages.{}.blocks.{}", 0, 1e-8)  # resnetv2.py
TRANSFORMERS = Library(  # models/bit/modeling_bit.py
    "embedder.convolution", "norm", "classifier.1", "encoder.stages.{}.layers.{}", 0, 1e-8
)
AUTHORS = Library(  # bit_pytorch/models.py
    "root.conv", "head.gn", "head.conv", "body.block{}.unit{:02d}", 1, 1e-10
)
LIBRARIES = (TIMM, TRANSFORMERS, AUTHORS)
# DataParallel and torch.compile put a name before all others; so does transformers' classifier.
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|bit)\.)+")
_CONV = "standardized_conv2d"
_PROJECTION = f"a/proj/{_CONV}"
# Within a unit all three normalize before they convolve, so norm1 belongs to conv1.
_UNIT_LAYERS = {"downsample": _PROJECTION, "downsample.conv": _PROJECTION} | {
    f"{theirs}{number}": f"{part}/{ours}"
    for number, part in enumerate("abc", 1)
    for theirs, ours in (("gn", "group_norm"), ("norm", "group_norm"), ("conv", _CONV))
}
_VARIABLES = {
    (_CONV, "weight"): "kernel",
    ("group_norm", "weight"): "gamma",
    ("group_norm", "bias"): "beta",
    ("head", "weight"): "kernel",
    ("head", "bias"): "bias",
}


def canonical_names(table: Iterable[str], library: Library) -> dict[str, str]:
    """Returns a dict from the names of `BiTBackbone.named_weights` to those in a file."""
    names: dict[str, str] = {}
    ours = {library.root: f"root_block/{_CONV}", library.norm: "group_norm", library.head: "head"}
    digits = re.sub(r"\\{.*?\\}", r"([0-9]{1,3})", re.escape(library.unit))
    for theirs in sorted(table, key=len):
        layer, _, leaf = _WRAPPERS.sub("", theirs).rpartition(".")
        if unit := re.fullmatch(rf"{digits}\.(.+)", layer):
            block, number = (int(text) + 1 - library.first for text in unit.group(1, 2))
            inner = _UNIT_LAYERS.get(unit[3], "")
            layer = f"block{block}/unit{number:02d}/{inner}" if 1 <= block <= 4 else ""
        else:
            layer = ours.get(layer, "")
        if variable := _VARIABLES.get((layer.rpartition("/")[2], leaf)):
            # Of two names for the same array the shorter; the other remains among the unknown.
            names.setdefault(f"{layer}/{variable}", theirs)
    return names


def name_in(library: Library, name: str) -> str:
    """Returns what timm or transformers call an array of `BiTBackbone.named_weights`.

    >>> name_in(TIMM, "block1/unit02/b/group_norm/gamma")
    'stages.0.blocks.1.norm2.weight'
    """
    layer, _, variable = name.rpartition("/")
    leaf = "weight" if variable in ("kernel", "gamma") else "bias"
    if unit := re.fullmatch(r"block(\d)/unit(\d+)/(.+)", layer):
        numbers = (int(text) - 1 + library.first for text in unit.group(1, 2))
        last = {ours: theirs for theirs, ours in _UNIT_LAYERS.items()}  # norm1 and not gn1
        return f"{library.unit.format(*numbers)}.{last[unit[3]]}.{leaf}"
    parts = {f"root_block/{_CONV}": library.root, "group_norm": library.norm, "head": library.head}
    return f"{parts[layer]}.{leaf}"
