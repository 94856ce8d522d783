import hashlib
import io
import json
import sys

import numpy as np
import pytest
from PIL import ImageFile

from keras_bit.data.sources.selection import Found
from keras_bit.data.sources.tfds import TfdsSplit, cats_vs_dogs, tfds_images
from tests.image_files import encoded_image, image_threads

pytestmark = pytest.mark.usefixtures("two_workers")

TINY_SIZES = [(40, 30), (50, 60), (30, 44), (20, 90)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of real TFDS data sets, made and prepared here.

    The red of image `index` is its index, and its label whether that is odd.
    """
    import tensorflow_datasets as tfds

    features = tfds.features

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        SPLITS = {"train": 24}
        IMAGE = features.Image(encoding_format="png")
        LABEL = features.ClassLabel(names=["even", "odd"])

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=features.FeaturesDict({"image": self.IMAGE, "label": self.LABEL}),
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(n) for split, n in self.SPLITS.items()}

        def _encoded(self, index):
            return encoded_image(index, TINY_SIZES[index % 4])

        def _generate_examples(self, count):
            for index in range(count):
                image = io.BytesIO(self._encoded(index))
                yield index, {"image": image, "label": index % 2}

    class TinyWithTest(Tiny):
        SPLITS = {"train": 8, "validation": 4, "test": 6}

    class TinyWithValidation(Tiny):
        SPLITS = {"train": 8, "validation": 4}

    class TinyUnlabeled(Tiny):
        SPLITS = {"train": 8, "test": 2}

        def _generate_examples(self, count):
            for index, example in super()._generate_examples(count):
                yield index, {**example, "label": -1 if count == 2 else example["label"]}

    class TinyBroken(Tiny):
        def _encoded(self, index):
            whole = super()._encoded(index)
            return {4: b"no image", 5: whole[:60]}.get(index, whole)

    class TinyWithoutImage(Tiny):
        IMAGE = features.Text()

        def _split_generators(self, dl_manager):
            raise AssertionError("was prepared, which may be a large download")

    class TinyNeverPrepared(Tiny):
        SPLITS = {"train": 4}

    class TinyWithoutClasses(Tiny):
        LABEL = features.Scalar(np.int64)

    folder = str(tmp_path_factory.mktemp("tfds"))
    shards = tfds.download.DownloadConfig(num_shards=2)
    for builder in (Tiny, TinyWithTest, TinyWithValidation, TinyUnlabeled, TinyBroken):
        builder(data_dir=folder).download_and_prepare(download_config=shards)
    return folder


def reds(split):
    return list(split.map(lambda image: int(image[0, 0, 0])))


def test_tfds_cuts_the_test_split_from_train(tiny):
    data = tfds_images("tiny", validation_split=0.25, data_dir=tiny, download=False)
    assert data.label_names == ("even", "odd")
    assert np.bincount(data.train.labels).tolist() == [9, 9]
    assert np.bincount(data.test.labels).tolist() == [3, 3]
    train, test = reds(data.train), reds(data.test)
    assert sorted(train + test) == list(range(24))
    assert [red % 2 for red in train] == data.train.labels.tolist()
    assert [red % 2 for red in test] == data.test.labels.tolist()
    sizes = np.array([TINY_SIZES[red % 4] for red in train])
    assert data.image_size == tuple(np.median(sizes, axis=0).astype(int))
    assert list(data.train.map(np.shape)) == [(*size, 3) for size in sizes]


def test_tfds_second_run_and_names(tiny):
    first, second, other = (tfds_images("tiny", seed=n, data_dir=tiny) for n in (1, 1, 2))
    assert first.train.names == second.train.names
    assert first.train.fingerprint == second.train.fingerprint
    assert reds(first.train) == reds(second.train)
    assert first.train.names != other.train.names
    assert first.train.fingerprint != other.train.fingerprint
    indices = {name.split("/")[-1] for name in first.train.names + first.test.names}
    assert indices == {str(index) for index in range(24)}
    assert all(name.startswith("tiny/train/") for name in first.test.names)


@pytest.mark.parametrize(
    ("name", "arguments", "train_size", "test_size", "test_split"),
    [
        ("tiny_with_test", {}, 8, 6, "test"),
        ("tiny_with_validation", {}, 8, 4, "validation"),
        ("tiny_with_test", {"test_split": "validation"}, 8, 4, "validation"),
        ("tiny_with_test", {"train_split": "test[:50%]"}, 3, 4, "validation"),
        ("tiny", {"train_split": "train[:75%]", "test_split": "train[75%:]"}, 18, 6, "train[75%:]"),
    ],
)
def test_tfds_splits(tiny, name, arguments, train_size, test_size, test_split):
    data = tfds_images(name, data_dir=tiny, **arguments)
    assert (data.train_size, data.test_size) == (train_size, test_size)
    assert len(reds(data.train)) == train_size
    assert data.test.names == tuple(f"{name}/{test_split}/{index}" for index in range(test_size))
    if name == "tiny":
        assert not set(reds(data.train)) & set(reds(data.test))


def test_fingerprint_of_a_tfds_split():
    def fingerprint(*images, label=0, damaged="skip"):
        digests = [hashlib.blake2b(image, digest_size=16).digest() for image in images]
        found = [Found(f"x/{i}", label, (9, 9), (i, digests[i])) for i in range(len(images))]
        return TfdsSplit(None, "train", damaged, found).fingerprint

    base = fingerprint(b"one", b"two")
    assert base == fingerprint(b"one", b"two")
    others = {
        fingerprint(b"one", b"other"),
        fingerprint(b"two", b"one"),
        fingerprint(b"one", b"two", label=1),
        fingerprint(b"one", b"two", damaged="keep"),
    }
    assert len(others | {base}) == 5


def test_data_prepared_again_with_other_pixels_have_another_fingerprint(tmp_path):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(8, 8, 3)),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
    )

    def scan(folder, gray):
        images = np.full((8, 8, 8, 3), gray, np.uint8)
        examples = {"image": images, "label": np.arange(8) % 2}
        splits = {"train": tf.data.Dataset.from_tensor_slices(examples)}
        tfds.dataset_builders.store_as_tfds_dataset(
            "mine", "1.0.0", config="c", data_dir=folder, split_datasets=splits, features=features
        )
        return tfds_images("mine/c", data_dir=folder, download=False)

    one, again, other = scan(tmp_path / "1", 10), scan(tmp_path / "2", 10), scan(tmp_path / "3", 20)
    assert one.train.fingerprint == again.train.fingerprint != other.train.fingerprint


def test_tfds_few_shot_subset_and_min_edge(tiny):
    data = tfds_images("tiny", examples_per_class=3, data_dir=tiny)
    assert np.bincount(data.train.labels).tolist() == [3, 3]
    # Of the four sizes one has an edge below 30, that of the images 3, 7, ... 23.
    with pytest.warns(UserWarning, match="Skipped: 6,") as caught:
        data = tfds_images("tiny", min_edge=30, data_dir=tiny)
    assert [w.filename for w in caught if w.category is UserWarning] == [__file__]
    assert all(reason == "20x90 pixels, an edge below min_edge=30" for _, reason in data.skipped)
    assert not {3, 7, 11, 15, 19, 23} & {*reds(data.train), *reds(data.test)}
    with pytest.raises(ValueError, match="tiny/train with none, and 24 skipped"):
        tfds_images("tiny", min_edge=100, data_dir=tiny)


def test_tfds_broken_images(tiny):
    with pytest.warns(UserWarning, match="Skipped: 1,"):
        data = tfds_images("tiny_broken", data_dir=tiny)
    assert [reason for _, reason in data.skipped] == [
        "not a readable JPEG, PNG, BMP, GIF, WebP or TIFF image"
    ]
    everything = reds(data.train) + reds(data.test)
    assert everything.count(None) == 1
    assert set(range(24)) - set(everything) == {4, 5}
    assert len(data.train.errors) + len(data.test.errors) == 1


def test_tfds_scan_reads_only_headers(tiny, monkeypatch):
    def load(image):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert tfds_images("tiny", data_dir=tiny).train_size == 22


def test_tfds_split_that_has_become_shorter(tiny, monkeypatch):
    import tensorflow_datasets as tfds

    data = tfds_images("tiny", data_dir=tiny)
    whole = tfds.core.DatasetBuilder.as_dataset
    monkeypatch.setattr(
        tfds.core.DatasetBuilder,
        "as_dataset",
        lambda *args, **options: whole(*args, **options).take(20),
    )
    with pytest.raises(RuntimeError, match="`train` of tiny/1.0.0 has become shorter"):
        reds(data.train)
    assert not image_threads()


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("tiny", {"train_split": "all"}, ValueError, r"`train_split` .*\['train'\].*'all'"),
        ("tiny", {"test_split": "test[:9]"}, ValueError, r"`test_split` .*'test\[:9\]'"),
        ("tiny", {"test_split": "train"}, ValueError, "must share no images"),
        ("tiny", {"test_split": "train[90%:]"}, ValueError, "must share no images"),
        (
            "tiny",
            {"train_split": "train[:75%]", "test_split": "train[50%:]"},
            ValueError,
            r"must share no images.*train\[50%:\]', which share examples of tiny-train",
        ),
        (
            "tiny",
            {"train_split": "train[:50%]", "test_split": "train"},
            ValueError,
            r"train_split='train\[:50%\]', test_split='train'",
        ),
        ("tiny", {"seed": -1}, ValueError, "`seed`"),
        ("tiny", {"download": "no"}, ValueError, "`download` must .* download='no'"),
        ("tiny", {"examples_per_class": 12}, ValueError, "'even' with 11 training images"),
        ("tiny_unlabeled", {}, ValueError, "tiny_unlabeled/test with label -1 at example 0"),
        ("tiny_never_prepared", {"download": False}, FileNotFoundError, "`download`"),
        ("tiny_without_image", {}, ValueError, "`name` must .* `image`"),
        ("tiny_without_classes", {}, ValueError, "`name` must .* `label`"),
    ],
)
def test_tfds_errors(tiny, name, arguments, error, message):
    with pytest.raises(error, match=message):
        tfds_images(name, data_dir=tiny, **arguments)


def test_tfds_can_prepare_its_own_data_sets():
    import tensorflow_datasets as tfds

    # On the way to a download TFDS 4.9.10 imports importlib_resources, which it does not declare.
    assert tfds.builder_cls("cats_vs_dogs").code_path.name == "cats_vs_dogs.py"


def test_tfds_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r'pip install "keras_bit\[tfds\]"'):
        cats_vs_dogs()


def write_metadata(folder, name, version, splits):
    """What TFDS's mock reads the names of a data set's splits from."""
    info = {
        "name": name,
        "version": version,
        "fileFormat": "tfrecord",
        "splits": [{"name": split, "shardLengths": ["1"], "numBytes": "1"} for split in splits],
    }
    path = folder / name / version
    path.mkdir(parents=True)
    (path / "dataset_info.json").write_text(json.dumps(info))


def test_tfds_mock_data(tmp_path):
    import tensorflow_datasets as tfds

    write_metadata(tmp_path, "tf_flowers", "3.0.1", ["train"])
    with tfds.testing.mock_data(num_examples=60, data_dir=str(tmp_path)):
        data = tfds_images("tf_flowers")
        again = tfds_images("tf_flowers")
        images = list(data.train.map(lambda image: image))
        stream = tfds.load("tf_flowers", split="train", shuffle_files=False)
        expected = [example["image"] for example in stream.as_numpy_iterator()]
    assert data.num_classes == 5
    assert data.train.fingerprint == again.train.fingerprint
    assert data.train_size + data.test_size == 60
    for name, image in zip(data.train.names, images, strict=True):
        assert np.array_equal(image, expected[int(name.split("/")[-1])])


def test_cats_vs_dogs(tmp_path):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def as_dataset(builder, split, decoders=None, **kwargs):
        """40 photographs of which every tenth is one pixel too low."""
        sizes = [(95 if index % 10 == 9 else 96, 200) for index in range(40)]
        images = [encoded_image(index, size, "JPEG") for index, size in enumerate(sizes)]
        images[0] = images[0][:-30]
        labels = np.arange(40) // 20
        return tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})

    write_metadata(tmp_path, "cats_vs_dogs", "4.0.1", ["train"])
    with tfds.testing.mock_data(as_dataset_fn=as_dataset, data_dir=str(tmp_path)):
        with pytest.warns(UserWarning, match="Skipped: 4,") as caught:
            data = cats_vs_dogs()
        assert [w.filename for w in caught if w.category is UserWarning] == [__file__]
        with pytest.warns(UserWarning, match="Skipped: 4,"):
            few = cats_vs_dogs(examples_per_class=5, seed=1)
        with pytest.warns(UserWarning, match="Skipped: 4,"):
            kept = cats_vs_dogs(damaged="keep")
        shapes = list(data.train.map(np.shape))
        kept_shapes = list(kept.train.map(np.shape))
    assert data.label_names == ("cat", "dog")
    assert {name for name, _ in data.skipped} == {
        f"cats_vs_dogs/train/{index}" for index in (9, 19, 29, 39)
    }
    # By hand: 18 of each class are left, a tenth of them is 1.8.
    assert np.bincount(data.train.labels).tolist() == [16, 16]
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert np.bincount(few.train.labels).tolist() == [5, 5]
    cut = data.train.names.index("cats_vs_dogs/train/0")
    assert shapes.pop(cut) is None
    assert data.train.errors == kept.train.errors
    assert data.train.errors == {cut: "damaged JPEG: Premature end of JPEG file"}
    assert set(shapes) == set(kept_shapes) == {(96, 200, 3)}
    assert data.image_size == (96, 200)
    with pytest.raises(ValueError, match="`damaged` must be 'skip' or 'keep'"):
        cats_vs_dogs(damaged=True, data_dir=str(tmp_path))
