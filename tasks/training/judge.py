"""J&F of what a selector in training selects, from the ground truth of the validation split."""

from typing import NamedTuple

from sola_model.masks.runs import RunTrack, empty_track, pack, union
from sola_model.metrics.jf import j_and_f
from tasks.tables import read_expressions, read_mask_tracks, read_objects, read_video
from tasks.training.training_set import TrainingSet
from warehouse import Warehouse
from warehouse.sources import VOID


class _Masks(NamedTuple):
    """Of one video; `void`: pixels that do not count."""

    nothing: RunTrack
    tracks: list[RunTrack]
    targets: list[RunTrack]
    void: RunTrack | None


class SelectionJudge:
    """Callable (video, expression, selected tracks), by index into the set -> J&F in [0, 1].

    A video's masks are read when it is first asked for; nothing is scored twice, since from epoch
    to epoch most selections stay.
    """

    def __init__(self, store: Warehouse, data: TrainingSet) -> None:
        self._store, self._data = store, data
        self._ingested = store.current("ingest", {key.of(track_set="") for key in data.keys})
        self._precomputed = store.current("precompute", data.keys)
        self._masks: dict[int, _Masks] = {}
        self._scores: dict[tuple[int, int, tuple[int, ...]], float] = {}

    def __call__(self, video: int, expression: int, selected: tuple[int, ...]) -> float:
        asked = (video, expression, selected)
        if asked not in self._scores:
            if video not in self._masks:
                self._masks[video] = self._read(video)
            nothing, tracks, targets, void = self._masks[video]
            prediction = union([nothing, *(tracks[n] for n in selected)])
            self._scores[asked] = j_and_f(targets[expression], prediction, void).jf
        return self._scores[asked]

    def _read(self, index: int) -> _Masks:
        key = self._data.keys[index]
        ingested = self._ingested[key.of(track_set="")]
        video, objects = read_video(self._store, ingested), read_objects(self._store, ingested)
        nothing = empty_track(video["height"], video["width"], video["frame_count"])
        packed = {name: pack(masks) for name, masks in objects.items()}
        tracks = read_mask_tracks(self._store, self._precomputed[key])
        expressions = read_expressions(self._store, ingested)
        meant = [expressions[e].object_ids or () for e in self._data.expressions[index]]
        return _Masks(
            nothing=nothing,
            tracks=[pack(tracks[n]) for n in self._data.tracks[index]],
            targets=[union([nothing, *(packed[i] for i in ids if i in packed)]) for ids in meant],
            void=packed.get(VOID),
        )
