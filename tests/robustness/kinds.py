"""The kinds of files that are read: a good one, how it is read, and what it must give."""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from tests.robustness import bombs, files


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: Writes a good file below a folder and returns its path.
        read: Reads it as a user would, given its path.
        is_plausible: Whether a value may stand where the file has no checksum, given the good one.
        bombs: Pairs of what is wrong, and content.
        weight: How many of these are read for one of another kind that takes less time; of what
            takes long a short form reads none.
        names_folder: Whether the error may name the folder alone.
        has_checksum: Whether the file has checksums: damage may change no value unseen.
    """

    make: Callable[[pathlib.Path], pathlib.Path]
    read: Callable[[pathlib.Path], Any]
    is_plausible: Callable[[Any, Any], bool] = lambda value, good: False
    bombs: Callable[[], Iterable[tuple[str, bytes]]] = lambda: ()
    weight: float = 1.0
    names_folder: bool = False
    has_checksum: bool = False


def weights():
    """Files of weights."""
    bare = {"read": files.read_arrays, "is_plausible": files.are_alike}
    checked = bare | {"has_checksum": True}
    module = checked | {"read": files.read_module, "names_folder": True}
    make_h5 = partial(files.make_keras, name="model.weights.h5")
    shard = "variables/variables.data-00000-of-00001"
    found = {
        "npz": Kind(files.make_npz, bombs=bombs.npz_bombs, **checked),
        "npz, deflated": Kind(files.make_deflated_npz, **checked),
        "safetensors": Kind(files.make_safetensors, bombs=bombs.safetensors_bombs, **bare),
        "keras": Kind(files.make_keras, bombs=bombs.keras_bombs, **checked),
        "weights.h5": Kind(make_h5, bombs=bombs.hdf5_bombs, **bare),
        "SavedModel, graph": Kind(files.make_saved_model, **module),
        "SavedModel, index": Kind(
            partial(files.make_saved_model, name="variables/variables.index"), **module
        ),
        "SavedModel, shard": Kind(partial(files.make_saved_model, name=shard), **module),
        "SavedModel, function": Kind(
            files.make_module, **module | {"read": files.read_function}, weight=0.01
        ),
        "SavedModel.tar.gz": Kind(files.make_archive, **checked),
        "SavedModel.tar": Kind(files.make_tar, bombs=bombs.tar_bombs, **checked),
    }
    if importlib.util.find_spec("torch"):
        zip_bombs = partial(bombs.zip_bombs, "archive/data.pkl")
        found["pth"] = Kind(files.make_torch, bombs=zip_bombs, **checked)
        found["pth, legacy"] = Kind(partial(files.make_torch, is_zip=False), **bare)
    return found


def images():
    """Images, alone and among others."""
    found = {
        kind: Kind(
            partial(files.make_image, kind=kind),
            files.read_image,
            files.is_an_image,
            partial(files.bombs_of, kind),
            has_checksum=kind == "png",
        )
        for kind in files.FORMATS
    }
    found["image_folder"] = Kind(files.make_folder, files.read_folder, weight=0.5)
    for suffix in (".csv", ".parquet") if importlib.util.find_spec("pyarrow") else (".csv",):
        found[f"table{suffix}"] = Kind(
            partial(files.make_table, suffix=suffix), files.read_table, files.is_a_table
        )
    found["predict_files"] = Kind(
        files.make_predicted, files.read_predicted, files.are_predictions, weight=0.02
    )
    return found


def runs():
    """What a run leaves."""
    found = {
        name: Kind(
            partial(files.make_run, name=name), files.read_run, files.is_a_run, bombs.json_bombs
        )
        for name in ("label_names.json", "rule.json", "outputs.json")
    }
    found["model.keras"] = Kind(
        partial(files.make_run, name="model.keras"),
        files.read_model,
        files.are_alike,
        bombs.model_bombs,
        weight=0.1,
        has_checksum=True,
    )
    return found


def repaired():
    """What is made again, or of which an older one is taken, where it is damaged."""
    makers = {
        "manifest.json": (files.make_checkpoint, files.read_checkpoint, bombs.json_bombs),
        "arrays.safetensors": (
            files.make_checkpoint,
            files.read_checkpoint,
            bombs.safetensors_bombs,
        ),
        "index.npz": (files.make_cache, files.read_cache, bombs.npz_bombs),
        "images.npy": (files.make_cache, files.read_cache, bombs.npy_bombs),
        "BiT.npz.json": (files.make_download, files.read_download, files.part_bombs),
        "BiT.npz.part.json": (files.make_download, files.read_download, files.part_bombs),
    }
    return {
        name: Kind(partial(make, name=name), read, bombs=bomb, weight=0.6)
        for name, (make, read, bomb) in makers.items()
    }


def searches():
    """What a search leaves, and the rule that it hands on."""
    names = ("study.json", "trials/events.json", "trials/0000.json", "repeats/0000-1.json")
    found = {
        f"search, {name}": Kind(
            partial(files.make_search, name=name),
            files.read_search,
            bombs=bombs.json_bombs,
            has_checksum=True,
        )
        for name in names
    }
    found["--rule"] = Kind(files.make_rule, files.read_rule, files.is_a_rule, bombs.json_bombs)
    return found


KINDS = weights() | images() | runs() | repaired() | searches()
