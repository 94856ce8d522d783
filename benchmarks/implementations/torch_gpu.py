"""timm's network on a GPU: bfloat16, channels last, `torch.compile` unless it is eager."""

import functools

import torch

from benchmarks.harness.cases import CLASSES, LEARNING_RATE, MOMENTUM
from benchmarks.harness.memory import memory
from benchmarks.implementations.timm_network import timm

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LAYOUT = torch.channels_last
PURE = "timm, bfloat16"  # weights too; all others keep them in float32 and cast under autocast
EAGER = "timm, autocast, eager"


def check_device(rehearsal):
    if DEVICE.type != "cuda" and not rehearsal:
        raise RuntimeError("PyTorch must see a GPU. Received: torch.cuda.is_available() is False")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")


def start(name, work, case):
    """Returns a function that does the work once; its result may still be on its way."""
    network = timm(case, case.weights(), CLASSES if work == "training step" else 0)
    network = network.to(DEVICE, memory_format=LAYOUT)
    images, labels = map(torch.from_numpy, case.batch())
    images = (2 * images - 1).permute(0, 3, 1, 2).to(DEVICE, memory_format=LAYOUT)
    if work == "forward":
        return _forward(network, images, name == PURE)
    return _training(network, images, labels.to(DEVICE), name != EAGER)


def _autocast(enabled=True):
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled)


def _forward(network, images, pure):
    network.eval()
    if pure:
        network, images = network.bfloat16(), images.bfloat16()
    compiled = torch.compile(network)

    def features():
        with torch.inference_mode(), _autocast(not pure):
            return compiled(images)

    return features


def _training(network, images, labels, compiled):
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=MOMENTUM)
    if compiled:
        network = torch.compile(network)

    def step():
        optimizer.zero_grad()
        with _autocast():
            loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def wait_for(result):
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def numbers(result):
    return result.float().flatten().tolist()


def peak_memory():
    """Bytes on the GPU at the peak; in a rehearsal those of the process."""
    return torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else memory("VmHWM")


def matrix_product(edge):
    a = torch.randn(edge, edge, device=DEVICE, dtype=torch.bfloat16)
    return functools.partial(torch.matmul, a, a)


def kernel_seconds(do):
    """Profiles `do`; returns a dict from kernels to seconds."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if DEVICE.type == "cuda":
        activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        do()
    time = "self_device_time_total" if DEVICE.type == "cuda" else "self_cpu_time_total"
    return {event.key: 1e-6 * getattr(event, time) for event in profile.key_averages()}
