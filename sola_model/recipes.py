"""The settings of the method, grouped into named recipes.

`RELEASE` follows the scripts the paper's authors released; where those differ from the printed
paper, the scripts win. Everything is frozen: change a recipe with `dataclasses.replace`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Literal

from sola_model.recipe_sections import (
    BoxPrompts,
    DetectorSettings,
    Extraction,
    GridPrompts,
    LossConfig,
    SelectorConfig,
    TrainingConfig,
    TwoTowerConfig,
)
from sola_model.settings import changed, check_choices, from_dict

TRAINED = ("text_encoder", "token_features", "selector", "loss", "training", "tau")
LABELS = ("label_threshold", "empty_frames")
BACKGROUND = ("background_in_training", "background_in_inference")
CONCERNS = {  # the command -> the settings that it uses
    "precompute": ("tracker", "sam2", "detector", "extraction", "detection"),
    "label": LABELS,
    "train": (*TRAINED, *LABELS, *BACKGROUND),
    "baseline": ("sam2", "detector", "detection"),
    "import-checkpoint": (*TRAINED, "background_in_inference"),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One complete way to extract tracks and to train and use the selector.

    tracker: what follows objects through a video: "sam2", or one of
        `sola_model.extraction.trackers`, whose weights `sam2` then names.
    sam2, text_encoder: checkpoint path, hub id, or "demo" for the embedded small models.
    detector: likewise, of the boxes that are prompts at inference; None: there are none.
    token_features: what a selector's token is: the object pointer (paper), or the pointer with
        16 channels of geometry (`sola_model.masks.geometry`), which `selector.token_dim` counts.
    empty_frames: whether frames where track and object are both empty count in the mIoU, as 1
        (release), or are left out of it (paper).
    label_threshold: a track is positive when its mIoU with an object of the expression is above.
    background_in_training, background_in_inference: False leaves background tracks out (paper
        Table A.2a; `sola_model.selector.background` says which they are).
    tau: a track is selected when its score (sigmoid of the logit) is above. None: it is chosen at
        the end of training, on the videos that `training.kept_out` keeps out.
    """

    name: str
    tracker: str = "sam2"
    sam2: str = "facebook/sam2-hiera-large"
    text_encoder: str = "sentence-transformers/all-roberta-large-v1"
    detector: str | None = None
    extraction: Extraction = field(default_factory=Extraction)
    detection: DetectorSettings = field(default_factory=DetectorSettings)
    token_features: Literal["pointer", "pointer+geometry"] = "pointer"
    selector: SelectorConfig | TwoTowerConfig = field(default_factory=SelectorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    empty_frames: Literal["count", "skip"] = "count"
    label_threshold: float = 0.7
    background_in_training: bool = True
    background_in_inference: bool = True
    tau: float | None = 0.5

    def __post_init__(self) -> None:
        check_choices(self)
        streams = isinstance(self.selector, TwoTowerConfig) or self.selector.separate_streams
        if streams and self.token_features == "pointer":
            raise ValueError(
                "token_features='pointer': separate streams of looks, shape and motion read "
                "geometry; set token_features=pointer+geometry and count 16 channels more in "
                "selector.token_dim."
            )
        if isinstance(self.selector, TwoTowerConfig) and self.loss.alignment_weight:
            raise ValueError(
                f"loss.alignment_weight={self.loss.alignment_weight}: the two-tower selector has "
                "no negative anchors to align with; set it to 0."
            )
        if self.loss.contrast_weight and not isinstance(self.selector, TwoTowerConfig):
            raise ValueError(
                f"loss.contrast_weight={self.loss.contrast_weight}: only the two-tower selector "
                "scores the tracks of other videos; set it to 0."
            )
        if self.tau is None and not self.training.kept_out:
            raise ValueError(
                "tau=none is chosen on videos that are kept out of training, and "
                "training.kept_out=0 keeps none: set one of them."
            )


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

# Tracks and sentences meet in one product: separate streams of a track's looks, shape and motion,
# learned words beside the encoder's, no alignment loss (docs/training.md). Not the paper's module.
TWO_TOWER = replace(
    RELEASE,
    name="two-tower",
    token_features="pointer+geometry",
    selector=TwoTowerConfig(),
    loss=LossConfig(positive_weight=1.0, alignment_weight=0.0, contrast_weight=0.1),
    training=TrainingConfig(
        epochs=30,
        learning_rate=2e-3,
        weight_decay=0.05,
        expressions_per_step=16,
        videos_per_step=8,
        videos_at_once=8,
        schedule="cosine",
        kept_out=0.1,
    ),
    tau=None,
)

# The method at the size of the embedded models and data.
DEMO = replace(
    TWO_TOWER,
    name="demo",
    sam2="demo",
    text_encoder="demo",
    extraction=Extraction(
        grid=GridPrompts(points_per_side=10, predicted_iou=0.7, stability=0.7),
        boxes=BoxPrompts(shared=True),
        max_tracks=16,
        merged=True,
    ),
    detection=DetectorSettings(short_side=112, long_side=144),
    selector=TwoTowerConfig(token_dim=80, text_dim=128, vocabulary=500),
)

# For `sola demo --size large`, which has five times as many clips.
DEMO_LARGE = replace(DEMO, name="demo-large")

# The release's selector at that size, with learning rate and weights tuned for minutes of training:
# what the paper's tables are repeated with on the embedded data.
DEMO_RELEASE = replace(
    DEMO,
    name="demo-release",
    selector=SelectorConfig(
        token_dim=80, text_dim=128, attention_dropout=0.0, convolution_dropout=0.05, whitening=1.0
    ),
    loss=LossConfig(),
    training=TrainingConfig(
        epochs=20, learning_rate=3e-4, expressions_per_step=16, schedule="cosine"
    ),
    tau=0.5,
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        RELEASE,
        RELEASE_FAST,
        PAPER,
        SHARED,
        TWO_TOWER,
        DEMO,
        DEMO_LARGE,
        DEMO_RELEASE,
    )
}


def recipe_by_name(name: str, sam2: str | None = None) -> Recipe:
    """One of `RECIPES`, with another SAM2 checkpoint if given; ValueError for other names."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; valid are: {', '.join(RECIPES)}")
    return replace(RECIPES[name], sam2=sam2) if sam2 else RECIPES[name]


def recipe_from(config: Mapping[str, Any]) -> Recipe:
    """The recipe that `dataclasses.asdict` made `config` of."""
    return from_dict(config, Recipe)


def chosen_recipe(
    name: str,
    changes: Sequence[str] = (),
    command: str | None = None,
    *,
    sam2: str | None = None,
    detector: str | None = None,
    ground_truth: bool = False,
) -> Recipe:
    """A named recipe as a command is told to change it; see `override`.

    `sam2` and `detector` replace the recipe's, `ground_truth` adds the tracks of its masks.

    Raises ValueError as `override`, and for a setting that the command does not use.
    """
    if command:
        check_concerns(changes, command)
    recipe = override(recipe_by_name(name, sam2), changes)
    extraction = replace(
        recipe.extraction, ground_truth=ground_truth or recipe.extraction.ground_truth
    )
    return replace(recipe, detector=detector or recipe.detector, extraction=extraction)


def of_command(changes: Sequence[str], command: str) -> tuple[str, ...]:
    """Those of the changes that a command uses."""
    return tuple(each for each in changes if _section(each) in CONCERNS[command])


def check_concerns(changes: Sequence[str], command: str) -> None:
    """Raise ValueError for a setting that a command would ignore."""
    for change in changes:
        users = [name for name, sections in CONCERNS.items() if _section(change) in sections]
        if users and command not in users:
            raise ValueError(
                f"--set {change}: `sola {command}` does not use it. It is a setting of "
                f"{' and '.join(f'`sola {name}`' for name in users)}."
            )


def _section(change: str) -> str:
    """The first name of the setting that a change is of."""
    return change.partition("=")[0].strip().partition(".")[0]


def override(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """The recipe with fields changed, each given as "field=value" or "section.field=value".

    override(RELEASE, ["selector.layers=1", "loss.alignment_weight=0"]) is the release with one
    layer and without alignment loss. Values are numbers, true, false, none or plain text, as the
    field takes them. What differs is appended to the recipe's name, so that run ids and reports
    show it: "release+alignment_weight=0+layers=1".

    Raises ValueError for a field that is not there and for a value that does not fit it.
    """
    new, paths = recipe, set()
    for change in changes:
        path, equals, text = (part.strip() for part in change.partition("="))
        if not equals:
            raise ValueError(f"{change!r} has no '='. Write it like 'selector.layers=1'.")
        new = changed(new, path.split("."), path, text)
        paths.add(path)
    suffix = ""
    for path in sorted(paths):
        before, after = (attrgetter(path)(r) for r in (recipe, new))
        if after != before:
            shown = f"{after:g}" if isinstance(after, float) else str(after)
            suffix += f"+{path.split('.')[-1]}={shown}"
    return replace(new, name=recipe.name + re.sub(r"[^\w.+=-]", "_", suffix))
