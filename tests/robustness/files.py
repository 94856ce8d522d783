"""Good files of every kind, and how each is read as a user would read it."""

import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import shutil
import tarfile
import warnings

import numpy as np
from PIL import Image

from keras_bit import (
    BiTBackbone,
    BiTClassifier,
    Checkpoint,
    ImageDataset,
    image_folder,
    image_table,
    predict_files,
)
from keras_bit.checkpoints.files import write_checkpoint
from keras_bit.core.files import write_json
from keras_bit.data.cache import cache_images
from keras_bit.data.images import decode_image, read_image_size, try_read
from keras_bit.evaluation.outputs import RunOutputs
from keras_bit.evaluation.saved_run import SavedRun
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.training.rule_files import read_rule_file
from keras_bit.tuning.study_folder import StudyFolder
from keras_bit.weights import read_weights
from keras_bit.weights.architecture import architecture_of
from keras_bit.weights.assign import check_fit
from keras_bit.weights.fetch import cache_path, fetch
from keras_bit.weights.fetch.mirror import STORE
from tests.robustness import bombs
from tests.saved_files import RUN
from tests.tuning.formula import Worker, scores
from tests.weight_files import random_arrays, save_npz, shapes_of
from tests.weights.saved_model.modules import (
    authors_name,
    make_variables,
    save_arrays,
    save_module,
)
from tests.weights.saved_model.modules import random_arrays as modules_arrays
from tests.weights.test_torch_files import state_in

TINY = ((1, 1, 1, 1), 1 / 16)
FORMATS = {
    "png": {},
    "jpeg": {},
    "jpeg, progressive": {"progressive": True},
    "gif": {},
    "bmp": {},
    "webp": {"lossless": True},
    "webp, lossy": {},
    "tiff": {},
    "tiff, deflated": {"compression": "tiff_adobe_deflate"},
}


# Weights: what `BiTBackbone.from_weights` does up to the point where it has all arrays.


def read_arrays(path):
    arrays = read_weights(path)
    check_fit(shapes_of(*architecture_of(arrays)), arrays.without_head())
    return dict(arrays)


def are_alike(value, good):
    """Finite arrays; a head may have gone, for a backbone needs none."""
    body = {name for name in good if not name.startswith("head/")}
    return body <= value.keys() <= good.keys() and all(
        np.isfinite(array).all() and array.shape == good[name].shape
        for name, array in value.items()
    )


def tiny_arrays():
    arrays = random_arrays(np.random.default_rng(0), *TINY)
    features = arrays["group_norm/gamma"].size
    head = {"head/kernel": np.ones((features, 3)), "head/bias": np.ones(3)}
    return arrays | {name: array.astype("float32") for name, array in head.items()}


def make_npz(folder):
    body = {name: array for name, array in tiny_arrays().items() if "head" not in name}
    return save_npz(folder / "weights.npz", body)


def make_deflated_npz(folder):
    path = make_npz(folder)
    with np.load(path) as good:
        np.savez_compressed(path, **good)
    return path


def make_safetensors(folder):
    import safetensors.numpy

    safetensors.numpy.save_file(state_in("timm", tiny_arrays()), folder / "model.safetensors")
    return folder / "model.safetensors"


def make_torch(folder, is_zip=True):
    import torch

    state = {n: torch.from_numpy(a) for n, a in state_in("bit_pytorch", tiny_arrays()).items()}
    path = folder / "weights.pth"
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=is_zip)
    return path


@functools.cache
def tiny_model():
    return BiTClassifier(BiTBackbone(*TINY), 3)


def make_keras(folder, name="model.keras"):
    model = tiny_model()
    (model.save_weights if name.endswith(".h5") else model.save)(folder / name)
    return folder / name


def make_saved_model(folder, name="saved_model.pb"):
    return save_arrays(folder / "module", tiny_arrays(), authors_name) / name


def read_module(path):
    return read_arrays(path.parent if path.name == "saved_model.pb" else path.parent.parent)


def make_module(folder):
    variables = make_variables(modules_arrays(), authors_name)
    return save_module(folder / "module", variables, (32, 40)) / "saved_model.pb"


def read_function(path):
    """With the network verified against the graph in the file."""
    backbone = BiTBackbone.from_weights(path.parent)
    return {name: np.asarray(variable) for name, variable in backbone.named_weights().items()}


def make_archive(folder):
    module = make_saved_model(folder).parent
    with tarfile.open(folder / "module.tar.gz", "w:gz") as tar:
        tar.add(module, "module")
    return folder / "module.tar.gz"


def make_tar(folder):
    with tarfile.open(make_archive(folder)) as gz, tarfile.open(folder / "module.tar", "w") as tar:
        for member in gz:
            tar.addfile(member, gz.extractfile(member) if member.isfile() else None)
    return folder / "module.tar"


# Images.


def make_image(folder, kind):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (18, 24, 3)).astype("uint8")
    encoding = kind.partition(",")[0]
    path = folder / f"image.{encoding}"
    Image.fromarray(noise).save(path, encoding, **FORMATS[kind])
    return path


def read_image(path):
    size, reason = try_read(read_image_size, path)
    image, why = try_read(decode_image, path)
    if image is None or size is None:
        raise Reported(f"{path}: {why or reason}")
    return {"size": size, "image": image}


class Reported(Exception):
    """A reason that is returned, not raised."""


def is_an_image(value, good):
    image = value["image"]
    return image.dtype == np.uint8 and image.shape == (*value["size"], 3) and image.size > 0


@functools.cache
def image_bombs():
    return list(bombs.image_bombs())


def bombs_of(encoding):
    return [(what, content) for kind, what, content in image_bombs() if kind == encoding]


def make_folder(folder, kind="png"):
    for index in range(8):
        place = folder / "photos" / f"class{index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        make_image(place, kind).rename(place / f"{index}.{kind}")
    return place / f"7.{kind}"


def read_folder(path):
    """The images that are not damaged."""
    data = image_folder(path.parent.parent, validation_split=0.25)
    cached = [cache_images(split, 8, "train") for split in (data.train, data.test)]
    found = {}
    for each in cached:
        found |= dict(zip(each.names, each.take(range(len(each))), strict=True))
    return {name: image for name, image in found.items() if name != str(path)}


def make_predicted(folder):
    return make_image(make_run(folder, "image.jpeg").parent, "jpeg")


def read_predicted(path):
    good = RUN / "image.png"
    first, predicted, last = predict_files(path.parent, [good, path, good])
    assert [name for name, _ in first.classes] == [name for name, _ in last.classes] != []
    if predicted.error:
        raise Reported(f"{predicted.file}: {predicted.error}")
    return predicted.classes


def are_predictions(value, good):
    return len(value) == len(good)


# Runs.


def make_run(folder, name):
    run = pathlib.Path(shutil.copytree(RUN, folder / "run"))
    classes = len(SavedRun.open(run).label_names)
    RunOutputs(True, 1.5, (0.25,) * classes).write(run)
    return run / name


def read_run(path):
    run = SavedRun.open(path.parent)
    return run.label_names, run.rule.get_config(), dataclasses.asdict(run.outputs)


def is_a_run(value, good):
    names, config, outputs = value
    RunOutputs(**outputs)
    return all(isinstance(name, str) for name in names) and HyperRule.from_config(config)


def read_model(path):
    run = SavedRun.open(path.parent)
    return {v.path.partition("/")[2]: np.asarray(v) for v in run.load().weights}


# Checkpoints, caches, downloads.


def make_checkpoint(folder, name):
    for step in (1, 2):
        arrays = {f"weights/{i}": np.full((2, 3), step + i, "float32") for i in range(2)}
        content = {"update": step, "settings": {"rate": 0.5}}
        path = write_checkpoint(folder / "checkpoints", arrays, content, keep=2)
    return path / name


def read_checkpoint(path):
    """Whether one of the two is found as it was written."""
    saved = Checkpoint(path.parent.parent, verbose=False).find()
    step = saved.content["update"]
    assert saved.content == {"update": step, "settings": {"rate": 0.5}}
    for i in range(2):
        np.testing.assert_array_equal(saved.arrays[f"weights/{i}"], np.full((2, 3), step + i))
    return step in (1, 2)


def make_cache(folder, name):
    read_cache(folder / "cache" / "x" / name)
    (path,) = (folder / "cache").glob(f"train-*/{name}")
    return path


def read_cache(path):
    images = np.random.default_rng(0).integers(0, 255, (12, 5, 5, 3)).astype("uint8")
    data = ImageDataset.from_arrays(images, [0, 1] * 6)
    cached = cache_images(data.train, 4, "train", path.parent.parent)
    return {"images": cached.take(range(len(cached))), "labels": cached.labels}


def make_download(folder, name):
    os.environ["KERAS_HOME"] = str(folder / "home")
    os.environ["KERAS_BIT_MIRROR"] = str(folder / "mirror")
    (folder / "mirror").mkdir(exist_ok=True)
    content = np.random.default_rng(0).bytes(500)
    (folder / "mirror" / "BiT.npz").write_bytes(content)
    path = fetch(f"{STORE}/BiT.npz")
    part = path.with_name("BiT.npz.part")
    part.write_bytes(content[:200])
    record = path.with_name("BiT.npz.json")
    part.with_name("BiT.npz.part.json").write_bytes(record.read_bytes())
    return path.with_name(name)


def read_download(path):
    if "part" in path.name:
        cache_path(f"{STORE}/BiT.npz").unlink(missing_ok=True)
    with contextlib.redirect_stderr(io.StringIO()):
        return fetch(f"{STORE}/BiT.npz").read_bytes()


def part_bombs():
    yield from bombs.json_bombs()
    names = ("url", "size", "etag", "last_modified", "generation", "md5", "crc32c")
    for value in ('"a"', "[1]", "{}", "1e999", "-1", "true"):
        text = ", ".join(f'"{name}": {value}' for name in names)
        yield f"all of {value}", f"{{{text}}}".encode()
        url = f'"url": "{STORE}/BiT.npz", "last_modified": "x"'
        yield f"sizes of {value}", f"{{{text}, {url}}}".encode()


# Searches: what happened in them is found however the file is damaged, or it is named.


def make_search(folder, name):
    Worker(folder / "search", limit=3).search()
    StudyFolder(folder / "search").write_repeat("0000-1", {"score": 0.5, "right": "0110"})
    return folder / "search" / name


def read_search(path):
    """What happened, with the result of a trial and of a repetition, which may be lost."""
    folder = path.parent if path.name == "study.json" else path.parent.parent
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        worker = Worker(folder, limit=3)
        worker.search()
        results = {name: worker.folder.read_trial(name) for name in ("0000", "0001", "0002")}
        repeated = worker.folder.read_repeat("0000-1")
    assert not worker.ran
    lost = [name for name, result in {**results, "0000-1": repeated}.items() if result is None]
    assert lost in ([], [path.stem])
    warned = [str(each.message) for each in caught if each.category is UserWarning]
    assert all(str(path) in message and "\n" not in message for message in warned)
    assert warned or not lost
    for result in results.values():
        assert result is None or result["score"] == result["end"]["metrics"]["score"]
    assert repeated in (None, {"score": 0.5, "right": "0110"})
    return scores(folder)


# Tables of images.


def make_table(folder, suffix):
    rows = [(f"{i}.png", ("cat", "dog")[i % 2], "train" if i < 6 else "test") for i in range(8)]
    for name, _, _ in rows:
        Image.new("RGB", (8, 8)).save(folder / name)
    columns = dict(zip(("path", "label", "split"), zip(*rows, strict=True), strict=True))
    path = folder / f"table{suffix}"
    if suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(columns), path)
    else:
        path.write_text("\n".join(map(",".join, [tuple(columns), *rows])))
    return path


def read_table(path):
    """Labels and names, as far as there are any: what is missing is told in a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = image_table(path, split="split")
    names = [os.path.basename(name) for split in (data.train, data.test) for name in split.names]
    return {"names": names, "labels": list(data.label_names)}


def is_a_table(value, good):
    return set(value["names"]) <= set(good["names"]) and len(value["labels"]) >= 2


# Rules for `--rule`.


def make_rule(folder):
    rule = HyperRule((40, 36), 48, 16, mixup_alpha=0.3)
    decisions = {"preset": "m-r50x1", "frozen_blocks": 2, "weight_decay": 0.1, "dropout": 0.5}
    write_json(folder / "best_rule.json", {"config": rule.get_config(), "decisions": decisions})
    return folder / "best_rule.json"


def read_rule(path):
    return read_rule_file(path, {})


def is_a_rule(value, good):
    plain = {name: type(each) for name, each in value.items() if name != "rule"}
    numbers = (int, float)
    return isinstance(value["rule"], HyperRule) and all(
        kind in (numbers if name in ("weight_decay", "dropout") else (type(good[name]),))
        for name, kind in plain.items()
    )
