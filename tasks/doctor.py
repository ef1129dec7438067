"""Whether extraction is right on this machine: what is installed, and the official predictor beside
ours, with the user's weights on the user's device."""

import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from sola_model.extraction.checkpoints import config_path, resolve_checkpoint
from sola_model.extraction.host_memory import free_memory
from sola_model.extraction.sam2_models import load_sam2
from sola_model.parity.compare import (
    Agreement,
    agreement,
    extracted_by_us,
    object_prompts,
    official_agreement,
)
from sola_model.recipes import Recipe
from tasks.machine import GIB, for_people, free_disk
from tasks.training.training_set import check_text_dim
from tasks.worker import device
from warehouse.demo_data import Scene, random_scene, render_frames

PACKAGES = ("torch", "torchvision", "sam2", "transformers", "prefect", "duckdb", "pyarrow", "numpy")
LEAST_DISK = 2 * GIB  # for a warehouse of any use
LEAST_MEMORY = 2 * GIB  # what a worker takes beside its weights: torch, and the features of a clip
FRAMES, PROMPTED = 5, (0, 4)  # of the embedded clip: what the release prompts of it
POINTS_PER_SIDE = 6  # of the grid, where the release has 32: each point takes its time on a CPU
# The lowest mask IoU and the largest token difference that rounding makes: of float32 as measured
# in tests, of bfloat16 what its 8 bits may come to over some frames (not measured).
ROUNDING = {"float32": (0.999, 1e-3), "bfloat16": (0.95, 0.1)}


class Finding(NamedTuple):
    """What was looked at, how it is, what was found, and what to do about it."""

    what: str
    state: Literal["ok", "warning", "fault"]
    found: str
    advice: str = ""


def examine(
    recipe: Recipe,
    place: str,
    *,
    sam2: str | None,
    detector: str | None,
    text_encoder: str | None,
    workers: int | None,
) -> Iterator[Finding]:
    """Findings, one after another, about this machine and the models that are named.

    Args:
        recipe: its settings are those of the extraction, and its selector has the text width.
        place: of the warehouse, whose disk is looked at.
        workers: how many processes are to share the memory; default: one per CPU core or GPU.
    """
    yield versions()
    found, where = devices()
    yield from found
    yield disk(place)
    if sam2:
        yield from sam2_findings(sam2, where, recipe)
    if detector:
        yield detector_finding(detector, where, recipe)
    if text_encoder:
        yield text_encoder_finding(text_encoder, where, recipe)
    yield memory_of_workers(workers or torch.cuda.device_count() or os.cpu_count() or 1)


def versions() -> Finding:
    """The packages that are installed."""
    named = [f"{name} {metadata.version(name)}" for name in ("sola-rvos", *PACKAGES)]
    return Finding("versions", "ok", f"Python {platform.python_version()}, {', '.join(named)}")


def devices() -> tuple[list[Finding], str]:
    """Findings about the device that workers compute on, and its name: "cpu" if it is not there."""
    where = device()
    try:
        torch.zeros(1, device=where).cpu()
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        there = ", ".join(["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))])
        found = f"SOLA_DEVICE is {where}, which torch cannot use: {_line(error)}"
        advice = f"set it to one of {there}{_how_to_cuda()}"
        return [Finding("device", "fault", found, advice)], "cpu"
    found = f"{where}, {os.cpu_count()} CPU cores"
    if where.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(where)
        name = torch.cuda.get_device_name(where)
        count = torch.cuda.device_count()
        found = f"{where}, {name}, {for_people(free)} of {for_people(total)} free, {count} in all"
        found += f", torch built for CUDA {torch.version.cuda}"
    findings = [Finding("device", "ok", found)]
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        found = "there is an NVIDIA driver, and torch finds no GPU"
        advice = "run nvidia-smi: it must list the GPU, with a driver as new as torch's CUDA"
        findings.append(Finding("driver", "warning", found, advice + _how_to_cuda()))
    return findings, where


def _how_to_cuda() -> str:
    if torch.version.cuda:
        return f"; torch was built for CUDA {torch.version.cuda}"
    return "; this torch was built without CUDA: install one with it (pytorch.org has the command)"


def disk(place: str, least: int = LEAST_DISK) -> Finding:
    """The free space where the warehouse is, or is going to be."""
    if not (found := free_disk(place)):
        return Finding("disk", "ok", f"{place} is an object store")
    free, above = found
    if free >= least:
        return Finding("disk", "ok", f"{for_people(free)} free in {above}")
    advice = f"free {for_people(least)} there, or give another --warehouse; `sola plan` says more"
    return Finding("disk", "fault", f"{for_people(free)} free in {above}", advice)


def sam2_findings(name: str, where: str, recipe: Recipe) -> Iterator[Finding]:
    """Whether a SAM2 loads, and whether its tracks are those of the official predictor."""
    try:
        path = resolve_checkpoint(name)
        if missing := _memory_for(path):
            yield missing
            return
        model = load_sam2(path, where)
    except Exception as error:
        yield _not_loaded("sam2", name, error)
        return
    millions = sum(weights.numel() for weights in model.parameters()) / 1e6
    yield Finding("sam2", "ok", f"{name} loads, {millions:.1f} million weights")
    frames_THW3, masks_NTHW = render_frames(_scene(), range(FRAMES))
    prompts = object_prompts(masks_NTHW, PROMPTED)
    grid = replace(recipe.extraction.grid, points_per_side=POINTS_PER_SIDE)
    given = (list(frames_THW3), prompts, replace(recipe.extraction, grid=grid))
    try:
        found = official_agreement(model, config_path(path), *given)
        yield _agreement("sam2 as official", found, where, f"the official predictor on {where}")
        if where != "cpu":
            there = extracted_by_us(model, *given)
            found = agreement(there, extracted_by_us(load_sam2(path), *given))
            yield _agreement("sam2 as on the CPU", found, where, "ours on the CPU")
    except Exception as error:
        yield Finding(
            "sam2 as official",
            "fault",
            f"{name} does not extract: {type(error).__name__}: {_line(error)}",
            "run with SOLA_DEVICE=cpu: if that goes well it is the device, else the weights",
        )


def _agreement(what: str, found: Agreement, where: str, other: str) -> Finding:
    iou, token = ROUNDING["bfloat16" if where.startswith("cuda") else "float32"]
    text = (
        f"{found.speed:.2f} times as fast as {other}; {found.grid:.0%} of grid masks and "
        f"{found.fates:.0%} of fates the same, mask IoU {found.mask_iou:.4f} or more, tokens "
        f"within {found.token_difference:.2g} of their largest"
    )
    if found.mask_iou >= iou and found.token_difference <= token:
        if found.grid == found.fates == 1:
            return Finding(what, "ok", text)
        if where != "cpu":
            advice = "rounding decides such cases; compare scores before tracks of both are mixed"
            return Finding(what, "warning", text, advice)
    return Finding(
        what,
        "fault",
        text,
        "do not trust tracks made here: install the versions of constraints.txt, and report what "
        "`sola doctor --json` says if they are",
    )


def detector_finding(name: str, where: str, recipe: Recipe) -> Finding:
    """Whether a detector loads and runs."""
    from sola_model.detection.detector import detect, load_detector

    (frame_HW3,), _ = render_frames(_scene(), range(1))
    captions = [f"{shape.colour} {shape.kind}" for shape in _scene().shapes]
    try:
        loaded = load_detector(name, where)
        ((_, found),) = detect(loaded, [(0, frame_HW3)], captions, recipe.detection)
    except Exception as error:
        return _not_loaded("detector", name, error)
    boxes = sum(map(len, found))
    return Finding("detector", "ok", f"{name} loads, {boxes} boxes of {len(captions)} objects")


def text_encoder_finding(name: str, where: str, recipe: Recipe) -> Finding:
    """Whether a text encoder loads, and has the width that the recipe's selector takes."""
    from sola_model.text.encoder import TextEncoder

    try:
        encoder = TextEncoder(name, where)
        (features_WC,) = encoder.encode(["the red circle that turns back"])
        check_text_dim(recipe)
    except Exception as error:
        return _not_loaded("text encoder", name, error)
    if not features_WC.isfinite().all():
        advice = "download it again; with SOLA_DEVICE=cpu it is the weights, else the device"
        return Finding("text encoder", "fault", f"{name} gives values that are no numbers", advice)
    return Finding("text encoder", "ok", f"{name} loads, {encoder.dim} channels")


def _not_loaded(what: str, name: str, error: Exception) -> Finding:
    if isinstance(error, ValueError):  # says what to do itself
        return Finding(what, "fault", _line(error))
    found = f"{name} does not load: {type(error).__name__}: {_line(error)}"
    if isinstance(error, torch.OutOfMemoryError):
        return Finding(what, "fault", found, "end what else uses the GPU, or take a smaller model")
    return Finding(what, "fault", found, "download it again, or install what is missing")


def _memory_for(weights: Path) -> Finding | None:
    """A fault where a model and its official counterpart are more than the free memory."""
    needed = 2 * weights.stat().st_size + LEAST_MEMORY
    free = free_memory()
    if free >= needed:
        return None
    found = (
        f"{for_people(free)} free, and {weights.name} takes about {for_people(needed)} to look at"
    )
    return Finding("memory", "fault", found, "end other programs, or take a smaller model")


def memory_of_workers(workers: int) -> Finding:
    """Whether so many processes like this one fit into the free memory."""
    kilobyte = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte
    free = free_memory()
    fit = (free + own) // own  # this process ends
    found = f"{for_people(free)} free; a worker takes {for_people(own)}, {workers} are to run"
    if fit >= workers:
        return Finding("memory", "ok", found)
    advice = f"with --workers {max(1, fit)} they fit; `sola plan` says what long videos take"
    return Finding("memory", "warning", found, advice)


def _scene() -> Scene:
    return random_scene(np.random.default_rng(5))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
