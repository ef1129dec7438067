"""Train the embedded small SAM2 on embedded and drawn clips. Two CPU cores, two hours.

    python scripts/train_demo_sam2.py --out sola_model/demo/sam2_demo.pt

Stage 1 learns to segment images from points and boxes, stage 2 to follow objects through clips,
stage 3 to say in the object pointers also what the objects look like, and a last stage mixes images
and clips: a SAM2 of this size learns many kinds of background only when it sees many images.
Each of two processes draws its own clips; gradients are averaged. Three auxiliary heads are
trained along and thrown away: a dense head that puts position and extent into the image features,
a mask head on the memory-conditioned features (without it tracking takes far longer to start),
and linear heads that make object pointers carry position, size and visibility, and from stage 3 on
colour and kind.

Shapes: B objects, G clips, T frames, H and W of the model's square image.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from demo_clips import (
    IMAGE_SIZE,
    boxes_as_points,
    clips,
    first_frame_prompt,
    geometry,
    random_points,
)
from torch import Tensor, nn

from sola_model.extraction.sam2_models import DEMO_CHECKPOINT, SAM2Base, build_sam2
from warehouse.demo_data.scene import COLOURS, KINDS

PROCESSES = 2
CHANNELS = 64


class AuxiliaryHeads(nn.Module):
    """Heads that shape the features during training; they are not part of the model."""

    def __init__(self) -> None:
        super().__init__()
        # foreground, offset to the centre (2), log size (2), absolute position (2)
        self.dense = nn.ModuleList(nn.Conv2d(CHANNELS, 7, 1) for _ in range(3))
        looks = len(COLOURS) + len(KINDS)
        self.dense_looks = nn.ModuleList(nn.Conv2d(CHANNELS, looks, 1) for _ in range(3))
        self.memory_mask = nn.Conv2d(CHANNELS, 16, 1)
        self.pointer = nn.Linear(CHANNELS, 5)  # x, y, log width, log height, visible
        self.look = nn.Linear(CHANNELS, looks)  # of the pointer


def mask_loss(logits: Tensor, target_BHW: Tensor) -> Tensor:
    """4 BCE + dice at half resolution, averaged over mask tokens; logits (B, M, h, w)."""
    half = IMAGE_SIZE // 2
    target = F.interpolate(target_BHW[:, None], (half, half), mode="area").expand(
        -1, logits.shape[1], -1, -1
    )
    logits = F.interpolate(logits, (half, half), mode="bilinear", align_corners=False)
    bce = F.binary_cross_entropy_with_logits(logits, target)
    probability = logits.sigmoid()
    overlap = (probability * target).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + target.sum((2, 3)) + 1)
    return 4 * bce + dice.mean()


def actual_iou(logits: Tensor, target_BHW: Tensor) -> Tensor:
    """IoU of each mask token's thresholded prediction (B, M)."""
    half = IMAGE_SIZE // 2
    predicted = F.interpolate(logits, (half, half), mode="bilinear", align_corners=False) > 0
    target = F.interpolate(target_BHW[:, None], (half, half), mode="area") > 0.5
    union = (predicted | target).sum((2, 3)).clamp(min=1)
    return (predicted & target).sum((2, 3)) / union


def encode(model: SAM2Base, images: Tensor) -> tuple[dict, list[Tensor]]:
    """`SAM2Base.forward_image`, also giving the FPN levels before the decoder's projections."""
    out = model.image_encoder(images)
    raw = list(out["backbone_fpn"])
    decoder = model.sam_mask_decoder
    out["backbone_fpn"] = [decoder.conv_s0(raw[0]), decoder.conv_s1(raw[1]), *raw[2:]]
    return out, raw


def dense_loss(heads: AuxiliaryHeads, levels: list[Tensor], masks: list[Tensor]) -> Tensor:
    """Foreground, centre offset, size and position at every pixel of the three levels."""
    total = torch.zeros(())
    for head, features in zip(heads.dense, levels, strict=True):
        size = features.shape[-1]
        axis = torch.linspace(-1, 1, size)
        position = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))
        output = head(features)
        total = total + F.smooth_l1_loss(output[:, 5:7], position.expand_as(output[:, 5:7]))
        for image, masks_NHW in zip(output, masks, strict=True):
            small = F.interpolate(masks_NHW[:, None], (size, size), mode="area")[:, 0]
            total = total + F.binary_cross_entropy_with_logits(
                image[0], small.amax(0).clamp(max=1)
            ) / len(masks)
            inside = small > 0.5
            extent = geometry(masks_NHW)
            target = torch.cat(
                [
                    extent[:, :2, None, None] - position,
                    extent[:, 2:4, None, None].expand(-1, -1, size, size),
                ],
                dim=1,
            )
            owner = inside.float().argmax(0)
            target = target.gather(0, owner[None, None].expand(1, 4, size, size))[0]
            here = inside.any(0)
            if here.any():
                total = total + F.smooth_l1_loss(image[1:5][:, here], target[:, here]) / len(masks)
    return total


def dense_look_loss(
    heads: AuxiliaryHeads, levels: list[Tensor], masks: list[Tensor], looks: list[Tensor]
) -> Tensor:
    """Colour and kind at every pixel of an object, on the three levels."""
    total = torch.zeros(())
    for head, features in zip(heads.dense_looks, levels, strict=True):
        size = features.shape[-1]
        for image, masks_NHW, looks_N2 in zip(head(features), masks, looks, strict=True):
            inside = F.interpolate(masks_NHW[:, None], (size, size), mode="area")[:, 0] > 0.5
            here = inside.any(0)
            if here.any():
                look_K2 = looks_N2[inside.float().argmax(0)[here]]
                total = total + _look_loss(image[:, here].T, look_K2) / len(masks)
    return total


def image_step(
    model: SAM2Base,
    heads: AuxiliaryHeads,
    rng: np.random.Generator,
    count: int = 10,
    drawn: float = 0.5,
) -> Tensor:
    """Stage 1: segment objects of single images from a point or a box."""
    images_GT3HW, clip_masks, _ = clips(rng, count, frames=1, drawn=drawn)
    masks = [m[:, 0] for m in clip_masks]
    out, levels = encode(model, images_GT3HW[:, 0])
    owner, targets, coords, labels, is_object = [], [], [], [], []
    for g, masks_NHW in enumerate(masks):
        visible = torch.nonzero(masks_NHW.sum((1, 2)) >= 60)[:, 0].tolist()
        for _ in range(4):
            background = (masks_NHW.amax(0) < 0.5).float()
            real = bool(visible) and rng.random() > 0.2
            target = masks_NHW[int(rng.choice(visible))] if real else background
            with_box = real and rng.random() < 0.25
            if with_box:
                coords.append(boxes_as_points(rng, target[None])[0])
                labels.append([2, 3])
            else:
                point = random_points(rng, target[None])[0]
                coords.append(torch.stack([point, torch.zeros(2)]))
                labels.append([1, -1])
            owner.append(g)
            targets.append(target)
            is_object.append(real)
    target_BHW, real_B = torch.stack(targets), torch.tensor(is_object)
    # One padding point more than SAM2's own: it ignores points labelled -1.
    sparse, dense = model.sam_prompt_encoder(
        points=(torch.stack(coords), torch.tensor(labels)), boxes=None, masks=None
    )
    fpn = [level[owner] for level in out["backbone_fpn"]]
    top = fpn[2] + model.no_mem_embed.view(1, CHANNELS, 1, 1)
    logits_BMhw, iou_BM, _, object_score = model.sam_mask_decoder.predict_masks(
        image_embeddings=top,
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=fpn[:2],
    )
    iou_target = actual_iou(logits_BMhw.detach(), target_BHW) * real_B[:, None]
    return (
        mask_loss(logits_BMhw[real_B], target_BHW[real_B])
        + F.l1_loss(iou_BM, iou_target)
        + F.binary_cross_entropy_with_logits(object_score[:, 0], real_B.float())
        + dense_loss(heads, levels, masks)
    )


def clip_step(
    model: SAM2Base, heads: AuxiliaryHeads, rng: np.random.Generator, frames: int, with_looks: bool
) -> Tensor:
    """Stages 2 to 4: prompt objects on the first frame of clips, follow them through the rest."""
    count = 12 // frames + 2
    images_GT3HW, clip_masks, clip_looks = clips(rng, count, frames)
    owner, targets, looks = [], [], []
    for g, masks_NTHW in enumerate(clip_masks):
        for n, masks_THW in enumerate(masks_NTHW):
            if masks_THW[0].sum() >= 60:
                owner.append(g)
                targets.append(masks_THW)
                looks.append(clip_looks[g][n])
    target_BTHW, look_B2 = torch.stack(targets), torch.stack(looks)
    out, levels = encode(model, images_GT3HW.flatten(0, 1))
    frame_masks = [m[:, t] for m in clip_masks for t in range(frames)]
    loss = 0.5 * dense_loss(heads, levels, frame_masks)
    if with_looks:
        frame_looks = [look for look in clip_looks for _ in range(frames)]
        loss = loss + 0.5 * dense_look_loss(heads, levels, frame_masks, frame_looks)
    _, features, positions, sizes = model._prepare_backbone_features(out)
    history: dict[str, dict] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    prompt = first_frame_prompt(rng, target_BTHW[:, 0])
    for t in range(frames):
        rows = torch.tensor([g * frames + t for g in owner])
        vision = [f[:, rows] for f in features]
        current, outputs, _, pixels = model._track_step(
            t, t == 0, vision, [p[:, rows] for p in positions], sizes,
            prompt.get("points") if t == 0 else None,
            prompt.get("mask") if t == 0 else None,
            history, 24, False, None,
        )  # fmt: skip
        low_BMhw, _, iou_BM, _, high_B1HW, pointer_BC, object_score_B1 = outputs
        model._encode_memory_in_output(
            vision, sizes, current["point_inputs"], True, high_B1HW, object_score_B1, current
        )
        current["obj_ptr"] = pointer_BC
        history["cond_frame_outputs" if t == 0 else "non_cond_frame_outputs"][t] = current
        target_BHW = target_BTHW[:, t]
        extent_B5 = geometry(target_BHW)
        loss = loss + _pointer_loss(heads, pointer_BC, object_score_B1, extent_B5) / frames
        in_sight = (extent_B5[:, 4] > 0) & (object_score_B1[:, 0] > 0)
        if with_looks and in_sight.any():
            read_BL = heads.look(pointer_BC[in_sight])
            loss = loss + _look_loss(read_BL, look_B2[in_sight]) / frames
        if t == 0 and "mask" in prompt:
            continue  # the decoder's masks were not used
        if in_sight.any():
            iou = actual_iou(low_BMhw.detach(), target_BHW)
            loss = (
                loss
                + (
                    mask_loss(low_BMhw[in_sight], target_BHW[in_sight])
                    + F.l1_loss(iou_BM[in_sight], iou[in_sight])
                )
                / frames
            )
        loss = (
            loss
            + F.binary_cross_entropy_with_logits(object_score_B1[:, 0], extent_B5[:, 4]) / frames
        )
        memory_mask = F.pixel_shuffle(heads.memory_mask(pixels), 4)
        loss = loss + mask_loss(memory_mask, target_BHW) / frames
    return loss


def _pointer_loss(
    heads: AuxiliaryHeads, pointer_BC: Tensor, object_score_B1: Tensor, extent_B5: Tensor
) -> Tensor:
    """Read position, size and visibility off the pointers of objects that are in sight."""
    read_B5 = heads.pointer(pointer_BC)
    seen = (extent_B5[:, 4] > 0) & (object_score_B1[:, 0] > 0)
    visible = F.smooth_l1_loss(read_B5[:, 4], extent_B5[:, 4])
    if not seen.any():
        return visible
    return visible + 2 * F.smooth_l1_loss(read_B5[seen, :4], extent_B5[seen, :4], beta=0.1) * 2


def _look_loss(logits_BL: Tensor, look_B2: Tensor) -> Tensor:
    """Cross-entropy of colour and of kind, whose logits lie side by side; -1 does not count."""
    total = torch.zeros(())
    parts = logits_BL.split([len(COLOURS), len(KINDS)], dim=1)
    for part_BK, index_B in zip(parts, look_B2.T, strict=True):
        if (named := index_B >= 0).any():
            total = total + F.cross_entropy(part_BK[named], index_B[named])
    return total


def _reset_pointer_projection(model: SAM2Base) -> None:
    """The default initialisation shrinks the signal to nothing."""
    for layer in model.obj_ptr_proj.layers:
        nn.init.orthogonal_(layer.weight, gain=1.5)
        nn.init.zeros_(layer.bias)


def _average_gradients(parameters: list[nn.Parameter]) -> None:
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    for parameter, grad in zip(parameters, flat.split([g.numel() for g in grads]), strict=True):
        parameter.grad = grad.view_as(parameter) / PROCESSES


def _optimizer(model: SAM2Base, heads: AuxiliaryHeads, rate: float, memory: float):
    """AdamW; modules that only clips train get `memory` times the rate."""
    fast_names = ("memory_attention", "memory_encoder", "obj_ptr", "maskmem", "no_obj")
    fast = [p for n, p in model.named_parameters() if n.startswith(fast_names)]
    slow = [p for n, p in model.named_parameters() if not n.startswith(fast_names)]
    groups = [{"params": [*slow, *heads.parameters()]}, {"params": fast, "lr": rate * memory}]
    return torch.optim.AdamW(groups, lr=rate, weight_decay=0.01)


def train(rank: int, arguments: argparse.Namespace) -> None:
    """One of the processes; process 0 writes checkpoints and reports."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{arguments.rendezvous}",
                            rank=rank, world_size=PROCESSES)  # fmt: skip
    torch.manual_seed(0)
    model = build_sam2(DEMO_CHECKPOINT.with_suffix(".yaml"))
    if arguments.start:
        weights = torch.load(arguments.start, weights_only=True)["model"]
        model.load_state_dict({name: value.float() for name, value in weights.items()})
    heads = AuxiliaryHeads()
    rng = np.random.default_rng([rank, 0])
    state_file = arguments.out.with_suffix(".training")
    resume = torch.load(state_file, weights_only=False) if state_file.exists() else None
    stages = [
        ("images", arguments.image_steps, 4e-4 if arguments.start else 1e-3, 1.0),
        ("clips", arguments.clip_steps, 4e-4, 2.5),
        ("looks", arguments.look_steps, 4e-4, 2.5),
        ("mixed", arguments.mixed_steps, 6e-4, 1.5),
    ]
    for number, (stage, steps, rate, memory) in enumerate(stages):
        if resume and resume["stage"] > number:
            continue
        if stage == "clips" and not arguments.start:
            _reset_pointer_projection(model)
        optimizer = _optimizer(model, heads, rate, memory)
        peak = [group["lr"] for group in optimizer.param_groups]
        first = 0
        if resume:
            model.load_state_dict(resume["model"])
            heads.load_state_dict(resume["heads"])
            if resume["stage"] == number and resume["step"] > 0:
                optimizer.load_state_dict(resume["optimizer"])
                first = resume["step"]
                rng = np.random.default_rng([rank, number, first])
            resume = None
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        started, mean = time.time(), None
        model.train()
        for step in range(first, steps):
            warmup = min(1.0, (step + 1) / 100)
            decay = 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01
            for group, lr in zip(optimizer.param_groups, peak, strict=True):
                group["lr"] = lr * warmup * decay
            loss = torch.zeros(())
            if stage == "images":
                loss = image_step(model, heads, rng)
            elif stage == "mixed":
                loss = 3 * image_step(model, heads, rng, count=20, drawn=0.8)
            if stage in ("clips", "looks") or (stage == "mixed" and step % 2 == 0):
                frames = 4 if stage == "clips" and step < 0.35 * steps else 8
                loss = loss + clip_step(model, heads, rng, frames, with_looks=stage != "clips")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            _average_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
            if rank == 0 and (step + 1) % 50 == 0:
                pace = (time.time() - started) / (step + 1 - first)
                print(f"{stage} {step + 1}/{steps} loss {mean:.3f} {pace:.2f} s/step", flush=True)
            if (step + 1) % 250 == 0 or step + 1 == steps:
                if rank == 0:
                    _save(state_file, model, heads, optimizer, number, step + 1)
                    _export(arguments.out, model)
                dist.barrier()


def _save(path: Path, model, heads, optimizer, stage: int, step: int) -> None:
    state = {"model": model.state_dict(), "heads": heads.state_dict(), "stage": stage,
             "optimizer": optimizer.state_dict(), "step": step}  # fmt: skip
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _export(path: Path, model: SAM2Base) -> None:
    """The official format, `{"model": state_dict}`, in float16."""
    torch.save({"model": {k: v.half() for k, v in model.state_dict().items()}}, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEMO_CHECKPOINT)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--image-steps", type=int, default=1700)
    parser.add_argument("--clip-steps", type=int, default=1800)
    parser.add_argument("--look-steps", type=int, default=450)
    parser.add_argument("--mixed-steps", type=int, default=3400)
    options = parser.parse_args()
    options.rendezvous = options.out.with_suffix(".rendezvous").resolve()
    options.rendezvous.unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, (options,), nprocs=PROCESSES)
    options.rendezvous.unlink(missing_ok=True)
