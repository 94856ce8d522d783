import importlib.util

import pytest

from keras_bit.exporters.formats import FORMATS


@pytest.mark.parametrize(
    "name, quantize",
    [
        ("tf_saved_model", "dynamic"),
        ("tf_saved_model", "int8"),
        ("openvino", "dynamic"),
        ("onnx", "int4"),
    ],
)
def test_what_a_format_does_not_have_is_refused(name, quantize):
    with pytest.raises(ValueError, match=f"`quantize` must be None.* with format='{name}'"):
        FORMATS[name].check_quantize(quantize)


@pytest.mark.parametrize("name", ["litert", "onnx", "openvino"])
def test_a_missing_package_names_the_extra(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ImportError, match=rf'pip install "keras_bit\[{name}\]"'):
        FORMATS[name].check_packages(None)
    with pytest.raises(ImportError, match="pip install tensorflow"):
        FORMATS["tf_saved_model"].check_packages(None)


def test_a_network_that_is_too_large_for_a_format_is_refused():
    FORMATS["onnx"].check_size(2**31 - 1)
    FORMATS["openvino"].check_size(2**40)
    for name in ("onnx", "litert"):
        with pytest.raises(ValueError, match="less than 2 GB of weights"):
            FORMATS[name].check_size(2**31)
