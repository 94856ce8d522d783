"""BigTransfer (BiT) fine-tuning as reusable Keras 3 pieces.

The public names stand in `__init__.pyi`, for type checkers and for this module; each is imported
when it is first asked for.
"""

import lazy_loader

from keras_bit.core.command_line import started_as_command

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

if not started_as_command():
    # `keras.models.load_model` finds only classes that have been registered.
    from keras_bit import data, hyperrule, layers, models  # noqa: F401
