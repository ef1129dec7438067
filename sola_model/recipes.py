"""The settings of the method, grouped into named recipes.

`RELEASE` follows the scripts the paper's authors released; where those differ from the printed
paper, the scripts win. Everything is frozen: change a recipe with `dataclasses.replace`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from operator import attrgetter
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True, kw_only=True)
class GridPrompts:
    """Prompt masks from a grid of points; the thresholds are SAM2's automatic mask generator's.

    stride: every how many frames there is a prompt frame.
    points_per_side: points of the grid along the width, and along the height.
    predicted_iou, stability: a mask with a lower predicted IoU or stability score is dropped.
    box_nms: of masks whose boxes overlap with a higher IoU the best stays.
    part_overlap: a mask with more of its area inside a larger one of its frame is dropped.
    """

    stride: int = 4
    points_per_side: int = 32
    predicted_iou: float = 0.8
    stability: float = 0.95
    box_nms: float = 0.7
    part_overlap: float = 0.7

    def __post_init__(self) -> None:
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
    ground_truth: bool = False
    duplicate_iou: float = 0.7
    max_tracks: int = 64
    batch: int = 4
    merged: bool = False

    def __post_init__(self) -> None:
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
        _check_choices(self)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the training loss: BCE + alignment_weight * alignment.

    positive_weight: weight of a positive track in the BCE of the scores.
    alignment_weight: 0 leaves the alignment loss out (paper Table 5a).
    alignment: "release": BCE of scaled dot products with the anchors. "paper": sums of cosine
        distances (Eq. 7-8), which have none of the settings below.
    alignment_positive_weight: weight of the positive anchor's part of the alignment loss.
    alignment_log_scale: dot products with anchors are multiplied by exp(alignment_log_scale).
    """

    positive_weight: float = 1.5
    alignment_weight: float = 0.3
    alignment: Literal["release", "paper"] = "release"
    alignment_positive_weight: float = 1.5
    alignment_log_scale: float = 0.07

    def __post_init__(self) -> None:
        _check_choices(self)


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
        parts are added up. It bounds memory and changes only rounding and dropout.
    schedule: "plateau" halves the learning rate after 5 epochs without a better validation loss;
        "linear" falls from the first step to 0 after the last; "cosine" warms up over the first
        5 % of the steps, then falls to 0 at the last.
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
    validation_expressions: int = 1000
    final_weights: Literal["last", "best"] = "last"
    seed: int = 0

    def __post_init__(self) -> None:
        _check_choices(self)
        counts = ("epochs", "expressions_per_step", "videos_per_step", "videos_at_once")
        if bad := [f"{name}={getattr(self, name)}" for name in counts if getattr(self, name) < 1]:
            raise ValueError(f"{', '.join(bad)}: must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One complete way to extract tracks and to train and use the selector.

    sam2, text_encoder: checkpoint path, hub id, or "demo" for the embedded small models.
    detector: likewise, of the boxes that are prompts at inference; None: there are none.
    token_features: what a selector's token is: the object pointer (paper), or the pointer with
        16 channels of geometry (`sola_model.masks.geometry`), which `selector.token_dim` counts.
    empty_frames: whether frames where track and object are both empty count in the mIoU, as 1
        (release), or are left out of it (paper).
    label_threshold: a track is positive when its mIoU with an object of the expression is above.
    background_in_training, background_in_inference: False leaves background tracks out (paper
        Table A.2a; `sola_model.selector.background` says which they are).
    tau: a track is selected when its score (sigmoid of the logit) is above.
    """

    name: str
    sam2: str = "facebook/sam2-hiera-large"
    text_encoder: str = "sentence-transformers/all-roberta-large-v1"
    detector: str | None = None
    extraction: Extraction = field(default_factory=Extraction)
    detection: DetectorSettings = field(default_factory=DetectorSettings)
    token_features: Literal["pointer", "pointer+geometry"] = "pointer"
    selector: SelectorConfig = field(default_factory=SelectorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    empty_frames: Literal["count", "skip"] = "count"
    label_threshold: float = 0.7
    background_in_training: bool = True
    background_in_inference: bool = True
    tau: float = 0.5

    def __post_init__(self) -> None:
        _check_choices(self)


def _check_choices(config: Any) -> None:
    """ValueError when a field with a list of valid values has another one."""
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            valid = " or ".join(map(repr, get_args(kind)))
            raise ValueError(f"{name}={value!r}: choose {valid}.")


RELEASE = Recipe(name="release")

# The printed paper where it differs; where it is silent, the release.
PAPER = Recipe(
    name="paper",
    text_encoder="FacebookAI/roberta-large",
    selector=SelectorConfig(negatives_in_language=False, aggregation="paper"),
    loss=LossConfig(positive_weight=1.0, alignment="paper"),
    training=TrainingConfig(epochs=13, schedule="linear"),
    empty_frames="skip",
    label_threshold=0.5,
)

# Sixteen expressions of each of two videos a step, with what a video's expressions share computed
# once: fewer and less noisy steps, so a higher learning rate (docs/training.md). The same selector.
RELEASE_FAST = replace(
    RELEASE,
    name="release-fast",
    extraction=Extraction(merged=True),
    training=TrainingConfig(
        learning_rate=1e-4,
        expressions_per_step=16,
        videos_per_step=2,
        videos_at_once=2,
        schedule="cosine",
    ),
)

# Box prompts of a video's expressions are pooled: each distinct object is propagated once.
SHARED = replace(
    RELEASE, name="shared", extraction=Extraction(boxes=BoxPrompts(shared=True), merged=True)
)

# The method at the size of the embedded models and data. All expressions of a video make a step, so
# steps are fewer and less noisy, and the learning rate and the weights are tuned again for minutes
# of training (docs/models.md says what each change is worth).
DEMO = Recipe(
    name="demo",
    sam2="demo",
    text_encoder="demo",
    extraction=Extraction(
        grid=GridPrompts(points_per_side=10, predicted_iou=0.75, stability=0.85),
        boxes=BoxPrompts(shared=True),
        max_tracks=16,
        merged=True,
    ),
    detection=DetectorSettings(short_side=112, long_side=144),
    token_features="pointer+geometry",
    selector=SelectorConfig(
        token_dim=80, text_dim=128, attention_dropout=0.0, convolution_dropout=0.05, whitening=1.0
    ),
    training=TrainingConfig(
        epochs=20, learning_rate=3e-4, expressions_per_step=16, schedule="cosine"
    ),
)

# For `sola demo --size large`: more steps for more clips, and a lower threshold, since "nothing
# selected" was the most frequent mistake on clips held out of training.
DEMO_LARGE = replace(DEMO, name="demo-large", training=replace(DEMO.training, epochs=25), tau=0.3)

RECIPES = {
    recipe.name: recipe for recipe in (RELEASE, RELEASE_FAST, PAPER, SHARED, DEMO, DEMO_LARGE)
}


def recipe_by_name(name: str, sam2: str | None = None) -> Recipe:
    """One of `RECIPES`, with another SAM2 checkpoint if given; ValueError for other names."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; valid are: {', '.join(RECIPES)}")
    return replace(RECIPES[name], sam2=sam2) if sam2 else RECIPES[name]


def recipe_from(config: Mapping[str, Any], kind: type = Recipe) -> Any:
    """The recipe (or part of one) that `dataclasses.asdict` made `config` of."""
    parts: dict[str, Any] = {n: p for n, p in get_type_hints(kind).items() if is_dataclass(p)}
    return kind(**{n: recipe_from(v, parts[n]) if n in parts else v for n, v in config.items()})


def override(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """The recipe with fields changed, each given as "field=value" or "section.field=value".

    override(RELEASE, ["selector.layers=1", "loss.alignment_weight=0"]) is the release with one
    layer and without alignment loss. Values are numbers, true, false, none or plain text, as the
    field takes them. What differs is appended to the recipe's name, so that run ids and reports
    show it: "release+alignment_weight=0+layers=1".

    Raises ValueError for a field that is not there and for a value that does not fit it.
    """
    changed, paths = recipe, set()
    for change in changes:
        path, equals, text = (part.strip() for part in change.partition("="))
        if not equals:
            raise ValueError(f"{change!r} has no '='. Write it like 'selector.layers=1'.")
        changed = _changed(changed, path.split("."), path, text)
        paths.add(path)
    suffix = ""
    for path in sorted(paths):
        old, new = (attrgetter(path)(r) for r in (recipe, changed))
        if new != old:
            shown = f"{new:g}" if isinstance(new, float) else str(new)
            suffix += f"+{path.split('.')[-1]}={shown}"
    return replace(changed, name=recipe.name + re.sub(r"[^\w.+=-]", "_", suffix))


def _changed(config: Any, names: Sequence[str], path: str, text: str) -> Any:
    """A frozen configuration with the field at `names`, the end of `path`, set to `text`."""
    kinds = {n: kind for n, kind in get_type_hints(type(config)).items() if n != "name"}
    name, *deeper = names
    if name not in kinds or is_dataclass(kinds[name]) != bool(deeper):
        valid = ", ".join(f"{n}.<field>" if is_dataclass(kinds[n]) else n for n in kinds)
        raise ValueError(f"There is no setting {path!r}. {type(config).__name__} has: {valid}.")
    if deeper:
        return replace(config, **{name: _changed(getattr(config, name), deeper, path, text)})
    return replace(config, **{name: _parsed(text, kinds[name], path)})


def _parsed(text: str, kind: Any, path: str) -> Any:
    """`text` as a value of the type (Literal, bool, int, float, str; or one of them | None)."""
    if NoneType in get_args(kind):
        if text == "none":
            return None
        (kind,) = set(get_args(kind)) - {NoneType}
    if get_origin(kind) is Literal:
        return text  # checked by the configuration itself
    if kind is bool and text in ("true", "false"):
        return text == "true"
    if kind in (int, float, str):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if kind is str or math.isfinite(value):
            return value
    valid = {bool: "true or false", int: "a whole number", float: "a number"}
    raise ValueError(f"{path}={text!r}: this setting is {valid.get(kind, 'not one to change')}.")
