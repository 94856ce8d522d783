"""BiT-HyperRule: the rule, and its faces in Keras."""

from keras_bit.hyperrule.callback import HyperRuleCallback, fit_hyperrule
from keras_bit.hyperrule.optimizer import SGD
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.hyperrule.schedule import HyperRuleSchedule

__all__ = ["SGD", "HyperRule", "HyperRuleCallback", "HyperRuleSchedule", "fit_hyperrule"]
