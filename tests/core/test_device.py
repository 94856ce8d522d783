import keras
import pytest

from keras_bit.core import device
from keras_bit.core.device import (
    Device,
    current_device,
    device_names,
    is_out_of_memory,
    policy_scope,
    resolve_policy,
    runs_on_cpu,
    set_memory_growth,
)


def on(monkeypatch, has_bfloat16):
    found = Device("gpu", "Test GPU", 16 * 10**9, has_bfloat16)
    monkeypatch.setattr(device, "current_device", lambda: found)


def test_here_it_is_a_cpu_with_memory():
    assert runs_on_cpu() and device_names()[0] == "cpu:0"
    found = current_device()
    assert found.kind == "cpu" and not found.has_bfloat16
    assert found.memory is None or found.memory > 10**8


@pytest.mark.parametrize(
    "capability, has_bfloat16", [((7, 5), False), ((8, 0), True), ((12, 1), True)]
)
@pytest.mark.tensorflow
def test_a_gpu_of_tensorflow(monkeypatch, capability, has_bfloat16):
    import tensorflow as tf

    details = {"device_name": "Test GPU", "compute_capability": capability}
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    limits = [tf.config.LogicalDeviceConfiguration(memory_limit=2048)]
    monkeypatch.setattr(tf.config, "get_logical_device_configuration", lambda gpu: limits)
    assert current_device() == Device("gpu", "Test GPU", 2**31, has_bfloat16)
    monkeypatch.setattr(tf.config, "get_logical_device_configuration", lambda gpu: None)
    assert current_device().memory is None


@pytest.mark.parametrize(
    "capability, has_bfloat16", [("7.5", False), ("8.0", True), (None, True), ("gfx942", False)]
)
def test_a_gpu_of_jax(monkeypatch, capability, has_bfloat16):
    jax = pytest.importorskip("jax")

    class Accelerator:
        platform, device_kind = "gpu", "Test GPU"

        def memory_stats(self):
            return {"bytes_limit": 16 * 10**9}

    accelerator = Accelerator()
    if capability is not None:
        accelerator.compute_capability = capability
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(jax, "devices", lambda: [accelerator])
    assert current_device() == Device("gpu", "Test GPU", 16 * 10**9, has_bfloat16)


@pytest.mark.parametrize(
    "capability, has_bfloat16", [((7, 5), False), ((8, 0), True), ((12, 1), True)]
)
def test_a_gpu_of_torch(monkeypatch, capability, has_bfloat16):
    torch = pytest.importorskip("torch")

    class Properties:
        name, total_memory = "Test GPU", 16 * 10**9
        major, minor = capability

    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.setattr(device, "_torch_placement", lambda: torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 0.5)
    assert current_device() == Device("gpu", "Test GPU", 8 * 10**9, has_bfloat16)
    assert device_names() == ["cuda:1"] and not runs_on_cpu()
    monkeypatch.setattr(device, "_torch_placement", lambda: torch.device("mps"))
    assert current_device() == Device("gpu", "mps", None, False)


def test_bfloat16_only_where_the_device_has_it_and_nobody_chose(monkeypatch):
    assert resolve_policy(None) == "float32"
    on(monkeypatch, has_bfloat16=False)
    assert resolve_policy(None) == "float32"
    on(monkeypatch, has_bfloat16=True)
    assert resolve_policy(None) == "mixed_bfloat16"
    assert resolve_policy("float32") == "float32"
    keras.config.set_dtype_policy("mixed_float16")
    assert resolve_policy(None) == "mixed_float16"
    with pytest.raises(ValueError, match="`dtype` must be.*Received: dtype='float23'"):
        resolve_policy("float23")


def test_the_policy_holds_inside_only():
    with pytest.raises(KeyError), policy_scope("mixed_bfloat16"):
        assert keras.layers.Dense(1).compute_dtype == "bfloat16"
        raise KeyError
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.tensorflow
def test_memory_growth_is_set_on_every_gpu_that_allows_it(monkeypatch):
    import tensorflow as tf

    grown = []

    def set_growth(gpu, enable):
        if gpu == "in use":
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        grown.append((gpu, enable))

    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["in use", "second"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", set_growth)
    set_memory_growth()
    assert grown == [("second", True)]


@pytest.mark.parametrize("version", [0, 1])
def test_memory_of_a_container_is_what_its_limit_leaves(monkeypatch, tmp_path, version):
    _, limit, usage, inactive = device._CGROUPS[1 - version]
    monkeypatch.setattr(device, "_CGROUPS", [(tmp_path, limit, usage, inactive)])
    machine = device.available_memory()
    (tmp_path / limit).write_text("9000000\n")
    (tmp_path / usage).write_text("7000000\n")
    (tmp_path / "memory.stat").write_text(f"cache 1\n{inactive} 500000\nrss 2\n")
    assert device.available_memory() == 2_500_000
    (tmp_path / limit).write_text("6000000\n")
    assert device.available_memory() == 0
    (tmp_path / limit).write_text("max\n")
    assert device.available_memory() == pytest.approx(machine, rel=0.1)  # it changes


def test_out_of_memory_is_told_from_other_errors():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"))
    assert is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 8 bytes"))
    assert not is_out_of_memory(RuntimeError("INVALID_ARGUMENT: shapes"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_an_error_of_torch_is_known():
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))


@pytest.mark.tensorflow
def test_tensorflows_own_error_is_known():
    import tensorflow as tf

    assert is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"))
    assert not is_out_of_memory(tf.errors.InvalidArgumentError(None, None, "shapes"))
