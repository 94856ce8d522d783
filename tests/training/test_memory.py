import math

import keras
import pytest

from keras_bit import BiTBackbone, BiTClassifier, HyperRule, training_memory
from keras_bit.training.resolve import frozen_parts

CLASSES = 3
SMALL = ((1, 2, 1, 1), 0.5)


def memory_of(*network, edge=64, batch=8, micro=None, **options):
    rule = HyperRule(500, 1000, batch, micro_batch_size=micro, crop_size=edge)
    return training_memory(BiTBackbone(*network, **options), CLASSES, rule)


def test_weights_gradients_momentum_and_sums_are_counted():
    memory = memory_of(50, 1)
    weights = 4 * (23_500_352 + (2048 + 1) * CLASSES)
    assert memory.weights == weights
    assert memory.training == 2 * weights
    split = memory_of(50, 1, micro=2)
    assert split.training == 3 * weights and split.images == 2
    assert memory.total == memory.fixed + 8 * memory.per_image
    assert memory.total - split.total == 6 * memory.per_image - weights


def test_weights_are_those_of_the_built_model():
    backbone = BiTBackbone(*SMALL, frozen=["block2"])
    memory = training_memory(backbone, CLASSES, HyperRule(500, 1000, crop_size=64))
    model = BiTClassifier(backbone, CLASSES)
    assert memory.weights == 4 * model.count_params()
    trained = sum(variable.numpy().size for variable in model.trainable_variables)
    assert memory.training == 2 * 4 * trained


def test_images_within_a_memory():
    memory = memory_of(50, 1)
    assert memory.images_within(memory.total) == 8
    assert memory.images_within(memory.total - 1) == 7
    assert memory.images_within(memory.fixed) == memory.images_within(0) == 0


def test_half_the_precision_is_half_the_memory_and_remat_a_third():
    full = memory_of(50, 1, edge=480)
    half = memory_of(50, 1, edge=480, dtype="mixed_bfloat16")
    lean = memory_of(50, 1, edge=480, remat=True)
    assert half.weights == full.weights and half.kernels == full.kernels / 2
    assert half.per_image == pytest.approx(full.per_image / 2, rel=0.02)
    assert lean.per_image < full.per_image / 3 and lean.kernels == 0


def test_frozen_parts_keep_nothing():
    network = ((1, 1, 1, 1), 1)
    memories = [
        memory_of(*network, frozen=[*("root_block", "block1", "block2")[:count]])
        for count in range(4)
    ]
    sizes = [memory.per_image for memory in memories]
    assert sizes == sorted(sizes, reverse=True) and sizes[3] < sizes[0] / 2
    frozen = memory_of(*network, trainable=False)
    assert frozen.training == 2 * 4 * (2048 + 1) * CLASSES
    assert frozen.per_image < sizes[0] / 2


def test_of_frozen_blocks_only_the_weights_count():
    network = ((1, 1, 1, 1), 1)
    sizes = {n: math.prod(shape) for n, shape in BiTBackbone(*network).weight_shapes().items()}
    for frozen_blocks in range(5):
        frozen = frozen_parts(frozen_blocks)
        backbone = BiTBackbone(*network, frozen=frozen)
        memory = training_memory(backbone, CLASSES, HyperRule(500, 1000, crop_size=64))
        trained = {name: size for name, size in sizes.items() if not name.startswith(frozen)}
        kernels = sum(size for name, size in trained.items() if name.endswith("kernel"))
        assert memory.kernels == 4 * kernels
        assert memory.training == 2 * 4 * (sum(trained.values()) + (2048 + 1) * CLASSES)
    assert memory.kernels == 0 and memory.weights == memory_of(*network).weights
    # A frozen block above a trained one passes gradients on, through its kernels.
    assert memory_of(*network, frozen=["block2"]).kernels == memory_of(*network).kernels


def test_growth_with_the_area():
    small, large = (memory_of(50, 1, edge=edge).per_image for edge in (224, 448))
    assert large == pytest.approx(4 * small, rel=0.02)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="XLA's account of memory")
@pytest.mark.parametrize("frozen_blocks", [0, 1])
def test_xla_needs_about_as_much(frozen_blocks):
    import jax
    from keras import ops

    frozen = frozen_parts(frozen_blocks)
    model = BiTClassifier(BiTBackbone(*SMALL, frozen=frozen), CLASSES)

    def temporary(count):
        def loss(trainable, images):
            return ops.mean(ops.square(model.stateless_call(trainable, fixed, images)[0]))

        images = jax.ShapeDtypeStruct((count, 224, 224, 3), "float32")
        weights = [variable.value for variable in model.trainable_variables]
        fixed = [variable.value for variable in model.non_trainable_variables]
        compiled = jax.jit(jax.grad(loss)).lower(weights, images).compile()
        memory = compiled.memory_analysis()
        return memory.temp_size_in_bytes + memory.argument_size_in_bytes

    estimate = memory_of(*SMALL, edge=224, frozen=frozen).per_image
    assert (temporary(12) - temporary(4)) / 8 == pytest.approx(estimate, rel=0.15)
