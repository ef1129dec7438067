"""Propagation of prompt masks by the frozen SAM2, objects of any frame and video together.

Objects run in relative time: at step k the object prompted at frame p is at frame p + k and later,
in the backward run, at p - k. An object's result does not depend on the objects beside it.
B objects, T frames, D channels, H and W pixels.

Source: `sam2.sam2_video_predictor_legacy` (`add_new_mask`, `propagate_in_video`).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco
from torch import Tensor

from sola_model.extraction.encoding import EncodedVideo, frame_arguments
from sola_model.extraction.engine import AUTOMATIC, Background, Engine, precision
from sola_model.extraction.sam2_models import SAM2Base
from sola_model.masks.rle import encode_enlarged
from sola_model.masks.runs import RLE
from sola_model.memory import in_batches

# Relative time of long videos: the prompt frame lies far from both ends, which are never met.
ORIGIN, ENDLESS = 1_000_000, 2_000_000

Frame = tuple[EncodedVideo, int]


@dataclass(frozen=True)
class Request:
    """A prompt mask (COCO RLE at the video's size) to propagate from a frame."""

    video: EncodedVideo
    frame_index: int
    rle: RLE


@dataclass(frozen=True)
class Propagated:
    """T masks (COCO RLE) and tokens_TD (float32), SAM2's object pointers, of one request."""

    masks: list[RLE]
    tokens_TD: np.ndarray


@dataclass(frozen=True)
class _Memory:
    """What later steps read of a step; of older ones they read the pointers only."""

    features_BCHW: Tensor | None
    pointers_BD: Tensor

    def rows(self, rows: slice | list[int]) -> "_Memory":
        features = None if self.features_BCHW is None else self.features_BCHW[rows]
        return _Memory(features, self.pointers_BD[rows])

    @staticmethod
    def join(parts: Sequence["_Memory"]) -> "_Memory":
        features = [part.features_BCHW for part in parts if part.features_BCHW is not None]
        joined = torch.cat(features) if features else None
        return _Memory(joined, torch.cat([part.pointers_BD for part in parts]))


@dataclass
class _Cohort:
    """Objects that are at the same step, those with most steps to go first.

    objects: indices of the requests.
    start, num_frames: the prompt frame in relative time, and how long that is.
    memories: by relative time; rows are the first of `objects`, as many as were still going.
    """

    objects: list[int]
    start: int
    num_frames: int
    memories: dict[int, _Memory] = field(default_factory=dict)

    def some(self, objects: list[int]) -> "_Cohort":
        """These objects in this order, with the memories that all of them have."""
        rows = [self.objects.index(i) for i in objects]
        memories = {
            time: memory.rows(rows)
            for time, memory in self.memories.items()
            if max(rows) < len(memory.pointers_BD)
        }
        return _Cohort(objects, self.start, self.num_frames, memories)

    @staticmethod
    def join(parts: Sequence["_Cohort"]) -> "_Cohort":
        """Cohorts at the same step, with memories of the same times."""
        memories = {
            time: _Memory.join([part.memories[time] for part in parts])
            for time in parts[0].memories
        }
        objects = [i for part in parts for i in part.objects]
        return _Cohort(objects, parts[0].start, parts[0].num_frames, memories)


@torch.inference_mode()
def propagate(
    model: SAM2Base, requests: Sequence[Request], engine: Engine = AUTOMATIC
) -> list[Propagated]:
    """Propagate each prompt mask forward, then backward, over the whole of its video.

    Backward steps attend to what the forward run left in memory around the prompt frame, as in
    the official predictor.
    """
    with Background() as writer, precision(model.device):
        return _Propagation(model, requests, engine, writer).run()


class _Propagation:
    def __init__(
        self, model: SAM2Base, requests: Sequence[Request], engine: Engine, writer: Background
    ) -> None:
        self.model, self.requests, self.writer = model, requests, writer
        self.objects = engine.objects
        self.results = [
            Propagated(
                [RLE(size=[], counts="")] * len(r.video),
                np.empty((len(r.video), model.hidden_dim), np.float32),
            )
            for r in requests
        ]
        # How many steps away a step still sees masks, and object pointers.
        self.mask_reach = model.num_maskmem - 1
        self.pointer_reach = model.max_obj_ptrs_in_encoder - 1
        self.reach = max(self.mask_reach, self.pointer_reach)

    def run(self) -> list[Propagated]:
        groups = defaultdict(list)
        for i, request in enumerate(self.requests):
            frames = len(request.video)
            # A video shorter than the pointers reach shortens them: there, time is as it is.
            short = frames <= self.pointer_reach
            groups[(request.frame_index, frames) if short else (ORIGIN, ENDLESS)].append(i)
        for (start, num_frames), objects in groups.items():
            self._there_and_back(objects, start, num_frames)
        return self.results

    def _steps(self, i: int, backward: bool) -> int:
        """How many frames there are after, or before, the prompt frame."""
        request = self.requests[i]
        return request.frame_index if backward else len(request.video) - 1 - request.frame_index

    def _ordered(self, objects: list[int], backward: bool) -> list[int]:
        return sorted(objects, key=lambda i: -self._steps(i, backward))

    def _there_and_back(self, objects: list[int], start: int, num_frames: int) -> None:
        forward = _Cohort(self._ordered(objects, False), start, num_frames)
        self._prompt(forward)
        self._advance(forward, 1, self._steps(forward.objects[0], False), backward=False)
        # Backward steps see forward frames at first; objects that see equally many go together.
        seen = self.reach - 1
        windows = defaultdict(list)
        for i in self._ordered(objects, True):
            windows[min(self._steps(i, False), seen)].append(i)
        parts = []
        for members in windows.values():
            part = forward.some(members)
            self._advance(part, 1, min(seen, self._steps(members[0], True)), backward=True)
            going = [i for i in members if self._steps(i, True) > seen]
            parts += [part.some(going)] if going else []
        if parts:
            rest = _Cohort.join(parts)
            rest = rest.some(self._ordered(rest.objects, True))
            del forward, part, parts
            self._advance(rest, seen + 1, self._steps(rest.objects[0], True), backward=True)

    def _prompt(self, cohort: _Cohort) -> None:
        """The prompt frames: masks and tokens out, memory in."""
        frames = self._frames(cohort, 0)
        _announce(frames)
        rles = [self.requests[i].rle for i in cohort.objects]

        def decode(part: slice) -> tuple[_Memory, Tensor]:
            # One object at a time, as the official predictor takes prompts: so it is bit-identical.
            alone = [
                self.model.track_step(
                    frame_idx=cohort.start,
                    is_init_cond_frame=True,
                    **frame_arguments([frame]),
                    point_inputs=None,
                    mask_inputs=model_input(rle, self.model),
                    output_dict={"cond_frame_outputs": {}, "non_cond_frame_outputs": {}},
                    num_frames=cohort.num_frames,
                    run_mem_encoder=False,
                )
                for frame, rle in zip(frames[part], rles[part], strict=True)
            ]
            logits_B1HW, pointers_BD, scores_B1 = (
                torch.cat([output[name] for output in alone])
                for name in ("pred_masks", "obj_ptr", "object_score_logits")
            )
            image = frame_arguments(frames[part])
            # Memory is made from the mask after a trip through image_size / 4.
            features_BCHW, positions = self.model._encode_new_memory(
                current_vision_feats=image["current_vision_feats"],
                feat_sizes=image["feat_sizes"],
                pred_masks_high_res=F.interpolate(
                    logits_B1HW, (self.model.image_size,) * 2, mode="bilinear", align_corners=False
                ),
                object_score_logits=scores_B1,
                is_mask_from_pts=True,
            )
            self.position_1CHW = positions[-1][:1]  # the same for every memory
            return _Memory(features_BCHW.to(torch.bfloat16), pointers_BD), logits_B1HW

        self._run(cohort, cohort.start, frames, decode)

    def _advance(self, cohort: _Cohort, first: int, last: int, backward: bool) -> None:
        """Steps `first` to `last`; an object stops where its video ends."""
        sign = -1 if backward else 1
        for step in range(first, last + 1):
            frames = self._frames(cohort, sign * step)
            _announce(frames + self._frames(cohort, sign * (step + 1)))
            time = cohort.start + sign * step

            def track(
                part: slice, frames: list[Frame] = frames, time: int = time
            ) -> tuple[_Memory, Tensor]:
                output = self.model.track_step(
                    frame_idx=time,
                    is_init_cond_frame=False,
                    **frame_arguments(frames[part]),
                    point_inputs=None,
                    mask_inputs=None,
                    output_dict=self._seen_by(cohort, part),
                    num_frames=cohort.num_frames,
                    track_in_reverse=backward,
                )
                # The official predictor, too, keeps memory in bfloat16.
                memory = _Memory(output["maskmem_features"].to(torch.bfloat16), output["obj_ptr"])
                return memory, output["pred_masks"]

            self._run(cohort, time, frames, track)
            self._forget(cohort, time, backward)

    def _frames(self, cohort: _Cohort, offset: int) -> list[Frame]:
        """Where the objects are so many frames after (or before) their prompt, if still going."""
        at = [(self.requests[i].video, self.requests[i].frame_index) for i in cohort.objects]
        return [(video, p + offset) for video, p in at if 0 <= p + offset < len(video)]

    def _run(
        self,
        cohort: _Cohort,
        time: int,
        frames: list[Frame],
        step: Callable[[slice], tuple[_Memory, Tensor]],
    ) -> None:
        """Do a step in batches, remember it, and write its masks and tokens."""

        outputs = in_batches("objects", self.objects, step, len(frames))
        cohort.memories[time] = _Memory.join([memory for memory, _ in outputs])
        logits = [logits_HW for _, logits_B1HW in outputs for logits_HW in logits_B1HW[:, 0]]
        where = [
            (self.results[i], *frame) for i, frame in zip(cohort.objects, frames, strict=False)
        ]
        self.writer.call(_write, where, logits, cohort.memories[time].pointers_BD)

    def _seen_by(self, cohort: _Cohort, part: slice) -> dict:
        """The memories of some objects as `SAM2Base.track_step` takes them."""
        outputs = {}
        for time, memory in cohort.memories.items():
            rows = memory.rows(part)
            outputs[time] = {
                "maskmem_features": rows.features_BCHW,
                "maskmem_pos_enc": [self.position_1CHW.expand(len(rows.pointers_BD), -1, -1, -1)],
                "obj_ptr": rows.pointers_BD,
            }
        prompted = {cohort.start: outputs.pop(cohort.start)}
        return {"cond_frame_outputs": prompted, "non_cond_frame_outputs": outputs}

    def _forget(self, cohort: _Cohort, time: int, backward: bool) -> None:
        """Drop what no later step reads."""
        for past, memory in list(cohort.memories.items()):
            later = past - cohort.start
            away = abs(past - time)
            if not backward and later >= 0:
                away = min(away, later)  # backward steps will see the first frames
            if away >= self.reach and later:
                del cohort.memories[past]
            elif away >= self.mask_reach and later:
                cohort.memories[past] = _Memory(None, memory.pointers_BD)


def _announce(frames: list[Frame]) -> None:
    """Let videos fetch the features of these frames."""
    wanted = defaultdict(set)
    for video, t in frames:
        wanted[video].add(t)
    for video, times in wanted.items():
        video.announce(times)


@torch.inference_mode()
def _write(
    where: list[tuple[Propagated, EncodedVideo, int]], logits: list[Tensor], pointers_BD: Tensor
) -> None:
    tokens_BD = pointers_BD.float().cpu().numpy()
    for (result, video, t), logits_HW, token_D in zip(where, logits, tokens_BD, strict=True):
        result.tokens_TD[t] = token_D
        result.masks[t] = encode_enlarged(logits_HW, video.size)


def model_input(rle: RLE, model: SAM2Base) -> Tensor:
    """A prompt mask at the model's image size (1, 1, H, W), 0 or 1."""
    mask_11HW = torch.from_numpy(coco.decode(rle))[None, None].float().to(model.device)
    side = model.image_size
    if mask_11HW.shape[-2:] == (side, side):
        return mask_11HW
    resized = F.interpolate(
        mask_11HW, (side, side), mode="bilinear", align_corners=False, antialias=True
    )
    return (resized >= 0.5).float()
