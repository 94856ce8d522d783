"""Tables of image files and their labels as an `ImageDataset`."""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_bit.data.dataset import ImageDataset
from keras_bit.data.images import SKIP, check_damaged
from keras_bit.data.sources.columns import is_missing, read_columns
from keras_bit.data.sources.files import FileSplit, inspect_file
from keras_bit.data.sources.labels import check_label_names, multi_hot
from keras_bit.data.sources.selection import (
    TEST_NAMES,
    TRAIN_NAMES,
    Selection,
    filter_found,
    to_dataset,
)
from keras_bit.data.threads import map_headers

# pandas writes numbers beside empty cells as 1.0.
_HOT = dict.fromkeys(("0", "0.0", "false"), False) | dict.fromkeys(("1", "1.0", "true"), True)


def image_table(
    table: Any,
    *,
    path: str = "path",
    label: str | Sequence[str] = "label",
    split: str | None = None,
    root: str | os.PathLike | None = None,
    separator: str | None = None,
    label_names: Sequence[str] | None = None,
    validation_split: float = 0.1,
    seed: int = 0,
    min_edge: int = 0,
    examples_per_class: int | None = None,
    damaged: str = SKIP,
) -> ImageDataset:
    """An `ImageDataset` over a table with a row for each image file.

    Images have several labels each where `separator` is given, where the label's cells are lists,
    or where `label` names several columns; rows of the same file are then one image with the labels
    of all of them, and a row without a label is an image without labels. Otherwise an image has one
    class, and rows without are skipped. Files that are missing or cannot be read are skipped; a
    warning names some of them, and `skipped` of the result all.

    Args:
        table: A pandas or polars DataFrame, a dict of columns, or the path of a file: CSV or TSV in
            UTF-8, with commas, tabs or semicolons and column names in the first line, or Parquet
            (`pip install "keras_bit[parquet]"`).
        path: Name of the column with the paths of the files.
        label: Name of the column with the labels: text or numbers, such as `cat`, `cat|indoor` or
            `["cat", "indoor"]`; or names of several columns of 0 and 1, one for each label.
        split: Name of a column that says of each image where it belongs: `train` or `training`, or
            else `test`, `validation`, `valid` or `val`, the first of these that occurs. Rows of
            other splits are skipped. Without it, or without rows of a test split, a part of the
            training images is held out.
        root: Folder at which relative paths start. Default: that of the file `table`, or else the
            working directory.
        separator: What stands between the labels of one cell, such as `"|"`.
        label_names: The classes in the order of their ids. Default: all that occur, sorted; whole
            numbers by value.
        validation_split, seed, min_edge, examples_per_class, damaged: As for `image_folder`. Of
            images with several labels, rare labels are held out first, so that both sides have
            them.

    Raises:
        FileNotFoundError: There is no file `table`.
        ImportError: pyarrow, which Parquet files need, is missing.
        TypeError: `table` is something else, `label_names` are not strings.
        ValueError: A column is missing, a label is none of `label_names`, a class has no image that
            can be read or too few, no image can be read, a file has two classes or belongs to two
            splits, or an argument is out of range.

    Example:

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> rows = {"path": [f"{i}.png" for i in range(10)], "label": ["cat", "dog"] * 5}
    >>> for name in rows["path"]:
    ...     keras.utils.save_img(folder / name, np.zeros((48, 64, 3)))
    >>> data = keras_bit.image_table(rows, root=folder, validation_split=0.2)
    >>> data.label_names, data.train_size
    (('cat', 'dog'), 8)
    >>> rows["tags"] = ["cat|indoor", "dog", "", "dog|indoor", "cat"] * 2
    >>> data = keras_bit.image_table(rows, label="tags", separator="|", root=folder)
    >>> data.label_names, data.multi_label
    (('cat', 'dog', 'indoor'), True)
    """
    selection = Selection(validation_split, seed, min_edge, examples_per_class)
    make_split = partial(FileSplit, check_damaged(damaged))
    if separator is not None and not (isinstance(separator, str) and separator):
        raise ValueError(f"`separator` must be text. Received: separator={separator!r}")
    if not isinstance(label, str):
        if not isinstance(label, Iterable) or not (several := list(label)):
            raise ValueError(f"`label` must name a column, or several. Received: label={label!r}")
        label = several
        label_names = label if label_names is None else label_names
    if root is None:
        root = Path(table).parent if isinstance(table, (str, os.PathLike)) else ""
    with _named(table):
        columns = _read(table, path, label, split)
        cells, multi_label = _label_cells(columns, label, separator)
        sides = None if split is None else columns[split]
        rows, skipped = _rows(columns[path], cells, sides, os.fspath(root), multi_label)
        names = _class_names(rows, label_names)
        train, test, others = _sides(rows, sides is not None)
        scan = partial(_scan, names=names, multi_label=multi_label, min_edge=selection.min_edge)
        found, faulty = scan(train)
        skipped += others + faulty
        test_split = None
        if test:
            test_found, faulty = scan(test)
            test_split = make_split(test_found)
            skipped += faulty
        return to_dataset(make_split, found, test_split, names, skipped, selection)


@contextlib.contextmanager
def _named(table):
    """Lets errors name the file that the table comes from."""
    try:
        yield
    except ValueError as error:
        if not isinstance(table, (str, os.PathLike)) or os.fspath(table) in str(error):
            raise
        message = str(error).removesuffix(".")
        raise ValueError(f"{message}. Table: {os.fspath(table)}") from error


def _read(table, path, label, split):
    labels = [label] if isinstance(label, str) else label
    arguments = {path: "path", **dict.fromkeys(labels, "label")}
    return read_columns(table, arguments if split is None else {**arguments, split: "split"})


@dataclass(frozen=True)
class _Row:
    number: int  # counted from 1
    name: str  # path of the file
    start: int  # where the part of it below `root` starts
    labels: tuple[str, ...]
    side: str


def _label_cells(columns, label, separator):
    """The labels of each row as tuples of strings, and whether an image may have several."""
    if not isinstance(label, str):
        if separator is not None:
            raise ValueError("`separator` must be omitted where `label` names several columns.")
        return _from_indicators({name: columns[name] for name in label}), True
    cells = columns[label]
    if separator is not None:
        parts = ([] if is_missing(cell) else str(cell).split(separator) for cell in cells)
        return [tuple(p.strip() for p in row if p.strip()) for row in parts], True
    multi_label = any(_is_list(cell) for cell in cells)
    as_lists = (cell if _is_list(cell) else [] if is_missing(cell) else [cell] for cell in cells)
    rows = ((entry for entry in cell if not is_missing(entry)) for cell in as_lists)
    return [tuple(map(_text, row)) for row in rows], multi_label


def _from_indicators(columns):
    """The names of the columns that are 1, for each row."""
    hot = []
    for number, row in enumerate(zip(*columns.values(), strict=True), 1):
        labels = []
        for name, value in zip(columns, row, strict=True):
            is_hot = _HOT.get(_text(value).lower())
            if is_hot is None:
                raise ValueError(
                    "`label` must name columns of 0 and 1. "
                    f"Received: {value!r} in row {number} of the column {name!r}"
                )
            if is_hot:
                labels.append(name)
        hot.append(tuple(labels))
    return hot


def _is_list(cell):
    return not isinstance(cell, (str, bytes, Mapping)) and isinstance(cell, Iterable)


def _text(value):
    is_float = isinstance(value, (float, np.floating))
    if is_float and value.is_integer():  # pandas makes floats of whole numbers
        value = int(value)
    return str(value).strip()


def _rows(paths, cells, sides, root, multi_label):
    """The rows that name a file and a class, one for each file, and what was skipped."""
    rows: dict[str, _Row] = {}
    skipped = []
    for number, (path, labels) in enumerate(zip(paths, cells, strict=True), 1):
        if is_missing(path):
            skipped.append((f"row {number}", "no path"))
            continue
        path = os.path.normpath(str(path).strip())
        name = os.path.join(root, path)
        start = 0 if os.path.isabs(path) else len(name) - len(path)
        side = "train" if sides is None else _side(sides[number - 1])
        row = _Row(number, name, start, labels, side)
        if not labels and not multi_label:
            skipped.append((name, "no label"))
        elif name not in rows:
            rows[name] = row
        elif rows[name].side != side or (rows[name].labels != labels and not multi_label):
            raise ValueError(
                "`table` must name a file once, or with the same label and split. Received: "
                f"{name} in the rows {rows[name].number} and {number}, which differ"
            )
        else:
            merged = dict.fromkeys((*rows[name].labels, *labels))
            rows[name] = replace(rows[name], labels=tuple(merged))
    return list(rows.values()), skipped


def _side(cell):
    name = "" if is_missing(cell) else _text(cell).lower()
    return "train" if name in TRAIN_NAMES else name


def _class_names(rows, label_names):
    """The names of the classes in the order of their ids; checks that every label is one."""
    if label_names is None:
        found = {label for row in rows for label in row.labels}
        whole = all(label.isascii() and label.isdecimal() for label in found)
        names = tuple(sorted(found, key=(lambda label: (int(label), label)) if whole else None))
    else:
        names = check_label_names(label_names)
        known = set(names)
        for row in rows:
            for label in row.labels:
                if label not in known:
                    raise ValueError(
                        "`label_names` must name every label. "
                        f"Received: a table with {label!r} in row {row.number}"
                    )
    if len(names) < 2:
        raise ValueError(
            "`label` must be a column of at least two different labels. Received: "
            f"{len(names)} label{'' if len(names) == 1 else 's'}: {list(names)}"
        )
    return names


def _sides(rows, has_split):
    """The rows for training, those for the test, and what is skipped of others."""
    if not has_split:
        return rows, [], []
    present = {row.side for row in rows}
    test = next((name for name in TEST_NAMES if name in present), None)
    if "train" not in present:
        raise ValueError(
            "`split` must be a column with rows of `train`, and of one of "
            f"{', '.join(TEST_NAMES)}. Received: a column with {sorted(present)}"
        )
    others = [
        (row.name, f"of the split {row.side!r}" if row.side else "of no split")
        for row in rows
        if row.side not in ("train", test)
    ]
    sides = ([row for row in rows if row.side == side] for side in ("train", test))
    return *sides, others


def _scan(rows, names, multi_label, min_edge):
    """What was found of the rows' files, and what of it was skipped."""
    if not rows:
        raise ValueError("`table` must have rows with a path and a label. Received: none")
    ids = {name: index for index, name in enumerate(names)}

    def inspect(row):
        labels = [ids[label] for label in row.labels]
        label = multi_hot(labels, len(names)) if multi_label else labels[0]
        return inspect_file(row.start, row.name, label)

    found, skipped = filter_found(map_headers(inspect, rows), min_edge)
    if not found:
        raise ValueError(
            "`table` must name images that can be read. Received: none among "
            f"{len(rows):,} files, the first {skipped[0][0]!r} ({skipped[0][1]}). Set `root` to "
            "the folder at which the paths start"
        )
    missing = set() if multi_label else set(range(len(names))) - {image.label for image in found}
    if missing and rows[0].side == "train":
        raise ValueError(
            "Every class must have training images that can be read. "
            f"Received: the class {names[min(missing)]!r} with none"
        )
    return found, skipped
