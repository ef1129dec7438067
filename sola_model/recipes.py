"""The settings of the method, grouped into named recipes.

`RELEASE` follows the scripts the paper's authors released; where those differ from the printed
paper, the scripts win. Everything is frozen: change a recipe with `dataclasses.replace`.
"""

from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class GridPrompts:
    """Prompt masks from a grid of points; the thresholds are SAM2's automatic mask generator's.

    stride: every how many frames there is a prompt frame.
    part_overlap: a mask with more of its area inside a larger one of its frame is dropped.
    """

    stride: int = 4
    points_per_side: int = 32
    predicted_iou: float = 0.8
    stability: float = 0.95
    box_nms: float = 0.7
    part_overlap: float = 0.7


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """How mask tracks are made.

    duplicate_iou: a prompt is filtered when a track covers it, at its frame, by more than this.
    max_tracks: propagation stops at this many tracks.
    batch: prompts of one frame that are propagated together (half for more than 200 frames);
        part of the method, since there is no duplicate check inside a batch.
    """

    grid: GridPrompts = field(default_factory=GridPrompts)
    duplicate_iou: float = 0.7
    max_tracks: int = 64
    batch: int = 4


@dataclass(frozen=True, kw_only=True)
class SelectorConfig:
    """Sizes of the track selection module.

    token_dim: channels D of an object token (256 for every SAM2 size).
    text_dim: channels C of a text token; the selector works at this width.
    layers: alignment layers L (paper Table A.2b: two are best).
    heads: attention heads.
    negative_anchors: learnable vectors A that stand for "something else".
    whitening: None for tokens as they are (paper, release); else tokens are decorrelated first,
        with this share of the identity added to their correlations. It makes directions of small
        variance as easy to learn from as large ones, which matters where training is short.
    """

    token_dim: int = 256
    text_dim: int = 1024
    layers: int = 2
    heads: int = 8
    negative_anchors: int = 32
    attention_dropout: float = 0.1
    convolution_dropout: float = 0.2
    whitening: float | None = None

    def __post_init__(self) -> None:
        if self.token_dim % 4 or self.text_dim % 8 or self.text_dim % self.heads:
            raise ValueError(
                f"token_dim={self.token_dim}, text_dim={self.text_dim}, heads={self.heads}: "
                "token_dim must be a multiple of 4, text_dim a multiple of 8 and of heads."
            )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the training loss: BCE + alignment_weight * alignment.

    positive_weight: weight of a positive track in the BCE of the scores.
    alignment_positive_weight: weight of the positive anchor's part of the alignment loss.
    alignment_log_scale: dot products with anchors are multiplied by exp(alignment_log_scale).
    """

    positive_weight: float = 1.5
    alignment_weight: float = 0.3
    alignment_positive_weight: float = 1.5
    alignment_log_scale: float = 0.07


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the selector is optimised (AdamW).

    gradient_clip: largest L2 norm of all gradients together.
    expressions_per_step: expressions of one video in an optimiser step; above 1 the steps are
        fewer and less noisy, so tune the learning rate again.
    schedule: "plateau" halves the learning rate after 5 epochs without a better validation loss;
        "cosine" warms up over the first 5 % of the steps, then falls to 0 at the last.
    """

    epochs: int = 15
    learning_rate: float = 5e-6
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    expressions_per_step: int = 1
    schedule: Literal["plateau", "cosine"] = "plateau"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.schedule not in ("plateau", "cosine"):
            raise ValueError(f"schedule={self.schedule!r}: choose 'plateau' or 'cosine'.")
        if self.epochs < 1 or self.expressions_per_step < 1:
            raise ValueError(
                f"epochs={self.epochs}, expressions_per_step={self.expressions_per_step}: "
                "both must be at least 1."
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One complete way to extract tracks and to train and use the selector.

    sam2, text_encoder: checkpoint path, hub id, or "demo" for the embedded small models.
    token_features: what a selector's token is: the object pointer (paper), or the pointer with
        12 channels of geometry (`sola_model.geometry`), which `selector.token_dim` counts.
    label_threshold: a track is positive when its mIoU with an object of the expression is above.
    tau: a track is selected when its score (sigmoid of the logit) is above.
    """

    name: str
    sam2: str = "facebook/sam2-hiera-large"
    text_encoder: str = "sentence-transformers/all-roberta-large-v1"
    extraction: Extraction = field(default_factory=Extraction)
    token_features: Literal["pointer", "pointer+geometry"] = "pointer"
    selector: SelectorConfig = field(default_factory=SelectorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    label_threshold: float = 0.7
    tau: float = 0.5


RELEASE = Recipe(name="release")

# The method at the size of the embedded models and data. All expressions of a video make a step, so
# steps are fewer and less noisy, and the learning rate and the weights are tuned again for minutes
# of training (docs/models.md says what each change is worth).
DEMO = Recipe(
    name="demo",
    sam2="demo",
    text_encoder="demo",
    extraction=Extraction(
        grid=GridPrompts(points_per_side=10, predicted_iou=0.75, stability=0.85), max_tracks=16
    ),
    token_features="pointer+geometry",
    selector=SelectorConfig(
        token_dim=76,
        text_dim=128,
        attention_dropout=0.0,
        convolution_dropout=0.05,
        whitening=1.0,
    ),
    training=TrainingConfig(
        epochs=10, learning_rate=3e-4, expressions_per_step=16, schedule="cosine"
    ),
)

RECIPES = {recipe.name: recipe for recipe in (RELEASE, DEMO)}


def recipe_by_name(name: str, sam2: str | None = None) -> Recipe:
    """One of `RECIPES`, with another SAM2 checkpoint if given; ValueError for other names."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; valid are: {', '.join(RECIPES)}")
    return replace(RECIPES[name], sam2=sam2) if sam2 else RECIPES[name]
