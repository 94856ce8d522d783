import asyncio
import importlib.util
import shutil
import socket
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from tests.saved_files import RUN

ORIENTATION = 0x0112


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A complete run; its model is loaded once for all tests here."""
    from keras_bit.evaluation.saved_run import SavedRun

    folder = tmp_path_factory.mktemp("served") / "my photos"
    return SavedRun.open(shutil.copytree(RUN, folder))


@pytest.fixture(scope="session")
def url(run, tmp_path_factory):
    """The address of a server of the run, in a thread of this process."""
    if not importlib.util.find_spec("gradio"):
        pytest.skip("Gradio is not installed.")
    uploads = tmp_path_factory.mktemp("uploads")
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        server, listener = asyncio.run(make_server(run))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


async def make_server(run):
    """A server and its socket; outside of a loop Gradio would leave loops of its own behind."""
    import uvicorn

    from keras_bit.serving import make_app

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(make_app(run), log_level="critical", timeout_graceful_shutdown=1)
    return uvicorn.Server(config), listener


@pytest.fixture
def photographs(tmp_path, rng):
    """A PNG, and a JPEG that lies on its side but for its EXIF orientation."""
    noise = Image.fromarray(rng.integers(0, 255, (50, 80, 3)).astype(np.uint8))
    noise.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    noise.save(tmp_path / "turned.jpg", exif=exif)
    return [tmp_path / "upright.png", tmp_path / "turned.jpg"]
