"""Where the workers are: processes of this machine, or those of a Ray cluster."""

import os
from importlib.util import find_spec

from tasks.worker import precision as worker_precision


def precision() -> str:
    """What the workers compute SAM2 in: bfloat16 on GPUs, float32 else."""
    if on_ray():
        from flows.ray_workers import on_gpus

        return "bfloat16" if on_gpus() else "float32"
    return worker_precision()


def on_ray() -> bool:
    """Whether SOLA_RUNNER asks for Ray. Raises ValueError for other values, and without Ray."""
    runner = os.environ.get("SOLA_RUNNER", "processes")
    if runner not in ("processes", "ray"):
        raise ValueError(f"SOLA_RUNNER is {runner!r}; valid are: processes, ray")
    if runner == "ray" and not find_spec("prefect_ray"):
        raise ValueError("SOLA_RUNNER=ray needs prefect-ray: pip install 'sola-rvos[ray]'")
    return runner == "ray"
