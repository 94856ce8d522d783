import json
import os
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from keras_bit import predict_files
from tests.saved_files import RUN

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


@pytest.fixture
def ask(url):
    """Asks the server; returns the status, the content and the headers of its answer."""

    def asked(path, content=None, headers=()):
        request = urllib.request.Request(url + path, content, dict(headers))
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), error.headers

    return asked


def expected(run, file, top=None):
    (prediction,) = predict_files(run.folder, file, top=top)
    return [{"class": name, "probability": share} for name, share in prediction.classes]


def test_probabilities_are_those_of_predict_files_to_the_bit(ask, run, photographs):
    for file in photographs:
        status, content, _ = ask("/predict", file.read_bytes())
        assert status == 200 and json.loads(content) == {"predictions": expected(run, file)}
    _, content, _ = ask("/predict?top=1", photographs[0].read_bytes())
    assert json.loads(content)["predictions"] == expected(run, photographs[0], top=1)


def test_bad_uploads_get_one_clear_error(ask, photographs, monkeypatch):
    from keras_bit.serving import app

    image = photographs[1].read_bytes()

    def failure(content, path="/predict", **headers):
        status, answer, _ = ask(path, content, headers)
        return status, json.loads(answer)["error"]

    for content, reason in (
        (b"", "not a readable JPEG, PNG, BMP, GIF, WebP or TIFF image"),
        (b"no picture", "not a readable JPEG, PNG, BMP, GIF, WebP or TIFF image"),
        (image[:-200], "damaged JPEG: Premature end of JPEG file"),
    ):
        assert failure(content) == (400, f"the image cannot be read: {reason}")
    status, reason = failure(image, **{"content-type": "multipart/form-data; boundary=x"})
    assert status == 415 and "--data-binary" in reason
    status, reason = failure(image, "/predict?top=0")
    assert status == 400 and "Received: top=0" in reason
    assert failure(image, "/predict?top=a") == (400, "`top` must be an integer. Received: top=a")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1999)
    status, reason = failure(image)
    assert status == 400 and "(4000 pixels) exceeds limit of 3998 pixels" in reason
    monkeypatch.setattr(app, "MAX_UPLOAD", 1000)
    status, reason = failure(b"x" * 1001)
    assert status == 413 and "1.0 kB at most" in reason


def test_an_error_of_the_model_is_told_on_both_sides(ask, photographs, monkeypatch, capsys):
    from keras_bit.serving.classify import Classifier

    def fail(self, content, top=None):
        raise RuntimeError("the device is full")

    monkeypatch.setattr(Classifier, "classify", fail)
    status, answer, _ = ask("/predict", photographs[0].read_bytes())
    assert status == 500 and "could not be classified" in json.loads(answer)["error"]
    assert "RuntimeError('the device is full')" in capsys.readouterr().err


def test_pages_elsewhere_are_refused_and_nothing_is_loaded_from_there(ask):
    assert ask("/", headers={"host": "photos.example"})[0] == 400
    status, _, headers = ask("/")
    policy = headers["content-security-policy"]
    assert status == 200 and policy.startswith("default-src 'self' ") and "http" not in policy
    assert ask("/docs")[0] == ask("/redoc")[0] == 404


def test_no_file_of_the_machine_is_read_through_the_page(ask, photographs):
    json_headers = {"content-type": "application/json"}
    for file in (photographs[0], RUN / "image.png"):
        upload = {"path": os.fspath(file), "meta": {"_type": "gradio.FileData"}}
        call = {"data": [upload], "fn_index": 0, "session_hash": "mine"}
        content = json.dumps(call).encode()
        status, answer, _ = ask("/gradio_api/run/predict", content, json_headers)
        assert status == 500 and b"not uploaded by a user" in answer
        assert ask(f"/gradio_api/file={file}")[0] in (403, 404)


def test_many_at_once_get_their_own_answers(ask, run, photographs):
    files = photographs * 4
    with ThreadPoolExecutor(len(files)) as threads:
        answers = list(threads.map(lambda file: ask("/predict", file.read_bytes())[1], files))
    found = [json.loads(answer)["predictions"] for answer in answers]
    assert found == [expected(run, file) for file in photographs] * 4 and found[0] != found[1]
