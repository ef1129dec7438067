"""GPUs that are pretended on the CPU, to test on any machine what runs on one.

Inside of `pretended_gpus()` PyTorch says that there are CUDA devices. Tensors that are moved to one
say that they are there, and compute on the CPU. As on a GPU, operations that mix devices are
errors, what makes the CPU wait for the GPU can be counted, and memory has an end. CUDA's kernels,
their rounding and their speed are not here.
"""

import math
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# They may read one device and write another.
COPIES = {"_to_copy", "copy_"}
# What autograd makes for itself, zeros that it puts gradients into, is on the CPU.
OF_AUTOGRAD = {"index_put"}
# The CPU's indices and values of no dimension may go with tensors on a GPU.
TAKES_CPU_INDICES = {"index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}
# The CPU has to know a result before it can go on.
WAITS = {
    "_local_scalar_dense": "item",
    "is_nonzero": "bool",
    "equal": "equal",
    "nonzero": "nonzero",
    "masked_select": "masked_select",
    "_unique2": "unique",
    "torchvision::nms": "nms",
}
PLAIN_TO, PLAIN_TENSOR, PLAIN_AS_TENSOR = torch.Tensor.to, torch.tensor, torch.as_tensor
PLAIN_AUTOCAST, PLAIN_ONE_HOT = torch.autocast, torch.nn.functional.one_hot


@dataclass
class GPUs:
    """What is pretended: so many GPUs, one of them the current one.

    waits: what made the CPU wait, by (what, "file:line function", name of the thread).
    largest: bytes of a tensor beyond which there is no memory for it.
    seen: bytes of the largest tensor so far.
    """

    count: int
    current: int = 0
    waits: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    largest: float = math.inf
    seen: int = 0

    def wait(self, what: str) -> None:
        self.waits[what, _caller(), threading.current_thread().name] += 1

    def index(self, device: torch.device) -> int:
        return self.current if device.index is None else device.index


_gpus = GPUs(0)


class OnGPU(Tensor):
    """A tensor that says it is on a GPU; `inner` holds its values, on the CPU."""

    inner: Tensor
    index: int
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor, index: int) -> "OnGPU":
        _gpus.seen = max(_gpus.seen, inner.nbytes)
        if inner.nbytes > _gpus.largest:
            raise torch.OutOfMemoryError(f"CUDA out of memory (pretended): {inner.nbytes} bytes")
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            requires_grad=inner.requires_grad,
        )
        made.inner, made.index = inner.detach(), index
        return made

    def __repr__(self) -> str:
        return f"on cuda:{self.index}: {self.inner}"

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        return _carry_out(operation, args, kwargs or {})

    device = property(lambda self: torch.device("cuda", self.index))
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        return _to(self, *args, **kwargs)

    def cpu(self, *_: Any) -> Tensor:
        return _to(self, "cpu")

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a CUDA tensor to numpy: use Tensor.cpu() first")

    __array__ = numpy

    def item(self) -> Any:
        _gpus.wait("item")
        return self.inner.item()

    def tolist(self) -> Any:
        _gpus.wait("tolist")
        return self.inner.tolist()

    def type_as(self, other: Tensor) -> Tensor:
        return _to(self, other)

    def pin_memory(self) -> Tensor:
        raise RuntimeError("only dense CPU tensors can be pinned")

    def record_stream(self, _: object) -> None:
        pass

    def __deepcopy__(self, _: object) -> "OnGPU":
        return OnGPU(self.inner.clone(), self.index)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.__reduce_ex__(protocol)


class _Move(torch.autograd.Function):
    """To a GPU (its index) or to the CPU (None); gradients go the other way."""

    @staticmethod
    def forward(context: Any, x: Tensor, index: int | None) -> Tensor:
        context.back = x.index if isinstance(x, OnGPU) else None
        return _copied(x, index)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:
        return _copied(gradient, context.back), None


def _copied(x: Tensor, index: int | None) -> Tensor:
    values = _inner(x).detach().clone()
    return values if index is None else OnGPU(values, index)


def _to(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`Tensor.to` of all tensors."""
    if isinstance(other := kwargs.get("other", args[0] if args else None), Tensor):
        args, kwargs = (other.device, other.dtype, *args[1:]), kwargs
    device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
    x = x if dtype in (None, x.dtype) else PLAIN_TO(x, dtype)
    if device is None or (device.type == "cpu" and not isinstance(x, OnGPU)):
        return x
    if device.type not in ("cpu", "cuda"):
        return PLAIN_TO(x, device)
    index = _gpus.index(device) if device.type == "cuda" else None
    if index is None and not non_blocking:
        _gpus.wait("copy to the CPU")
    if isinstance(x, OnGPU) and x.index == index:
        return x
    differentiated = x.requires_grad and torch.is_grad_enabled()
    return _Move.apply(x, index) if differentiated else _copied(x, index)


def _tensor(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
    made = PLAIN_TENSOR(*args, **kwargs)
    return made if device is None else _to(made, torch.device(device))


def _as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    made = data if isinstance(data, OnGPU) else PLAIN_AS_TENSOR(data)
    made = made if dtype is None else _to(made, dtype)
    return made if device is None else _to(made, torch.device(device))


def _one_hot(indices: Tensor, count: int = -1) -> Tensor:
    made = PLAIN_ONE_HOT(_inner(indices), count)
    return OnGPU(made, indices.index) if isinstance(indices, OnGPU) else made


class _Mode(TorchDispatchMode):
    """Brings in what has no tensor on a GPU among its arguments: `torch.zeros(device="cuda")`."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        return _carry_out(operation, args, kwargs or {})


def _carry_out(operation: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """An operation of the dispatcher, on the CPU; its results are where a GPU would leave them."""
    name = operation._schema.name.removeprefix("aten::")
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x.index for x in given if isinstance(x, OnGPU)]
    if name not in COPIES | OF_AUTOGRAD:
        _check_devices(name, given)
    if there and (name in WAITS or _indexes_with_a_mask(name, args)):
        _gpus.wait(WAITS.get(name, "index with a mask"))
    index = there[0] if there else None
    device = kwargs.get("device")
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu") if device.type == "cuda" else device}
        index = _gpus.index(device) if device.type == "cuda" else None
    if name == "copy_" and not isinstance(args[0], OnGPU):
        index = None
    if name in COPIES and there and index is None and not _is_background(name, args, kwargs):
        _gpus.wait("copy to the CPU")
    result = operation(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if operation._schema.is_mutable:
        return _written(operation, args, kwargs)
    if index is None:
        return result
    return tree_map(lambda x: OnGPU(x, index) if isinstance(x, Tensor) else x, result)


def _check_devices(name: str, given: list[Tensor]) -> None:
    """Raise RuntimeError unless all tensors are on one device; single values go with any."""
    devices = {x.device for x in given if x.dim()}
    if name in TAKES_CPU_INDICES and given and isinstance(given[0], OnGPU):
        devices.discard(torch.device("cpu"))
    on_gpu = {x.device for x in given if isinstance(x, OnGPU)}
    if len(devices | on_gpu) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found "
            f"{' and '.join(sorted(map(str, devices | on_gpu)))} in {name}, {_caller()}"
        )


def _indexes_with_a_mask(name: str, args: tuple) -> bool:
    masks = [x for x in tree_leaves(args[1:2]) if isinstance(x, Tensor) and x.dtype == torch.bool]
    return name in TAKES_CPU_INDICES and bool(masks)


def _is_background(name: str, args: tuple, kwargs: dict[str, Any]) -> bool:
    place = {"_to_copy": None, "copy_": 2}[name]
    positional = place is not None and len(args) > place and args[place]
    return bool(kwargs.get("non_blocking") or positional)


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, OnGPU) else x


def _written(operation: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What an operation in place returns: the arguments that it has written to."""
    if not operation._schema.returns:
        return None
    written = [
        args[n] if n < len(args) else kwargs[argument.name]
        for n, argument in enumerate(operation._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return written[0] if len(operation._schema.returns) == 1 else tuple(written)


def _caller() -> str:
    """The innermost code that is neither PyTorch's nor of this file."""
    for frame in reversed(traceback.extract_stack()):
        if "/torch/" not in frame.filename and frame.filename != __file__:
            name = "/".join(frame.filename.split("/")[-3:])
            return f"{name}:{frame.lineno} {frame.name}"
    return "?"


def _enter_no_grad(mode: Any) -> None:
    """`torch.inference_mode` as `torch.no_grad`, which subclasses of tensors go with."""
    mode.graph = torch.is_grad_enabled()
    torch.set_grad_enabled(False)


def _exit_no_grad(mode: Any, *_: Any) -> None:
    torch.set_grad_enabled(mode.graph)


class _Stream:
    def __init__(self, *_: Any) -> None: ...

    def wait_stream(self, _: object) -> None: ...

    def synchronize(self) -> None:
        _gpus.wait("synchronize")

    def is_capturing(self) -> bool:
        return False


@contextmanager
def _device(where: Any) -> Iterator[None]:
    """`torch.cuda.device`."""
    before, _gpus.current = _gpus.current, _gpus.index(torch.device(where))
    try:
        yield
    finally:
        _gpus.current = before


def _autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
    return PLAIN_AUTOCAST("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


@contextmanager
def pretended_gpus(count: int = 1) -> Iterator[GPUs]:
    """PyTorch has so many GPUs in this block, in this thread."""
    global _gpus
    _gpus = gpus = GPUs(count)
    plenty = 10**12
    of_cuda = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_bf16_supported": lambda *_: True,
        "device_count": lambda: count,
        "current_device": lambda: gpus.current,
        "device": _device,
        "Stream": _Stream,
        "stream": lambda _: nullcontext(),
        "current_stream": lambda *_: _Stream(),
        "is_current_stream_capturing": lambda: False,
        "mem_get_info": lambda *_: (plenty, plenty),
        "memory_reserved": lambda *_: 0,
        "memory_allocated": lambda *_: 0,
        "max_memory_allocated": lambda *_: 0,
        "reset_peak_memory_stats": lambda *_: None,
        "empty_cache": lambda: None,
        "get_device_name": lambda *_: "pretended",
        "get_device_capability": lambda *_: (9, 0),
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda *_: None,
        "manual_seed_all": lambda _: None,
        "synchronize": lambda *_: gpus.wait("synchronize"),
    }
    of_torch = {"tensor": _tensor, "as_tensor": _as_tensor, "autocast": _autocast}
    of_tensors = {"to": _to, "cuda": lambda x: _to(x, "cuda"), "pin_memory": lambda x: x}
    of_inference = {"__enter__": _enter_no_grad, "__exit__": _exit_no_grad}
    replaced = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with ExitStack() as stack:
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, replaced)
        for target, names in (
            (torch.cuda, of_cuda),
            (torch, of_torch),
            (torch.nn.functional, {"one_hot": _one_hot}),
            (torch.accelerator, {"current_stream": lambda *_: _Stream()}),
            (torch.jit, {"script": lambda module: module}),  # it would not know what is pretended
            (Tensor, of_tensors),
            (torch.inference_mode, of_inference),
        ):
            for name, pretended in names.items():
                stack.enter_context(patch.object(target, name, pretended))
        stack.enter_context(_Mode())
        yield gpus
