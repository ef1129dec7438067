"""Ablations of the selector: paper Tables 5 and A.2, and two of ours.

Paper Table 5b prints 44.3 and 44.9 for one attention alone, A.2a prints 45.7 and 47.5 besides the
full method; the check marks that say which is which are not in its text, so they are not here.
"""

from dataclasses import replace

from flows.experiments.setup import Setup, Variant, compare_variants, measured_scores
from sola_model.masks.geometry import CHANNELS
from tasks import paper
from tasks.experiments.measured import Measured, share_weights
from tasks.track_sets import tracks_for
from warehouse import WarehouseError

FULL = paper.FULL_METHOD


def table5a(setup: Setup) -> list[Measured]:
    """With and without the alignment loss (paper Table 5a)."""
    return compare_variants(
        setup,
        {
            "without alignment loss": (["loss.alignment_weight=0"], paper.WITHOUT_ALIGNMENT),
            "with alignment loss": ([], FULL),
        },
    )


def table5b(setup: Setup) -> list[Measured]:
    """Inter-object attention, motion attention, both (paper Table 5b)."""
    return compare_variants(
        setup,
        {
            "inter-object attention only": (["selector.motion_attention=false"], None),
            "motion attention only": (["selector.object_attention=false"], None),
            "both": ([], FULL),
        },
    )


def tableA2a(setup: Setup) -> list[Measured]:
    """Background tokens in training and in inference (paper Table A.2a).

    Inference without them needs box tracks in the validation split: `detector` and `root`, or a
    split that was precomputed with boxes.
    """
    setup.prepare()
    tracks = tracks_for(setup.store, setup.dataset, setup.validation)
    if setup.any_detector and not tracks.boxes:
        tracks = setup.other_tracks(detector=setup.any_detector)
    if not tracks.boxes:
        raise WarehouseError(
            f"{setup.dataset}/{setup.validation} has no tracks of boxes, which are all that is "
            "left without background. Give --detector and --root, or run `sola precompute` with "
            "--detector or --boxes."
        )
    without = ["background_in_training=false"]
    trained_without = setup.trained([Variant(seed, without) for seed in range(setup.seeds)])
    trained_with = setup.full_method()
    rows = []
    for variant, run_ids, inference in (
        ("background in neither", trained_without, False),
        ("background in training only", trained_with, False),
        ("background in inference only", trained_without, True),
        ("background in both", trained_with, True),
    ):
        for seed, run_id in enumerate(run_ids):
            if not inference:
                run_id = share_weights(setup.store, run_id, ["background_in_inference=false"])
            printed = FULL if variant == "background in both" else None
            rows += measured_scores(setup, variant, seed, run_id, printed, tracks=tracks)
    return rows


def tableA2b(setup: Setup) -> list[Measured]:
    """1, 2 and 3 alignment layers (paper Table A.2b)."""
    return compare_variants(
        setup,
        {
            f"{layers} layer{'s' * (layers > 1)}": ([f"selector.layers={layers}"], printed)
            for layers, printed in paper.LAYERS.items()
        },
    )


def geometry(setup: Setup) -> list[Measured]:
    """Object pointers alone, and with the masks' geometry beside them (not in the paper)."""
    recipe = setup.settings
    beside = CHANNELS if recipe.token_features == "pointer+geometry" else 0
    pointer = recipe.selector.token_dim - beside
    return compare_variants(
        setup,
        {
            features: ([f"token_features={features}", f"selector.token_dim={width}"], None)
            for features, width in (("pointer", pointer), ("pointer+geometry", pointer + CHANNELS))
        },
    )


def alignment(setup: Setup) -> list[Measured]:
    """The alignment loss as in the release's code and as printed (paper Eq. 7-8)."""
    return compare_variants(
        setup, {form: ([f"loss.alignment={form}"], None) for form in ("release", "paper")}
    )


def streams(setup: Setup) -> list[Measured]:
    """Looks, shape and motion in streams of their own, and two towers (not in the paper)."""
    rows = compare_variants(
        setup,
        {
            "one stream (release)": ([], None),
            "separate streams": (["selector.separate_streams=true"], None),
            "separate streams, no inter-object attention": (
                ["selector.separate_streams=true", "selector.object_attention=false"],
                None,
            ),
        },
    )
    two_tower = "demo" if setup.recipe == "demo-release" else "two-tower"
    return rows + compare_variants(replace(setup, recipe=two_tower), {"two towers": ([], None)})
