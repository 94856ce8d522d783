"""Forward pass and training step of R50x1, beside a plain Keras 3 rendering and timm."""

import functools
from functools import partial
from typing import NamedTuple

import keras
import numpy as np
import pytest

import keras_bit
from benchmarks.peer_networks import HAS_TIMM, plain_keras, timm_network
from benchmarks.races import Race, Turn

CLASSES = 10
LEARNING_RATE = 0.003


class Case(NamedTuple):
    units: tuple
    edge: int
    batch_size: int

    def __str__(self):
        name = "R50x1" if self.units == (3, 4, 6, 3) else f"units {self.units}"
        return f"{name}, {self.edge} px, batch {self.batch_size}"

    def batch(self):
        """Images in [0, 1] and one-hot labels."""
        rng = np.random.default_rng(0)
        images = rng.random((self.batch_size, self.edge, self.edge, 3), np.float32)
        return images, np.eye(CLASSES, dtype="float32")[rng.integers(CLASSES, size=len(images))]


@functools.cache
def weights_of(units):
    """The arrays that all contenders start from."""
    keras.utils.set_random_seed(0)
    named = keras_bit.BiTBackbone(units).named_weights()
    return {name: keras.ops.convert_to_numpy(value) for name, value in named.items()}


SMALL = Case((1, 1, 1, 1), edge=64, batch_size=2)
REAL = Case((3, 4, 6, 3), edge=224, batch_size=8)


def races(full):
    case = REAL if full else SMALL
    one = case._replace(batch_size=1)
    rounds = 7 if full else 3
    return [
        _race("forward", case, FORWARD, 1, rounds),
        _race("forward", one, FORWARD, 4, rounds),
        _race("training step", case, TRAINING, 1, rounds),
    ]


def _race(work, case, contenders, calls, rounds):
    turns = {name: partial(_turn, make, case, calls) for name, make in contenders.items()}
    return Race(f"{work}: {case}", calls * case.batch_size, rounds, turns)


def _turn(make, case, calls):
    step = make(case)

    def timed():
        for _ in range(calls):
            step()

    return Turn(step, timed)


def test_network(race, contender, report):
    report(race, contender)


def test_contenders_compute_the_same_features():
    features = {name: make(SMALL)() for name, make in _uncompiled(FORWARD).items()}
    expected = features.pop("keras_bit")
    assert np.ptp(expected) > 0.1
    for name, found in features.items():
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3, err_msg=name)


def test_contenders_take_the_same_training_steps():
    steps = {name: make(SMALL) for name, make in _uncompiled(TRAINING).items()}
    losses = {name: [step() for _ in range(3)] for name, step in steps.items()}
    expected = losses.pop("keras_bit")
    assert expected[0] == pytest.approx(np.log(CLASSES)) and expected[2] < 0.99 * expected[0]
    for name, found in losses.items():
        assert found == pytest.approx(expected, rel=1e-3), name


def _uncompiled(contenders):
    return {name: make for name, make in contenders.items() if "jit" not in name}


def _backbone(case):
    backbone = keras_bit.BiTBackbone(case.units)
    variables = backbone.named_weights()
    for name, array in weights_of(case.units).items():
        variables[name].assign(array)
    return backbone


def _folded(case):
    return _backbone(case).fold()


def _plain(case):
    return plain_keras(case.units, weights_of(case.units))


def _keras_forward(make, jit_compile, case):
    model = keras.Sequential([keras.Input((case.edge, case.edge, 3)), make(case)])
    model.compile(jit_compile=jit_compile)
    return partial(model.predict_on_batch, case.batch()[0])


def _keras_training(make, jit_compile, case):
    head = keras_bit.ZeroInitHead(CLASSES)
    model = keras.Sequential([keras.Input((case.edge, case.edge, 3)), make(case), head])
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=0.9),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    return partial(model.train_on_batch, *case.batch())


def _timm(case, layout, num_classes=0):
    """The network, its images and its labels, on the GPU where there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = getattr(torch, layout)
    network = timm_network(case.units, weights_of(case.units), num_classes)
    images, labels = map(torch.from_numpy, case.batch())
    images = (2 * images - 1).permute(0, 3, 1, 2)
    return (
        network.to(device, memory_format=layout),
        images.to(device).contiguous(memory_format=layout),
        labels.to(device),
    )


def _timm_forward(layout, case):
    import torch

    network, images, _ = _timm(case, layout)
    network.eval()

    def forward():
        with torch.inference_mode():
            return network(images).cpu().numpy()

    return forward


def _timm_training(layout, case):
    import torch

    network, images, labels = _timm(case, layout, CLASSES)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _keras_contenders(make, networks):
    return {
        name + suffix: partial(make, network, jit_compile)
        for name, network in networks.items()
        for suffix, jit_compile in (("", False), (", jit_compile", True))
    }


def _timm_contenders(make):
    layouts = {"contiguous": "contiguous_format", "channels_last": "channels_last"}
    return {f"timm, {name}": partial(make, layout) for name, layout in layouts.items() if HAS_TIMM}


FORWARD = {
    **_keras_contenders(
        _keras_forward,
        {"keras_bit": _backbone, "keras_bit, folded": _folded, "plain Keras 3": _plain},
    ),
    **_timm_contenders(_timm_forward),
}
TRAINING = {
    **_keras_contenders(_keras_training, {"keras_bit": _backbone, "plain Keras 3": _plain}),
    **_timm_contenders(_timm_training),
}
