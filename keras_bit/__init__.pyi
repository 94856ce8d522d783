from .data import Augment as Augment
from .data import ImageDataset as ImageDataset
from .data import cats_vs_dogs as cats_vs_dogs
from .data import digits as digits
from .data import image_folder as image_folder
from .data import pipelines as pipelines
from .data import tfds_images as tfds_images
from .evaluation import Evaluation as Evaluation
from .evaluation import predict_files as predict_files
from .hyperrule import HyperRule as HyperRule
from .hyperrule import HyperRuleSchedule as HyperRuleSchedule
from .hyperrule import fit_hyperrule as fit_hyperrule
from .layers import BiTBackbone as BiTBackbone
from .layers import GroupNorm as GroupNorm
from .layers import MixUp as MixUp
from .layers import StandardizedConv2D as StandardizedConv2D
from .layers import ZeroInitHead as ZeroInitHead
from .models import BiTClassifier as BiTClassifier
from .models import fold as fold
from .training import RunPlan as RunPlan
from .training import fine_tune as fine_tune
from .training import largest_micro_batch as largest_micro_batch
from .training import plan as plan
from .training import training_memory as training_memory
from .tuning import HyperBiT as HyperBiT
from .weights import presets as presets

__version__: str
