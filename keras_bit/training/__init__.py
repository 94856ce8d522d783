"""Whole runs: what they decide, and how they go."""

from keras_bit.training.memory import TrainingMemory, training_memory
from keras_bit.training.micro_batch import largest_micro_batch
from keras_bit.training.plan import RunPlan, plan
from keras_bit.training.run import FineTuneResult, fine_tune

__all__ = [
    "FineTuneResult",
    "RunPlan",
    "TrainingMemory",
    "fine_tune",
    "largest_micro_batch",
    "plan",
    "training_memory",
]
