import os
import pathlib
import runpy
import subprocess
import sys

import pytest

from keras_bit.core import onednn

FILE = pathlib.Path(onednn.__file__)
AVX2 = "flags\t\t: fpu fma avx avx2 bmi2"
NEURAL = f"{AVX2} avx512f avx512_vnni"


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """Lets `/proc/cpuinfo` say something else, and nothing be decided or loaded yet."""

    def use(text):
        path = tmp_path / "cpuinfo"
        path.write_text(f"processor\t: 0\n{text}\nbugs\t\t:\n")
        monkeypatch.setattr(onednn, "CPUINFO", path)
        monkeypatch.delenv(onednn.VARIABLE, raising=False)
        monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
        onednn._processor_flags.cache_clear()

    yield use
    onednn._processor_flags.cache_clear()


@pytest.mark.parametrize(
    "flags, expected",
    [
        (AVX2, "1"),
        (NEURAL, None),  # TensorFlow switches it on by itself
        ("flags\t\t: fpu avx", None),
        ("Features\t: fp asimd", None),  # no x86
        ("", None),
    ],
)
def test_it_is_switched_on_where_tensorflow_leaves_it_off(processor, flags, expected):
    processor(flags)
    assert onednn.is_left_off() == (expected == "1")
    onednn.enable_onednn()
    assert os.environ.get(onednn.VARIABLE) == expected
    assert not onednn.is_left_off()


@pytest.mark.parametrize("value", ["0", "1", ""])
def test_what_is_decided_stays(processor, monkeypatch, value):
    processor(AVX2)
    monkeypatch.setenv(onednn.VARIABLE, value)
    onednn.enable_onednn()
    assert os.environ[onednn.VARIABLE] == value


def test_it_is_too_late_once_tensorflow_is_loaded(processor, monkeypatch):
    processor(AVX2)
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    onednn.enable_onednn()
    assert onednn.VARIABLE not in os.environ and onednn.is_left_off()


def test_it_runs_without_the_package():
    # As tests and benchmarks use it, before Keras is imported.
    code = f"import runpy, sys; runpy.run_path({str(FILE)!r})['enable_onednn'](); "
    code += "assert not {'keras', 'keras_bit', 'tensorflow', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert callable(runpy.run_path(str(FILE))["enable_onednn"])


def test_a_machine_without_cpuinfo(processor, monkeypatch, tmp_path):
    processor(AVX2)
    monkeypatch.setattr(onednn, "CPUINFO", tmp_path / "absent")
    assert not onednn.is_left_off()
