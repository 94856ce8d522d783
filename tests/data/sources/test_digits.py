import numpy as np

from keras_bit.data.sources.digits import digits


def test_digits():
    from sklearn.datasets import load_digits

    data = digits()
    assert data.label_names == tuple("0123456789")
    assert data.train_size + data.test_size == 1797 and data.test_is_held_out
    assert data.image_size == (32, 32)
    images = np.array(list(data.train.map(lambda image: image)))
    assert images.shape == (data.train_size, 32, 32, 3)
    assert (images.min(), images.max()) == (0, 255)
    originals, labels = load_digits(return_X_y=True)
    known = {tuple(image): label for image, label in zip(originals, labels, strict=True)}
    # By hand: full ink 16 -> 255, half ink 8 -> 127.5, which rounds to the even 128.
    for image, label in list(zip(images, data.train.labels, strict=True))[:50]:
        assert (image == image[..., :1]).all()
        blocks = image[..., 0].reshape(8, 4, 8, 4)
        assert (blocks == blocks[:, :1, :, :1]).all()
        assert known[tuple(np.round(blocks[:, 0, :, 0] * (16 / 255)).ravel())] == label
    assert 128 in images
    few = digits(examples_per_class=2, seed=1)
    assert np.bincount(few.train.labels).tolist() == [2] * 10
    assert few.test_size == digits(seed=1).test_size
