"""Pretraining on images drawn by formula, as BiT was pretrained on photographs."""

import functools
import json
import pathlib

import keras

from keras_bit.checks import check_integer, check_positive_number
from keras_bit.files import written_whole
from keras_bit.formulas.images import FormulaImages, check_families
from keras_bit.layers.backbone import BiTBackbone
from keras_bit.layers.classifier import BiTClassifier
from keras_bit.optimizers import SGD
from keras_bit.schedules import HyperRuleSchedule

# BiT paper, section 3.1, on upstream training: SGD with momentum 0.9, a rate of 0.03 for every 256
# images of a batch, divided by 10 after 30, 60 and 80 of 90 epochs, and a weight decay of 0.0001.
LEARNING_RATE = 0.03
REFERENCE_BATCH_SIZE = 256
DECAYS = (30 / 90, 60 / 90, 80 / 90)
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
# There, 5,000 steps of warm-up of 28,150 (90 epochs of 1.28M images at batch 4096).
WARMUP = 5_000 / 28_150
SAVES = 20
WEIGHTS_FILE = "backbone.npz"
CHECKPOINT_FILE = "checkpoint.keras"
SETTINGS_FILE = "settings.json"


def pretrain(
    output,
    *,
    depth=(1, 1, 1, 1),
    width=0.5,
    families=("scenes", "contours"),
    classes=100,
    image_size=64,
    batch_size=128,
    steps=10_000,
    learning_rate=None,
    seed=0,
    notify=print,
):
    """Trains a `BiTBackbone` to tell formulas apart by their images; goes on where it was stopped.

    The optimizer is that of BiT's own pretraining: SGD with momentum and weight decay, a linear
    warm-up and three drops of the rate, at the same shares of the whole.

    Args:
        output: Folder to write to: `backbone.npz`, the weights in the authors' layout;
            `checkpoint.keras`, classifier and optimizer, written twenty times in the run; and
            `settings.json`. A second call with the same arguments goes on from the checkpoint.
        depth: Depth of the backbone.
        width: Width of the backbone.
        families: Names of families of images; see `FormulaImages`.
        classes: Number of classes of each family.
        image_size: Edge of the images in pixels.
        batch_size: Images of a step, a multiple of the number of families.
        steps: Number of steps.
        learning_rate: Highest rate; 0.03 for every 256 images of a batch by default, as in the
            paper. A short run wants a higher one.
        seed: Integer that decides the images and the initial weights.
        notify: Function that is called with a line of text after each twentieth of the run.

    Returns:
        The trained `BiTBackbone`.

    Raises:
        ValueError: If an argument is out of range, or `output` holds a run with other ones.
        FloatingPointError: If the loss becomes infinite or NaN.
    """
    steps = check_integer("steps", steps, minimum=1)
    if learning_rate is None:
        learning_rate = LEARNING_RATE * batch_size / REFERENCE_BATCH_SIZE
    settings = {
        "depth": depth,
        "width": width,
        "families": check_families(families),
        "classes": classes,
        "image_size": image_size,
        "batch_size": batch_size,
        "steps": steps,
        "learning_rate": check_positive_number("learning_rate", learning_rate),
        "seed": seed,
    }
    batches_of = functools.partial(
        FormulaImages, families, classes, batch_size, image_size=image_size, seed=seed
    )
    batches_of(1)  # Raises where an argument is out of range, before anything is written.
    keras.utils.set_random_seed(seed)
    model = BiTClassifier(BiTBackbone(depth, width), classes * len(families))
    folder = pathlib.Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    _remember(folder / SETTINGS_FILE, settings)
    checkpoint = folder / CHECKPOINT_FILE
    if checkpoint.exists():
        model = keras.models.load_model(checkpoint)
    else:
        _compile(model, settings["learning_rate"], steps)
    done = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    while done < steps:
        batches = min(-(-steps // SAVES), steps - done)
        images = batches_of(batches, start=done)
        logs = model.fit(images, shuffle=False, verbose=0).history
        done += batches
        loss, accuracy = logs["loss"][0], logs["accuracy"][0]
        if not loss < float("inf"):
            raise FloatingPointError(
                f"The loss has become {loss} before step {done}. Lower `learning_rate`."
            )
        with written_whole(checkpoint) as temporary:
            model.save(temporary.with_suffix(".keras"))
            temporary.with_suffix(".keras").rename(temporary)
        notify(f"step {done:,} of {steps:,}: loss {loss:.3f}, accuracy {accuracy:.1%}")
    model.backbone.save_npz(folder / WEIGHTS_FILE)
    return model.backbone


def schedule(learning_rate, steps):
    """The `HyperRuleSchedule` of a pretraining of `steps` steps."""
    boundaries = [round(share * steps) for share in DECAYS]
    return HyperRuleSchedule(learning_rate, boundaries, warmup_steps=round(WARMUP * steps))


def _compile(model, learning_rate, steps):
    optimizer = SGD(schedule(learning_rate, steps), momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    on_cpu = all(device.startswith("cpu") for device in keras.distribution.list_devices())
    # TensorFlow's own kernels are twice as fast on a CPU as what XLA makes of these layers.
    plain = on_cpu and keras.backend.backend() == "tensorflow"
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=not plain)


def _remember(path, settings):
    text = json.dumps(settings, indent=2) + "\n"
    if not path.exists():
        with written_whole(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    elif (found := path.read_text(encoding="utf-8")) != text:
        raise ValueError(
            "`output` must be a new folder, or that of a run with the same settings. Received: "
            f"{path.parent} with {json.loads(found)}, not {json.loads(text)}"
        )
