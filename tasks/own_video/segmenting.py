"""What `sola segment` is asked for: checked first, then planned, at last written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from tasks.own_video import DATASET, SPLIT
from tasks.own_video.clips import (
    CLIP_FRAMES,
    encode_sentences,
    frame_count,
    ingest_clips,
    require_current,
    run_to_segment_with,
    segment_tracks,
)
from tasks.own_video.outputs import Found, Outputs, shown_times, write_outputs
from tasks.runs import Run
from tasks.stage import Plan, adopt
from tasks.stages.detect import DETECT
from tasks.stages.evaluate import EVALUATE
from tasks.stages.precompute import BOX_TRACKS, track_plan
from tasks.track_sets import TrackSet, remember
from warehouse import Key, Warehouse


@dataclass(frozen=True, kw_only=True)
class Segmenting:
    """A video in the warehouse that sentences are to be found in.

    keys: of its clips. times: seconds at which each frame is shown.
    """

    store: Warehouse
    run: Run
    track_set: TrackSet
    keys: Sequence[Key]
    outputs: Outputs
    times: Sequence[Fraction]

    @property
    def clips(self) -> list[str]:
        """The ids of its clips."""
        return [key.video_id for key in self.keys]

    @property
    def scores(self) -> Plan:
        """The scores of the sentences, of clips that have tracks."""
        named = {"track_set": self.track_set.name, "run_id": self.run.run_id}
        return Plan(EVALUATE, self.store, [key.of(**named) for key in self.keys], self.run)

    def has_tracks(self) -> bool:
        """Whether every clip has its tracks, be it from other videos of the same frames."""
        tracks = track_plan(self.store, DATASET, SPLIT, self.clips, self.track_set)
        adopt(tracks)
        stages = (DETECT, BOX_TRACKS) if self.track_set.boxes else ()
        keys = tracks.keys
        plans = [tracks, *(Plan(stage, self.store, keys, self.track_set) for stage in stages)]
        return all(p.keys.num_rows == keys.num_rows and not p.to_make() for p in plans)

    def frame_count(self) -> int:
        """How many frames its clips have together."""
        return frame_count(self.store, self.keys)

    def write(self, on_frame: Callable[[], None]) -> list[Found]:
        """Write the outputs; says what was found.

        Raises:
            WarehouseError: the scores are not there, or of other sentences.
        """
        require_current(self.scores)
        keys = [key.of(track_set=self.track_set.name, run_id=self.run.run_id) for key in self.keys]
        return write_outputs(self.store.url, keys, self.run, self.outputs, self.times, on_frame)


def prepare(
    warehouse: str,
    video: str,
    sentences: Sequence[str],
    run: str | None,
    outputs: Outputs,
    precision: str,
    *,
    sam2: str | None = None,
    detector: str | None = None,
    every: int = 1,
    clip_frames: int = CLIP_FRAMES,
    fps: float | None = None,
) -> Segmenting:
    """Check everything, then put the clips into the warehouse; see `flows.segment`.

    Raises:
        ValueError: the video, a sentence or an output is not usable, or there is no run.
    """
    trained, store = run_to_segment_with(warehouse, run), Warehouse(warehouse)
    outputs.check(store, Path(video), len(sentences))
    track_set = segment_tracks(trained, sam2, detector, precision)
    encode_sentences(store, trained.recipe, sentences)
    keys = ingest_clips(warehouse, video, sentences, every, clip_frames)
    remember(store, DATASET, SPLIT, track_set)
    return Segmenting(
        store=store,
        run=trained,
        track_set=track_set,
        keys=keys,
        outputs=outputs,
        times=shown_times(video, every, fps),
    )
