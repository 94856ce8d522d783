"""How good a model is, and what shows it."""

from keras_bit.evaluation.evaluation import Evaluation, Mistake
from keras_bit.evaluation.predict import FilePrediction, predict_files
from keras_bit.evaluation.report import write_report

__all__ = ["Evaluation", "FilePrediction", "Mistake", "predict_files", "write_report"]
