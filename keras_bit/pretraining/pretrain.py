"""Pretraining on synthetic (formula-driven) images, as BiT was pretrained on photographs."""

import json
import os
import pathlib
import warnings
from collections.abc import Sequence

import keras

from keras_bit.checkpoints.callback import Checkpoint
from keras_bit.core.arguments import check_integer, check_positive_number
from keras_bit.core.device import runs_on_cpu
from keras_bit.core.file_faults import wrap_read_errors
from keras_bit.core.files import read_json, write_json
from keras_bit.core.keras_internals import updates_of
from keras_bit.core.text import announce
from keras_bit.hyperrule.optimizer import SGD
from keras_bit.hyperrule.schedule import HyperRuleSchedule
from keras_bit.layers.backbone import BiTBackbone
from keras_bit.layers.image_input import MIN_EDGE
from keras_bit.models.classifier import BiTClassifier
from keras_bit.pretraining.dataset import SyntheticImages

# BiT paper, section 3.1, on upstream training: SGD with momentum 0.9, a rate of 0.03 per 256 images
# of a batch, divided by 10 after 30, 60 and 80 of 90 epochs, and a weight decay of 0.0001.
RATE_PER_IMAGE = 0.03 / 256
DECAYS = (30 / 90, 60 / 90, 80 / 90)
# There, 5,000 steps of warm-up of 28,150 (90 epochs of 1.28M images at batch 4096).
WARMUP = 5_000 / 28_150
SAVES = 20
CHECKPOINTS_FOLDER = "checkpoints"
WEIGHTS_FILE = "backbone.npz"


def pretrain(
    output: str | os.PathLike,
    *,
    depth: int | Sequence[int] = (1, 1, 1, 1),
    width: float = 0.5,
    families: Sequence[str] = ("scenes", "contours"),
    classes: int = 100,
    image_size: int = 64,
    batch_size: int = 128,
    steps: int = 10_000,
    learning_rate: float | None = None,
    seed: int = 0,
    verbose: bool = True,
) -> BiTBackbone:
    """Trains a `BiTBackbone` to classify synthetic images by their formulas.

    The recipe is that of BiT's own pretraining: SGD with momentum and weight decay, a linear
    warm-up and three drops of the learning rate, at the same fractions of the run.

    Args:
        output: Folder to write to: `backbone.npz`, the weights in the authors' layout;
            `settings.json`; and `checkpoints` (`keras_bit.Checkpoint`). A second call with the
            same arguments resumes exactly where an interrupted one was.
        depth: Depth of the backbone.
        width: Width of the backbone.
        families: Names of families of images; see `SyntheticImages`.
        classes: Number of classes of each family.
        image_size: Height and width of the images in pixels, from 32.
        batch_size: Number of images in a step, a multiple of the number of families.
        steps: Number of steps.
        learning_rate: Highest learning rate; 0.03 per 256 images of a batch by default, as in the
            paper. A short run needs a higher one.
        seed: Integer that determines the images and the initial weights.
        verbose: Whether to print a line after each twentieth of the run. It is always sent to the
            logger `"keras_bit"`.

    Returns:
        The trained `BiTBackbone`.

    Raises:
        ValueError: If an argument is out of range, or `output` holds a run with other settings.
        FloatingPointError: If the loss becomes infinite or NaN.
    """
    steps = check_integer("steps", steps, minimum=1)
    check_integer("image_size", image_size, minimum=MIN_EDGE)
    images: dict = dict(
        families=families, classes=classes, batch_size=batch_size, image_size=image_size, seed=seed
    )
    checked = SyntheticImages(**images, batches=1)
    images = {name: getattr(checked, name) for name in images}  # plain numbers, for JSON
    if learning_rate is None:
        learning_rate = RATE_PER_IMAGE * checked.batch_size
    learning_rate = check_positive_number("learning_rate", learning_rate)
    keras.utils.set_random_seed(checked.seed)
    model = BiTClassifier(BiTBackbone(depth, width), checked.num_classes)
    folder = pathlib.Path(output)
    network = {"depth": model.backbone.depth, "width": model.backbone.width}  # plain numbers
    settings = {**network, "steps": steps, "learning_rate": learning_rate}
    _claim(folder, {**settings, **images})
    _compile(model, learning_rate, steps)
    _fit(model, images, steps, folder / CHECKPOINTS_FOLDER, verbose)
    model.backbone.save_npz(folder / WEIGHTS_FILE)
    return model.backbone


def _fit(model, images, steps, folder, verbose):
    """Trains up to the step `steps`, from the newest checkpoint in `folder` on."""
    checkpoint = Checkpoint(folder, verbose=verbose)
    done = checkpoint.initial_step
    with warnings.catch_warnings():
        # The last epoch is shorter where `steps` is no multiple of `SAVES`.
        warnings.filterwarnings("ignore", message=".*ran out of data")
        model.fit(
            SyntheticImages(**images, batches=max(1, steps - done), start=done),
            epochs=SAVES,
            steps_per_epoch=-(-steps // SAVES),
            shuffle=False,
            verbose=0,
            callbacks=[_Progress(steps, verbose), checkpoint],
        )


class _Progress(keras.callbacks.Callback):
    """Tells how each twentieth of a run went, and ends the run after its last step."""

    def __init__(self, steps, verbose):
        super().__init__()
        self._steps = steps
        self._verbose = verbose

    def on_epoch_end(self, epoch, logs=None):
        done = updates_of(self.model.optimizer)
        if not logs["loss"] < float("inf"):
            raise FloatingPointError(
                f"The loss has become {logs['loss']} before step {done}. Lower `learning_rate`."
            )
        progress = f"loss {logs['loss']:.3f}, accuracy {logs['accuracy']:.1%}"
        announce(f"step {done:,} of {self._steps:,}: {progress}", self._verbose)
        if done >= self._steps:
            self.model.stop_training = True


def schedule(learning_rate: float, steps: int) -> HyperRuleSchedule:
    """Returns the learning rate schedule of a pretraining run of `steps` steps."""
    boundaries = [round(share * steps) for share in DECAYS]
    return HyperRuleSchedule(learning_rate, boundaries, warmup_steps=round(WARMUP * steps))


def _compile(model, learning_rate, steps):
    optimizer = SGD(schedule(learning_rate, steps), momentum=0.9, weight_decay=1e-4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # TensorFlow's own kernels are twice as fast on a CPU as what XLA makes of these layers.
    on_tensorflow = keras.backend.backend() == "tensorflow"
    jit_compile = False if on_tensorflow and runs_on_cpu() else "auto"
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=jit_compile)


def _claim(folder, settings):
    """Writes the settings to a new folder; raises where it holds a run with other ones."""
    settings = json.loads(json.dumps(settings))
    path = folder / "settings.json"
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.glob("[!.]*"))):
            raise FileExistsError(
                "`output` must be a new or empty folder, or that of a pretraining run. Received: "
                f"{folder}, which holds something else"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
        return
    must, advice = "`output` must hold the settings of a run as JSON", "Choose another folder."
    with wrap_read_errors(path, must, advice):
        found = read_json(path)
    if found != settings:
        raise ValueError(
            "`output` must be a new folder, or that of a run with the same settings. Received: "
            f"{folder} with {found}, not {settings}"
        )
