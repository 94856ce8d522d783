"""The state of training on disk, and how a run resumes from it."""

from keras_bit.checkpoints.callback import Checkpoint

__all__ = ["Checkpoint"]
