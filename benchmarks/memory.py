"""Memory of extraction: what grows with the length of a video, and what does not.

    python -m benchmarks.memory        # or: make bench

Four objects of one prompt frame through videos of 60 and 600 frames, embedded model, each in a
process of its own: its largest resident size, the features and the outputs that it holds, and the
largest memory bank that a step was given. Then the same for SAM2-L at 1024 in bfloat16, by the
sizes of one frame's features and memories, which are those of sam2.1_hiera_tiny.
"""

import resource
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import torch

from sola_model.extraction.encoding import EncodedVideo, frame_arguments
from sola_model.extraction.propagation import Request, propagate
from sola_model.extraction.sam2_models import load_sam2
from sola_model.masks.rle import encode_masks
from warehouse.demo_data import random_scene, render_frames

MIB = 2**20
OBJECTS = 4


def there_and_back(frames_THW3: np.ndarray, frames: int) -> Iterator[np.ndarray]:
    """A clip, forward and backward again and again, so that objects never jump."""
    last = len(frames_THW3) - 1
    for t in range(frames):
        yield frames_THW3[last - abs(last - t % (2 * last))]


def bank_bytes(outputs: dict) -> int:
    """Bytes that a step's memories hold; positions are one tensor for all."""
    memories = [memory for kind in outputs.values() for memory in kind.values()]
    tensors = [memory[name] for memory in memories for name in ("maskmem_features", "obj_ptr")]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def measure(frames: int) -> None:
    """Run one length and print its row."""
    torch.set_num_threads(1)
    model = load_sam2("demo")
    clip_THW3, masks_NTHW = render_frames(random_scene(np.random.default_rng(5), 24))
    banks: list[int] = []
    track_step = model.track_step

    def watched(**arguments):
        banks.append(bank_bytes(arguments["output_dict"]))
        return track_step(**arguments)

    model.track_step = watched
    video = EncodedVideo(model, there_and_back(clip_THW3, frames))
    rles = encode_masks(torch.from_numpy(masks_NTHW[:OBJECTS, 20] > 0))
    tracks = propagate(model, [Request(video, 20, rle) for rle in rles])
    features = frames * sum(
        level.nbytes for level in frame_arguments([(video, 0)])["current_vision_feats"]
    )
    outputs = sum(
        track.tokens_TD.nbytes + sum(sys.getsizeof(rle["counts"]) + 400 for rle in track.masks)
        for track in tracks
    )
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"T = {frames:4}: largest resident size {largest / MIB:.0f} MiB, of which features "
        f"{features / MIB:.1f} MiB, outputs {outputs / MIB:.1f} MiB, memory bank "
        f"{max(banks) / 1024:.0f} KiB"
    )


def large_model_table() -> None:
    """SAM2-L at 1024 in bfloat16: 64 x 64 positions, 64 channels of memory, 256 of features."""
    feature_bytes = 2 * (256 * 256 * 32 + 128 * 128 * 64 + 64 * 64 * 256)
    memory_bytes, pointer_bytes = 2 * 64 * 64 * 64, 4 * 256
    bank = 12 * memory_bytes + 30 * pointer_bytes
    print(
        f"SAM2-L: features {feature_bytes / MIB:.0f} MiB a frame, memory bank "
        f"{bank / MIB:.1f} MiB an object; the official predictor keeps per object and frame "
        f"{(memory_bytes + 256 * 256 * 4 + pointer_bytes) / MIB:.2f} MiB, and 12 MiB a frame"
    )
    for frames in (100, 500, 2000):
        official = frames * (12 * MIB + 16 * (memory_bytes + 256 * 256 * 4 + pointer_bytes))
        print(
            f"T = {frames:4}: features {frames * feature_bytes / 2**30:.1f} GiB on device or host, "
            f"16 objects {16 * bank / 2**30:.2f} GiB; the official predictor for 16 objects "
            f"{official / 2**30:.1f} GiB"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
    else:
        for frames in (60, 600):
            subprocess.run([sys.executable, "-m", "benchmarks.memory", str(frames)], check=True)
        large_model_table()
