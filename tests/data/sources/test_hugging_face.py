import io
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("datasets")

import datasets

from keras_bit.data.dataset import check_dataset
from keras_bit.data.images import is_damaged
from keras_bit.data.sources import hugging_face_stream
from keras_bit.data.sources.hugging_face import hugging_face_images
from tests.image_files import encoded_image, image_threads

pytestmark = pytest.mark.usefixtures("two_workers")

SIZES = [(40, 30), (50, 60), (30, 44), (20, 90)]
ODD = datasets.ClassLabel(names=["even", "odd"])


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def encoded(count, start=0):
    """Images whose red is their number."""
    return [encoded_image(index, SIZES[index % 4]) for index in range(start, start + count)]


def make_table(images, labels=None, label=ODD, names=("image", "label")):
    """A `Dataset` of encoded images or of paths; labels are by default whether a row is odd."""
    labels = [row % 2 for row in range(len(images))] if labels is None else labels
    features = datasets.Features(dict(zip(names, (datasets.Image(), label), strict=True)))
    columns = [[{"bytes": i, "path": None} if isinstance(i, bytes) else i for i in images], labels]
    return datasets.Dataset.from_dict(dict(zip(names, columns, strict=True)), features=features)


def numbers(split):
    """The numbers of a split's images, from their pixels."""
    return [int(pixels[0, 0, 0]) for pixels in split.map(np.array)]


def test_images_and_labels_are_those_of_the_table():
    data = hugging_face_images(make_table(encoded(20)), validation_split=0.2)
    assert (data.train_size, data.test_size) == (16, 4)
    assert data.label_names == ("even", "odd") and not data.multi_label
    rows = {}
    for split in (data.train, data.test):
        found = numbers(split)
        assert split.names == tuple(f"train/{number}" for number in found)
        assert [number % 2 for number in found] == split.labels.tolist()
        rows.update(zip(split.names, split.map(lambda pixels: pixels.shape[:2]), strict=True))
    assert rows == {f"train/{i}": SIZES[i % 4] for i in range(20)}
    assert data.image_size == tuple(
        int(size) for size in np.median([rows[name] for name in data.train.names], axis=0)
    )
    assert not image_threads()


def test_images_are_read_when_they_are_asked_for(monkeypatch):
    data = hugging_face_images(make_table(encoded(20)))
    images, read = data.train._images, []
    table = images._table
    assert table.features["image"].decode is False

    class Table:
        def __getitem__(self, row):
            read.append(row)
            return table[row]

    monkeypatch.setattr(images, "_table", Table())
    wanted = range(1, 9, 3)
    list(data.train.map_indexed(lambda index, pixels: index, indices=wanted))
    assert sorted(read) == [data.train._keys[index][0] for index in wanted]


def test_a_dict_of_tables_has_its_own_test_split():
    tables = {"train": make_table(encoded(8)), "validation": make_table(encoded(4, 50))}
    data = hugging_face_images(datasets.DatasetDict(tables))
    assert numbers(data.train) == list(range(8)) and numbers(data.test) == list(range(50, 54))
    assert data.test.names[0] == "validation/0"
    tables = {"a": make_table(encoded(4)), "b": make_table(encoded(4, 9)), "test": tables["train"]}
    assert hugging_face_images(datasets.DatasetDict(tables), train_split="test").test_size == 2
    data = hugging_face_images(datasets.DatasetDict(tables), train_split="b", test_split="a")
    assert numbers(data.train) == list(range(9, 13)) and numbers(data.test) == list(range(4))


def test_a_folder_on_disk_is_the_same_data(tmp_path):
    table = make_table(encoded(12))
    table.save_to_disk(tmp_path / "saved")
    data = hugging_face_images(table)
    saved = hugging_face_images(tmp_path / "saved")
    assert saved.train.fingerprint == data.train.fingerprint
    assert hugging_face_images(str(tmp_path / "saved")).test.names == data.test.names
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match="`dataset` must be .*keras_bit.image_folder"):
            hugging_face_images(missing)


def test_the_fingerprint_is_that_of_the_content():
    images = encoded(12)
    first, same = (hugging_face_images(make_table(images)).train.fingerprint for _ in range(2))
    assert first == same
    changed = [*images[:-2], encoded_image(99, SIZES[2]), encoded_image(98, SIZES[3])]
    others = [
        hugging_face_images(make_table(changed)),
        hugging_face_images(make_table(images, [1 - i % 2 for i in range(12)])),
        hugging_face_images(make_table(images), damaged="keep"),
    ]
    assert len({first, *(data.train.fingerprint for data in others)}) == 4


def test_rows_of_a_shuffled_and_filtered_table_are_its_rows():
    table = make_table(encoded(20)).shuffle(seed=1).select(range(12)).with_format("numpy")
    data = hugging_face_images(table)
    found = numbers(data.train)
    assert [number % 2 for number in found] == data.train.labels.tolist()
    with_numbers = zip(data.train.names, found, strict=True)
    rows = [
        row["image"]["bytes"]
        for row in table.with_format(None).cast_column("image", datasets.Image(decode=False))
    ]
    for name, number in with_numbers:
        assert rows[int(name.removeprefix("train/"))] == encoded(1, number)[0]


def test_paths_orientation_and_damaged_files(tmp_path):
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(noise).save(turned, "JPEG", exif=exif)
    whole = turned.getvalue()
    (tmp_path / "0.jpg").write_bytes(whole)
    images = [str(tmp_path / "0.jpg"), whole, whole[:-60], b"text", None, str(tmp_path / "1.jpg")]
    images += [whole] * 4
    table = make_table(images, [0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    with pytest.warns(UserWarning, match="Skipped: 6"):
        data = hugging_face_images(datasets.DatasetDict(train=table, test=table))
    reasons = dict(data.skipped)
    assert reasons["train/3"].startswith("not a readable JPEG")
    assert reasons["train/4"] == "no image" and reasons["train/5"].startswith("no such file")
    assert data.image_size == (30, 20)
    shapes = list(data.train.map(np.shape))
    assert shapes == [(30, 20, 3)] * 2 + [None] + [(30, 20, 3)] * 4
    assert is_damaged(data.train.errors[2])
    with pytest.warns(UserWarning, match="Skipped"):
        kept = hugging_face_images(datasets.DatasetDict(train=table, test=table), damaged="keep")
    assert list(kept.train.map(np.shape)) == [(30, 20, 3)] * 7


@pytest.mark.parametrize(
    ("feature", "labels", "names", "ids"),
    [
        (datasets.Value("string"), ["dog", "cat", "cat", "dog"], ("cat", "dog"), [1, 0, 0, 1]),
        (datasets.Value("int64"), [2, 0, 1, 2], ("0", "1", "2"), [2, 0, 1, 2]),
        (datasets.Value("bool"), [True, False, False, True], ("0", "1"), [1, 0, 0, 1]),
    ],
)
def test_columns_without_names_of_classes(feature, labels, names, ids):
    table = make_table(encoded(4), labels, feature)
    data = hugging_face_images(datasets.DatasetDict(train=table, test=table))
    assert data.label_names == names and data.train.labels.tolist() == ids


def test_names_can_be_given():
    table = make_table(encoded(4), [1, 0, 1, 0], datasets.Value("int8"), ("picture", "kind"))
    tables = datasets.DatasetDict(train=table, test=table)
    options = {"image": "picture", "label": "kind"}
    data = hugging_face_images(tables, label_names=("no", "yes"), **options)
    assert data.label_names == ("no", "yes") and data.train.labels.tolist() == [1, 0, 1, 0]
    text = table.cast_column("kind", datasets.Value("string"))
    data = hugging_face_images(
        datasets.DatasetDict(train=text, test=text), **options, label_names=("1", "0", "other")
    )
    assert data.num_classes == 3 and data.train.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("feature", [ODD, datasets.Value("string")])
def test_lists_of_labels_are_several_labels(feature):
    ids = [[0], [1], [0, 1], [], [1], [0]]
    values = ids if feature is ODD else [[ODD.names[i] for i in row] for row in ids]
    table = make_table(encoded(6), values, datasets.Sequence(feature))
    data = hugging_face_images(datasets.DatasetDict(train=table, test=table))
    assert data.multi_label and data.label_names == ("even", "odd")
    assert data.train.labels.tolist() == [[1, 0], [0, 1], [1, 1], [0, 0], [0, 1], [1, 0]]


def test_small_images_and_few_shots():
    data = hugging_face_images(make_table(encoded(20)), examples_per_class=3)
    assert np.bincount(data.train.labels).tolist() == [3, 3]
    with pytest.warns(UserWarning, match="Skipped: 5"):
        data = hugging_face_images(make_table(encoded(20)), min_edge=30)
    assert all("min_edge=30" in reason for _, reason in data.skipped)


@pytest.fixture
def counted(monkeypatch):
    """A stream of 10 images, to be written in shards of three, and the labels read of it."""
    monkeypatch.setattr(hugging_face_stream, "SHARD_ROWS", 3)
    parts, read = hugging_face_stream._parts, []

    def counting(rows):
        return parts(read.append(row["label"]) or row for row in rows)

    monkeypatch.setattr(hugging_face_stream, "_parts", counting)
    columns = {"image": encoded(10), "label": [row % 2 for row in range(10)], "other": ["x"] * 10}
    columns["image"] = [{"bytes": image, "path": None} for image in columns["image"]]
    text = datasets.Value("string")
    features = datasets.Features({"image": datasets.Image(), "label": ODD, "other": text})
    return datasets.Dataset.from_dict(columns, features=features).to_iterable_dataset(), read


@pytest.mark.slow  # datasets imports PyTorch for its streams
def test_streamed_data_are_written_once(counted, tmp_path, capsys):
    stream, read = counted
    data = hugging_face_images(stream, cache_dir=tmp_path)
    assert f"Writing the streamed images to {tmp_path / 'train'}" in capsys.readouterr().out
    assert len(read) == 10
    assert data.train.fingerprint == hugging_face_images(make_table(encoded(10))).train.fingerprint
    again = hugging_face_images(stream, cache_dir=tmp_path)
    assert len(read) == 10
    assert f"Taking the images in {tmp_path / 'train'}, not" in capsys.readouterr().out
    assert again.train.fingerprint == data.train.fingerprint
    shards = sorted(path.name for path in (tmp_path / "train").glob("shard-*"))
    assert shards == [f"shard-{i:06d}" for i in range(4)]


@pytest.mark.slow  # datasets imports PyTorch for its streams
def test_an_interrupted_stream_resumes(counted, tmp_path, monkeypatch):
    stream, read = counted
    rename, left = hugging_face_stream.os.rename, [2]

    def failing(*paths):
        if not left[0]:
            raise OSError("no room")
        left[0] -= 1
        rename(*paths)

    monkeypatch.setattr(hugging_face_stream.os, "rename", failing)
    with pytest.raises(OSError, match="no room"):
        hugging_face_images(stream, cache_dir=tmp_path)
    monkeypatch.setattr(hugging_face_stream.os, "rename", rename)
    read.clear()
    data = hugging_face_images(stream, cache_dir=tmp_path)
    assert read == [0, 1, 0, 1]  # those after two shards of three
    assert data.train.fingerprint == hugging_face_images(make_table(encoded(10))).train.fingerprint
    assert not list((tmp_path / "train").glob(".part-*"))


@pytest.mark.slow  # datasets imports PyTorch for its streams
def test_files_that_a_stream_names_are_copied(tmp_path):
    for number in range(6):
        folder = tmp_path / "photos" / ODD.names[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encoded(1, number)[0])
    tables = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "photos"), cache_dir=str(tmp_path / "cache")
    )
    local = hugging_face_images(tables)
    streamed = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "photos"), streaming=True
    )
    data = hugging_face_images(streamed, cache_dir=tmp_path / "stream")
    assert data.train.fingerprint == local.train.fingerprint
    for path in (tmp_path / "photos").rglob("*.png"):
        path.unlink()
    again = hugging_face_images(streamed, cache_dir=tmp_path / "stream")
    assert numbers(again.train) == numbers(data.train) and data.label_names == ("even", "odd")


@pytest.mark.slow  # datasets imports PyTorch for its streams
def test_the_folder_of_another_stream_is_refused(counted, tmp_path):
    stream, _ = counted
    hugging_face_images(stream, cache_dir=tmp_path)
    other = make_table(encoded(6), names=("image", "other")).to_iterable_dataset()
    with pytest.raises(ValueError, match="`cache_dir` must be .* differs in .*columns"):
        hugging_face_images(other, label="other", cache_dir=tmp_path)
    (tmp_path / "mine" / "train").mkdir(parents=True)
    (tmp_path / "mine" / "train" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="alone. Received: .*mine.train with 'notes.txt'"):
        hugging_face_images(stream, cache_dir=tmp_path / "mine")
    with pytest.raises(ValueError, match="`cache_dir` must be given for streamed data"):
        hugging_face_images(stream)


def features_of(**changes):
    return make_table(encoded(4)).rename_columns(changes)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: features_of(image="x"), {}, "`image` must name .*'image'; columns: x, label"),
        (lambda: features_of(), {"label": "y"}, "`label` must name .*label='y'"),
        (lambda: features_of(), {"image": "label"}, "`image` must be .*cast_column"),
        (lambda: features_of(), {"label": "image"}, "`label` must be a column of .*ClassLabel"),
        (lambda: make_table(encoded(2), [0, -1]), {}, "label for every image.*-1 in row 1"),
        (lambda: make_table(encoded(2), [None, 1]), {}, "label for every image.*None in row 0"),
        (
            lambda: make_table(encoded(2), [[0], [1]], datasets.Sequence(datasets.Value("int8"))),
            {},
            "`label` must be a column of",
        ),
        (lambda: make_table(encoded(2), [0.0, 1.0], datasets.Value("float32")), {}, "`label` must"),
        (lambda: features_of(), {"train_split": "train"}, "`train_split` must be omitted"),
        (lambda: features_of(), {"label_names": ("a", "b")}, "`label_names` must be omitted"),
        (lambda: datasets.DatasetDict(a=features_of()), {}, r"`train_split` must .*\['a'\]"),
        (
            lambda: datasets.DatasetDict(train=features_of()),
            {"train_split": "train[:50%]"},
            "`train_split` must be a split",
        ),
        (lambda: make_table([], [], datasets.Value("int8")), {}, "`dataset` must have rows"),
        (
            lambda: datasets.DatasetDict(train=features_of()),
            {"test_split": "train"},
            "must share no images",
        ),
        (
            lambda: datasets.DatasetDict(
                train=features_of(),
                test=make_table(encoded(2), ["a", "b"], datasets.Value("string")),
            ),
            {},
            "same kind of labels",
        ),
        (
            lambda: make_table(encoded(2), ["a", "b"], datasets.Value("string")),
            {"label_names": ("a", "c")},
            "`label_names` must name every label.*'b'",
        ),
        (lambda: make_table([b"text"] * 2), {}, "images that can be read.*none among 2, the first"),
        (lambda: features_of(), {"damaged": "no"}, "`damaged` must be"),
        (lambda: features_of(), {"seed": -1}, "`seed` must"),
    ],
)
def test_errors_say_what_to_do(make, options, message):
    with pytest.raises(ValueError, match=message):
        hugging_face_images(make(), **options)


def test_a_table_in_place_of_an_image_dataset_is_told_what_to_call():
    for data in (make_table(encoded(2)), datasets.DatasetDict(train=make_table(encoded(2)))):
        with pytest.raises(TypeError, match="a datasets.*hugging_face_images"):
            check_dataset(data)


def test_what_is_no_data_set_is_refused(monkeypatch):
    with pytest.raises(TypeError, match="`dataset` must be a Dataset .* Received: a builtins.list"):
        hugging_face_images([1])
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r'pip install "keras_bit\[huggingface\]"'):
        hugging_face_images("folder")
