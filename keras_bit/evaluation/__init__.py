"""How good a model is, and what shows it."""

from keras_bit.evaluation.calibration import Calibration
from keras_bit.evaluation.evaluate import evaluate
from keras_bit.evaluation.evaluation import ClassScores, Evaluation, Mistake
from keras_bit.evaluation.outputs import RunOutputs
from keras_bit.evaluation.predict import predict_files
from keras_bit.evaluation.report import write_report
from keras_bit.evaluation.saved_run import FilePrediction

__all__ = [
    "Calibration",
    "ClassScores",
    "Evaluation",
    "FilePrediction",
    "Mistake",
    "RunOutputs",
    "evaluate",
    "predict_files",
    "write_report",
]
