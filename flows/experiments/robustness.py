"""Corrupted videos: paper Table A.1."""

from flows.experiments.setup import Setup, measured_scores
from tasks.experiments.measured import Measured
from tasks.paper import SEVERITY_5
from warehouse.corruptions import CORRUPTIONS, SEVERITIES


def tableA1(setup: Setup) -> list[Measured]:
    """ImageNet-C's Gaussian noise and motion blur, severity 1 to 5 (paper Table A.1).

    Trained on clean videos; tracks and boxes of the corrupted ones are made anew. Needs `root`.
    """
    setup.prepare()
    variants = {"clean": None} | {
        f"{corruption} {severity}": f"{corruption}-{severity}"
        for corruption in CORRUPTIONS
        for severity in SEVERITIES
    }
    run_ids, rows = setup.full_method(), []
    for variant, corruption in variants.items():
        tracks = None
        if corruption:
            tracks = setup.other_tracks(corruption=corruption, detector=setup.any_detector)
        printed = SEVERITY_5.get(variant.removesuffix(" 5")) if variant.endswith(" 5") else None
        for seed, run_id in enumerate(run_ids):
            rows += measured_scores(setup, variant, seed, run_id, printed, tracks=tracks)
    return rows
