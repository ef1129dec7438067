"""The named recipes, and changing them by text."""

from dataclasses import asdict, fields, replace

import pytest

from sola_model.recipes import (
    CONCERNS,
    DEMO_RELEASE,
    PAPER,
    RELEASE,
    LossConfig,
    Recipe,
    SelectorConfig,
    chosen_recipe,
    of_command,
    override,
)
from sola_model.settings import essential, from_dict


def leaves(config: dict, prefix: str = "") -> dict:
    """All settings by dotted name."""
    found = {}
    for name, value in config.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def test_paper_and_release_differ_in_what_is_known_to_differ_and_nothing_else():
    paper, release = leaves(asdict(PAPER)), leaves(asdict(RELEASE))
    assert {name for name in paper if paper[name] != release[name]} == {
        "name",
        "text_encoder",
        "selector.negatives_in_language",
        "selector.aggregation",
        "loss.positive_weight",
        "loss.alignment",
        "training.epochs",
        "training.schedule",
        "empty_frames",
        "label_threshold",
    }


def test_override_changes_only_what_is_named():
    changes = ["selector.layers=1", "loss.alignment_weight = 0", "background_in_training=false"]
    recipe = override(RELEASE, changes)
    assert recipe == replace(
        RELEASE,
        name="release+background_in_training=False+alignment_weight=0+layers=1",
        selector=replace(RELEASE.selector, layers=1),
        loss=replace(RELEASE.loss, alignment_weight=0.0),
        background_in_training=False,
    )
    assert override(RELEASE, changes[::-1]) == recipe
    assert override(RELEASE, []) == RELEASE


@pytest.mark.parametrize(
    ("change", "read", "expected"),
    [
        ("selector.whitening=0.5", lambda r: r.selector.whitening, 0.5),
        ("selector.aggregation=paper", lambda r: r.selector.aggregation, "paper"),
        ("selector.object_attention=false", lambda r: r.selector.object_attention, False),
        ("extraction.grid.stride=8", lambda r: r.extraction.grid.stride, 8),
        ("training.learning_rate=1e-4", lambda r: r.training.learning_rate, 1e-4),
        ("text_encoder=models/my=encoder", lambda r: r.text_encoder, "models/my=encoder"),
    ],
)
def test_override_reads_every_type(change, read, expected):
    assert read(override(RELEASE, [change])) == expected


def test_override_reads_none():
    recipe = override(DEMO_RELEASE, ["selector.whitening=none"])
    assert recipe.selector.whitening is None and recipe.name == "demo-release+whitening=None"


def test_a_change_to_the_same_value_is_none():
    assert override(RELEASE, ["selector.layers=1", "selector.layers=2", "tau=0.50"]) == RELEASE


def test_the_name_stays_a_file_name():
    assert override(RELEASE, ["sam2=/models/sam 2.pt"]).name == "release+sam2=_models_sam_2.pt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("layers=1", "no setting 'layers'. Recipe has: .*selector.<field>"),
        ("selector=1", "no setting 'selector'"),
        ("selector.depth=1", "no setting 'selector.depth'. SelectorConfig has: .*layers"),
        ("selector.layers.x=1", "no setting 'selector.layers.x'"),
        ("name=mine", "no setting 'name'"),
        ("selector.layers", "no '='"),
        ("selector.layers=1.5", r"selector.layers='1.5': this setting is a whole number"),
        ("selector.layers=0", "layers=0"),
        ("tau=nan", "tau='nan': this setting is a number"),
        ("background_in_training=no", "background_in_training='no': .*true or false"),
        ("token_features=all", "token_features='all': choose 'pointer' or"),
    ],
)
def test_bad_changes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        override(RELEASE, [change])


def test_settings_without_meaning_are_refused():
    with pytest.raises(ValueError, match="multiple of 8 and of heads"):
        SelectorConfig(text_dim=100)
    with pytest.raises(ValueError, match="negative_anchors=0"):
        SelectorConfig(negative_anchors=0)
    with pytest.raises(ValueError, match="alignment='none': choose"):
        LossConfig(alignment="none")


@pytest.mark.parametrize(
    ("command", "change", "message"),
    [
        ("train", "extraction.grid.stride=8", "`sola train` does not use it.* `sola precompute`"),
        ("train", "sam2=demo", "does not use it.*`sola precompute` and `sola baseline`"),
        ("label", "training.epochs=3", "`sola label` does not use it.*`sola train`"),
        ("precompute", "label_threshold=0.6", "`sola label` and `sola train`"),
        ("baseline", "extraction.max_tracks=9", "does not use it.*`sola precompute`"),
        ("label", "layers=1", "no setting 'layers'"),
    ],
)
def test_a_setting_that_a_command_would_ignore_is_refused(command, change, message):
    with pytest.raises(ValueError, match=message):
        chosen_recipe("release", [change], command)


def test_every_setting_is_used_by_a_command():
    used = {section for sections in CONCERNS.values() for section in sections}
    assert used == {field.name for field in fields(Recipe)} - {"name"}


def test_a_command_takes_those_of_the_changes_that_it_uses():
    changes = ["extraction.grid.stride=8", "label_threshold = 0.6", "sam2=demo", "tau=0.4"]
    assert of_command(changes, "precompute") == (changes[0], changes[2])
    assert of_command(changes, "label") == (changes[1],)
    assert of_command(changes, "train") == (changes[1], changes[3])
    recipe = chosen_recipe("release", of_command(changes, "label"), "label")
    assert recipe == override(RELEASE, ["label_threshold=0.6"])


def test_options_and_changes_make_one_recipe():
    recipe = chosen_recipe(
        "release",
        ["extraction.max_tracks=9"],
        "precompute",
        sam2="demo",
        detector="demo",
        ground_truth=True,
    )
    assert (recipe.sam2, recipe.detector) == ("demo", "demo")
    assert (recipe.extraction.max_tracks, recipe.extraction.ground_truth) == (9, True)
    assert chosen_recipe("release") == RELEASE


def test_what_is_essential_has_no_defaults_and_no_new_names():
    assert essential(RELEASE) == {"name": "release"}
    changed = override(RELEASE, ["extraction.grid.stride=8"])
    assert essential(changed)["extraction"] == {"grid": {"stride": 8}}
    assert from_dict(asdict(changed), Recipe) == changed
