"""What a pretrained network is fine-tuned with: pure data."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The numbers that BiT-HyperRule puts in its tables, for one pretrained network.

    Attributes:
        name: Of the preset that it suits.
        batch_size: Images per update for which rate and length hold; the rule scales them.
        learning_rate: Highest learning rate, at that batch size.
        schedule_length: Updates at that batch size for data sets of fewer than 20,000 images;
            boundaries, warm-up and larger data sets in the proportions of the rule.
        warmup: Whether the rate climbs linearly at first.
        small_images: `(resize_edge, crop_size)` in pixels, for images with an area under 96 x 96.
        large_images: The same for all others.
        few_images: The same where there are fewer than `few_below` images of that kind.
        few_below: Number of training images.
        mixup_alpha: MixUp's alpha, 0 for no MixUp; `None` for the rule's.
    """

    name: str
    batch_size: int
    learning_rate: float
    schedule_length: int
    warmup: bool
    small_images: tuple[int, int]
    large_images: tuple[int, int]
    few_images: tuple[int, int]
    few_below: int
    mixup_alpha: float | None = None

    def __post_init__(self) -> None:
        for name in ("small_images", "large_images", "few_images"):
            # Lists where they come from JSON.
            object.__setattr__(self, name, tuple(getattr(self, name)))
