"""This package's network in Keras on JAX, on a GPU: mixed bfloat16, compiled by XLA."""

import collections
import functools
import gzip
import json
import pathlib
import re
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness.memory import memory
from benchmarks.implementations.keras_gpu import make_backbone, make_classifier, set_precision

TRAIN_ON_BATCH = "keras_bit, train_on_batch"

wait_for = jax.block_until_ready


def check_device(rehearsal):
    if jax.default_backend() != "gpu" and not rehearsal:
        raise RuntimeError(f"JAX must see a GPU. It has {jax.devices()}; install `jax[cuda12]`.")


def start(name, work, case):
    """Returns a function that does the work once; its result may still be on its way."""
    set_precision()
    images, labels = map(jax.device_put, case.batch())
    if work == "forward":
        return _forward(make_backbone(name, case), images)
    model = make_classifier(case)
    if name == TRAIN_ON_BATCH:
        return functools.partial(model.train_on_batch, images, labels)
    return _training(model, images, labels)


def _forward(network, images):
    trainable, others = _values(network.trainable_variables, network.non_trainable_variables)

    @jax.jit
    def features(trainable, others, images):
        return network.stateless_call(trainable, others, images)[0]

    return functools.partial(features, trainable, others, images)


def _training(model, images, labels):
    """Keras's documented loop for JAX: nothing is waited for between steps.

    The first update takes over the memory of the model's variables.
    """
    state = _values(
        model.trainable_variables, model.non_trainable_variables, model.optimizer.variables
    )
    loss_of_logits = model.loss

    def loss_of(trainable, others, images, labels):
        logits, others = model.stateless_call(trainable, others, images, training=True)
        return loss_of_logits(labels, logits), others

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state, images, labels):
        trainable, others, optimizer = state
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, others), gradients = gradient(trainable, others, images, labels)
        trainable, optimizer = model.optimizer.stateless_apply(optimizer, gradients, trainable)
        return loss, (trainable, others, optimizer)

    def step():
        nonlocal state
        loss, state = update(state, images, labels)
        return loss

    return step


def _values(*lists):
    return tuple([variable.value for variable in variables] for variables in lists)


def numbers(result):
    return np.ravel(result).astype(float).tolist()


def peak_memory():
    """Bytes on the GPU at the peak; in a rehearsal those of the process."""
    statistics = jax.local_devices()[0].memory_stats()
    return statistics["peak_bytes_in_use"] if statistics else memory("VmHWM")


def matrix_product(edge):
    a = jax.random.normal(jax.random.key(0), (edge, edge), jnp.bfloat16)
    return functools.partial(jax.jit(jnp.matmul), a, a)


def kernel_seconds(do):
    """Profiles `do`; returns a dict from kernels, without their numbers, to seconds."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            do()
        events = [
            event
            for path in pathlib.Path(folder).rglob("*.trace.json.gz")
            for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        ]
    devices = {
        event["pid"]
        for event in events
        if event.get("name") == "process_name" and "/device:" in event["args"]["name"]
    }
    streams = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("name") == "thread_name" and event["args"]["name"].startswith("Stream")
    }
    seconds = collections.Counter()
    for event in events:
        if event.get("ph") != "X":
            continue
        on_device = event["pid"] in devices and (event["pid"], event["tid"]) in streams
        # A CPU has no streams: there XLA's operations are told by their arguments.
        if on_device or (not devices and "hlo_op" in event.get("args", {})):
            seconds[re.sub(r"[._]\d+$", "", event["name"])] += 1e-6 * event["dur"]
    return dict(seconds)
