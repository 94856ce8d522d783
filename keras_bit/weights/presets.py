"""The table of BiT weights, the released ones and our own: pure data, and the look-up by name."""

import dataclasses
import difflib
import functools
import itertools
import pathlib
import re

from keras_bit.weights.fetch.mirror import STORE
from keras_bit.weights.recipe import Recipe

_ILSVRC = "ILSVRC-2012"
_IMAGENET_21K = "ImageNet-21k"
_BOTH = f"{_IMAGENET_21K}, then {_ILSVRC}"
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
    "distill/r152x2_t_224": (83.0, _DISTILLATION),
    "distill/r152x2_t_384": (84.3, _DISTILLATION),
}
# The teachers on other data (big_vision, `configs/proj/distill`): the task and its classes.
_TEACHERS = {
    "flowers": ("oxford_flowers102", 102),
    "pet": ("oxford_iiit_pet", 37),
    "food": ("food101", 101),
    "sun": ("sun397", 397),
}
# The network that comes with the package, in the folder `embedded` beside its model card.
EMBEDDED = "f-r14x0.5"
# Found on photographs and digits; see benchmarks/results/run_without_options.md.
_EMBEDDED_RECIPE = Recipe(
    EMBEDDED,
    batch_size=64,
    learning_rate=0.06,
    schedule_length=800,
    warmup=True,
    small_images=(36, 32),
    large_images=(120, 96),
    few_images=(72, 64),
    few_below=800,
    mixup_alpha=0.2,
)


@dataclasses.dataclass(frozen=True)
class Preset:
    """One pretrained network, and where its weights are.

    Attributes:
        name: As the TensorFlow Hub module is called, such as `"m-r50x1"`.
        depth, width: Of `keras_bit.BiTBackbone`.
        trained_on: The data it was trained on: ILSVRC-2012 has 1.3M images, ImageNet-21k 14M.
        num_classes: Classes of the head in its file, which `BiTClassifier.from_preset` takes; 0
            where the file has no head.
        parameters: Number of parameters without head.
        image_size: Edge in pixels of the images that it was trained on last.
        url: Where the authors' npz file is, or `None` where `path` has the weights.
        path: The npz file in this package, or `None`.
        hub: URL of the TensorFlow Hub module, or `None`; of the distilled networks a port by
            Sayak Paul, with the head.
        kaggle: Kaggle handle of the same module, or `None`.
        timm: Name of the same weights in timm, or `None`.
        hugging_face: Name of the same weights in Hugging Face's transformers, or `None`.
        accuracy: Top-1 accuracy in percent on ILSVRC-2012 that its authors give, or `None`.
        accuracy_source: Where they give it, or `None`.
        recipe: `Recipe` that suits the network, or `None` for BiT-HyperRule as published, which
            was made for Google's; `keras_bit.HyperRule.for_preset` takes it.
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
    recipe: Recipe | None = None
    license: str = "Apache-2.0"


def presets() -> dict[str, Preset]:
    """Returns the pretrained networks that `from_preset` takes.

    Returns:
        A dict from name to `Preset`: the small one that comes with the package and was trained on
        synthetic images, and those that Google released: BiT-S, BiT-M, the distilled networks
        with their teachers, and the runs on VTAB-1k, each in the order of size.

    Example:

    >>> keras_bit.presets()["m-r50x1"].parameters
    23500352
    """
    return {preset.name: preset for preset in _all()}


def find_preset(name: str) -> Preset:
    """Returns the preset of a name.

    Args:
        name: A name of `keras_bit.presets()`, or the authors' spelling, such as `"BiT-M-R50x1"`.

    Raises:
        ValueError: If there is none, with the nearest name or what is wrong with this one.
    """
    table = presets()
    spelling = str(name).strip().lower().replace("bit-", "")
    spelling = re.sub("-ilsvrc2012$", "/ilsvrc2012_classification", spelling)
    if spelling in table:
        return table[spelling]
    if spelling.partition("-")[0] == "l":
        raise ValueError(
            "`name` asks for BiT-L, pretrained on JFT-300M, which Google never released. "
            f"Received: name={name!r}. The largest released network is 'm-r152x4'."
        )
    longer = sorted(filter(lambda known: known.startswith(spelling), table), key=len)
    near = (longer if spelling else []) or difflib.get_close_matches(spelling, table, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else "`keras-bit presets` lists them, too."
    raise ValueError(f"`name` must be one of keras_bit.presets(). Received: name={name!r}. {hint}")


def further_places(preset: Preset) -> tuple[str, ...]:
    """Returns handles of the same arrays, head included, at Hugging Face and Kaggle.

    >>> further_places(find_preset("distill/r50x1_224"))[0]
    'hf://timm/resnetv2_50x1_bit.goog_distilled_in1k/model.safetensors'
    """
    # A module that is called like the network alone has no head; the npz file always has one.
    same = [p for p in _all() if p.url == preset.url and "/" in p.name]
    return (
        *(f"hf://timm/{p.timm}/model.safetensors" for p in same if p.timm),
        *(f"hf://{p.hugging_face}" for p in same if p.hugging_face),
        *(f"kaggle://{p.kaggle}" if p.kaggle else p.hub for p in same if p.hub),
    )


@functools.cache
def _all():
    path = pathlib.Path(__file__).parent / "embedded" / f"{EMBEDDED}.npz"
    data = "synthetic (formula-driven) images"
    facts = (EMBEDDED, (1, 1, 1, 1), 0.5, data, 0, 2_007_328, 48)
    embedded = Preset(*facts, url=None, path=path, recipe=_EMBEDDED_RECIPE)
    return (embedded, *_pretrained(), *_distilled(), *_vtab())


def _pretrained():
    for network in _ARCHITECTURES:
        for suffix in ("", "/ilsvrc2012_classification"):
            yield _preset(f"s-{network}{suffix}", "BiT-S-{}", _ILSVRC, 1000, 224)
    for network in _ARCHITECTURES:
        timm = f"resnetv2_{network[1:]}_bit.goog_in21k"
        for suffix in ("", "/imagenet21k_classification"):
            name = f"m-{network}{suffix}"
            yield _preset(name, "BiT-M-{}", _IMAGENET_21K, 21_843, 224, timm=timm)
        name = f"m-{network}/ilsvrc2012_classification"
        elsewhere = {"timm": f"{timm}_ft_in1k"}
        if network == "r50x1":
            elsewhere["hugging_face"] = "google/bit-50"
        yield _preset(name, "BiT-M-{}-ILSVRC2012", _BOTH, 1000, 480, **elsewhere)


def _distilled():
    taught = f"{_ILSVRC}, taught by R152x2"
    ports = "https://tfhub.dev/sayakpaul"
    for size, timm in ((224, "resnetv2_50x1_bit.goog_distilled_in1k"), (160, None)):
        name, file = f"distill/r50x1_{size}", f"distill/{{}}_{size}"
        hub = f"{ports}/distill_bit_resnet50x1_{size}_classification/1"
        yield _preset(name, file, taught, 1000, size, timm=timm, hub=hub)
    for size, suffix in ((224, ""), (384, "_384")):
        name, file = f"distill/r152x2_t_{size}", f"distill/{{}}_T_{size}"
        timm = f"resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k{suffix}"
        hub = f"{ports}/bit_resnet152x2_{size}_classification/1"
        yield _preset(name, file, _BOTH, 1000, size, timm=timm, hub=hub)
    for task, (data, classes) in _TEACHERS.items():
        name, file = f"distill/r152x2_t_{task}128", f"distill/{{}}_T_{task}128"
        yield _preset(name, file, f"{_IMAGENET_21K}, then {data}", classes, 128)


def _vtab():
    runs = itertools.product(_ON_HUB, _VTAB.items(), range(3))
    for network, (task, (classes, size)), run in runs:
        name, file = f"vtab/m-{network}-run{run}-{task}", f"vtab/BiT-M-{{}}-run{run}-{task}"
        yield _preset(name, file, f"{_IMAGENET_21K}, then 1,000 images of {task}", classes, size)


def _preset(name, file, trained_on, num_classes, image_size, **elsewhere):
    """A released network; `{}` in `file` stands for its architecture in the authors' spelling."""
    network = next(network for network in _ARCHITECTURES if network in name)
    depth, width, parameters = _ARCHITECTURES[network]
    if name[0] in "sm" and network in _ON_HUB:
        elsewhere["hub"] = f"https://tfhub.dev/google/bit/{name}/1"
        elsewhere["kaggle"] = "google/bit/tensorFlow2/" + re.sub("[/_]", "-", name)
    if name in _ACCURACY:
        elsewhere["accuracy"], elsewhere["accuracy_source"] = _ACCURACY[name]
    url = f"{STORE}/{file.format(network.upper().replace('X', 'x'))}.npz"
    facts = (depth, width, trained_on, num_classes, parameters, image_size)
    return Preset(name, *facts, url, **elsewhere)
