"""What `sola plan` prints."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from flows.plan import Planned
from sola_model.extraction.host_memory import free_memory
from tasks.costs import Estimate, hours
from tasks.machine import for_people, free_disk


def as_values(planned: Planned, workers: int, price: float | None) -> dict[str, Any]:
    """The plan as JSON values; seconds and bytes."""
    values = asdict(planned)
    values |= {"workers": workers, "wall": asdict(planned.wall), "size": asdict(planned.size)}
    values["time_left"] = asdict(planned.time_left(workers))
    if price is not None:
        values["price"] = asdict(_money(planned, price))
    return values


def as_lines(planned: Planned, workers: int, price: float | None, place: str) -> Iterator[str]:
    """The plan for people, with a warning where disk or memory is too small for it."""
    yield (
        f"{planned.dataset}/{planned.split}, track set {planned.track_set}: {planned.videos} "
        f"videos, {planned.frames} frames; {planned.done} videos are done, on {planned.on}"
    )
    for costs in planned.stages if len(planned.stages) > 1 else ():
        yield f"{costs.stage + ':':14}{hours(costs.wall)} worker-hours"
    unit = "worker-hours" if planned.on == "cpu" else "GPU-hours"
    yield f"in all:       {hours(planned.wall)} {unit}"
    if price is not None:
        yield f"price:        {_shown(_money(planned, price))} at {price:g} an hour"
    left = planned.time_left(workers)
    spans = [timedelta(seconds=round(each)) for each in (left.value, left.low, left.high)]
    yield f"time left:    {spans[0]} ({spans[1]} to {spans[2]}) with {workers} workers"
    size = planned.size
    value, low, high = map(for_people, (size.value, size.low, size.high))
    yield f"disk:         {value} ({low} to {high})"
    host, device = (max(getattr(c, on) for c in planned.stages) for on in ("host", "device"))
    of_gpu = f", {for_people(device)} of its GPU" if device else ""
    yield f"memory:       {for_people(host)} a worker{of_gpu}, {for_people(workers * host)} in all"
    yield "90 % intervals; the estimate is from " + ", ".join(
        f"{costs.measured} videos of {costs.stage}" for costs in planned.stages
    )
    disk, memory = free_disk(place), free_memory()
    if disk and disk[0] < size.high:
        yield f"warning: {for_people(disk[0])} are free in {disk[1]}: free more, or use --limit"
    if memory < workers * host:
        fit = max(1, int(memory // host))
        yield f"warning: {for_people(memory)} of memory are free: use --workers {fit}"


def _money(planned: Planned, price: float) -> Estimate:
    return planned.wall * (price / 3600)


def _shown(found: Estimate) -> str:
    return f"{found.value:.3g} ({found.low:.3g} to {found.high:.3g})"
