"""The server of a run's page, until it is stopped."""

import contextlib
import errno
import ipaddress
import os
import socket
import tempfile
from collections.abc import Callable

import uvicorn

from keras_bit.evaluation.saved_run import SavedRun
from keras_bit.serving.app import LOCAL_HOSTS, make_app

_PATIENCE = 1  # seconds that open requests have to end when the server is stopped


def serve(saved: SavedRun, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serves the page and the JSON endpoint of a run until SIGINT or SIGTERM.

    The address is taken before the model is loaded.

    Args:
        saved: The run, `keras_bit.evaluation.saved_run.SavedRun.open(folder)`.
        host: Name or address to listen at.
        port: Its port; 0 for any that is free.
        on_ready: Called with the URL when the model has been loaded.

    Raises:
        OSError: If the address is in use, or is none of this machine.
    """
    with _listen(host, port) as listener, _own_upload_folder():
        name = f"[{host}]" if ":" in host else host
        app = make_app(saved, (*LOCAL_HOSTS, name) if _is_local(host) else ("*",))
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=_PATIENCE)
        on_ready(f"http://{name}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run([listener])


def _listen(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                f"`port` must be free. Received: port={port}, which is in use. Choose another one; "
                "0 takes any that is free."
            ) from error
        raise OSError(
            f"`host` and `port` must be an address of this machine that may be listened at. "
            f"Received: host={host}, port={port}, and the system says: {error.strerror or error}"
        ) from error


def _is_local(host):
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


@contextlib.contextmanager
def _own_upload_folder():
    """Gradio's folder of uploads and pictures is one of our own, and goes at the end."""
    with tempfile.TemporaryDirectory(prefix="keras_bit-serve-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["GRADIO_TEMP_DIR"]
