"""Everything that a run decides, resolved before anything runs."""

import dataclasses
import json
import math
import os
from typing import Any

import keras

from keras_bit.core.device import (
    Device,
    current_device,
    policy_scope,
    resolve_policy,
)
from keras_bit.core.distribution import replicas
from keras_bit.core.text import readable_size, table
from keras_bit.data.cache import cache_size
from keras_bit.data.class_weight import ClassWeight, resolve_class_weight
from keras_bit.data.dataset import ImageDataset, check_dataset
from keras_bit.hyperrule.callback import default_steps_per_epoch, refuse_accumulation
from keras_bit.hyperrule.optimizer import SGD
from keras_bit.hyperrule.rule import AUTO, HyperRule
from keras_bit.layers.backbone import BiTBackbone
from keras_bit.layers.head import ZeroInitHead
from keras_bit.models.classifier import BiTClassifier
from keras_bit.training.data_summary import DataSummary
from keras_bit.training.distribution import all_devices
from keras_bit.training.duration import Duration, estimate_duration
from keras_bit.training.memory import FLOAT32_SIZE, TrainingMemory, training_memory
from keras_bit.training.micro_batch import find_micro_batch
from keras_bit.training.resolve import (
    MOST_FROZEN,
    check_frozen,
    check_numbers,
    check_options,
    check_regularization,
    frozen_parts,
    resolve_network,
    resolve_rule,
)
from keras_bit.weights.architecture import Architecture
from keras_bit.weights.presets import EMBEDDED


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """Everything that a run decides; made by `keras_bit.plan`, run by `keras_bit.fine_tune`.

    `str(plan)` is a table of it.

    Attributes:
        data: `DataSummary` of the data set.
        rule: `keras_bit.HyperRule`, its micro-batch size resolved.
        preset: Name or source of the pretrained weights, or `None` for random ones.
        depth, width: Of the `keras_bit.BiTBackbone`.
        parameters: Number of parameters of the classifier.
        freeze_backbone: Whether only the head is trained.
        remat: Whether the backward pass recomputes activations.
        precision: Name of the precision policy.
        device: `Device` that the plan was made on.
        devices: Number of devices like it that share every micro-batch.
        seed: Decides initial weights, order of the images, augmentation and dropout.
        steps_per_epoch: Steps of `fit` between two validations.
        epochs: Number of validations.
        cache_dir: Folder of the cached images, or `None` for memory.
        cache_sizes: Bytes of the cached training and test images.
        memory: `TrainingMemory`, an estimate.
        memory_with_remat: The same with `remat`, or `None` where that changes nothing.
        duration: `Duration`, an estimate.
        frozen_blocks: Number of blocks that are not trained, nor is the root block then.
        weight_decay: That of `keras.optimizers.SGD`; 0 for none.
        dropout: Share of the features that the head drops in training.
        class_weight: How much the training images of each class count, or `None` for all alike.
    """

    data: DataSummary
    rule: HyperRule
    preset: str | None
    depth: int | tuple[int, ...]
    width: float
    parameters: int
    freeze_backbone: bool
    remat: bool
    precision: str
    device: Device
    seed: int
    steps_per_epoch: int
    epochs: int
    cache_dir: str | None
    cache_sizes: tuple[int, int]
    memory: TrainingMemory
    memory_with_remat: TrainingMemory | None
    duration: Duration
    devices: int = 1
    frozen_blocks: int = 0
    weight_decay: float = 0.0
    dropout: float = 0.0
    class_weight: tuple[float, ...] | None = None

    def to_json(self) -> str:
        """Returns the plan as JSON text, for `from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "RunPlan":
        """Returns the plan that `to_json` came from.

        Raises:
            ValueError: If the text is another one.
        """
        try:
            content = json.loads(text, object_hook=_tuples_of_lists)
            lean = content["memory_with_remat"]
            parts = {
                "data": DataSummary(**content["data"]),
                "rule": HyperRule.from_config(content["rule"]["given"]),
                "device": Device(**content["device"]),
                "memory": TrainingMemory(**content["memory"]),
                "memory_with_remat": TrainingMemory(**lean) if lean else None,
                "duration": Duration(**content["duration"]),
            }
            return cls(**{**content, **parts})
        except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise ValueError(
                f"`text` must be what `RunPlan.to_json` returns. Received: {str(text)[:60]!r}... "
                f"({error}). Make the plan again with `keras_bit.plan`."
            ) from error

    def settings(self) -> dict[str, Any]:
        """Returns, as a dict, what two runs have in common that give the same results.

        Of the data these are classes and counts; the images are compared by their pixels.
        """
        estimates = (
            "device",
            "devices",
            "cache_dir",
            "cache_sizes",
            "memory",
            "memory_with_remat",
            "duration",
        )
        plan = dataclasses.asdict(self)
        del plan["data"]["train_fingerprint"], plan["data"]["test_fingerprint"]
        unchanged = [f.name for f in dataclasses.fields(self) if plan[f.name] == f.default]
        return {k: v for k, v in plan.items() if k not in (*estimates, *unchanged)}

    def build_classifier(self, kernel_epsilon: float | None = None) -> BiTClassifier:
        """Returns the model of the run, with its initial weights and not compiled.

        Args:
            kernel_epsilon: That of an earlier model, whose weights this one is to get: the preset
                is not read again.
        """
        options: dict[str, Any] = {
            "remat": self.remat,
            "frozen": frozen_parts(self.frozen_blocks),
        }
        with policy_scope(self.precision):
            if kernel_epsilon is not None:
                options["kernel_epsilon"] = kernel_epsilon
            if self.preset is None or kernel_epsilon is not None:
                backbone = BiTBackbone(self.depth, self.width, **options)
            else:
                backbone = BiTBackbone.from_preset(self.preset, **options)
            if self.freeze_backbone:
                backbone.trainable = False
            head = ZeroInitHead(len(self.data.label_names), self.dropout, seed=self.seed)
            return BiTClassifier(backbone, head)

    def optimizer(self) -> SGD:
        """Returns a new optimizer of the run: the rule's, with the run's weight decay."""
        return self.rule.optimizer(weight_decay=self.weight_decay or None)

    def __str__(self) -> str:
        sections = [("Run", self._rows()), ("Memory of training", self._memory_rows())]
        run, memory = (table(*section) for section in sections)
        return "\n".join((run, str(self.rule), memory))

    def _rows(self):
        data, device = self.data, self.device
        height, width = data.image_size
        sizes = " + ".join(map(readable_size, self.cache_sizes))
        ours = "trained on synthetic (formula-driven) images, not Google's"
        free = f", {readable_size(device.memory)} for Keras" if device.memory else ""
        trained = "head" if self.freeze_backbone else "all"
        if self.frozen_blocks:
            trained = f"all above block {self.frozen_blocks}"
        regularization = (
            ("weight decay", self.weight_decay, "times the rate, in every update"),
            ("dropout", self.dropout, "of the features, before the head"),
        )
        several = f"{self.devices} devices, each like " if self.devices > 1 else ""
        classes = f"{len(data.label_names):,} " + ("labels" if data.multi_label else "classes")
        return [
            ("training images", f"{data.train_size:,}", classes),
            ("validation images", f"{data.test_size:,}", f"median size {height}x{width} pixels"),
            ("images skipped", f"{data.skipped:,}", ""),
            (
                "network",
                str(Architecture(self.depth, self.width)),
                f"{self.parameters:,} parameters",
            ),
            ("weights", self.preset or "random", ours if self.preset == EMBEDDED else ""),
            ("trained", trained, ""),
            *(row for row in regularization if row[1]),
            *self._class_weight_rows(),
            ("precision", self.precision, f"on {several}{device.name}{free}"),
            ("validations", f"{self.epochs:,}", f"one every {self.steps_per_epoch:,} steps"),
            ("cache", sizes, f"in {self.cache_dir or 'memory'}"),
            ("time", str(self.duration), self.duration.reason),
        ]

    def _class_weight_rows(self):
        if self.class_weight is None:
            return []
        low, high = min(self.class_weight), max(self.class_weight)
        return [("class weights", f"{low:.3g} to {high:.3g}", "times the loss of an image")]

    def _memory_rows(self):
        rows = self.memory.rows()
        if self.memory_with_remat:
            per_image = readable_size(self.memory_with_remat.per_image)
            total = readable_size(self.memory_with_remat.total)
            rows.append(("with remat", total, f"{per_image} an image"))
        if self.device.memory:
            most = self.memory.images_within(self.device.memory)
            rows.append(("images that fit", f"{most:,}", f"{readable_size(self.device.memory)}"))
        return rows


@all_devices()
def plan(
    data: ImageDataset,
    *,
    preset: str | os.PathLike | None = None,
    depth: int | tuple[int, ...] | None = None,
    width: float | None = None,
    freeze_backbone: bool = False,
    frozen_blocks: int = 0,
    weight_decay: float = 0.0,
    dropout: float = 0.0,
    class_weight: ClassWeight | None = None,
    remat: bool = False,
    dtype: str | keras.DTypePolicy | None = None,
    rule: HyperRule | None = None,
    micro_batch_size: int | str | None = None,
    steps_per_epoch: int | None = None,
    seed: int = 0,
    cache_dir: str | os.PathLike | None = None,
    verbose: bool | int | str = True,
    **rule_arguments: Any,
) -> RunPlan:
    """Resolves everything that `keras_bit.fine_tune` would do, without training.

    Args:
        data: A `keras_bit.ImageDataset`.
        preset: Name of pretrained weights (see `keras_bit.presets()`), or a file, URL or handle, as
            `keras_bit.BiTBackbone.from_preset` takes it. Without preset, depth and width it is
            `"f-r14x0.5"`, a small network that comes with the package. It was trained on synthetic
            images: better than random weights, far from Google's.
        depth: Depth of a backbone with random weights; BiTBackbone's default beside a `width`.
        width: Width of a backbone with random weights; BiTBackbone's default beside a `depth`.
        freeze_backbone: Whether only the head is trained, on features that stay as they are.
        frozen_blocks: Number of the backbone's four blocks, counted from the input, that are not
            trained; 0 for none. With 1 or more the root block is not trained either. The blocks
            above, the last group norm and the head are trained; with 4 that norm and the head.
        weight_decay: Number of at least 0, `weight_decay` of `keras.optimizers.SGD`: every update
            first subtracts `weight_decay * rate * w` from each trained array `w`, the scales of
            group norms and the biases as well, and then takes its step. It is decoupled from
            gradient and momentum (Loshchilov and Hutter 2019, arXiv 1711.05101) and falls with the
            schedule's rate. BiT fine-tunes with neither this nor dropout (paper, section 3.3).
        dropout: Share in [0, 1) of the features that the head drops in training; see
            `keras_bit.ZeroInitHead`.
        class_weight: How much the training images of each class count, `"balanced"` or weights;
            see `keras_bit.pipelines`. By default all images count alike.
        remat: Whether the backward pass recomputes the activations inside of each unit instead of
            saving them: less memory, more time; see `keras_bit.BiTBackbone`.
        dtype: Precision policy of the model, such as `"float32"` or `"mixed_bfloat16"`. By
            default that of Keras; but where Keras's is `"float32"`, `"mixed_bfloat16"` on GPUs
            with matrix units for it (NVIDIA's from compute capability 8.0 on) and on TPUs. Keras's
            own policy is left as it is.
        rule: A `keras_bit.HyperRule`. By default it is made from `data`, `rule_arguments` and what
            suits the network, as `HyperRule.for_preset` makes it.
        micro_batch_size: As in `HyperRule`; or `"auto"`, also beside a `rule`, for the largest
            that fits the device: see `keras_bit.largest_micro_batch`.
        steps_per_epoch: Steps of `fit` between two validations, of which
            `rule.accumulation_steps` make an update; a tenth of the schedule by default.
        seed: Integer that decides the initial weights, the order of the images, their
            augmentation, and what dropout drops.
        cache_dir: Folder for the decoded images, which later runs use again; see
            `keras_bit.pipelines`. In memory by default.
        verbose: Whether to print how `"auto"` was resolved.
        **rule_arguments: Arguments of `HyperRule` other than the sizes: `batch_size` (64 by
            default), `schedule_length`, `resize_edge`, `crop_size`, `mixup_alpha`, `warmup`,
            `random_crop`, `random_flip`, `learning_rate`.

    Returns:
        A `RunPlan`: print it, store `plan.to_json()`, or pass it to `fine_tune`.

    Raises:
        ValueError: If arguments are out of range or contradict each other.
        MemoryError: With `micro_batch_size="auto"`, if not even a single image fits.

    Example:

    >>> plan = keras_bit.plan(keras_bit.digits(), crop_size=32, schedule_length=100)
    >>> plan.rule.schedule_length, plan.epochs, plan.precision
    (100, 10, 'float32')
    """
    check_dataset(data)
    remat = check_options(remat, cache_dir)
    freeze_backbone, frozen_blocks = check_frozen(freeze_backbone, frozen_blocks)
    weight_decay, dropout = check_regularization(weight_decay, dropout)
    seed, steps_per_epoch = check_numbers(seed, steps_per_epoch)
    preset, network = resolve_network(preset, depth, width)
    policy = resolve_policy(dtype)
    sizes = data.image_size, data.train_size
    rule = resolve_rule(*sizes, network, rule, micro_batch_size, rule_arguments)
    class_weight = resolve_class_weight(class_weight, data)
    frozen = frozen_parts(frozen_blocks)
    options = {"freeze": freeze_backbone, "frozen": frozen, "dtype": policy}
    backbone = _backbone(*network, remat=remat, **options)
    if micro_batch_size == AUTO:
        rule = find_micro_batch(backbone, data.num_classes, rule, verbose=verbose)
    if keras.backend.backend() == "tensorflow":
        refuse_accumulation(rule.accumulation_steps, replicas())
    if steps_per_epoch is None:
        steps_per_epoch = default_steps_per_epoch(rule)
    epochs = math.ceil(rule.schedule_length * rule.accumulation_steps / steps_per_epoch)
    memory = training_memory(backbone, data.num_classes, rule)
    lean = None
    if not remat and not freeze_backbone and frozen_blocks < MOST_FROZEN:
        with_remat = _backbone(*network, remat=True, **options)
        lean = training_memory(with_remat, data.num_classes, rule)
    return RunPlan(
        data=DataSummary.of(data),
        rule=rule,
        preset=None if preset is None else str(preset),
        depth=network.depth,
        width=network.width,
        parameters=memory.weights // FLOAT32_SIZE,
        freeze_backbone=freeze_backbone,
        remat=remat,
        precision=policy,
        device=current_device(),
        seed=seed,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        cache_sizes=(
            cache_size(data.train_size, rule.resize_edge),
            cache_size(data.test_size, rule.crop_size),
        ),
        memory=memory,
        memory_with_remat=lean,
        duration=estimate_duration(backbone, rule, epochs, data.test_size),
        devices=replicas(),
        frozen_blocks=frozen_blocks,
        weight_decay=weight_decay,
        dropout=dropout,
        class_weight=class_weight,
    )


def _backbone(depth, width, freeze, **options):
    backbone = BiTBackbone(depth, width, **options)
    if freeze:  # Setting it to True thaws, with JAX, the parts that are frozen.
        backbone.trainable = False
    return backbone


def _tuples_of_lists(content):
    return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
