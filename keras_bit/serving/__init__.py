r"""A page and a JSON endpoint to try the classifier of a run.

```bash
# A page on http://127.0.0.1:7860, and the same as JSON:
keras-bit serve photos-bit
curl --data-binary @cat.jpg "http://127.0.0.1:7860/predict?top=3"
```

Drop a photograph on the page to see its classes, their probabilities, which are those of
`keras-bit predict`, and where in the image they come from. `/predict` takes the bytes of an image
file, 64 MB at most, and answers with `{"predictions": [{"class": ..., "probability": ...}]}`, or
with `{"error": ...}` and a status of 400 and above. Nothing is loaded from elsewhere or sent
there. It is made for trying a model, one image at a time: there is no login, so that `--host
0.0.0.0` is for networks that you trust.

TensorFlow Serving needs a SavedModel in a folder named by its version, which `keras-bit export`
writes:

```bash
mkdir -p models/photos
keras-bit export photos-bit --format tf_saved_model --output models/photos/1
docker run -p 8501:8501 -v "$PWD/models/photos:/models/photos" -e MODEL_NAME=photos \
    tensorflow/serving
# Without Docker:
tensorflow_model_server --rest_api_port=8501 --model_name=photos \
    --model_base_path="$PWD/models/photos"
```

Its signature `serving_default` takes `images`, uint8 (batch, height, width, 3) of any size, and
gives probabilities in the order of `models/photos/1.labels.json`: over REST, `POST
/v1/models/photos:predict` with `{"instances": [IMAGE, ...]}`, each image as nested lists of
pixels.
"""

from keras_bit.serving.app import make_app
from keras_bit.serving.server import serve

__all__ = ["make_app", "serve"]
