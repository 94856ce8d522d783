import io
import os
import pathlib
import sys
import tarfile
import types
import urllib.parse

import pytest

from keras_bit.weights.fetch import folders
from keras_bit.weights.saved_model import is_handle, resolve

pytestmark = pytest.mark.tensorflow

CONTENT = b"a graph"


def tar_gz(members):
    """An archive of pairs of a name and content, or of a `TarInfo` and content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member, content in members:
            if isinstance(member, str):
                member = tarfile.TarInfo(member)
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def folder_member(name):
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


MODULE = tar_gz(
    [
        (folder_member("./variables"), b""),
        ("./variables/variables.index", b"an index"),
        ("./saved_model.pb", CONTENT),
    ]
)


@pytest.fixture(autouse=True)
def no_kagglehub(monkeypatch):
    """Whatever is installed here; `kagglehub` brings one."""
    monkeypatch.setitem(sys.modules, "kagglehub", None)


@pytest.fixture
def cache(home):
    return home / "keras_bit"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Stands in for the network behind tensorflow_hub: notes URLs, gives a SavedModel folder."""
    import tensorflow_hub

    asked = []
    folder = saved_model(tmp_path / "from_hub")

    def resolve_url(url):
        asked.append(url)
        return str(folder)

    monkeypatch.setattr(tensorflow_hub, "resolve", resolve_url)
    return types.SimpleNamespace(asked=asked, folder=folder)


class NoSuchModel(Exception):
    """As kagglehub has them: of no class of its own but Exception."""


@pytest.fixture
def kagglehub(monkeypatch, tmp_path):
    """A kagglehub that knows one module, in two versions."""
    package = types.ModuleType("kagglehub")
    package.exceptions = types.ModuleType("kagglehub.exceptions")
    package.exceptions.NotFoundError = NoSuchModel
    package.asked = []
    package.folder = saved_model(tmp_path / "from_kaggle")

    def model_download(handle):
        package.asked.append(handle)
        if not handle.startswith("google/bit/tensorFlow2/m-r50x1"):
            raise NoSuchModel(f"no {handle}")
        return str(package.folder)

    package.model_download = model_download
    # What importlib asks of a module in sys.modules.
    package.__spec__ = types.SimpleNamespace(name="kagglehub")
    monkeypatch.setitem(sys.modules, "kagglehub", package)
    monkeypatch.setitem(sys.modules, "kagglehub.exceptions", package.exceptions)
    return package


def saved_model(folder):
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(CONTENT)
    return folder


def files_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


HUB = "https://tfhub.dev/google/bit"
PORTS = "https://tfhub.dev/sayakpaul"
KAGGLE = "https://www.kaggle.com/models/google/bit"
CANONICAL = {
    f"{HUB}/m-r50x1/1": f"{HUB}/m-r50x1/1",
    "http://tfhub.dev/google/bit/s-r101x3/": f"{HUB}/s-r101x3/1",
    "HTTPS://TFHub.dev/Google/BiT/M-R50x1": f"{HUB}/m-r50x1/1",
    "https://www.tfhub.dev/google/bit/m-r152x4/2": f"{HUB}/m-r152x4/2",
    f" {HUB}/m-r50x1/ilsvrc2012_classification/1 ": f"{HUB}/m-r50x1/ilsvrc2012_classification/1",
    f"{HUB}/m-r50x1/imagenet21k_classification": f"{HUB}/m-r50x1/imagenet21k_classification/1",
    "google/bit/tensorFlow2/m-r50x1": f"{HUB}/m-r50x1/1",
    "google/bit/frameworks/tensorFlow2/variations/m-r50x1/versions/1": f"{HUB}/m-r50x1/1",
    "Google/BiT/TensorFlow2/M-R50x1/3": f"{HUB}/m-r50x1/3",
    "google/bit/tensorFlow2/m-r50x1-ilsvrc2012-classification": (
        f"{HUB}/m-r50x1/ilsvrc2012_classification/1"
    ),
    "https://www.kaggle.com/models/google/bit/tensorFlow2/m-r101x1-imagenet21k-classification/1": (
        f"{HUB}/m-r101x1/imagenet21k_classification/1"
    ),
    "https://kaggle.com/models/google/bit/frameworks/TensorFlow2/variations/s-r50x3/": (
        f"{HUB}/s-r50x3/1"
    ),
    # As KerasHub spells them.
    "kaggle://google/bit/tensorFlow2/m-r50x1/1": f"{HUB}/m-r50x1/1",
    "Kaggle://google/bit/TensorFlow2/s-r50x1-ilsvrc2012-classification": (
        f"{HUB}/s-r50x1/ilsvrc2012_classification/1"
    ),
    # As browsers and tensorflow_hub show them.
    f"{HUB}/m-r50x1/1?tf-hub-format=compressed": f"{HUB}/m-r50x1/1",
    f"{HUB}/m-r50x1?tf-hub-format=uncompressed#usage": f"{HUB}/m-r50x1/1",
    "tfhub.dev/google/bit/m-r50x1/1": f"{HUB}/m-r50x1/1",
    f"{KAGGLE}/tensorFlow2/m-r50x1/versions/1?tfhub-redirect=true": f"{HUB}/m-r50x1/1",
    f"{KAGGLE}/TensorFlow2/m-r50x1/1?tfhub-redirect=true": f"{HUB}/m-r50x1/1",
    f"{KAGGLE}/frameworks/tensorFlow2/variations/m-r50x1/versions/1?tfhub-redirect=true": (
        f"{HUB}/m-r50x1/1"
    ),
    f"{KAGGLE}/TensorFlow2/m-r152x4?select=saved_model.pb": f"{HUB}/m-r152x4/1",
    "kaggle.com/models/google/bit/tensorFlow2/m-r50x1": f"{HUB}/m-r50x1/1",
    "https://www.kaggle.com/api/v1/models/google/bit/tensorFlow2/m-r50x1/1/download": (
        f"{HUB}/m-r50x1/1"
    ),
    # The distilled networks and their teachers.
    "https://tfhub.dev/sayakpaul/distill_bit_r50x1_160_feature_extraction/1": (
        f"{PORTS}/distill_bit_r50x1_160_feature_extraction/1"
    ),
    "https://tfhub.dev/sayakpaul/distill_bit_resnet50x1_224_classification": (
        f"{PORTS}/distill_bit_resnet50x1_224_classification/1"
    ),
    f"{PORTS}/bit_r152x2_384_feature_extraction/1?tf-hub-format=compressed": (
        f"{PORTS}/bit_r152x2_384_feature_extraction/1"
    ),
    f"{PORTS}/bit_resnet152x2_224_classification/1": (
        f"{PORTS}/bit_resnet152x2_224_classification/1"
    ),
}


@pytest.mark.parametrize("handle", CANONICAL)
def test_every_spelling_asks_tensorflow_hub_for_the_same(hub, handle):
    assert is_handle(handle)
    assert resolve(handle) == hub.folder
    assert hub.asked == [CANONICAL[handle]]


@pytest.mark.parametrize(
    "text",
    [
        "weights.npz",
        "https://storage.googleapis.com/bit_models/BiT-M-R50x1.npz",
        "https://example.com/m-r50x1.tar.gz",
        "google/bit-50",
        "google/bit",
        "m-r50x1",
        "google/bit/folder/weights.npz",
        pathlib.Path("google") / "bit" / "m-r50x1.tar.gz",
    ],
)
def test_paths_and_urls_of_files_are_no_handles(hub, text):
    assert not is_handle(text)
    with pytest.raises(FileNotFoundError, match=r"`handle` must be .*Received: .*not found"):
        resolve(text)
    assert hub.asked == []


@pytest.mark.parametrize(
    "handle",
    [
        f"{HUB}/l-r50x1/1",
        f"{HUB}/m-r50x1/flowers_classification/1",
        "https://tfhub.dev/google/imagenet/resnet_v2_50/feature_vector/5",
        "google/bit/keras/m-r50x1",
        "https://www.kaggle.com/models/google/bit/tensorFlow1/m-r50x1",
        "google/bit/tensorFlow2/m-r50x1.npz",
        "kaggle://keras/resnetv2/keras/resnet50_v2_imagenet",
        "kaggle://google/bit/tensorFlow2/l-r50x1",
        "kaggle://google/bit/tensorFlow2/m-r50x1download",
        f"{PORTS}/vit_b16_classification/1",
        f"{PORTS}/distill_bit_r152x2_384_classification/1",
    ],
)
def test_handles_of_other_modules(hub, kagglehub, handle):
    assert is_handle(handle)
    with pytest.raises(ValueError, match=f"`handle` must be .*m-r50x1.*Received: {handle}"):
        resolve(handle)
    assert hub.asked == kagglehub.asked == []


@pytest.mark.parametrize(
    "handle, asked",
    [
        ("Google/bit/TENSORFLOW2/M-R50x1", "google/bit/tensorFlow2/m-r50x1"),
        (
            "google/bit/frameworks/tensorFlow2/variations/m-r50x1/versions/2",
            "google/bit/tensorFlow2/m-r50x1/2",
        ),
        (
            "https://www.kaggle.com/models/google/bit/tensorFlow2/"
            "m-r50x1-ilsvrc2012-classification/1",
            "google/bit/tensorFlow2/m-r50x1-ilsvrc2012-classification/1",
        ),
    ],
)
def test_kaggle_handles_go_to_kagglehub(hub, kagglehub, handle, asked):
    assert resolve(handle) == kagglehub.folder
    assert kagglehub.asked == [asked] and hub.asked == []


def test_hub_handles_do_not_go_to_kagglehub(hub, kagglehub):
    assert resolve(f"{HUB}/m-r50x1/1") == hub.folder
    assert kagglehub.asked == []


def test_what_kaggle_lacks_is_asked_of_tensorflow_hub(hub, kagglehub):
    assert resolve("google/bit/tensorFlow2/s-r50x1") == hub.folder
    assert kagglehub.asked == ["google/bit/tensorFlow2/s-r50x1"]
    assert hub.asked == [f"{HUB}/s-r50x1/1"]


def test_the_error_says_all_that_was_tried(kagglehub, monkeypatch):
    import tensorflow_hub

    def refuse(url):
        raise OSError("no network")

    monkeypatch.setattr(tensorflow_hub, "resolve", refuse)
    with pytest.raises(ConnectionError) as error:
        resolve("google/bit/tensorFlow2/s-r50x1")
    message = str(error.value)
    assert "kagglehub with google/bit/tensorFlow2/s-r50x1 (NoSuchModel: no google" in message
    assert f"tensorflow_hub with {HUB}/s-r50x1/1 (OSError: no network)" in message
    assert ".tar.gz" in message


def test_a_tensorflow_hub_without_pkg_resources(monkeypatch):
    """As with setuptools 81 and later."""
    monkeypatch.delitem(sys.modules, "tensorflow_hub", raising=False)
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    with pytest.raises(ConnectionError, match="Tried: tensorflow_hub.*pip install 'setuptools<81'"):
        resolve(f"{HUB}/m-r50x1/1")


def test_the_real_tensorflow_hub_downloads_once(server, tmp_path):
    server.files["/google/bit/m-r50x1/1"] = MODULE
    handle = f"{server.url}/google/bit/m-r50x1"
    folder = resolve(handle)
    assert folder.parent == tmp_path / "hub"
    assert (folder / "saved_model.pb").read_bytes() == CONTENT
    assert files_below(folder) == ["saved_model.pb", "variables.index"]
    assert resolve(f"{handle}/1/") == folder
    [request] = server.requests_seen
    path, _, query = request.partition("?")
    assert path == "/google/bit/m-r50x1/1"
    assert urllib.parse.parse_qs(query) == {"tf-hub-format": ["compressed"]}


@pytest.mark.parametrize(
    "body, reason",
    [
        (None, "404"),
        (b"<!doctype html><html>Sign in</html>", "does not appear to be a valid module"),
        (MODULE[: len(MODULE) // 2], "tensorflow_hub with"),
        (tar_gz([("../outside.txt", b"x")]), "outside.txt"),
    ],
    ids=["absent", "web page", "cut off", "harmful"],
)
def test_modules_that_cannot_be_had(server, tmp_path, body, reason):
    if body is not None:
        server.files["/google/bit/m-r50x1/1"] = body
    with pytest.raises(ConnectionError, match=f"could not be downloaded.*{reason}"):
        resolve(f"{server.url}/google/bit/m-r50x1/1")
    assert not list(tmp_path.rglob("outside.txt"))
    server.files["/google/bit/m-r50x1/1"] = MODULE
    assert files_below(resolve(f"{server.url}/google/bit/m-r50x1/1"))[0] == "saved_model.pb"


def test_a_module_that_is_none(server):
    server.files["/google/bit/m-r50x1/1"] = tar_gz([("readme.txt", b"hello")])
    with pytest.raises(ValueError, match="one SavedModel.*Delete this folder and try again"):
        resolve(f"{server.url}/google/bit/m-r50x1/1")


def test_folders(tmp_path):
    folder = saved_model(tmp_path / "module")
    assert resolve(folder) == resolve(str(folder)) == folder
    assert resolve(saved_model(tmp_path / "outer" / "inner").parent) == tmp_path / "outer" / "inner"
    saved_model(tmp_path / "outer" / "second")
    with pytest.raises(ValueError, match="outer, which holds 2"):
        resolve(tmp_path / "outer")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty, which holds 0.*Pass the folder"):
        resolve(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="nowhere, not found"):
        resolve(tmp_path / "nowhere")


def test_a_folder_called_like_a_handle(hub, tmp_path, monkeypatch):
    handle = "google/bit/tensorFlow2/m-r50x1"
    saved_model(tmp_path / handle)
    monkeypatch.chdir(tmp_path)
    assert resolve(handle) == pathlib.Path(handle) and hub.asked == []


@pytest.mark.parametrize("prefix", ["", "./", "bit_m-r50x1_1/"])
def test_archives_are_unpacked_once(tmp_path, cache, monkeypatch, prefix):
    archive = tmp_path / "bit.tar.gz"
    folder = folder_member(f"{prefix}variables")
    files = [(f"{prefix}saved_model.pb", CONTENT), (f"{prefix}a/b/c", b"c")]
    archive.write_bytes(tar_gz([(folder, b""), *files]))
    folder = resolve(archive)
    assert cache in folder.parents and files_below(cache) == ["c", "saved_model.pb"]
    assert (folder / "saved_model.pb").read_bytes() == CONTENT
    assert (folder / "variables").is_dir()
    monkeypatch.delattr(tarfile, "open")
    assert resolve(str(archive)) == folder


def test_a_changed_archive_is_unpacked_again(tmp_path, cache):
    archive, other = tmp_path / "bit.tar.gz", tmp_path / "deeper" / "bit.tar.gz"
    other.parent.mkdir()
    archive.write_bytes(MODULE)
    other.write_bytes(MODULE)
    before, kept = resolve(archive), resolve(other)
    os.utime(archive, ns=(1, 1))
    after = resolve(archive)
    assert after != before and not before.exists() and kept.exists()
    archive.write_bytes(tar_gz([("saved_model.pb", b"another graph, of another size")]))
    os.utime(archive, ns=(1, 1))
    assert b"another" in (resolve(archive) / "saved_model.pb").read_bytes()
    assert sorted(cache.iterdir()) == sorted([kept, resolve(archive)])


def test_another_process_may_be_quicker(tmp_path, cache, monkeypatch):
    archive = tmp_path / "bit.tar.gz"
    archive.write_bytes(MODULE)
    rename = pathlib.Path.rename

    def rename_late(path, target):
        saved_model(target)
        return rename(path, target)

    monkeypatch.setattr(pathlib.Path, "rename", rename_late)
    assert (resolve(archive) / "saved_model.pb").read_bytes() == CONTENT
    assert files_below(cache) == ["saved_model.pb"]


def member(name, kind=tarfile.REGTYPE, size=0, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


def lie(size):
    """An archive whose last header declares far more than follows."""
    header = member("variables/variables.data", size=size).tobuf(tarfile.GNU_FORMAT)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(member("saved_model.pb", size=len(CONTENT)), io.BytesIO(CONTENT))
        content = buffer.getvalue()
    return content + header + bytes(1024)


HARMFUL = {
    "parent": (tar_gz([("saved_model.pb", CONTENT), ("../outside", b"x")]), "leads out"),
    "hidden parent": (tar_gz([("a/../../outside", b"x")]), "leads out"),
    "absolute": (tar_gz([("/tmp/v/outside", b"x")]), "leads out"),
    "backslash": (tar_gz([("..\\outside", b"x")]), "leads out"),
    "drive": (tar_gz([("C:outside", b"x")]), "leads out"),
    "symbolic link": (tar_gz([(member("a", tarfile.SYMTYPE, link="/"), b"")]), "neither a file"),
    "hard link": (tar_gz([(member("a", tarfile.LNKTYPE, link="/etc/hosts"), b"")]), "neither"),
    "twice": (tar_gz([("a", b"x"), ("./a", b"y")]), "its member './a' overwrites another"),
    "device": (tar_gz([(member("a", tarfile.CHRTYPE), b"")]), "neither a file"),
    "pipe": (tar_gz([(member("a", tarfile.FIFOTYPE), b"")]), "neither a file"),
    "zeros": (tar_gz([("a", bytes(2**24)), ("b", bytes(2**24))]), "declare 33554432 bytes"),
    "declared terabytes": (lie(2**40), "declare 1099511627783 bytes"),
    "cut off": (MODULE[: len(MODULE) // 2], "damaged or of another kind: Compressed file ended"),
    "web page": (b"<!doctype html><html>Sign in</html>", "is a web page"),
    "empty file": (b"", "is empty"),
}


@pytest.mark.parametrize("kind", HARMFUL)
def test_harmful_archives(tmp_path, cache, monkeypatch, kind):
    content, reason = HARMFUL[kind]
    if kind == "zeros":
        # They deflate to a thousandth: the disk is what they are too large for.
        usage = types.SimpleNamespace(free=2**25 - 1)
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    archive = tmp_path / "bit.tar.gz"
    archive.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=f"(?s)undamaged, harmless.*bit.tar.gz.*{reason}"):
        resolve(archive)
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "home"] == before
    assert list(cache.iterdir()) == []


def test_nothing_of_a_harmful_archive_is_written(tmp_path, monkeypatch):
    archive = tmp_path / "bit.tar.gz"
    archive.write_bytes(HARMFUL["parent"][0])
    written = []
    monkeypatch.setattr("shutil.copyfileobj", lambda *arguments, **options: written.append(1))
    with pytest.raises(ValueError, match="leads out"):
        resolve(archive)
    assert written == []
    archive.write_bytes(MODULE)
    resolve(archive)
    assert len(written) == 2


def test_an_archive_of_something_else(tmp_path):
    archive = tmp_path / "bit.tar.gz"
    archive.write_bytes(tar_gz([("readme.txt", b"hello")]))
    with pytest.raises(ValueError, match="one SavedModel.*folder with a saved_model.pb"):
        resolve(archive)


@pytest.mark.parametrize("place", ["hub", "cache"])
def test_what_another_user_may_have_put_there_is_not_read(hub, home, tmp_path, monkeypatch, place):
    monkeypatch.setattr(folders, "_is_shared", {tmp_path, home.parent}.__contains__)
    archive = tmp_path / "bit.tar.gz"
    archive.write_bytes(MODULE)
    source, taken = (f"{HUB}/m-r50x1/1", hub.folder) if place == "hub" else (archive, home)
    resolve(source)
    lstat = os.lstat

    def lstat_of_others(path, **options):
        status = lstat(path, **options)
        is_taken = str(path) == str(taken)
        return os.stat_result((*status[:4], 1234, *status[5:])) if is_taken else status

    monkeypatch.setattr(os, "lstat", lstat_of_others)
    with pytest.raises(PermissionError, match=f"{taken}.*user with number 1234.*TFHUB_CACHE_DIR"):
        resolve(source)
