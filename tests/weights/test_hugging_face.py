import hashlib
import os

import pytest

from keras_bit.weights.fetch import cache_path, folders
from keras_bit.weights.hugging_face import FILES, fetch_from_hub, has_local_copy, is_hub_handle
from tests.web_server import Reply, WebServer

CONTENT = bytes(range(256)) * 2000
SHA = hashlib.sha256(CONTENT).hexdigest()
REPO = "timm/resnetv2_50x1_bit.goog_in21k"
FILE = f"/{REPO}/resolve/main/model.safetensors"


@pytest.fixture
def hub(server, monkeypatch):
    """Stands in for huggingface.co, with one file."""
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/")
    server.files[FILE] = CONTENT
    return server


def cached_by_huggingface_hub(folder, revision="main", file="model.safetensors"):
    """A file as huggingface_hub keeps it: a link in the folder of a commit, which a ref names."""
    repository = folder / f"models--{REPO.replace('/', '--')}"
    commit = "39aef79" + "0" * 33
    for path, content in {
        repository / "refs" / revision: commit.encode(),
        repository / "blobs" / SHA: CONTENT,
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    path = repository / "snapshots" / commit / file
    path.parent.mkdir(parents=True)
    path.symlink_to(repository / "blobs" / SHA)
    return path


# Handles.


@pytest.mark.parametrize(
    "handle, asked",
    [
        (f"hf://{REPO}", FILE),
        (f" HF://{REPO}/ ", FILE),
        (f"hf-hub:{REPO}", FILE),
        (f"hf_hub:{REPO}", FILE),
        (f"hf://{REPO}@v1.0", f"/{REPO}/resolve/v1.0/model.safetensors"),
        (f"hf://{REPO}@refs/pr/2/a.npz", f"/{REPO}/resolve/refs%2Fpr%2F2/a.npz"),
        (f"hf://{REPO}/deeper/my bit.npz", f"/{REPO}/resolve/main/deeper/my%20bit.npz"),
        (f"hf://{REPO}@0a1b2c/model.keras", f"/{REPO}/resolve/0a1b2c/model.keras"),
        (f"https://huggingface.co/{REPO}", FILE),
        (f"huggingface.co/{REPO}/tree/v1", f"/{REPO}/resolve/v1/model.safetensors"),
        (f"https://hf.co/{REPO}/blob/main/a/b.bin?x=1#L2", f"/{REPO}/resolve/main/a/b.bin"),
        (
            f"https://huggingface.co/{REPO}/resolve/main/c.npz?download=true",
            f"/{REPO}/resolve/main/c.npz",
        ),
    ],
)
def test_every_spelling_asks_for_one_file(hub, handle, asked):
    assert is_hub_handle(handle)
    hub.reply = Reply(body=CONTENT)
    assert fetch_from_hub(handle).read_bytes() == CONTENT
    assert hub.requests_seen == [asked]


@pytest.mark.parametrize(
    "handle",
    [
        "hf://",
        "hf://bit-50",
        "hf://google/bit-50@",
        "hf://google/bit-50/../../etc/passwd",
        "hf://datasets/google/bit",
        "https://huggingface.co/google",
        "https://huggingface.co/google/bit-50/discussions/1",
        "https://huggingface.co/spaces/google/bit",
    ],
)
def test_handles_of_no_file(hub, handle):
    assert is_hub_handle(handle)
    with pytest.raises(ValueError, match="`source` must be `hf://OWNER/REPO`.*Received: ") as error:
        fetch_from_hub(handle)
    assert repr(handle) in str(error.value) and hub.requests_seen == []


@pytest.mark.parametrize("text", ["google/bit-50", "hf/weights.npz", "m-r50x1", "./hf://a/b"])
def test_other_sources_are_no_handles(text):
    assert not is_hub_handle(text)


# Downloads.


def test_a_file_is_downloaded_once_into_keras_cache(hub, home):
    assert not has_local_copy(f"hf://{REPO}")
    path = fetch_from_hub(f"hf://{REPO}")
    host = hub.url.removeprefix("http://").replace(":", "_")
    assert path == home / "keras_bit" / host / FILE[1:] and has_local_copy(f"hf://{REPO}")
    assert fetch_from_hub(f"hf://{REPO}") == path
    assert hub.requests_seen == [FILE]


def test_the_first_file_that_there_is_is_taken(hub):
    hub.files[FILE.replace(FILES[0], FILES[2])] = hub.files.pop(FILE)
    assert fetch_from_hub(f"hf://{REPO}").name == FILES[2]
    assert hub.requests_seen == [FILE.replace(FILES[0], name) for name in FILES[:3]]
    assert fetch_from_hub(f"hf://{REPO}").name == FILES[2]  # without asking for the others again
    assert len(hub.requests_seen) == 3


def test_the_servers_of_files_are_asked_without_the_token(hub, monkeypatch):
    """Large files lie elsewhere: their server answers 400 to a token, and must not see it."""
    monkeypatch.setenv("HF_TOKEN", " hf_secret ")
    with WebServer({"/blob": CONTENT}) as elsewhere:
        hub.replies.append(Reply(status=307, headers={"Location": f"/api{FILE}"}))
        hub.replies.append(
            Reply(status=302, headers={"Location": f"{elsewhere.url}/blob", "X-Linked-ETag": SHA})
        )
        assert fetch_from_hub(f"hf://{REPO}").read_bytes() == CONTENT
    assert [h["authorization"] for h in hub.headers_seen] == ["Bearer hf_secret"] * 2
    assert ["authorization" in headers for headers in elsewhere.headers_seen] == [False]


@pytest.mark.parametrize("quote", ["", '"'])
def test_the_sha256_that_the_hub_states_is_compared(hub, quote):
    def moved(digits):
        etag = f"{quote}{digits}{quote}"
        return Reply(status=302, headers={"Location": "/blob", "X-Linked-ETag": etag})

    hub.files["/blob"] = CONTENT
    hub.replies.extend([moved("0" * 64), Reply()] * 2)
    with pytest.raises(ConnectionError, match=f"its sha256 is {SHA}, but the server declares 0000"):
        fetch_from_hub(f"hf://{REPO}")
    assert not has_local_copy(f"hf://{REPO}")
    hub.replies.extend([moved(SHA), Reply(cut_after=1000), moved(SHA)])  # resumed, and whole
    assert fetch_from_hub(f"hf://{REPO}").read_bytes() == CONTENT
    assert hub.headers_seen[-1]["range"] == "bytes=1000-"


@pytest.mark.parametrize(
    "status, said",
    [
        (401, "401.*does not exist, is private, or has to be asked for.*HF_TOKEN"),
        (403, "403.*HF_TOKEN"),
        (404, "404.*Looked for model.safetensors, pytorch_model.bin.*main.*hf://OWNER/REPO/FILE"),
        (500, "500"),
    ],
)
def test_refusals_are_explained(hub, status, said):
    hub.reply = Reply(status=status)
    with pytest.raises(ConnectionError, match=f"`hf://{REPO}`: .*could not be downloaded.*{said}"):
        fetch_from_hub(f"hf://{REPO}")
    assert len(hub.requests_seen) == {401: 1, 403: 1}.get(status, 4)


def test_a_named_file_that_is_not_there(hub):
    with pytest.raises(ConnectionError, match=r"404.*Looked for a\.npz at revision v1\.$"):
        fetch_from_hub(f"hf://{REPO}@v1/a.npz")


# The settings of huggingface_hub.


@pytest.mark.parametrize("where", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "revision"])
def test_what_huggingface_hub_has_downloaded_is_taken(hub, tmp_path, monkeypatch, where):
    folder = tmp_path / "its"
    below = {"HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}.get(where, "")
    if where != "HF_HOME":
        monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("HF_HUB_CACHE" if where == "revision" else where, str(folder))
    path = cached_by_huggingface_hub(folder / below)
    handle = f"hf://{REPO}@{path.parent.name}" if where == "revision" else f"hf://{REPO}"
    assert fetch_from_hub(handle) == path and hub.requests_seen == []
    assert not has_local_copy(handle)  # it is not in Keras's cache


def test_a_cache_that_another_user_may_have_filled(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "its"))
    path = cached_by_huggingface_hub(tmp_path / "its")
    monkeypatch.setattr(folders, "_is_shared", lambda folder: folder == path.parent)
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    monkeypatch.setattr(os, "lstat", lambda path: os.stat_result([0] * 4 + [1234] + [0] * 5))
    with pytest.raises(PermissionError, match="user with number 1234"):
        fetch_from_hub(f"hf://{REPO}")


@pytest.mark.parametrize(
    "settings, token",
    [
        ({}, None),
        ({"HF_TOKEN": "a"}, "a"),
        ({"HUGGING_FACE_HUB_TOKEN": "b"}, "b"),
        ({"HF_TOKEN": "a", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, None),
        ({"file": "c\n"}, "c"),
        ({"HF_TOKEN": "a", "file": "c"}, "a"),
        ({"file": ""}, None),
    ],
)
def test_the_token(hub, tmp_path, monkeypatch, settings, token):
    for name, value in settings.items():
        if name == "file":  # as `hf auth login` leaves it
            (tmp_path / "hugging_face").mkdir()
            (tmp_path / "hugging_face" / "token").write_text(value)
        else:
            monkeypatch.setenv(name, value)
    fetch_from_hub(f"hf://{REPO}")
    expected = None if token is None else f"Bearer {token}"
    assert hub.headers_seen[0].get("authorization") == expected


@pytest.mark.parametrize("name, value", [("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "yes")])
def test_offline(hub, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConnectionError, match="in no cache, and HF_HUB_OFFLINE is set.*put it at"):
        fetch_from_hub(f"hf://{REPO}")
    assert hub.requests_seen == []
    monkeypatch.setenv(name, "0")
    path = fetch_from_hub(f"hf://{REPO}")
    monkeypatch.setenv(name, value)
    assert fetch_from_hub(f"hf://{REPO}") == path and len(hub.requests_seen) == 1


@pytest.mark.parametrize("kind", ["server", "folder"])
def test_a_mirror(server, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("KERAS_BIT_MIRROR", server.url if kind == "server" else str(tmp_path))
    path = tmp_path / "huggingface.co" / FILE[1:]
    with pytest.raises((ConnectionError, FileNotFoundError), match=f"hf://{REPO}.*MIRROR"):
        fetch_from_hub(f"hf://{REPO}")
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    server.files[f"/huggingface.co{FILE}"] = CONTENT
    target = cache_path(f"https://huggingface.co{FILE}")
    assert fetch_from_hub(f"hf://{REPO}") == target and target.read_bytes() == CONTENT
    assert not any("authorization" in headers for headers in server.headers_seen)
    assert len(server.requests_seen) == (5 if kind == "server" else 0)
