"""The web application: the page at `/`, and JSON at `/predict`."""

import sys
from typing import Any

import fastapi
import gradio
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse

from keras_bit.core.text import readable_size
from keras_bit.evaluation.saved_run import SavedRun
from keras_bit.serving.classify import Classifier
from keras_bit.serving.page import STYLE, make_page

MAX_UPLOAD = 2**26  # bytes
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
# Browsers then load nothing from elsewhere, whatever the page asks for.
_OWN_CONTENT_ONLY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
_FONTS = ["system-ui", "sans-serif"]


def make_app(saved: SavedRun, hosts: tuple[str, ...] = LOCAL_HOSTS) -> fastapi.FastAPI:
    """Returns the application for a run; its model is loaded here.

    Args:
        saved: The run, `keras_bit.evaluation.saved_run.SavedRun.open(folder)`.
        hosts: Names under which browsers may ask for the page; `("*",)` for any. A page elsewhere
            whose name is made to lead here (DNS rebinding) is refused.
    """
    classifier = Classifier(saved)
    # No documentation pages: they load their scripts from elsewhere.
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(RequestValidationError)
    async def refuse(request: fastapi.Request, error: RequestValidationError) -> JSONResponse:
        top = request.query_params.get("top")
        return _failure(400, f"`top` must be an integer. Received: top={top}")

    @app.post("/predict")
    async def predict(request: fastapi.Request, top: int | None = None) -> JSONResponse:
        if request.headers.get("content-type", "").startswith("multipart/"):
            return _failure(415, "send the image itself: curl --data-binary @IMAGE URL")
        if top is not None and top < 1:
            return _failure(400, f"`top` must be at least 1. Received: top={top}")
        content = await _limited_body(request)
        if content is None:
            return _failure(413, f"an image may have {readable_size(MAX_UPLOAD)} at most")
        try:
            answer = await run_in_threadpool(classifier.classify, content, top)
        except ValueError as error:
            return _failure(400, f"the image cannot be read: {error}")
        except Exception as error:  # such as a device that is out of memory
            print(f"keras-bit: an image could not be classified: {error!r}", file=sys.stderr)
            return _failure(500, "the image could not be classified; see the server's messages")
        named = [{"class": name, "probability": share} for name, share in answer.classes]
        return JSONResponse({"predictions": named})

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_middleware(_OwnContentOnly)
    page = make_page(classifier)
    # Else Gradio does not check that files were uploaded, and any file of the machine can be read.
    page.has_launched = True
    return gradio.mount_gradio_app(
        app,
        page,
        path="/",
        max_file_size=MAX_UPLOAD,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        css=STYLE,
        theme=gradio.themes.Default(font=_FONTS, font_mono=["monospace"]),
    )


def _failure(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status)


async def _limited_body(request: fastapi.Request) -> bytes | None:
    """The body of a request, `None` where it is too long; no more of it is held."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_UPLOAD:
            return None
    return bytes(content)


class _OwnContentOnly:
    """Adds the header Content-Security-Policy."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_header(message):
            if message["type"] == "http.response.start":
                message["headers"].append((b"content-security-policy", _OWN_CONTENT_ONLY))
            await send(message)

        await self.app(scope, receive, send_with_header)
