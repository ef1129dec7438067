"""The tasks of a flow on a Ray cluster, through prefect-ray: SOLA_RUNNER=ray, the extra `ray`.

The cluster is the one at RAY_ADDRESS ("auto": the one that runs on this machine), else a new one
that ends with this process and listens on the loopback alone. The machines of a cluster need this
package, the warehouse, the videos and Prefect's API at the same addresses.
"""

import logging
import os
from collections.abc import Iterable
from typing import Any

import ray
from prefect import Task
from prefect.futures import PrefectFuture
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options
from prefect_ray.task_runners import PrefectRayFuture
from ray._private import ray_constants
from ray.exceptions import RayError, RayTaskError

from flows.runtime import WorkerDied
from tasks.worker import bind

# With several GPUs to see, the device can be chosen by its number whenever Ray gives another one.
EVERY_GPU_VISIBLE = {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}
NO_GPU_VISIBLE = {"CUDA_VISIBLE_DEVICES": ""}


def slots(uses_gpu: bool) -> int:
    """How many tasks the cluster runs at once: one for each GPU, or for each CPU core."""
    _connect()
    return (uses_gpu and _gpus()) or int(ray.cluster_resources().get("CPU", 1))


def on_gpus() -> bool:
    """Whether the cluster's tasks run on GPUs."""
    _connect()
    return bool(_gpus())


class RayWorkers(RayTaskRunner):
    """Each task has a CPU core and, where it uses one and there is one, a GPU.

    A process keeps its model.

    (Ray would end a process that used a GPU after one task.) What a task leaves undone when its
    process or its machine dies is for `flows.fanout` to repeat.
    """

    def __init__(self, uses_gpu: bool) -> None:
        super().__init__()
        self.uses_gpu = uses_gpu

    def __enter__(self) -> "RayWorkers":
        _connect()
        return super().__enter__()

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> "_Future":
        on_gpu = bool(self.uses_gpu and _gpus())
        with remote_options(
            num_cpus=1,
            num_gpus=int(on_gpu),
            max_calls=0,
            max_retries=0,
            runtime_env={"env_vars": EVERY_GPU_VISIBLE if on_gpu else NO_GPU_VISIBLE},
        ):
            future = super().submit(task, parameters, wait_for, dependencies)
        return _Future(task_run_id=future.task_run_id, wrapped_future=future.wrapped_future)

    @staticmethod
    def _run_prefect_task(*upstream: Any, **arguments: Any) -> Any:
        """What runs on the cluster."""
        bind(_leased_device())
        return RayTaskRunner._run_prefect_task(*upstream, **arguments)


class _Future(PrefectRayFuture[Any]):
    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """The task's result. Raises WorkerDied when Ray lost the process that ran it."""
        try:
            return super().result(timeout, raise_on_failure)
        except RayTaskError:
            raise
        except RayError as error:
            raise WorkerDied(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error


def _connect() -> None:
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing talks to the internet
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if "RAY_ADDRESS" in os.environ:
            ray.init(**quiet)
        else:
            # Ray's switch for macOS and Windows, where it always listens on the loopback.
            ray_constants.ENABLE_RAY_CLUSTER = False
            ray.init("local", include_dashboard=False, **quiet)


def _gpus() -> int:
    """How many GPUs the cluster has to share out.

    Raises:
        ValueError: SOLA_DEVICE names another device than "cuda" or "cpu", or there is no GPU.
    """
    chosen = os.environ.get("SOLA_DEVICE") or "any"
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if chosen not in ("any", "cpu", "cuda") or (chosen == "cuda" and not gpus):
        raise ValueError(
            f"SOLA_DEVICE is {chosen!r}, and Ray shares out the {gpus} GPUs of its cluster; valid "
            f"are: {'cpu, cuda' if gpus else 'cpu'}"
        )
    return 0 if chosen == "cpu" else gpus


def _leased_device() -> str:
    """The GPU that Ray gave to the task, by its number among those that this process sees."""
    leased = [str(gpu) for gpu in ray.get_gpu_ids()]
    if not leased:
        return "cpu"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"cuda:{visible.split(',').index(leased[0]) if visible else leased[0]}"
