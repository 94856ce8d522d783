"""The columns of a table: a CSV, TSV or Parquet file, a frame of pandas or polars, or a dict."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_bit.core.file_faults import wrap_read_errors
from keras_bit.core.text import list_some

DELIMITERS = ",\t;"
LISTED_COLUMNS = 20
TEXT_SUFFIXES = (".csv", ".tsv")
PARQUET_SUFFIXES = (".parquet", ".pq")


def read_columns(table: Any, arguments: Mapping[str, str]) -> dict[str, list[Any]]:
    """Returns the values of some columns, all of one length; those of CSV and TSV are strings.

    Args:
        table: Path of a file, a DataFrame, or a dict of sequences.
        arguments: From each column's name to the argument that asks for it.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: For Parquet files, if pyarrow is missing.
        TypeError: If `table` is something else.
        ValueError: If a column is missing or stands there twice, or the file cannot be read.

    Example:

    >>> from keras_bit.data.sources.columns import read_columns
    >>> read_columns({"path": ["a.png", "b.png"], "label": [0, 1]}, {"label": "label"})
    {'label': [0, 1]}
    """
    if isinstance(table, (str, os.PathLike)):
        table = _read_file(Path(table), set(arguments))
    if not (isinstance(table, Mapping) or hasattr(table, "columns")):
        raise TypeError(
            "`table` must be a pandas or polars DataFrame, a dict of columns, or the path of a "
            f"CSV, TSV or Parquet file. Received: a {type(table).__qualname__}"
        )
    present = list(getattr(table, "columns", table))
    for name, argument in arguments.items():
        if present.count(name) != 1:
            found = "is there more than once" if name in present else "is not there"
            raise ValueError(
                f"`{argument}` must name a column of the table. Received: {argument}={name!r}, "
                f"which {found}; columns: {list_some(list(map(repr, present)), LISTED_COLUMNS)}"
            )
    columns = {name: _as_list(table[name]) for name in arguments}
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"`table` must have columns of one length. Received: {sorted(lengths)}")
    return columns


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: `None`, NaN, `pandas.NA`, or text of blanks."""
    if isinstance(value, str):
        return not value.strip()
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(value != value)


def _as_list(values):
    for name in ("to_list", "tolist"):  # of pandas and polars; of NumPy
        if hasattr(values, name):
            return getattr(values, name)()
    return list(values)


def _read_file(path, names):
    suffix = path.suffix.lower()
    if suffix not in TEXT_SUFFIXES + PARQUET_SUFFIXES:
        raise ValueError(
            f"`table` must be a file named .csv, .tsv or .parquet. Received: table={path}"
        )
    if not path.is_file():
        problem = "a folder" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"`table` must be a file. Received: table={path}, {problem}")
    return _read_text(path) if suffix in TEXT_SUFFIXES else _read_parquet(path, names)


def _read_text(path):
    """The columns of a CSV or TSV file, in UTF-8, under the names in its first line."""
    rule, advice = "`table` must be a table in UTF-8", "Save it again as UTF-8 with commas."
    with wrap_read_errors(path, rule, advice):
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = max(DELIMITERS, key=header.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            rows = [(reader.line_num, row) for row in reader if not _is_blank(row)]
        (_, names), *rows = rows
        names = [name.strip() for name in names]
        if not all(map(str.isprintable, names)):
            raise ValueError("its first line is no text")
        if len(set(names)) < len(names):
            raise ValueError(f"columns of the same name in {names}")
        for line, row in rows:
            if len(row) != len(names):
                raise ValueError(
                    f"line {line} has {len(row)} fields, the first {len(names)}; quote fields that "
                    f"hold {delimiter!r}"
                )
    return {name: [row[i] for _, row in rows] for i, name in enumerate(names)}


def _is_blank(row):
    """Whether a line of a text file holds nothing, or spaces alone."""
    return len(row) < 2 and not "".join(row).strip()


def _read_parquet(path, names):
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            'Parquet files need pyarrow. Install it: `pip install "keras_bit[parquet]"`.'
        ) from error
    with wrap_read_errors(path, "`table` must be a Parquet file", "Write it again."):
        with parquet.ParquetFile(path) as file:
            present = file.schema_arrow.names
            table = file.read([name for name in present if name in names])
            columns = [name for name in present if present.count(name) == 1 and name in names]
            values = {name: table[name].to_pylist() for name in columns}
        return _ParquetColumns(present, values)


class _ParquetColumns(dict):
    """The values of some columns of a Parquet file, and the names of all."""

    def __init__(self, columns: list[str], values: dict[str, list[Any]]):
        super().__init__(values)
        self.columns = columns
