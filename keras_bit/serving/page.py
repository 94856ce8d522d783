"""The page: drop an image, see its classes and where in it they come from."""

import pathlib
import re
from typing import Any

import gradio

from keras_bit.core.text import list_some
from keras_bit.evaluation.evaluation import NO_LABEL
from keras_bit.evaluation.saved_run import TOP
from keras_bit.serving.classify import Classifier

_NAMED = 30
_COLUMN = 320  # pixels; a narrower window has one column
_MAPS_ID = "maps"
STYLE = f"""@media (max-width: {2 * _COLUMN}px) {{
    #{_MAPS_ID} .grid-container {{grid-template-columns: 1fr; height: auto}}
}}"""
_MAPS_TEXT = (
    "Orange speaks for the class, blue against it, all on one scale. The mean of a map is the "
    "logit of its class."
)


def make_page(classifier: Classifier) -> gradio.Blocks:
    """Returns the page for a classifier. It loads nothing from elsewhere and reports to nobody."""
    names = classifier.saved.label_names
    title = classifier.saved.folder.resolve().name
    # delete_cache: uploads and pictures of the last hour are kept, in seconds.
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gradio.Markdown(
            f"# {_escaped(title)}\n{len(names):,} classes: {_escaped(list_some(names, _NAMED))}"
        )
        with gradio.Row():
            image = gradio.Image(
                label="Image",
                sources=["upload", "clipboard"],
                height=360,
                min_width=_COLUMN,
                buttons=[],
            )
            label = gradio.Label(label="Classes", min_width=_COLUMN)
        maps = gradio.Gallery(
            label="Where in the image they come from",
            columns=TOP,
            object_fit="contain",
            interactive=False,
            buttons=[],
            elem_id=_MAPS_ID,
            visible=classifier.has_maps,
        )
        gradio.Markdown(_MAPS_TEXT, visible=classifier.has_maps)

        def show(upload: dict[str, Any]) -> tuple[Any, list]:
            try:
                content = pathlib.Path(upload["path"]).read_bytes()
                answer = classifier.classify(content, maps=True)
            except ValueError as error:
                text = f"The image cannot be read: {error}"
                raise gradio.Error(text, duration=None, print_exception=False) from error
            captions = [f"{name}: {probability:.1%}" for name, probability in answer.classes]
            pairs = zip(answer.pictures, captions, strict=False)
            return dict(answer.classes) or NO_LABEL, list(pairs)

        hidden: dict[str, Any] = {"outputs": [label, maps], "api_visibility": "private"}
        # Gradio would decode the file in `preprocess`, with other limits and messages than ours.
        image.upload(show, image, preprocess=False, **hidden)
        image.clear(lambda: (None, None), **hidden)
    return page


def _escaped(text):
    """Text in which nothing is markup, of Markdown, HTML or LaTeX."""
    return re.sub(r"([!-+\-./:-@\[-`{-~])", r"\\\1", text)
