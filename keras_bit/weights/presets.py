"""The table of BiT weights, the released ones and our own: pure data, and the look-up by name."""

import dataclasses
import difflib
import itertools
import pathlib

from keras_bit.weights.mirror import STORE

LICENSE = "Apache-2.0"
_ILSVRC = "ILSVRC-2012"
_IMAGENET_21K = "ImageNet-21k"
# Depth, width and parameters without head, as counted in the released files.
_ARCHITECTURES = {
    "r50x1": (50, 1, 23_500_352),
    "r101x1": (101, 1, 42_492_480),
    "r50x3": (50, 3, 211_174_080),
    "r152x2": (152, 2, 232_238_208),
    "r101x3": (101, 3, 381_789_888),
    "r152x4": (152, 4, 928_340_224),
}
# The modules on TensorFlow Hub; R152x2 came later and is not among them.
_ON_HUB = ("r50x1", "r101x1", "r50x3", "r101x3", "r152x4")
# Tasks of VTAB-1k: classes, and the edge of the images at which BiT-HyperRule fine-tuned them
# (sizes of the data sets: Zhai et al. 2019, arXiv 1910.04867, appendix).
_VTAB = {
    "caltech101": (102, 480),
    "cifar100": (100, 128),
    "clevr-count": (8, 480),
    "clevr-distance": (6, 480),
    "diabetic_retinopathy": (5, 480),
    "dmlab": (6, 480),
    "dsprites-orientation": (16, 128),
    "dsprites-xpos": (16, 128),
    "dtd": (47, 480),
    "eurosat": (10, 128),
    "kitti-distance": (4, 480),
    "oxford_flowers102": (102, 480),
    "oxford_iiit_pet": (37, 480),
    "patch_camelyon": (2, 480),
    "resisc45": (45, 480),
    "smallnorb-azimuth": (18, 480),
    "smallnorb-elevation": (9, 480),
    "sun397": (397, 480),
    "svhn": (10, 128),
}
_VTAB_RUNS = (0, 1, 2)
# Top-1 accuracy in percent on ILSVRC-2012, and where the authors give it.
_README = "authors' README"
_PAPER = "BiT paper, table 2"
_DISTILLATION = "distillation paper, arXiv 2106.05237"
_ACCURACY = {
    "s-r152x4/ilsvrc2012_classification": (81.30, _PAPER),
    "m-r152x4/ilsvrc2012_classification": (85.39, _PAPER),
    "m-r50x1/ilsvrc2012_classification": (80.68, _README),
    "m-r152x2/ilsvrc2012_classification": (85.15, _README),
    "distill/r50x1_224": (82.8, _DISTILLATION),
    "distill/r50x1_160": (80.5, _DISTILLATION),
}


# The network that comes with the package, in the folder `embedded`: its model card stands there.
EMBEDDED = "f-r14x0.5"
_FOLDER = pathlib.Path(__file__).parent / "embedded"


@dataclasses.dataclass(frozen=True)
class Preset:
    """One pretrained network, and where its weights lie.

    Attributes:
        name: As the TensorFlow Hub module is called, such as `"m-r50x1"`.
        depth, width: Of `keras_bit.BiTBackbone`.
        trained_on: The data it was trained on: ILSVRC-2012 has 1.3M images, ImageNet-21k 14M.
        num_classes: Classes of the head in its file, which `BiTClassifier.from_preset` takes; 0
            where the file has no head.
        parameters: Number of parameters without head.
        image_size: Edge in pixels of the images it was trained on last.
        url: Where the authors' npz file lies, or `None` where `path` has the weights.
        path: The npz file in this package, or `None`.
        hub: URL of the TensorFlow Hub module, or `None`.
        kaggle: Kaggle handle of the same module, or `None`.
        timm: Name of the same weights in timm, or `None`.
        hugging_face: Name of the same weights in Hugging Face's transformers, or `None`.
        accuracy: Top-1 accuracy in percent on ILSVRC-2012 that its authors give, or `None`.
        accuracy_source: Where they give it, or `None`.
        license: SPDX identifier.

    All take RGB images scaled to [-1, 1], which `BiTBackbone` does.
    """

    name: str
    depth: int | tuple[int, ...]
    width: float
    trained_on: str
    num_classes: int
    parameters: int
    image_size: int
    url: str | None
    path: pathlib.Path | None = None
    hub: str | None = None
    kaggle: str | None = None
    timm: str | None = None
    hugging_face: str | None = None
    accuracy: float | None = None
    accuracy_source: str | None = None
    license: str = LICENSE


def presets():
    """Returns the pretrained networks that `from_preset` takes.

    Returns:
        A dict from name to `Preset`: the small one that comes with the package and was trained on
        images drawn by formula, and those that Google released: BiT-S, BiT-M, the distilled
        networks with their teachers, and the runs on VTAB-1k, each in the order of size.

    Example:

    >>> keras_bit.presets()["m-r50x1"].parameters
    23500352
    """
    rows = itertools.chain(_embedded(), _pretrained(), _distilled(), _vtab())
    return {preset.name: preset for preset in rows}


def find_preset(name):
    """Returns the preset of a name; the authors' spelling `BiT-M-R50x1` is taken as well.

    Raises:
        ValueError: If there is none, with the nearest name or what is wrong with this one.
    """
    table = presets()
    spelling = _spelled_as_here(str(name))
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


def _spelled_as_here(name):
    spelling = name.strip().lower().replace("bit-", "")
    if spelling.endswith("-ilsvrc2012"):
        return spelling.removesuffix("-ilsvrc2012") + "/ilsvrc2012_classification"
    return spelling


def _embedded():
    yield Preset(
        name=EMBEDDED,
        depth=(1, 1, 1, 1),
        width=0.5,
        trained_on="images drawn by formula",
        num_classes=0,
        parameters=2_007_328,
        image_size=64,
        url=None,
        path=_FOLDER / f"{EMBEDDED}.npz",
    )


def _pretrained():
    for architecture in _ARCHITECTURES:
        for suffix in ("", "/ilsvrc2012_classification"):
            yield _preset(
                f"s-{architecture}{suffix}",
                file=f"BiT-S-{_capital(architecture)}",
                trained_on=_ILSVRC,
                num_classes=1000,
                image_size=224,
            )
    for architecture in _ARCHITECTURES:
        for suffix in ("", "/imagenet21k_classification"):
            yield _preset(
                f"m-{architecture}{suffix}",
                file=f"BiT-M-{_capital(architecture)}",
                trained_on=_IMAGENET_21K,
                num_classes=21_843,
                image_size=224,
                timm=f"resnetv2_{architecture[1:]}_bit.goog_in21k",
            )
        yield _preset(
            f"m-{architecture}/ilsvrc2012_classification",
            file=f"BiT-M-{_capital(architecture)}-ILSVRC2012",
            trained_on=f"{_IMAGENET_21K}, then {_ILSVRC}",
            num_classes=1000,
            image_size=480,
            timm=f"resnetv2_{architecture[1:]}_bit.goog_in21k_ft_in1k",
            hugging_face="google/bit-50" if architecture == "r50x1" else None,
        )


def _distilled():
    for size in (224, 160):
        yield _preset(
            f"distill/r50x1_{size}",
            file=f"distill/R50x1_{size}",
            trained_on=f"{_ILSVRC}, taught by R152x2",
            num_classes=1000,
            image_size=size,
            timm="resnetv2_50x1_bit.goog_distilled_in1k" if size == 224 else None,
        )
    for size, timm in ((224, ""), (384, "_384")):
        yield _preset(
            f"distill/r152x2_t_{size}",
            file=f"distill/R152x2_T_{size}",
            trained_on=f"{_IMAGENET_21K}, then {_ILSVRC}",
            num_classes=1000,
            image_size=size,
            timm=f"resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k{timm}",
        )


def _vtab():
    for architecture, (task, (classes, size)), run in itertools.product(
        _ON_HUB, _VTAB.items(), _VTAB_RUNS
    ):
        yield _preset(
            f"vtab/m-{architecture}-run{run}-{task}",
            file=f"vtab/BiT-M-{_capital(architecture)}-run{run}-{task}",
            trained_on=f"{_IMAGENET_21K}, then 1,000 images of {task}",
            num_classes=classes,
            image_size=size,
        )


def _preset(name, file, **facts):
    architecture = next(a for a in _ARCHITECTURES if a in name)
    depth, width, parameters = _ARCHITECTURES[architecture]
    accuracy, accuracy_source = _ACCURACY.get(name, (None, None))
    on_hub = name[0] in "sm" and architecture in _ON_HUB
    module = name.replace("/", "-").replace("_", "-")
    return Preset(
        name=name,
        depth=depth,
        width=width,
        parameters=parameters,
        url=f"{STORE}/{file}.npz",
        hub=f"https://tfhub.dev/google/bit/{name}/1" if on_hub else None,
        kaggle=f"google/bit/tensorFlow2/{module}" if on_hub else None,
        accuracy=accuracy,
        accuracy_source=accuracy_source,
        **facts,
    )


def _capital(architecture):
    return architecture.upper().replace("X", "x")
