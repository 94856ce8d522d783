"""The page in a real browser, without network."""

import os
import shutil

import pytest

from keras_bit import predict_files

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
MAX_UPLOAD = 2**26
PATIENCE = 180_000  # milliseconds
DROP = """([zone, name, bytes]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/jpeg"}));
    for (const kind of ["dragenter", "dragover", "drop"])
        zone.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer, bubbles: true}));
}"""

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="There is no Chromium."),
]


@pytest.fixture
def page(url):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=BROWSER, headless=True, args=FLAGS, timeout=PATIENCE
        )
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(url)
        page.wait_for_selector("input[type=file]", state="attached")
        yield page
        browser.close()


def shown_classes(page):
    """The names and whole percents of the classes on the page."""
    page.wait_for_selector(".confidence-set")
    texts = [row.inner_text().split() for row in page.query_selector_all(".confidence-set")]
    return [(text[0], text[-1]) for text in texts]


def test_a_dropped_image_is_classified(page, url, run, photographs):
    turned = photographs[1]
    zone = page.wait_for_selector("button:has(input[type=file])")
    page.evaluate(DROP, [zone, turned.name, list(turned.read_bytes())])
    found = shown_classes(page)
    (prediction,) = predict_files(run.folder, turned)
    assert found == [(name, f"{share:.0%}") for name, share in prediction.classes]
    page.wait_for_selector("#maps .grid-container img")
    captions = [each.inner_text() for each in page.query_selector_all("#maps .caption-label")]
    assert captions == [f"{name}: {share:.1%}" for name, share in prediction.classes]
    # Maps lie over the upright image.
    width, height = page.eval_on_selector(
        "#maps .grid-container img", "image => [image.naturalWidth, image.naturalHeight]"
    )
    assert (width, height) == (400, 640)
    elsewhere = [each for each in page.asked if not each.startswith((url, "blob:", "data:"))]
    assert len(page.asked) > 5 and not elsewhere


def test_a_bad_upload_is_told_in_one_line_and_the_next_one_works(page, photographs, tmp_path):
    (tmp_path / "bad.jpg").write_text("no picture")
    page.set_input_files("input[type=file]", tmp_path / "bad.jpg")
    message = page.wait_for_selector("[data-testid=toast-body]").inner_text()
    assert "The image cannot be read: not a readable JPEG" in message and "Trace" not in message
    page.set_input_files("input[type=file]", photographs[0])
    assert len(shown_classes(page)) == 3


def test_a_file_that_is_too_large_is_refused(page, tmp_path):
    (tmp_path / "large.jpg").write_bytes(b"")
    os.truncate(tmp_path / "large.jpg", MAX_UPLOAD + 1)
    page.set_input_files("input[type=file]", tmp_path / "large.jpg")
    message = page.wait_for_selector("[data-testid=toast-body]").inner_text()
    assert "exceed the maximum allowed size of 64" in message


def test_a_narrow_window_has_one_column(page, photographs):
    page.set_viewport_size({"width": 400, "height": 800})
    page.set_input_files("input[type=file]", photographs[0])
    shown_classes(page)
    page.wait_for_selector("#maps .grid-container img")
    boxes = [each.bounding_box() for each in page.query_selector_all("#maps .grid-container > *")]
    assert len(boxes) == 3 and len({box["x"] for box in boxes}) == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
