"""The classification head of BiT."""

from typing import Any

import keras

from keras_bit.core.arguments import check_integer
from keras_bit.core.saving import register


@register
class ZeroInitHead(keras.layers.Dense):
    """A dense layer to class logits whose kernel and bias start at zero.

    With zeros the first update changes only the head, and no noise reaches the pretrained
    network (paper, section 3.3; authors' `bit_tf2/models.py`). Logits are float32 whatever the
    precision policy, so that the softmax in the loss is exact: use
    `keras.losses.CategoricalCrossentropy(from_logits=True)`.

    Args:
        num_classes: Integer, the number of classes.
        kernel_regularizer, bias_regularizer, kernel_constraint, bias_constraint: As in
            `keras.layers.Dense`.

    Input shape: (batch, ..., features). Output shape: (batch, ..., num_classes), float32.

    Raises:
        ValueError: If `num_classes` is not a positive integer, or `dtype` is not a 32-bit or
            64-bit float.

    Example:

    >>> tuple(keras_bit.ZeroInitHead(10)(keras.ops.ones((2, 2048))).shape)
    (2, 10)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        dtype: Any = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units=check_integer("num_classes", num_classes, minimum=1),
            kernel_initializer="zeros",
            bias_initializer="zeros",
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            dtype=dtype or "float32",
            **kwargs,
        )
        if self.compute_dtype not in ("float32", "float64"):
            raise ValueError(
                "`dtype` must be float32 or float64: logits need it. "
                f"Received: dtype={dtype!r}. Leave `dtype` out."
            )

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return self.units

    def named_weights(self) -> dict[str, keras.Variable]:
        """Returns a dict from `head/kernel` and `head/bias` to variables, as the backbone's."""
        return {"head/kernel": self.kernel, "head/bias": self.bias}

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for fixed in ("units", "activation", "use_bias", "kernel_initializer", "bias_initializer"):
            del config[fixed]
        return {**config, "num_classes": self.num_classes}
