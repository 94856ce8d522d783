"""A split that counts what is decoded and can hold unreadable images; for subprocesses too."""

import time

import numpy as np


class CountingSplit:
    def __init__(self, images, labels=None, broken=(), fingerprint="aa", delay=0.0):
        self.images = images
        self.labels = np.zeros(len(images), np.int32) if labels is None else np.int32(labels)
        self.names = [f"{index}.png" for index in range(len(images))]
        self.broken = broken
        self.fingerprint = fingerprint
        self.delay = delay
        self.errors = {}
        self.decoded = 0

    def __len__(self):
        return len(self.images)

    def map_indexed(self, transform, chunk_size=1):
        for index, image in enumerate(self.images):
            time.sleep(self.delay)
            self.decoded += 1
            if index in self.broken:
                self.errors[index] = f"broken {index}"
                yield None
            else:
                yield transform(index, image)


def numbered_split(delay=0.0):
    """Twenty images, each of one gray value: its number."""
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1).repeat(3, axis=3)
    return CountingSplit(images, delay=delay)
