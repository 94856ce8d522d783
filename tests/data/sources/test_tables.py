"""Tables of image files: CSV, TSV, Parquet, frames, dicts."""

import csv
import pathlib

import numpy as np
import pytest
from PIL import Image

from keras_bit.data.sources.folders import image_folder
from keras_bit.data.sources.tables import image_table

NAMES = [f"{i}.png" for i in range(8)]
LABELS = ["dog", "cat"] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, name in enumerate(NAMES):
        Image.fromarray(np.full((5, 7, 3), i, np.uint8)).save(folder / name)
    return folder


def write_csv(path, columns, delimiter=",", encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def labels_by_name(*splits):
    """From the number that an image shows to its label."""
    return {
        int(image): np.array(label).tolist()
        for split in splits
        for image, label in zip(split.map(lambda image: image[0, 0, 0]), split.labels, strict=True)
    }


EXPECTED = {i: i % 2 ^ 1 for i in range(8)}  # cat 0, dog 1


@pytest.mark.parametrize("kind", ["csv", "excel", "tsv", "parquet", "pandas", "polars", "dict"])
def test_every_kind_of_table(kind, folder, tmp_path):
    columns = {"path": NAMES, "label": LABELS}
    root = folder
    if kind in ("csv", "excel", "tsv"):
        options = {"csv": (",", "utf-8"), "excel": (";", "utf-8-sig"), "tsv": ("\t", "utf-8")}
        suffix = ".tsv" if kind == "tsv" else ".csv"
        table = write_csv(tmp_path / f"table{suffix}", columns, *options[kind])
    elif kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        table = tmp_path / "table.parquet"
        parquet.write_table(pyarrow.table({**columns, "other": range(8)}), table)
    elif kind == "dict":
        table = columns
    else:
        table = pytest.importorskip(kind).DataFrame(columns)
    data = image_table(table, root=root, validation_split=0.25)
    assert data.label_names == ("cat", "dog") and not data.multi_label
    assert (data.train_size, data.test_size, data.image_size) == (6, 2, (5, 7))
    assert labels_by_name(data.train, data.test) == EXPECTED


def test_spaces_around_cells_and_lines_of_spaces_count_for_nothing(folder):
    rows = zip(("path", *NAMES), ("label", *LABELS), strict=True)
    table = folder / "spaces.csv"
    table.write_text("\n".join([*(f'{name}, "{label}"' for name, label in rows), "  "]))
    try:
        data = image_table(table, validation_split=0.25)
    finally:
        table.unlink()
    assert labels_by_name(data.train, data.test) == EXPECTED


def test_relative_paths_start_at_the_folder_of_the_file(folder):
    table = write_csv(folder / "here.csv", {"path": NAMES, "label": LABELS})
    try:
        data = image_table(str(table))
        absolute = {"path": [str(folder / name) for name in NAMES], "label": LABELS}
        assert image_table(absolute).train.names == data.train.names
    finally:
        table.unlink()


def test_the_fingerprint_does_not_depend_on_where_the_folder_lies(folder, tmp_path):
    moved = tmp_path / "moved"
    columns = {"path": NAMES, "label": LABELS}
    before = image_table(columns, root=folder).train.fingerprint
    (tmp_path / "moved").symlink_to(folder)
    assert image_table(columns, root=moved).train.fingerprint == before


def test_a_table_gives_what_a_folder_gives(tmp_path):
    rng = np.random.RandomState(0)
    rows = {"path": [], "label": []}
    for i in range(20):
        path = tmp_path / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.randint(0, 256, (6, 6, 3), np.uint8)).save(path)
        rows["path"].append(str(path.relative_to(tmp_path)))
        rows["label"].append(path.parent.name)
    by_class = sorted(range(20), key=lambda i: (rows["label"][i], rows["path"][i]))
    table = {name: [values[i] for i in by_class] for name, values in rows.items()}
    a, b = image_table(table, root=tmp_path, seed=3), image_folder(tmp_path, seed=3)
    assert a.train.names == b.train.names and a.train.fingerprint == b.train.fingerprint


def test_a_column_of_splits(folder):
    sides = ["train", "Training", "test", "test", "val", "train", "train", ""]
    columns = {"path": NAMES, "label": LABELS, "part": sides}
    with pytest.warns(UserWarning, match="Skipped: 2"):
        data = image_table(columns, split="part", root=folder)
    assert [pathlib.Path(name).name for name in data.train.names] == [
        "0.png",
        "1.png",
        "5.png",
        "6.png",
    ]
    assert [pathlib.Path(name).name for name in data.test.names] == ["2.png", "3.png"]
    assert [reason for _, reason in data.skipped] == ["of the split 'val'", "of no split"]
    columns["part"] = ["train"] * 8
    assert image_table(columns, split="part", root=folder).test_size == 2
    columns["part"] = ["test"] * 8
    with pytest.raises(ValueError, match="`split` must .*Received: a column with .'test'."):
        image_table(columns, split="part", root=folder)


TAGS = ["a|b", "b", "", "c | a", "a", "b|c", "a", "b"]
HOT = [[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1], [1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("form", ["separator", "list", "columns", "rows"])
def test_several_labels(form, folder):
    options = {}
    columns = {"path": NAMES}
    tags = [[tag.strip() for tag in row.split("|") if tag] for row in TAGS]
    if form == "separator":
        columns["label"], options = TAGS, {"separator": "|"}
    elif form == "list":
        tags[1] = ["b", None, " "]
        columns["label"] = [*tags[:2], None, *(np.array(each) for each in tags[3:])]
    elif form == "columns":
        columns |= {name: [row[i] for row in HOT] for i, name in enumerate("abc")}
        columns["b"] = [float(value) for value in columns["b"]]
        columns["c"] = np.array(columns["c"], np.float32)
        columns["a"] = [str(bool(value)) for value in columns["a"]]
        options = {"label": ["a", "b", "c"]}
    else:  # one for each label of an image
        pairs = [(n, [t]) for n, ts in zip(NAMES, tags, strict=True) for t in ts]
        pairs.append((NAMES[2], []))
        columns = {"path": [name for name, _ in pairs], "label": [tag for _, tag in pairs]}
    data = image_table(columns, root=folder, validation_split=0.3, **options)
    assert data.multi_label and data.label_names == ("a", "b", "c")
    assert data.train.labels.dtype == np.uint8 and data.train_size + data.test_size == 8
    assert labels_by_name(data.train, data.test) == dict(enumerate(HOT))
    assert data.train.labels.any(0).all() and data.test.labels.any(0).all()


def test_numbers_as_labels(folder):
    def names(labels, **options):
        return image_table({"path": NAMES, "label": labels}, root=folder, **options).label_names

    assert names([10, 9] * 4) == names(["10", "9"] * 4) == names([10.0, 9.0] * 4) == ("9", "10")
    assert names(["010", "9"] * 4) == ("9", "010")  # as they stand there
    assert names([10, 9] * 4, label_names=["10", "9", "8"][:2]) == ("10", "9")
    assert names([True, False] * 4) == ("False", "True")
    assert names(np.array([10, 9] * 4, np.float32)) == ("9", "10")
    lists = [np.array([10, np.nan], np.float32), [np.float32(9)]] * 4
    assert names(lists) == names([[10], [9]] * 4) == ("9", "10")


def test_what_is_missing_is_skipped_and_named(folder):
    (folder / "empty.png").touch()
    columns = {
        "path": [*NAMES, "gone.png", "empty.png", None, "0.png", "nolabel.png"],
        "label": [*LABELS, "cat", "cat", "cat", "dog", float("nan")],
    }
    with pytest.warns(UserWarning, match="Skipped: 4") as caught:
        data = image_table(columns, root=folder)
    assert len(caught) == 1 and data.train_size + data.test_size == 8
    reasons = dict(data.skipped)
    assert reasons["row 11"] == "no path" and reasons[str(folder / "nolabel.png")] == "no label"
    assert reasons[str(folder / "empty.png")] == "empty file"
    assert "No such file" in reasons[str(folder / "gone.png")]


def test_errors(folder, tmp_path):
    columns = {"path": NAMES, "label": LABELS}

    def fails(error, match, table=columns, **options):
        with pytest.raises(error, match=match):
            image_table(table, **{"root": folder, **options})

    absent = "`path` must name a column.*'file', which is not there; columns: 'path', 'label'"
    fails(ValueError, absent, path="file")
    fails(ValueError, "`label` must name a column", label="class")
    fails(ValueError, "`label` must name a column, or several", label=[])
    fails(ValueError, "`label` must name a column, or several. Received: label=0", label=0)
    fails(ValueError, "`split` must name a column", split="side")
    fails(TypeError, "`table` must be a pandas .* Received: a list", table=[1])
    fails(FileNotFoundError, "`table` must be a file.*no such file", table=tmp_path / "no.csv")
    fails(ValueError, "named .csv, .tsv or .parquet", table=tmp_path / "no.xlsx")
    fails(ValueError, "none among 8 files, the first .*Set `root`", root=tmp_path)
    fails(ValueError, "`separator` must be text", separator="")
    fails(ValueError, "two different labels. Received: 1 label: ", {**columns, "label": ["a"] * 8})
    fails(
        ValueError, "`label_names` must name every label.*'cat' in row 2", label_names=("a", "dog")
    )
    fails(ValueError, "columns of one length", {**columns, "label": LABELS[:3]})
    twice = {"path": [*NAMES, "./0.png"], "label": [*LABELS, "cat"]}
    fails(ValueError, "name a file once.*0.png in the rows 1 and 9, which differ", twice)
    sides = {"path": ["0.png"] * 2, "label": ["a|b"] * 2, "split": ["train", "test"]}
    fails(ValueError, "the rows 1 and 2, which differ", sides, separator="|", split="split")
    fails(ValueError, "columns of 0 and 1. Received: 2 in row 2 of the column 'b'",
          {"path": NAMES, "a": [0] * 8, "b": [0, 2] * 4}, label=["a", "b"])  # fmt: skip
    fails(ValueError, "`separator` must be omitted", label=["label"], separator="|")
    gone = {"path": [*NAMES, "gone.png"], "label": [*LABELS, "horse"]}
    fails(ValueError, "the class 'horse' with none", gone)
    fails(ValueError, "`examples_per_class` must be omitted", {**columns, "label": TAGS},
          separator="|", examples_per_class=1)  # fmt: skip


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"path,label\na.png,cat,extra\n", "line 2 has 3 fields, the first 2"),
        (b"path,path\na.png,cat\n", "columns of the same name"),
        (b"path,label\n\xff.png,cat\n", "UTF-8"),
        (b'path,label\n"a.png,cat\n', "unexpected end"),
        (b"path,label\n", "two different labels. Received: 0 labels.*bad.csv"),
    ],
)
def test_bad_csv(content, match, tmp_path):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(ValueError, match=match):
        image_table(tmp_path / "bad.csv")


def test_bad_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no parquet at all PAR1")
    with pytest.raises(ValueError, match="`table` must be a Parquet file. Received: .*bad.parquet"):
        image_table(tmp_path / "bad.parquet")


@pytest.mark.parametrize("delimiter", ["\t", ";"])
def test_a_comma_in_the_name_of_a_column_is_no_delimiter(delimiter, folder, tmp_path):
    columns = {"path": NAMES, "label": LABELS, "size (h, w)": ["5 7"] * 8}
    table = write_csv(tmp_path / "table.tsv", columns, delimiter)
    data = image_table(table, root=folder)
    assert labels_by_name(data.train, data.test) == EXPECTED


def test_a_table_without_rows_is_named(tmp_path):
    table = write_csv(tmp_path / "table.csv", {"path": [], "cat": [], "dog": []})
    with pytest.raises(ValueError, match="`table` must have rows .*Received: none"):
        image_table(table, label=["cat", "dog"])
