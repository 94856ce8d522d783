"""What grows with the number of images: drawing an epoch's order, and listing a folder.

`python -m benchmarks.studies.file_count` prints a table of `results/input_pipeline.md`.
"""

import argparse
import math
import statistics
import tempfile
import tracemalloc
from pathlib import Path

from benchmarks.harness.interleaved import timed
from benchmarks.harness.tables import markdown_table, median_and_range

ROUNDS = 5
FILES_LISTED = 300_000  # at most, before there is but one round
CLASSES = 10


def order_times(count):
    """Seconds that the order of one epoch takes, one figure a round."""
    import keras_bit
    from keras_bit.data.sampler import Sampler

    sampler = Sampler(count, keras_bit.HyperRule(512, count, 64))
    sampler.order(0)
    return [timed(lambda epoch=epoch: sampler.order(epoch)) for epoch in range(ROUNDS)]


def first_batch_times(count):
    """Seconds from nothing to the first batch of positions in the midst of the second epoch."""
    import keras_bit
    from keras_bit.data.sampler import Sampler

    rule = keras_bit.HyperRule(512, count, 64)
    step = count * 3 // 2 // 64

    def first_batch():
        Sampler(count, rule).positions(step)

    return [timed(first_batch) for _ in range(ROUNDS)]


def listing_times(count):
    """Seconds that `image_folder` takes, and the bytes that its result holds."""
    import keras_bit

    with tempfile.TemporaryDirectory(prefix="keras_bit-files-") as folder:
        make_tiny_files(folder, count)
        rounds = max(1, min(ROUNDS, FILES_LISTED // count))
        times = [timed(lambda: keras_bit.image_folder(folder)) for _ in range(rounds)]
        tracemalloc.start()
        data = keras_bit.image_folder(folder)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        del data
    return times, held


def make_tiny_files(folder, count):
    """The smallest of photographs: 8 x 8 pixels."""
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    for label in range(CLASSES):
        class_folder = Path(folder, f"class{label}")
        class_folder.mkdir()
        for number in range(count // CLASSES):
            (class_folder / f"{number:06d}.jpg").write_bytes(file.getvalue())


def table(counts):
    """Lines of a table; growth is over the row before, with what theory predicts in brackets."""
    headings = ["images", "order of an epoch, ms", "growth (n log n)", "first positions, ms"]
    headings += ["listing, s", "growth (n)", "held, MB"]
    rows, before = [], None
    for count in counts:
        order = order_times(count)
        start = first_batch_times(count)
        listing, held = listing_times(count)
        rows.append(
            [
                f"{count:,}",
                _ms(order),
                _growth(before, order, count, "order"),
                _ms(start),
                median_and_range(listing),
                _growth(before, listing, count, "listing"),
                f"{held / 1e6:.1f}",
            ]
        )
        before = {"count": count, "order": order, "listing": listing}
    return markdown_table(headings, rows)


def _growth(before, times, count, kind):
    if before is None:
        return ""
    theory = count / before["count"]
    if kind == "order":
        theory *= math.log(count) / math.log(before["count"])
    ratio = statistics.median(times) / statistics.median(before[kind])
    return f"{ratio:.1f}x ({theory:.1f}x)"


def _ms(times):
    return median_and_range([1e3 * seconds for seconds in times], ".1f")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print("\n".join(table([10**3, 10**4, 10**5, 10**6])))
