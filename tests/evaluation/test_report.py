import html.parser
import json

import numpy as np

from keras_bit import Evaluation, HyperRule
from keras_bit.evaluation import report
from tests.evaluation.test_pictures import BLUE, RED, curves, pixels, plain


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.sources, self.tags, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_holds_everything_itself(tmp_path):
    names = ("<script>alert(1)</script>", "dog")
    logits = np.eye(2)[[0, 0, 1, 1, 1, 1]]
    report.write_report(
        tmp_path,
        text="BiT-HyperRule <b>",
        metrics={"accuracy": 0.98765, "validation_images": 12345},
        rule=HyperRule(32, 100, 16, mixup_alpha=0.1),
        history=curves(),
        evaluation=Evaluation([0, 0, 0, 1, 1, 1], logits, names),
        training_examples=(np.stack([plain(RED)] * 2), np.eye(2)),
        mistaken_images=[plain(BLUE)],
    )
    text = (tmp_path / report.PAGE_FILE).read_text("utf-8")
    page = Page(text)
    assert len(page.sources) == 5 == page.tags.count("img")
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "script" not in page.tags and "b" not in page.tags
    shown = json.dumps(page.text)
    for expected in ("83.33%", "0.9877", "12,345", "With MixUp", "BiT-HyperRule", "alert(1)"):
        assert expected in shown
    for name in report.PICTURE_FILES:
        picture = pixels(tmp_path / report.PICTURES_FOLDER / name)
        assert np.ptp(picture) > 100, f"{name} is empty"
