import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logsumexp

from keras_bit.evaluation import Calibration
from keras_bit.evaluation.calibration import fit_temperature, probabilities_of


def test_calibration_error_by_hand(rng):
    shares, true = rng.uniform(size=200), rng.uniform(size=200) < 0.4
    expected = 0.0
    for bin_ in range(15):
        inside = [i for i in range(200) if bin_ / 15 < shares[i] <= (bin_ + 1) / 15]
        if inside:
            accuracy = sum(true[i] for i in inside) / len(inside)
            confidence = sum(shares[i] for i in inside) / len(inside)
            expected += len(inside) / 200 * abs(accuracy - confidence)
    found = Calibration.of(shares, true)
    assert found.error == pytest.approx(expected) and found.counts.sum() == 200
    assert found.counts.shape == found.confidence.shape == found.accuracy.shape == (15,)


def test_bins_hold_their_upper_edge():
    found = Calibration.of([0.0, 0.25, 0.26, 0.5, 1.0], [0, 1, 1, 0, 1], bins=4)
    assert found.counts.tolist() == [2, 2, 0, 1]
    assert found.confidence.tolist() == [0.125, 0.38, 0, 1]
    assert found.accuracy.tolist() == [0.5, 0.5, 0, 1]
    assert found.error == pytest.approx((2 * 0.375 + 2 * 0.12 + 0) / 5)


def noisy(rng, classes=5, scale=3.0):
    ids = rng.integers(classes, size=400)
    one_hot = np.eye(classes)[ids]
    return one_hot, scale * (1.2 * one_hot + rng.normal(size=one_hot.shape))


def test_temperature_is_where_an_optimizer_finds_the_lowest_loss(rng):
    labels, logits = noisy(rng)

    def loss(log_temperature):
        scaled = logits / np.exp(log_temperature)
        return (logsumexp(scaled, axis=1) - (labels * scaled).sum(axis=1)).mean()

    best = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9})
    assert fit_temperature(labels, logits) == pytest.approx(np.exp(best.x), rel=1e-4)
    assert fit_temperature(labels, logits) > 2


def test_temperature_of_several_labels(rng):
    labels = (rng.uniform(size=(300, 4)) < 0.3).astype(np.uint8)
    logits = 4 * (labels - 0.5 + rng.normal(size=labels.shape))

    def loss(log_temperature):
        share = expit(logits / np.exp(log_temperature))
        return -np.where(labels, np.log(share), np.log1p(-share)).mean()

    best = minimize_scalar(loss, bounds=(-3, 4), method="bounded", options={"xatol": 1e-9})
    assert fit_temperature(labels, logits, True) == pytest.approx(np.exp(best.x), rel=1e-4)


def test_a_temperature_without_an_optimum_is_an_error(rng):
    labels, logits = noisy(rng)
    with pytest.raises(ValueError, match="some wrong.*Received: 400 images, all of them right"):
        fit_temperature(labels, 10 * labels)
    with pytest.raises(ValueError, match="better than chance"):
        fit_temperature(labels, -logits)
    with pytest.raises(ValueError, match="better than chance"):
        fit_temperature(labels, 0 * logits)


def test_probabilities_of_a_hand_example_and_of_huge_logits():
    found = probabilities_of([[0.0, np.log(3.0)], [1e5, -1e5]])
    np.testing.assert_allclose(found, [[0.25, 0.75], [1, 0]])
    found = probabilities_of([[2 * np.log(3.0), -1e5]], multi_label=True, temperature=2)
    np.testing.assert_allclose(found, [[0.75, 0]])
