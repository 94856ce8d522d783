"""The commands of the published figures, on small stand-ins for weights and data sets.

Weights and CIFAR come from a server on 127.0.0.1, and nothing else can be reached.
"""

import io
import pathlib
import socket
import tarfile

import keras
import numpy as np
import pytest

import keras_bit
from benchmarks.paper.__main__ import main
from benchmarks.paper.figures import CIFAR, Task, imagenet_presets
from benchmarks.paper.reproduce import authors_rule
from keras_bit.weights.presets import _ARCHITECTURES, _all
from tests.image_files import encoded_image
from tests.web_server import WebServer
from tests.weight_files import SMALL, random_arrays, released

CLASSES = 10
NAMES = [f"kind{label}" for label in range(CLASSES)]
BATCHES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server in place of all others."""
    connect = socket.socket.connect

    def connect_here(self, address):
        if self.family != socket.AF_UNIX and address[0] != "127.0.0.1":
            raise OSError(f"reached for {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    with WebServer() as server:
        monkeypatch.setenv("KERAS_BIT_MIRROR", server.url)
        yield server


@pytest.fixture
def small_r50x1(monkeypatch):
    """Makes R50x1 a small network in the table of presets."""
    sizes = (SMALL["depth"], SMALL["width"], 1)
    monkeypatch.setitem(_ARCHITECTURES, "r50x1", sizes)
    _all.cache_clear()
    yield
    monkeypatch.undo()
    _all.cache_clear()


def npz(arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def cifar_archive(rng):
    """CIFAR-10's archive with ten images in each file, one of each class, and its test images."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:

        def add(name, content):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

        add("batches.meta.txt", "\n".join(NAMES).encode())
        for name in BATCHES:
            pixels = rng.integers(0, 256, (CLASSES, 3, 32, 32), np.uint8)
            rows = (bytes([label]) + pixels[label].tobytes() for label in range(CLASSES))
            add(name, b"".join(rows))
    return file.getvalue(), pixels.transpose(0, 2, 3, 1)


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("few", [None, 1])
def test_cifar10(few, server, small_r50x1, monkeypatch, tmp_path, rng, capsys):
    cifar = pytest.importorskip("tensorflow_datasets.image_classification.cifar")
    true_info = cifar.Cifar10._cifar_info.fget
    url = f"{server.url}/cifar-10-binary.tar.gz"
    elsewhere = property(lambda self: true_info(self)._replace(url=url))
    monkeypatch.setattr(cifar.Cifar10, "_cifar_info", elsewhere)
    archive, test_images = cifar_archive(rng)
    server.files["/cifar-10-binary.tar.gz"] = archive
    server.files["/BiT-M-R50x1.npz"] = npz(released(random_arrays(rng)))
    options = ["cifar10", "--rehearse", "--output", str(tmp_path / "runs")]
    options += ["--data-dir", str(tmp_path / "tfds")]
    if few:
        options += ["--per-class", "1", "--seeds", "2"]

    main(options)

    assert set(server.requests_seen) == {"/cifar-10-binary.tar.gz", "/BiT-M-R50x1.npz"}
    runs = sorted(tmp_path.glob("runs/cifar10-*/model.keras"))
    accuracies = []
    for run in runs:
        # Neither the pipeline nor the evaluation of the package; images of this size stay as they
        # are.
        predicted = keras.saving.load_model(run).predict(test_images / np.float32(255), verbose=0)
        accuracies.append(100 * np.mean(predicted.argmax(axis=1) == np.arange(CLASSES)))
    assert len(accuracies) == (2 if few else 1)
    printed = capsys.readouterr().out
    (row,) = [line for line in printed.splitlines() if line.startswith("| m-r50x1")]
    middle, low, high = np.median(accuracies), min(accuracies), max(accuracies)
    if few:
        assert row.endswith(f"| {middle:.1f} ({low:.1f} to {high:.1f}) |")
        assert "54.4 (49.9 to 60.2)" in row
    else:
        assert row.endswith(f"| {middle:.1f} |") and "| 97.2 | 97.3 | 97.4 |" in row
    assert "A rehearsal" in printed
    before = len(server.requests_seen)
    main(options)  # Complete runs are read.
    assert row in capsys.readouterr().out and len(server.requests_seen) == before


@pytest.mark.slow
@pytest.mark.tensorflow
def test_imagenet(server, small_r50x1, tmp_path, rng, capsys):
    common = pytest.importorskip("tensorflow_datasets.datasets.imagenet2012.imagenet_common")
    folder = tmp_path / "tfds" / "downloads" / "manual"
    folder.mkdir(parents=True)
    count = 120
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
        for index in range(count):
            content = encoded_image(index, (40, 50), "JPEG")
            info = tarfile.TarInfo(f"ILSVRC2012_val_{index + 1:08d}.JPEG")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    labels = label_ids(common, count)
    wanted = np.bincount(labels).argmax()
    arrays = released(random_arrays(rng), head=False)
    features = arrays["resnet/group_norm/gamma"].size
    arrays["resnet/head/conv2d/kernel"] = np.zeros((1, 1, features, 1000), "float32")
    arrays["resnet/head/conv2d/bias"] = 5 * np.eye(1000, dtype="float32")[wanted]
    server.files["/BiT-M-R50x1-ILSVRC2012.npz"] = npz(arrays)
    options = ["imagenet", "--rehearse", "--output", str(tmp_path / "runs")]

    main([*options, "--data-dir", str(tmp_path / "tfds")])

    assert set(server.requests_seen) == {"/BiT-M-R50x1-ILSVRC2012.npz"}
    printed = capsys.readouterr().out
    accuracy = 100 * np.mean(labels == wanted)
    assert f"| m-r50x1/ilsvrc2012_classification | 80.68 | {accuracy:.2f} (" in printed
    assert f"{count} validation images" in printed


def label_ids(common, count):
    """The classes of the first validation images, by the lists that come with TFDS."""
    names = pathlib.Path(str(common.label_names_file())).read_text().split()
    path = pathlib.Path(str(common.label_names_file())).with_name("validation_labels.txt")
    return np.array([names.index(name) for name in path.read_text().split()[:count]])


@pytest.mark.parametrize(
    "size, decisions",
    [
        (49_000, (10_000, (3_000, 6_000, 9_000), 500, 0.1)),
        (50, (500, (200, 300, 400), 100, 0.0)),
    ],
)
def test_the_rule_of_the_authors_runs(size, decisions):
    """As their `bit_hyperrule.py` decides, which knows no batch size."""
    pixels = np.zeros((size, 1, 1, 3), np.uint8)
    labels = np.arange(size) % CLASSES
    data = keras_bit.ImageDataset.from_arrays(pixels, labels, pixels[:10], labels[:10])
    rule = authors_rule(data, micro_batch_size=32)
    found = (rule.schedule_length, rule.boundaries, rule.warmup_steps, rule.mixup_alpha)
    assert found == decisions
    assert (rule.batch_size, rule.micro_batch_size, rule.learning_rate) == (128, 32, 0.001)
    assert (rule.resize_edge, rule.crop_size) == (160, 128)


def test_figures():
    """The ones that the reproduction is about, by hand."""
    r50x1 = CIFAR["m-r50x1"]
    assert r50x1[Task("cifar10")]["TF2"] == (97.2,)
    assert r50x1[Task("cifar100")]["TF2"] == (86.5,)
    assert r50x1[Task("cifar100", 5)]["PyTorch"] == (64.7, 65.5, 66.0)
    assert imagenet_presets()["m-r50x1"].accuracy == 80.68
    assert set(imagenet_presets()) <= {name for name in keras_bit.presets() if "/" not in name}
    for figures in CIFAR.values():
        assert set(figures) == set(r50x1)
        for published in (triple for by_code in figures.values() for triple in by_code.values()):
            assert list(published) == sorted(published) and len(published) in (1, 3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["imagenet", "--seeds", "2", "--per-class", "5"], "--per-class, --seeds must be omitted"),
        (["imagenet", "--preset", "m-r101x3"], "`--preset` must be one of m-r50x1"),
        (
            ["cifar10", "--preset", "m-r152x4"],
            "`--preset` must be one of m-r50x1, m-r101x3, m-r152x2 with cifar10.",
        ),
        (["imagenet", "--preset", "r50x1"], "invalid choice: 'r50x1'"),
        (["cifar10", "--seeds", "0"], "`--seeds` must be at least 1. Received: 0"),
        (["cifar10", "--per-class", "3"], "invalid choice: 3"),
    ],
)
def test_options_that_do_not_fit(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err
