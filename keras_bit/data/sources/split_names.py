"""Which of the splits that a data set comes with are for training and for testing."""

from collections.abc import Sequence

from keras_bit.data.sources.selection import TEST_NAMES


def choose_splits(
    present: Sequence[str], of: str, train: str | None, test: str | None, *, slices: bool = True
) -> tuple[str, str | None]:
    """The training and the test split; the test split is None where it is cut from training.

    Args:
        present: Names of the splits that there are.
        of: What the data set is called, for messages.
        train, test: Those to take.
        slices: Whether they may have a slice, as those of TFDS may, such as `"train[:80%]"`.

    Raises:
        ValueError: If there is no such split, or the two share images.

    Example:

    >>> from keras_bit.data.sources.split_names import choose_splits
    >>> choose_splits(["train", "validation"], "flowers", None, None)
    ('train', 'validation')
    """
    train = "train" if train is None else train
    if test is None:
        others = [name for name in TEST_NAMES if name != _whole(train, slices)]
        test = next((name for name in others if name in present), None)
    for argument, split in (("train_split", train), ("test_split", test)):
        if split is not None and _whole(split, slices) not in present:
            raise ValueError(
                f"`{argument}` must be a split of {of}, which has {list(present)}. "
                f"Received: {argument}={split!r}"
            )
    whole = _whole(train, slices)
    # Of two slices of a split nothing is known before they are read.
    if train == test or test and _whole(test, slices) == whole and whole in (train, test):
        raise ValueError(
            "`train_split` and `test_split` must share no images. Received: "
            f"train_split={train!r}, test_split={test!r}. Choose another, or cut one split in two, "
            "such as train_split='train[:90%]', test_split='train[90%:]' of TFDS."
        )
    return train, test


def _whole(split, slices):
    return split.split("[")[0] if slices else split
