"""Searches with keras-tuner."""

from keras_bit.tuning.hypermodel import HyperBiT
from keras_bit.tuning.search import search
from keras_bit.tuning.trials import SearchResult, SearchTrial

__all__ = ["HyperBiT", "SearchResult", "SearchTrial", "search"]
