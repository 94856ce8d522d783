"""Streamed data of Hugging Face's `datasets`, written to a folder."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_bit.core.files import json_checksum, read_json, write_json
from keras_bit.core.locks import exclusive_lock
from keras_bit.core.text import announce
from keras_bit.core.warn import warn_caller

FACTS_FILE = "stream.json"
SHARD_ROWS = 1_000
SHARD_BYTES = 2**26


def write_stream(stream: Any, columns: list[str], folder: Path) -> Any:
    """Writes columns of an `IterableDataset` to `folder`; returns the `Dataset` of what is there.

    Its rows lie in shards, folders that get their names when they are complete. Where all of them
    are there, the stream is not read; where some are, it is read from the first row on that is
    missing.

    Raises:
        ValueError: If the folder holds something else, as far as names, version and features of a
            stream tell, or the stream has no rows.
    """
    import datasets

    columns = list(dict.fromkeys(columns))
    facts = _facts(stream, columns)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(
        folder / ".lock", lambda: warn_caller(f"Waiting for another process that writes {folder}.")
    ):
        written = _check_folder(folder, facts)
        if written["complete"]:
            announce(f"Taking the images in {folder}, not the stream. Remove it to stream again.")
        else:
            write_json(folder / FACTS_FILE, written)
            announce(f"Writing the streamed images to {folder}.")
            with _without_progress_bars(datasets):
                _write_shards(datasets, stream.select_columns(columns), folder)
            write_json(folder / FACTS_FILE, {**written, "complete": True})
    shards = [datasets.load_from_disk(shard) for shard in _shards(folder)]
    if not shards:
        raise ValueError(f"`dataset` must hold images. Received: a stream without any for {folder}")
    return datasets.concatenate_datasets(shards)


def _facts(stream, columns):
    """What tells a stream from others, as far as it is known without reading it."""
    info = stream.info
    return {
        "dataset": info.dataset_name or info.builder_name,
        "config": info.config_name,
        "version": None if info.version is None else str(info.version),
        "split": None if stream.split is None else str(stream.split),
        "columns": columns,
        "features": json_checksum({name: repr(stream.features[name]) for name in columns}),
    }


def _check_folder(folder, facts):
    """What the folder says of itself; raises where it was written from another stream."""
    path = folder / FACTS_FILE
    if not path.exists():
        if others := [entry.name for entry in folder.iterdir() if entry.name != ".lock"]:
            raise ValueError(
                "`cache_dir` must be a folder for this data set alone. "
                f"Received: {folder} with {others[0]!r} in it"
            )
        return {**facts, "complete": False}
    written = read_json(path)
    differing = [name for name, fact in facts.items() if written.get(name) != fact]
    if differing:
        raise ValueError(
            "`cache_dir` must be a folder for this data set alone. Received: "
            f"{folder}, written from one that differs in {', '.join(differing)}"
        )
    return written


def _write_shards(datasets, stream, folder):
    for abandoned in folder.glob(".part-*"):
        shutil.rmtree(abandoned)
    shards = _shards(folder)
    done = sum(len(datasets.load_from_disk(shard)) for shard in shards)
    features = stream.features
    for name, feature in features.items():
        if isinstance(feature, datasets.Image):
            stream = stream.cast_column(name, datasets.Image(decode=False))
    rows = iter(stream.skip(done) if done else stream)
    for number, part in enumerate(_parts(rows), len(shards)):
        scratch = folder / f".part-{uuid.uuid4().hex}"
        # Images that the stream names by their files are written with their content.
        datasets.Dataset.from_list(part, features=features).save_to_disk(scratch)
        os.rename(scratch, folder / f"shard-{number:06d}")


@contextlib.contextmanager
def _without_progress_bars(datasets):
    """Shows none of the bars that it would show for every shard."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _parts(rows: Iterator[dict]) -> Iterator[list[dict]]:
    """The rows in lists that are small enough for memory."""
    part: list[dict] = []
    size = 0
    for row in rows:
        part.append(row)
        size += sum(len(v["bytes"] or b"") for v in row.values() if isinstance(v, dict))
        if len(part) == SHARD_ROWS or size >= SHARD_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _shards(folder):
    return sorted(folder.glob("shard-*"))
