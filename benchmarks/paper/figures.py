"""The figures that the authors of BiT published: pure data.

The accuracies on CIFAR are those of "Expected results" in the README of
google-research/big_transfer (commit 140de6e): the smallest, the median and the largest of at least
five runs of each of the authors' code bases, or one figure where they give one. They were reached
with batch 128 and a rate of 0.001, and else BiT-HyperRule; its number of updates was not scaled
with the batch. The accuracies on ImageNet are those of `keras_bit.presets()`.
"""

from typing import NamedTuple

import keras_bit

README = 'README of google-research/big_transfer, "Expected results"'
BATCH_SIZE, LEARNING_RATE = 128, 0.001
TF2, JAX, PYTORCH = "TF2", "JAX", "PyTorch"
HEADS = "/ilsvrc2012_classification"


class Task(NamedTuple):
    """What is fine-tuned on: a data set of TFDS, and how many images of each class."""

    data: str
    per_class: int | None = None

    def __str__(self):
        few = "all training images" if self.per_class is None else f"{self.per_class} per class"
        return f"{self.data}, {few}"


# By preset and task: accuracy in percent of each code base.
CIFAR = {
    "m-r50x1": {
        Task("cifar10", 1): {
            TF2: (49.9, 54.4, 60.2),
            JAX: (48.4, 54.1, 66.1),
            PYTORCH: (45.8, 57.9, 65.7),
        },
        Task("cifar10", 5): {
            TF2: (80.8, 83.3, 85.5),
            JAX: (76.7, 82.4, 85.4),
            PYTORCH: (80.3, 82.3, 84.9),
        },
        Task("cifar10"): {TF2: (97.2,), JAX: (97.3,), PYTORCH: (97.4,)},
        Task("cifar100", 1): {
            TF2: (35.3, 37.1, 38.2),
            JAX: (32.0, 35.2, 37.8),
            PYTORCH: (34.6, 35.2, 38.6),
        },
        Task("cifar100", 5): {
            TF2: (63.8, 65.0, 66.5),
            JAX: (63.4, 64.8, 66.5),
            PYTORCH: (64.7, 65.5, 66.0),
        },
        Task("cifar100"): {TF2: (86.5,), JAX: (86.4,), PYTORCH: (86.6,)},
    },
    "m-r101x3": {
        Task("cifar10", 1): {
            TF2: (52.5, 55.8, 60.2),
            JAX: (48.7, 53.9, 65.0),
            PYTORCH: (56.4, 56.7, 73.1),
        },
        Task("cifar10", 5): {
            TF2: (85.3, 87.2, 89.1),
            JAX: (80.2, 85.8, 88.6),
            PYTORCH: (84.8, 85.8, 89.6),
        },
        Task("cifar10"): {TF2: (98.5,), JAX: (98.4,), PYTORCH: (98.5, 98.6, 98.6)},
        Task("cifar100", 1): {
            TF2: (34.8, 35.7, 37.9),
            JAX: (32.1, 35.0, 37.1),
            PYTORCH: (31.6, 33.8, 36.9),
        },
        Task("cifar100", 5): {
            TF2: (68.8, 70.4, 71.4),
            JAX: (68.6, 70.8, 71.6),
            PYTORCH: (70.6, 71.6, 71.7),
        },
        Task("cifar100"): {TF2: (90.8,), JAX: (91.2,), PYTORCH: (91.1, 91.2, 91.4)},
    },
    "m-r152x2": {
        Task("cifar10", 1): {JAX: (44.0, 56.7, 65.0), PYTORCH: (50.9, 55.5, 59.5)},
        Task("cifar10", 5): {JAX: (85.3, 87.0, 88.2), PYTORCH: (85.3, 85.8, 88.6)},
        Task("cifar10"): {JAX: (98.5,), PYTORCH: (98.5, 98.5, 98.6)},
        Task("cifar100", 1): {JAX: (36.4, 37.2, 38.9), PYTORCH: (34.3, 36.8, 39.0)},
        Task("cifar100", 5): {JAX: (69.3, 70.5, 72.0), PYTORCH: (70.3, 72.0, 72.3)},
        Task("cifar100"): {JAX: (91.2,), PYTORCH: (91.2, 91.3, 91.4)},
    },
}
TASKS = tuple(CIFAR["m-r50x1"])


def imagenet_presets():
    """Returns the released networks with a head for ILSVRC-2012 and a figure, by their backbone.

    BiT-S is not among them: it was fine-tuned again for the paper, at another size.
    """
    return {
        name.removesuffix(HEADS): preset
        for name, preset in keras_bit.presets().items()
        if name.startswith("m-") and name.endswith(HEADS) and preset.accuracy is not None
    }
