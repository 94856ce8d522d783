"""What grows with the number of images: drawing an epoch's order, and listing a folder.

`python -m benchmarks.names` prints the table of `benchmarks/README.md`.
"""

import argparse
import math
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path

ROUNDS = 5
FILES_LISTED = 300_000  # at most, before there is but one round
CLASSES = 10


def order_times(count):
    """Seconds that the order of one epoch takes, one figure a round."""
    import keras_bit
    from keras_bit.data.sampler import Sampler

    sampler = Sampler(count, keras_bit.HyperRule(512, count, 64))
    sampler.order(0)
    return [_seconds(lambda epoch=epoch: sampler.order(epoch)) for epoch in range(ROUNDS)]


def first_batch_times(count):
    """Seconds from nothing to the first batch of positions in the midst of the second epoch."""
    import keras_bit
    from keras_bit.data.sampler import Sampler

    rule = keras_bit.HyperRule(512, count, 64)
    step = count * 3 // 2 // 64

    def first_batch():
        Sampler(count, rule).positions(step)

    return [_seconds(first_batch) for _ in range(ROUNDS)]


def listing_times(count):
    """Seconds that `image_folder` takes, and the bytes that its result holds."""
    import keras_bit

    with tempfile.TemporaryDirectory(prefix="keras_bit-names-") as folder:
        make_tiny_files(folder, count)
        rounds = max(1, min(ROUNDS, FILES_LISTED // count))
        times = [_seconds(lambda: keras_bit.image_folder(folder)) for _ in range(rounds)]
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
    lines = [
        "| images | order of an epoch, ms | growth (n log n) | first positions, ms "
        "| listing, s | growth (n) | held, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    before = None
    for count in counts:
        order = order_times(count)
        start = first_batch_times(count)
        listing, held = listing_times(count)
        cells = [
            f"{count:,}",
            _ms(order),
            _growth(before, order, count, "order"),
            _ms(start),
            f"{statistics.median(listing):.2f} ({min(listing):.2f} to {max(listing):.2f})",
            _growth(before, listing, count, "listing"),
            f"{held / 1e6:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        before = {"count": count, "order": order, "listing": listing}
    return lines


def _growth(before, times, count, kind):
    if before is None:
        return ""
    theory = count / before["count"]
    if kind == "order":
        theory *= math.log(count) / math.log(before["count"])
    ratio = statistics.median(times) / statistics.median(before[kind])
    return f"{ratio:.1f}x ({theory:.1f}x)"


def _ms(times):
    low, middle, high = (1e3 * f(times) for f in (min, statistics.median, max))
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def _seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("\n".join(table([10**3, 10**4, 10**5, 10**6])))
