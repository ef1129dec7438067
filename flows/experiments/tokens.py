"""What object tokens carry, and what a selector makes of them: Figures 4 and 5, linear probe."""

from flows.experiments.setup import Setup, Variant
from tasks.experiments.measured import Measured, scored_predictions
from tasks.experiments.probe import probe_tokens
from tasks.experiments.tables import picture_folder
from tasks.experiments.token_similarity import token_similarity
from tasks.pictures.figures import draw_prediction
from tasks.pictures.masks_on_frames import shown_frames
from tasks.track_sets import tracks_for

EXAMPLES = 6


def figure4(setup: Setup) -> list[Measured]:
    """Token similarity against mask mIoU, with its rank correlation (paper Figure 4)."""
    setup.prepare(setup.validation)
    picture = setup.picture("figure4", ".png")
    tracks = tracks_for(setup.store, setup.dataset, setup.validation).name
    return token_similarity(setup.store, setup.dataset, setup.validation, tracks, picture)


def probe(setup: Setup) -> list[Measured]:
    """Linear read-out of class, place and motion, beside permuted targets (paper section 4.5)."""
    setup.prepare()
    splits = {
        split: tracks_for(setup.store, setup.dataset, split).name
        for split in (setup.split, setup.validation)
    }
    return probe_tokens(setup.store, setup.dataset, splits, setup.seeds)


def figure5(setup: Setup) -> list[Measured]:
    """Pictures of expressions, from the worst to the best of the full method (paper Figure 5).

    Evenly spread by J&F. Upper strip: ground truth; lower: the tracks selected.
    """
    setup.prepare()
    (run_id,) = setup.trained([Variant(seed=0)])
    setup.scored(run_id)
    tracks = setup.tracks_of(run_id)
    ranked = scored_predictions(setup.store, run_id, setup.dataset, setup.validation, tracks)
    for old in picture_folder(setup.store).glob(setup.picture("figure5", "-*.jpg").name):
        old.unlink()
    rows = []
    for place in shown_frames(len(ranked), EXAMPLES):
        video, expression_id, text, jf, selected = ranked[place]
        key = video.ingested.key
        picture = setup.picture("figure5", f"-{key.video_id}-{expression_id}.jpg")
        draw_prediction(picture, video, expression_id, selected)
        rows.append(
            Measured(
                variant=f"{key.video_id}/{expression_id}: {text}",
                metric="jf",
                value=jf,
                seed=0,
                run_id=run_id,
                measured_on=f"{setup.dataset}/{setup.validation}",
            )
        )
    return rows
