"""What a plan says of its data."""

import dataclasses

from keras_bit.data.dataset import ImageDataset, class_counts


@dataclasses.dataclass(frozen=True)
class DataSummary:
    """What a plan says of the data: sizes, classes, the images of each, and fingerprints."""

    image_size: tuple[int, int]
    label_names: tuple[str, ...]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    skipped: int
    train_fingerprint: str
    test_fingerprint: str
    sizes: tuple[int, int] | None = None  # images of both splits, where they have several labels

    @classmethod
    def of(cls, data: ImageDataset) -> "DataSummary":
        """Returns the summary of an `ImageDataset`."""
        train, test = (
            tuple(class_counts(split.labels, data.num_classes).tolist())
            for split in (data.train, data.test)
        )
        return cls(
            image_size=data.image_size,
            label_names=data.label_names,
            train_counts=train,
            test_counts=test,
            skipped=len(data.skipped),
            train_fingerprint=data.train.fingerprint,
            test_fingerprint=data.test.fingerprint,
            sizes=(data.train_size, data.test_size) if data.multi_label else None,
        )

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of labels instead of one class."""
        return self.sizes is not None

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return self.sizes[0] if self.sizes else sum(self.train_counts)

    @property
    def test_size(self) -> int:
        """Number of test images."""
        return self.sizes[1] if self.sizes else sum(self.test_counts)
