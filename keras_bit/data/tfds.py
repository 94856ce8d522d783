"""Data sets of TensorFlow Datasets as an `ImageDataset`."""

import io
from functools import partial

import numpy as np

from keras_bit.data.dataset import TEST_NAMES, Found, Selection, Split, make_dataset, sift
from keras_bit.data.images import attempt, read_image_size, threaded_map


class TfdsSplit(Split):
    """Images of a TFDS split, read as a stream of encoded images each time they are asked for."""

    def __init__(self, builder, split, found):
        super().__init__((image.name for image in found), [image.label for image in found])
        self._builder = builder
        self._split = split
        self._indices = tuple(image.key for image in found)

    def _identity(self):
        yield self._builder.info.full_name.encode()
        yield self._split.encode()
        yield np.array(self._indices, "<i8").tobytes()

    def _sources(self):
        position = 0
        for index, (encoded, _) in enumerate(_tfds_stream(self._builder, self._split)):
            if index == self._indices[position]:
                yield io.BytesIO(encoded)
                position += 1
                if position == len(self):
                    return
        raise RuntimeError(
            f"Split `{self._split}` of {self._builder.info.full_name} has become shorter since "
            f"it was scanned: image {self._indices[position]} is missing."
        )


def _import_tfds():
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            "This data set needs TensorFlow Datasets: `pip install keras_bit[tfds]`."
        ) from error
    return tensorflow_datasets


def _check_tfds_features(builder):
    features = _import_tfds().features
    found = builder.info.features
    known = dict(found) if isinstance(found, features.FeaturesDict) else {}
    image, label = known.get("image"), known.get("label")
    is_image = isinstance(image, features.Image) and image.np_dtype in (np.uint8, np.uint16)
    if not is_image or not isinstance(label, features.ClassLabel):
        raise ValueError(
            "`name` must be a data set with an integer `image` (tfds.features.Image) and a `label` "
            f"(tfds.features.ClassLabel). Received: {builder.info.full_name} with {found}"
        )


def _tfds_builder(name, data_dir, download):
    """The builder of a prepared data set; what does not fit is refused before its download."""
    builder = _import_tfds().builder(name, data_dir=data_dir)
    _check_tfds_features(builder)
    if download:
        builder.download_and_prepare()
    elif not builder.is_prepared():
        raise FileNotFoundError(
            f"`download` must be True where the data set is not yet on this machine. Received: "
            f"download=False, and {builder.info.full_name} is not in {builder.data_dir}"
        )
    return builder


def _tfds_split_names(builder, train_split, test_split):
    """The training and the test split; the test split is None where it is cut from training."""
    present = tuple(builder.info.splits)
    train = "train" if train_split is None else train_split
    if test_split is None:
        test = next((name for name in TEST_NAMES if name in present), None)
    else:
        test = test_split
    for argument, split in (("train_split", train), ("test_split", test)):
        if split is not None and split.split("[")[0] not in present:
            raise ValueError(
                f"`{argument}` must be a split of {builder.info.full_name}, which has "
                f"{list(present)}. Received: {argument}={split!r}"
            )
    if train == test:
        raise ValueError(
            "`train_split` and `test_split` must not be the same split. "
            f"Received: {train!r} for both; choose another, or cut one split such as "
            "train_split='train[:90%]', test_split='train[90%:]'"
        )
    return train, test


def _tfds_stream(builder, split):
    """Yields `(encoded image, label)` of every example, always in the same order."""
    tfds = _import_tfds()
    stream = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding(
            {"image": True, "label": True}, decoders={"image": tfds.decode.SkipDecoding()}
        ),
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    for example in stream.as_numpy_iterator():
        yield example["image"], int(example["label"])


def _inspect_example(prefix, num_classes, item):
    """`(found or None, name, reason or None)` of an encoded image, from its header."""
    index, (encoded, label) = item
    name = f"{prefix}/{index}"
    if not 0 <= label < num_classes:
        raise ValueError(
            "`train_split` and `test_split` must be labelled splits; name others. "
            f"Received: {prefix} with label {label} at example {index}"
        )
    size, reason = attempt(read_image_size, io.BytesIO(encoded))
    if reason is not None:
        return None, name, reason
    return Found(name, label, size, index, ""), name, None


def _scan_tfds(builder, split, num_classes, min_edge):
    prefix = f"{builder.name}/{split}"
    results = threaded_map(
        partial(_inspect_example, prefix, num_classes), enumerate(_tfds_stream(builder, split))
    )
    found, left_out = sift(results, min_edge)
    if not found:
        raise ValueError(
            "`train_split` and `test_split` must hold images that can be read and are large "
            f"enough. Received: {prefix} with none, and {len(left_out)} left out "
            f"(min_edge={min_edge})"
        )
    return found, left_out


def tfds_images(
    name,
    *,
    validation_split=0.1,
    train_split=None,
    test_split=None,
    min_edge=0,
    examples_per_class=None,
    seed=0,
    data_dir=None,
    download=True,
):
    """An `ImageDataset` over a data set of TensorFlow Datasets (`pip install keras_bit[tfds]`).

    Every image is read once here, for its size and label, and not decoded; `map` reads the split
    anew as a stream. No image is held in memory.

    Args:
        name: Name of the data set, such as `"oxford_flowers102"`, with features `image` and
            `label`.
        validation_split: Fraction of each class of the training split that becomes its test
            images (rounded; at least one image stays on each side). Used only where the data set
            has no other split to test on.
        train_split: Split to train on, such as `"train[:80%]"`. Default: `"train"`.
        test_split: Split to test on. Default: `"test"` where there is one, else
            `"validation"`, else a part of the training split.
        min_edge: Images whose shorter edge has fewer pixels are left out.
        examples_per_class: Number of training images that are kept of each class. Default: all.
        seed: Non-negative integer; chooses the test images and the few-shot images.
        data_dir: Folder of the prepared data sets. Default: TFDS's own.
        download: Whether to download and prepare a data set that is not on this machine.

    Returns:
        An `ImageDataset`. Its images are called by split and place, such as
        `"oxford_flowers102/train/17"`. Images that cannot be read or are too small are listed in
        `left_out` and counted in one warning.

    Raises:
        ImportError: TensorFlow Datasets is not installed.
        FileNotFoundError: The data set is not on this machine and `download` is False.
        ValueError: The data set has no such features or splits, or too few images.

    Example:

    ```python
    data = keras_bit.tfds_images("oxford_flowers102", examples_per_class=5)
    print(data.train_size)  # 510
    ```
    """
    selection = Selection(validation_split, seed, min_edge, examples_per_class).checked()
    builder = _tfds_builder(name, data_dir, download)
    label_names = builder.info.features["label"].names
    train_split, test_split = _tfds_split_names(builder, train_split, test_split)
    make_train = make_test = partial(TfdsSplit, builder, train_split)
    test_found, test_left_out = None, []
    if test_split is not None:
        make_test = partial(TfdsSplit, builder, test_split)
        test_found, test_left_out = _scan_tfds(builder, test_split, len(label_names), min_edge)
    found, left_out = _scan_tfds(builder, train_split, len(label_names), min_edge)
    left_out += test_left_out
    return make_dataset(found, test_found, make_train, make_test, label_names, left_out, selection)


def cats_vs_dogs(*, examples_per_class=None, seed=0, data_dir=None, download=True):
    """Photographs of cats and dogs, from TFDS `cats_vs_dogs` (23,262 images, 786 MiB).

    Images with an edge below 96 pixels are left out; of the others 90 % of each class are training
    images and 10 % test images.

    Args:
        examples_per_class: Number of training images that are kept of each class. Default: all.
        seed: Non-negative integer; chooses the test images and the few-shot images.
        data_dir: Folder of the prepared data sets. Default: TFDS's own.
        download: Whether to download the data set where it is not on this machine.

    Returns:
        An `ImageDataset` with `label_names` `("cat", "dog")`.

    Raises:
        As `tfds_images`.

    Example:

    ```python
    data = keras_bit.cats_vs_dogs()
    print(data.num_classes)  # 2
    ```
    """
    return tfds_images(
        "cats_vs_dogs",
        validation_split=0.1,
        min_edge=96,
        examples_per_class=examples_per_class,
        seed=seed,
        data_dir=data_dir,
        download=download,
    )
