"""How good the tracks of a video can be: the best union for every expression and every object."""

from functools import cache

import numpy as np
import pyarrow as pa

from sola_model.masks.runs import pack
from sola_model.metrics.best_union import WORK, BestUnions, best_unions
from sola_model.metrics.jf import j_and_f_many
from tasks.stage import Plan, Stage, Unit
from tasks.stages.ingest import INGEST
from tasks.stages.precompute import BOX_TRACKS, PRECOMPUTE
from tasks.stages.scoring import truth_of
from tasks.tables import (
    read_candidates,
    read_expressions,
    read_mask_tracks,
    read_objects,
    read_video,
    rows,
)
from warehouse import TABLES, Key, Warehouse
from warehouse.planning import current_keys
from warehouse.sources.base import VOID

DUPLICATE = 0.5  # mean J with an object that makes a track one of its tracks


def oracle_plan(
    store: Warehouse, dataset: str, split: str, track_set: str, work: int = WORK
) -> Plan:
    """The oracle of each video that has tracks of this set; `work` bounds a search."""
    tracked = current_keys(store, "precompute", dataset=dataset, split=split, track_set=track_set)
    return Plan(ORACLE, store, tracked, work)


def _oracle(unit: Unit) -> dict[str, pa.Table]:
    """The best unions for each labelled expression, and for each object by itself."""
    store, ingested = unit.store, unit.commit(INGEST)
    commits = unit.tracks(PRECOMPUTE, BOX_TRACKS)
    video, objects = read_video(store, ingested), read_objects(store, ingested)
    expressions = read_expressions(store, ingested)
    names = [expression.expression_id for expression in expressions]
    candidates_EN = read_candidates(store, commits, [*names, ""])  # "": those of all expressions
    tracks = [pack(track) for track in read_mask_tracks(store, *commits)]
    truth = truth_of(video, expressions, objects)

    @cache
    def best(target: int, candidates: tuple[int, ...]) -> BestUnions:
        return best_unions(tracks, truth.targets[target], truth.void, candidates, work=unit.subject)

    found: dict[int, dict] = {}
    for target, members in enumerate(truth.members_of):
        for e in members:
            candidates = tuple(np.flatnonzero(candidates_EN[e]).tolist())
            unions = best(target, candidates)
            found[e] = {
                "expression_id": names[e],
                "candidates": len(candidates),
                "j": unions.j.value,
                "j_bound": unions.j.bound,
                "j_tracks": list(unions.j.tracks),
                "jf": unions.jf.value,
                "jf_bound": unions.jf.bound,
                "jf_tracks": list(unions.jf.tracks),
            }
    usable = np.flatnonzero(candidates_EN.any(axis=0)).tolist()
    covered = []
    for name, rles in objects.items():
        masks = pack(rles)
        if name == VOID or not len(masks.edges):
            continue
        unions = best_unions(tracks, masks, truth.void, usable, work=unit.subject, with_f=False)
        alone = [each.j for each in j_and_f_many(masks, [tracks[n] for n in usable], truth.void)]
        covered.append(
            {
                "object_id": name,
                "j": unions.j.value,
                "j_bound": unions.j.bound,
                "j_tracks": list(unions.j.tracks),
                "one_track_j": max(alone, default=None),
                "duplicates": max(sum(j >= DUPLICATE for j in alone) - 1, 0),
            }
        )
    return {
        "oracles": _table("oracles", unit.key, [found[e] for e in sorted(found)]),
        "object_coverage": _table("object_coverage", unit.key, covered),
    }


def _table(name: str, key: Key, records: list[dict]) -> pa.Table:
    names = [field for field in TABLES[name].names if not hasattr(key, field)]
    return rows(name, key, {field: [record[field] for record in records] for field in names})


ORACLE = Stage(
    name="oracle",
    command="oracle",
    keyed_by=("dataset", "split", "video_id", "track_set"),
    reads=lambda _: {
        INGEST: ("expressions", "ground_truth"),
        PRECOMPUTE: ("prompts", "masks"),
        BOX_TRACKS: ("prompts", "masks"),
    },
    optional=(BOX_TRACKS,),
    settings=lambda work: {"work": work},
    make=_oracle,
    covers=(
        "tasks.stages.oracle",
        "tasks.stages.scoring",
        "tasks.tables",
        "sola_model.metrics",
        "sola_model.masks",
    ),
)
