import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request

import pytest

from keras_bit import predict_files
from keras_bit.cli.main import main, make_parser
from tests.conftest import exhaustive
from tests.saved_files import RUN

pytestmark = pytest.mark.tensorflow

# The command on a machine without network.
ALONE = """
import socket, sys
connect = socket.socket.connect
def only_here(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
        print("reached for", address, flush=True)
        raise OSError("no network")
    return connect(self, address)
socket.socket.connect = only_here
from keras_bit.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["serve", str(RUN)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith('`keras-bit serve` needs Gradio: `pip install "keras_bit[serve]"`.')


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_a_port_is_a_number_that_there_is(capsys, port):
    with pytest.raises(SystemExit, match="2"):
        make_parser().parse_args(["serve", "run", f"--port={port}"])
    assert "`--port` must be" in capsys.readouterr().err


@pytest.fixture
def server():
    pytest.importorskip("gradio")
    arguments = [sys.executable, "-c", ALONE, "serve", RUN, "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, **pipes) as process:
        yield process
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("stop, code", [(signal.SIGINT, 130), exhaustive(signal.SIGTERM, 143)])
def test_serving_until_it_is_stopped(server, stop, code):
    line = server.stdout.readline()
    url = re.fullmatch(rf"Serving {RUN} at (http://127.0.0.1:\d+) until Ctrl-C\.\n", line)[1]
    with urllib.request.urlopen(url) as page:
        assert "text/html" in page.headers["content-type"]
    with urllib.request.urlopen(f"{url}/predict", (RUN / "image.png").read_bytes()) as answer:
        found = json.load(answer)["predictions"]
    (expected,) = predict_files(RUN, RUN / "image.png")
    # Another process may share sums out among its threads otherwise, which float32 rounds.
    shares = {each["class"]: each["probability"] for each in found}
    assert shares == pytest.approx(dict(expected.classes), rel=1e-4)
    folders = set(pathlib.Path(tempfile.gettempdir()).glob("keras_bit-serve-*"))
    # A browser that shows the page waits for the end of this answer.
    with urllib.request.urlopen(f"{url}/gradio_api/heartbeat/mine"):
        server.send_signal(stop)
        out, error = server.communicate(timeout=300)
    assert (server.returncode, out, error.splitlines()[-1]) == (code, "", "keras-bit: stopped")
    assert "Traceback" not in error
    left = set(pathlib.Path(tempfile.gettempdir()).glob("keras_bit-serve-*"))
    assert folders - left and not left - folders


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_address_that_cannot_be_had(capsys):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(RUN), "--port", port]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"`--port` must be free. Received: --port {port}, which is in use." in line
    assert main(["serve", str(RUN), "--host", "192.0.2.1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "`--host` and `--port` must be an address of this machine" in line
