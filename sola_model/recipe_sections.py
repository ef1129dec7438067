"""The sections of a recipe (`sola_model.recipes`): extraction, selector, loss, training.

Everything is frozen: change a section with `dataclasses.replace`.
"""

from dataclasses import dataclass, field
from typing import Literal

from sola_model.settings import check_choices


@dataclass(frozen=True, kw_only=True)
class GridPrompts:
    """Prompt masks from a grid of points; the thresholds are SAM2's automatic mask generator's.

    frames: which frames are prompted with the grid. "stride": every `stride`-th (paper, and the
        release in training). "halves": 0, T // 2, and the last one if T is odd (the release's
        scripts for valid and valid_u). Boxes and ground truth prompt every `stride`-th either way.
    stride: every how many frames there is a prompt frame.
    points_per_side: points of the grid along the width, and along the height.
    predicted_iou, stability: a mask with a lower predicted IoU or stability score is dropped.
    box_nms: of masks whose boxes overlap with a higher IoU the best stays.
    part_overlap: a mask with more of its area inside a larger one of its frame is dropped.
    """

    frames: Literal["stride", "halves"] = "stride"
    stride: int = 4
    points_per_side: int = 32
    predicted_iou: float = 0.8
    stability: float = 0.95
    box_nms: float = 0.7
    part_overlap: float = 0.7

    def __post_init__(self) -> None:
        check_choices(self)
        if self.stride < 1 or self.points_per_side < 1:
            raise ValueError(
                f"stride={self.stride}, points_per_side={self.points_per_side}: "
                "both must be at least 1."
            )


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """Grounding DINO's thresholds and image size, as the paper uses them.

    box_threshold: a box is kept when the score of its best word is above.
    text_threshold: words that score above make the phrase of a box.
    short_side, long_side: images are resized to this short side, unless the long side would
        exceed its limit.
    """

    box_threshold: float = 0.2
    text_threshold: float = 0.25
    short_side: int = 800
    long_side: int = 1333


@dataclass(frozen=True, kw_only=True)
class BoxPrompts:
    """Prompt masks from boxes that a detector found for an expression.

    stability: a box whose mask has a lower stability score is not used.
    max_tracks: propagation stops at this many tracks for an expression.
    shared: False propagates for every expression by itself (release). True pools the boxes of a
        video and leaves out what a grid track or the track of another expression covers already.
    """

    stability: float = 0.85
    max_tracks: int = 16
    shared: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.stability <= 1 or self.max_tracks < 1:
            raise ValueError(
                f"stability={self.stability}, max_tracks={self.max_tracks}: stability must lie "
                "between 0 and 1, max_tracks must be at least 1."
            )


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """How mask tracks are made.

    prompt_features: prompt masks are decoded from the "video"'s features, which are there for
        tracking, or from those of the "image" predictor (release), which resizes a frame otherwise
        (bilinear, not bicubic), so that every prompt frame is encoded once more.
    ground_truth: its masks are prompts, too, for extra training tracks (release, training only).
    duplicate_iou: a prompt is filtered when a track covers it, at its frame, by more than this.
    max_tracks: propagation of the grid's prompts (and of ground-truth masks) stops at this many.
    batch: prompts of one frame that are propagated together (half for more than 200 frames);
        part of the method, since there is no duplicate check inside a batch.
    merged: prompts that do not filter each other (of the grid, of each expression's boxes, of the
        ground truth) share batches as well, which fills a GPU. Tokens then differ from the
        official predictor's by rounding (up to 1e-4 of the largest channel); else they are
        identical.
    """

    grid: GridPrompts = field(default_factory=GridPrompts)
    boxes: BoxPrompts = field(default_factory=BoxPrompts)
    prompt_features: Literal["video", "image"] = "video"
    ground_truth: bool = False
    duplicate_iou: float = 0.7
    max_tracks: int = 64
    batch: int = 4
    merged: bool = False

    def __post_init__(self) -> None:
        check_choices(self)
        if self.max_tracks < 1 or self.batch < 1:
            raise ValueError(
                f"max_tracks={self.max_tracks}, batch={self.batch}: both must be at least 1."
            )


@dataclass(frozen=True, kw_only=True)
class SelectorConfig:
    """Sizes of the track selection module.

    token_dim: channels D of an object token (256 for every SAM2 size).
    text_dim: channels C of a text token; the selector works at this width.
    layers: alignment layers L (paper Table A.2b: two are best).
    heads: attention heads.
    negative_anchors: learnable vectors A that stand for "something else".
    negatives_in_language: whether they join the language tokens, as keys of the cross-attention
        and in every mean over words (release); else the alignment loss alone sees them (paper).
    aggregation: "release": the object vector is the weighted sum over time, the score logit its
        product with the mean word. "paper" (Eq. 5): the vector is the weighted mean, the logit the
        mean over time, unweighted.
    object_attention, motion_attention: False leaves the attention, its residual and its norm out
        (paper Table 5b).
    attention_dropout, convolution_dropout: dropout of attentions and of the motion encoder.
    whitening: None for tokens as they are (paper, release); else tokens are decorrelated first,
        with this share of the identity added to their correlations. It makes directions of small
        variance as easy to learn from as large ones, which matters where training is short.
    separate_streams: what a track looks like and what shape it has are read from its means over
        time, and the motion encoder sees its geometry alone (needs tokens with geometry).
    """

    token_dim: int = 256
    text_dim: int = 1024
    layers: int = 2
    heads: int = 8
    negative_anchors: int = 32
    negatives_in_language: bool = True
    aggregation: Literal["release", "paper"] = "release"
    object_attention: bool = True
    motion_attention: bool = True
    attention_dropout: float = 0.1
    convolution_dropout: float = 0.2
    whitening: float | None = None
    separate_streams: bool = False

    @property
    def text_channels(self) -> int:
        """Channels of what the selector reads of a text token."""
        return self.text_dim

    @property
    def reads_words(self) -> bool:
        """Whether it reads the ids of text tokens beside their features."""
        return False

    def __post_init__(self) -> None:
        if self.token_dim % 4 or self.text_dim % 8 or self.text_dim % self.heads:
            raise ValueError(
                f"token_dim={self.token_dim}, text_dim={self.text_dim}, heads={self.heads}: "
                "token_dim must be a multiple of 4, text_dim a multiple of 8 and of heads."
            )
        if self.layers < 1 or self.negative_anchors < 1:
            raise ValueError(
                f"layers={self.layers}, negative_anchors={self.negative_anchors}: "
                "both must be at least 1."
            )
        check_choices(self)


@dataclass(frozen=True, kw_only=True)
class TwoTowerConfig:
    """Sizes of the two-tower selector (ours; `sola_model.selector.two_tower`).

    token_dim: channels D of a token, the 16 of geometry included.
    text_dim: channels C of a text token.
    vocabulary: learned words, one for each id of the text encoder's tokens.
    width: channels of each of the three streams that a track's vector consists of.
    """

    token_dim: int = 272
    text_dim: int = 1024
    vocabulary: int = 50265
    width: int = 128

    @property
    def text_channels(self) -> int:
        """Channels of what the selector reads of a text token: features, and digits of its id."""
        return self.text_dim + 2

    @property
    def reads_words(self) -> bool:
        """Whether it reads the ids of text tokens beside their features."""
        return True

    def __post_init__(self) -> None:
        if self.token_dim <= 16 or min(self.text_dim, self.vocabulary, self.width // 2) < 1:
            raise ValueError(
                f"token_dim={self.token_dim}, text_dim={self.text_dim}, "
                f"vocabulary={self.vocabulary}, width={self.width}: token_dim counts 16 channels "
                "of geometry and at least one of the pointer, width must be at least 2, the "
                "others at least 1."
            )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the training loss: BCE + alignment_weight * alignment, or a contrast instead.

    positive_weight: weight of a positive track in the BCE of the scores.
    alignment_weight: 0 leaves the alignment loss out (paper Table 5a).
    alignment: "release": BCE of scaled dot products with the anchors. "paper": sums of cosine
        distances (Eq. 7-8), which have none of the settings below.
    alignment_positive_weight: weight of the positive anchor's part of the alignment loss.
    alignment_log_scale: dot products with anchors are multiplied by exp(alignment_log_scale).
    contrast_weight: two-tower selector: weight of the loss that asks positive tracks to come before
        the tracks of the other videos that are computed together (`training.videos_at_once`).
    """

    positive_weight: float = 1.5
    alignment_weight: float = 0.3
    alignment: Literal["release", "paper"] = "release"
    alignment_positive_weight: float = 1.5
    alignment_log_scale: float = 0.07
    contrast_weight: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the selector is optimised (AdamW).

    epochs: passes over the training split.
    learning_rate, weight_decay: AdamW's; the rate is the highest of the schedule.
    gradient_clip: largest L2 norm of all gradients together.
    expressions_per_step, videos_per_step: an optimiser step is up to so many expressions of each
        of so many videos (release: one expression). With more the steps are fewer and less noisy,
        so tune the learning rate again.
    videos_at_once: how many of a step's videos are computed together; the gradients of the step's
        parts are added up. It bounds memory and changes only rounding and dropout,
        and which tracks a contrast sees.
    schedule: "plateau" halves the learning rate after 5 epochs without a better validation loss;
        "linear" falls from the first step to 0 after the last; "cosine" warms up over the first
        5 % of the steps, then falls to 0 at the last.
    kept_out: share of the training videos that are not trained on. Probabilities are fitted on
        them, and tau is chosen on them if the recipe has none.
    validation_expressions: validation J&F is measured on at most so many, evenly spread; 0: never.
    final_weights: which weights a run is evaluated with, those after the "last" epoch (release)
        or after the "best", that of the highest validation J&F (or else the lowest loss).
    seed: of weights, order and dropout.
    """

    epochs: int = 15
    learning_rate: float = 5e-6
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    expressions_per_step: int = 1
    videos_per_step: int = 1
    videos_at_once: int = 1
    schedule: Literal["plateau", "linear", "cosine"] = "plateau"
    kept_out: float = 0.0
    validation_expressions: int = 1000
    final_weights: Literal["last", "best"] = "last"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(self)
        counts = ("epochs", "expressions_per_step", "videos_per_step", "videos_at_once")
        if bad := [f"{name}={getattr(self, name)}" for name in counts if getattr(self, name) < 1]:
            raise ValueError(f"{', '.join(bad)}: must be at least 1.")
        if not 0 <= self.kept_out <= 0.5:
            raise ValueError(f"kept_out={self.kept_out}: must lie between 0 and 0.5.")
