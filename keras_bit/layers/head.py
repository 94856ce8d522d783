"""The classification head of BiT."""

from typing import Any

import keras

from keras_bit.core.arguments import check_integer, check_seed, is_number
from keras_bit.core.saving import register

_FIXED = ("units", "activation", "use_bias", "kernel_initializer", "bias_initializer")


@register
class ZeroInitHead(keras.layers.Dense):
    """A dense layer to class logits whose kernel and bias start at zero.

    With zeros the first update changes only the head, and no noise reaches the pretrained
    network (paper, section 3.3; authors' `bit_tf2/models.py`). Logits are float32 whatever the
    precision policy, so that the softmax in the loss is exact: use
    `keras.losses.CategoricalCrossentropy(from_logits=True)`.

    Args:
        num_classes: Integer, the number of classes.
        dropout: Float in [0, 1), the share of the features that are set to zero in training, each
            by chance; the others are multiplied by `1 / (1 - dropout)`, as by
            `keras.layers.Dropout` (Srivastava et al. 2014). BiT fine-tunes without (paper,
            section 3.3).
        seed: Non-negative integer that decides what is dropped; by default it differs from layer
            to layer.
        kernel_regularizer, bias_regularizer, kernel_constraint, bias_constraint: As in
            `keras.layers.Dense`.
        dtype: 32-bit or 64-bit float of the weights and the logits.
        **kwargs: Further arguments of `keras.layers.Layer`, such as `name` and `trainable`.

    Call arguments:
        inputs: Tensor (batch, ..., features), float.
        training: Boolean; features are dropped with `True` only.

    Output shape: (batch, ..., num_classes), in `dtype`.

    Raises:
        ValueError: If `num_classes` is not a positive integer, `dropout` is outside of [0, 1),
            `seed` is no seed, or `dtype` is not a 32-bit or 64-bit float; if an `activation` or
            another argument of `keras.layers.Dense` is given that the head leaves no choice of.

    Example:

    >>> tuple(keras_bit.ZeroInitHead(10)(keras.ops.ones((2, 2048))).shape)
    (2, 10)
    """

    def __init__(
        self,
        num_classes: int,
        dropout: float = 0.0,
        *,
        seed: int | None = None,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        dtype: Any = "float32",
        **kwargs: Any,
    ) -> None:
        if fixed := [name for name in _FIXED if name in kwargs]:
            raise ValueError(
                f"`{fixed[0]}` of a ZeroInitHead cannot be chosen: it gives logits, from a kernel "
                f"and a bias that begin with zeros. Received: {fixed[0]}={kwargs[fixed[0]]!r}. "
                "Compile with a loss of `from_logits=True`, or add a layer behind the head."
            )
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
        self.dropout = check_dropout(dropout)
        self.seed = None if seed is None else check_seed("seed", seed)
        if self.dropout:  # else a variable more, which files and checkpoints without it lack
            self.seed_generator = keras.random.SeedGenerator(self.seed)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return self.units

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if training and self.dropout:
            inputs = keras.random.dropout(inputs, self.dropout, seed=self.seed_generator)
        return super().call(inputs)

    def named_weights(self) -> dict[str, keras.Variable]:
        """Returns a dict from `head/kernel` and `head/bias` to variables, as the backbone's."""
        return {"head/kernel": self.kernel, "head/bias": self.bias}

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for fixed in _FIXED:
            del config[fixed]
        return {
            **config,
            "num_classes": self.num_classes,
            "dropout": self.dropout,
            "seed": self.seed,
        }


def check_dropout(dropout: Any) -> float:
    """Returns `dropout` as a float; raises where it is not a number in [0, 1)."""
    if not is_number(dropout) or not 0 <= dropout < 1:
        raise ValueError(
            "`dropout` must be a number of at least 0 and below 1, the share of the features that "
            f"are dropped. Received: dropout={dropout!r}"
        )
    return float(dropout)
