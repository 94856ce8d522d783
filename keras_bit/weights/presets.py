"""The table of released BiT weights: pure data, and the look-up by name."""

import dataclasses
import difflib

LICENSE = "Apache-2.0"
_STORE = "https://storage.googleapis.com/bit_models"
_PRETRAINING = {"s": "ILSVRC-2012 (1.3M images)", "m": "ImageNet-21k (14M images)"}
# Depth, width and parameters without head, as counted in the released files.
_ARCHITECTURES = {
    "r50x1": (50, 1, 23_500_352),
    "r101x1": (101, 1, 42_492_480),
    "r50x3": (50, 3, 211_174_080),
    "r152x2": (152, 2, 232_238_208),
    "r101x3": (101, 3, 381_789_888),
    "r152x4": (152, 4, 928_340_224),
}


@dataclasses.dataclass(frozen=True)
class Preset:
    """One released network.

    Attributes:
        name: As the TensorFlow Hub module is called, such as `"m-r50x1"`.
        depth, width: Of `keras_bit.BiTBackbone`.
        pretraining: The data it was trained on.
        parameters: Number of parameters without head.
        url: Where the authors' npz file lies.
        license: SPDX identifier.
    """

    name: str
    depth: int
    width: int
    pretraining: str
    parameters: int
    url: str
    license: str = LICENSE


def presets():
    """Returns the released networks that `BiTBackbone.from_preset` takes.

    Returns:
        A dict from name to `Preset`, in the order of size within BiT-S and BiT-M.

    Example:

    >>> keras_bit.presets()["m-r50x1"].parameters
    23500352
    """
    table = {}
    for series, trained_on in _PRETRAINING.items():
        for architecture, (depth, width, parameters) in _ARCHITECTURES.items():
            file = f"BiT-{series.upper()}-R{depth}x{width}"
            _add(table, f"{series}-{architecture}", file, trained_on, parameters)
            if series == "m":
                name = f"m-{architecture}/ilsvrc2012_classification"
                tuned = f"{trained_on}, fine-tuned on ILSVRC-2012"
                _add(table, name, f"{file}-ILSVRC2012", tuned, parameters)
    return table


def find_preset(name):
    """Returns the preset of a name; the authors' spelling `BiT-M-R50x1` is taken as well.

    Raises:
        ValueError: If there is none, with the nearest name or what is wrong with this one.
    """
    table = presets()
    spelling = str(name).strip().lower().removeprefix("bit-")
    if spelling.endswith("-ilsvrc2012"):
        spelling = spelling.removesuffix("-ilsvrc2012") + "/ilsvrc2012_classification"
    if spelling in table:
        return table[spelling]
    if spelling.partition("-")[0] == "l":
        raise ValueError(
            "`name` asks for BiT-L, pretrained on JFT-300M, which Google never released. "
            f"Received: name={name!r}. The largest released network is 'm-r152x4'."
        )
    near = difflib.get_close_matches(spelling, table, n=1, cutoff=0.0)
    raise ValueError(
        f"`name` must be one of keras_bit.presets(). Received: name={name!r}. "
        f"Did you mean {near[0]!r}?"
    )


def _add(table, name, file, pretraining, parameters):
    architecture = name.partition("-")[2].partition("/")[0]
    depth, width, _ = _ARCHITECTURES[architecture]
    url = f"{_STORE}/{file}.npz"
    table[name] = Preset(name, depth, width, pretraining, parameters, url)
