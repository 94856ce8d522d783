import numpy as np
import pytest

from keras_bit.exporters.comparison import compare, latencies

TABLE = {0: [0.9, 0.1], 1: [0.4, 0.6], 2: [0.7, 0.3], 3: [0.2, 0.8]}


def outputs(images):
    return np.array([TABLE[int(image.flat[0])] for image in images])


def batches(labels=(0, 1, 1, 1)):
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    yield images[:1], list(labels[:1])
    yield images[1:], list(labels[1:])


def compared(change, labels=(0, 1, 1, 1)):
    return compare(lambda x: outputs(x) + change, outputs, lambda y: y.argmax(-1), batches(labels))


def test_outputs_are_compared_image_by_image():
    found = compared(np.array([-0.3, 0.1]))  # the third image changes its class
    assert found.images == 4 and found.largest_difference == pytest.approx(0.3)
    assert (found.agreement, found.accuracy, found.keras_accuracy) == (0.75, 1.0, 0.75)
    found = compared(0.0, labels=[None] * 4)
    assert (found.agreement, found.accuracy, found.keras_accuracy) == (1.0, None, None)


def test_a_file_in_float32_must_have_the_outputs_of_keras():
    assert compared(0.0009).fault(quantized=False, min_agreement=0) is None
    assert "differ by up to 0.0011" in compared(0.0011).fault(quantized=False, min_agreement=0)
    assert "NaN" in compared(np.nan).fault(quantized=True, min_agreement=0)


def test_a_quantized_file_must_name_the_same_classes():
    found = compared(np.array([-0.3, 0.1]))
    assert found.fault(quantized=True, min_agreement=0.75) is None
    message = "the same class as Keras for 75.0% of 4 images"
    assert found.fault(quantized=True, min_agreement=0.76) == message


def test_calls_take_turns():
    order = []
    seconds = latencies((lambda: order.append(0), lambda: order.append(1)))
    assert order[:4] == [0, 1, 0, 1] and len(order) > 10 and len(seconds) == 2
