"""Data sets of TensorFlow Datasets as an `ImageDataset`."""

import hashlib
import io
import os
from functools import partial
from typing import Any

import numpy as np

from keras_bit.core.arguments import check_boolean
from keras_bit.data.dataset import ImageDataset
from keras_bit.data.images import SKIP, check_damaged, read_image_size, try_read
from keras_bit.data.sources.encoded import EncodedSplit
from keras_bit.data.sources.selection import Found, Selection, filter_found, to_dataset
from keras_bit.data.sources.split_names import choose_splits
from keras_bit.data.threads import threaded_map


class TfdsSplit(EncodedSplit):
    """Images of a TFDS split, read as a stream of encoded images each time they are asked for."""

    def __init__(self, builder: Any, split: str, damaged: str, found: list[Found]):
        super().__init__(damaged, found)
        self._builder = builder
        self._split = split

    def _identity(self):
        yield from super()._identity()
        yield from (digest for _, digest in self._keys)

    def _sources(self):
        stream = enumerate(_stream(self._builder, self._split))
        for wanted, _ in self._keys:
            encoded = next((encoded for index, (encoded, _) in stream if index == wanted), None)
            if encoded is None:
                raise RuntimeError(
                    f"Split `{self._split}` of {self._builder.info.full_name} has become shorter "
                    f"since it was scanned: image {wanted} is missing."
                )
            yield io.BytesIO(encoded)


def tfds_images(
    name: str,
    *,
    validation_split: float = 0.1,
    train_split: str | None = None,
    test_split: str | None = None,
    min_edge: int = 0,
    examples_per_class: int | None = None,
    seed: int = 0,
    damaged: str = SKIP,
    data_dir: str | os.PathLike | None = None,
    download: bool = True,
) -> ImageDataset:
    """An `ImageDataset` over a data set of TensorFlow Datasets (`pip install "keras_bit[tfds]"`).

    Every image is read once here, for its size, label and a hash, and not decoded; `map` reads the
    split again as a stream. No image is held in memory. Images that cannot be read or are too
    small are listed in `skipped` and counted in one warning.

    Args:
        name: Name of the data set, such as `"oxford_flowers102"`, with features `image` and
            `label`.
        validation_split: As for `image_folder`.
        train_split: Split to train on, such as `"train[:80%]"`. Default: `"train"`.
        test_split: Split to test on. Default: the first that there is of `"test"`,
            `"validation"`, `"valid"`, `"val"` and `"testing"`, else a part of the training split.
        min_edge, examples_per_class, seed, damaged: As for `image_folder`.
        data_dir: Folder of the prepared data sets. Default: TFDS's own.
        download: Whether to download and prepare a data set that is not on this machine.

    Raises:
        ImportError: TensorFlow Datasets is not installed.
        FileNotFoundError: The data set is not on this machine and `download` is False.
        ValueError: The data set has no such features or splits, or too few images; an argument is
            out of range.

    Example, which needs the network:

    >>> data = keras_bit.tfds_images("oxford_flowers102", examples_per_class=5)  # doctest: +SKIP
    >>> data.train_size  # doctest: +SKIP
    510
    """
    selection = Selection(validation_split, seed, min_edge, examples_per_class)
    check_damaged(damaged)
    builder = _prepared_builder(name, data_dir, check_boolean("download", download))
    label_names = builder.info.features["label"].names
    present, of = list(builder.info.splits), builder.info.full_name
    train_split, test_split = choose_splits(present, of, train_split, test_split)
    test, test_skipped = None, []
    if test_split is not None:
        _check_disjoint(builder, train_split, test_split)
        test_found, test_skipped = _scan(builder, test_split, len(label_names), min_edge)
        test = TfdsSplit(builder, test_split, damaged, test_found)
    found, skipped = _scan(builder, train_split, len(label_names), min_edge)
    skipped += test_skipped
    make_split = partial(TfdsSplit, builder, train_split, damaged)
    return to_dataset(make_split, found, test, label_names, skipped, selection)


def cats_vs_dogs(
    *,
    examples_per_class: int | None = None,
    seed: int = 0,
    damaged: str = SKIP,
    data_dir: str | os.PathLike | None = None,
    download: bool = True,
) -> ImageDataset:
    """Photographs of cats and dogs, from TFDS `cats_vs_dogs` (23,262 images, 786 MiB).

    Images with an edge below 96 pixels are skipped; of the others 90 % of each class are training
    images and 10 % test images.

    Args:
        examples_per_class, seed, damaged, data_dir, download: As for `tfds_images`.

    Raises:
        ImportError, FileNotFoundError, ValueError: As for `tfds_images`.

    Example, which needs the network:

    >>> keras_bit.cats_vs_dogs().label_names  # doctest: +SKIP
    ('cat', 'dog')
    """
    return tfds_images(
        "cats_vs_dogs",
        min_edge=96,
        examples_per_class=examples_per_class,
        seed=seed,
        damaged=damaged,
        data_dir=data_dir,
        download=download,
    )


def _import_tfds():
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            'This data set needs TensorFlow Datasets: `pip install "keras_bit[tfds]"`.'
        ) from error
    return tensorflow_datasets


def _prepared_builder(name, data_dir, download):
    """The builder of a prepared data set; what does not fit is refused before its download."""
    tfds = _import_tfds()
    builder = tfds.builder(name, data_dir=data_dir)
    features = builder.info.features
    known = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = known.get("image"), known.get("label")
    is_image = isinstance(image, tfds.features.Image) and image.np_dtype in (np.uint8, np.uint16)
    if not is_image or not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(
            "`name` must be a data set with an integer `image` (tfds.features.Image) and a `label` "
            f"(tfds.features.ClassLabel). Received: {builder.info.full_name} with {features}"
        )
    if download:
        builder.download_and_prepare()
    elif not builder.is_prepared():
        raise FileNotFoundError(
            f"`download` must be True where the data set is not yet on this machine. Received: "
            f"download=False, and {builder.info.full_name} is not in {builder.data_dir}"
        )
    return builder


def _check_disjoint(builder, train_split, test_split):
    """Raises where two splits, or slices of one, share examples."""
    for mine in builder.info.splits[train_split].file_instructions:
        for theirs in builder.info.splits[test_split].file_instructions:
            first = max(mine.skip, theirs.skip)
            end = min(mine.skip + mine.take, theirs.skip + theirs.take)
            if mine.filename == theirs.filename and first < end:
                raise ValueError(
                    "`train_split` and `test_split` must share no images. Received: "
                    f"train_split={train_split!r}, test_split={test_split!r}, which share examples "
                    f"of {os.path.basename(mine.filename)}"
                )


def _stream(builder, split):
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


def _scan(builder, split, num_classes, min_edge):
    prefix = f"{builder.name}/{split}"

    def inspect(item):
        index, (encoded, label) = item
        if not 0 <= label < num_classes:
            raise ValueError(
                "`train_split` and `test_split` must be labeled splits; name others. "
                f"Received: {prefix} with label {label} at example {index}"
            )
        name = f"{prefix}/{index}"
        size, reason = try_read(read_image_size, io.BytesIO(encoded))
        digest = hashlib.blake2b(encoded, digest_size=16).digest()
        return Found(name, label, size, (index, digest)) if size else (name, reason)

    inspected = threaded_map(inspect, enumerate(_stream(builder, split)))
    found, skipped = filter_found(inspected, min_edge)
    if not found:
        raise ValueError(
            "`train_split` and `test_split` must hold images that can be read and are large "
            f"enough. Received: {prefix} with none, and {len(skipped)} skipped "
            f"(min_edge={min_edge})"
        )
    return found, skipped
