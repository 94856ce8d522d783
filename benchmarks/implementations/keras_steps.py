"""How networks in Keras are run: a forward pass, and a training step."""

from functools import partial

import keras

from benchmarks.harness.cases import CLASSES, LEARNING_RATE, MOMENTUM


def forward(case, weights, network, jit_compile=False):
    """Returns a function that gives the features of the batch of `case`."""
    model = keras.Sequential([keras.Input((case.edge, case.edge, 3)), network(case, weights)])
    model.compile(jit_compile=jit_compile)
    return partial(model.predict_on_batch, case.batch()[0])


def training(case, weights, network, jit_compile=False, optimizer=keras.optimizers.SGD):
    """Returns a function that takes a training step and gives the loss before it."""
    head = keras.layers.Dense(CLASSES, kernel_initializer="zeros")
    images = keras.Input((case.edge, case.edge, 3))
    model = keras.Sequential([images, network(case, weights), head])
    model.compile(
        optimizer=optimizer(LEARNING_RATE, momentum=MOMENTUM),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    model.optimizer.build(model.trainable_variables)  # else TensorFlow traces the first step twice
    return partial(model.train_on_batch, *case.batch())
