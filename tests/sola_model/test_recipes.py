"""The named recipes, and changing them by text."""

from dataclasses import asdict, replace

import pytest

from sola_model.recipes import DEMO_RELEASE, PAPER, RELEASE, LossConfig, SelectorConfig, override


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
