"""Several processes that train one model together, started by torchrun; without it, one process alone.

A step's batch is the whole one, cut into equal parts, a part per process. What training draws for the batch, every
process draws whole and takes its own rows of; what the loss averages over the batch is averaged over all of them. So
two processes compute what one would, but for mixup and cutmix, which stay within a process's part.
"""

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from spvit.console import Console
from spvit.errors import ConfigError


def start(device: str = "auto") -> torch.device:
    """Join the processes that torchrun started, if it did, and choose this one's device.

    device  "auto": a GPU of its own where there is one; else what torch calls a device
    Raises ConfigError where there is no such device.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"DEVICE={device} is no device; give cpu, cuda, or cuda:1 for the second GPU") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"DEVICE={device}: torch finds {torch.cuda.device_count()} GPUs here; give cpu, or leave it out"
        )
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return chosen


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return int(dist.get_rank()) if dist.is_initialized() else 0


def world_size() -> int:
    return int(dist.get_world_size()) if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes files and talks to people."""
    return rank() == 0


def say_once(text: str) -> None:
    """A line on stderr from one of the processes, also before they have joined each other."""
    if os.environ.get("RANK", "0") == "0":
        Console(stderr=True).print(text)


def own_rows(whole: Tensor) -> Tensor:
    """This process's part of the whole batch's rows; as many for each."""
    count = len(whole) // world_size()
    return whole[rank() * count : (rank() + 1) * count]


def draw_exponential(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Exponential draws in the shape of `like` (this process's rows), from those for the whole batch."""
    whole = like.new_empty(len(like) * world_size(), *like.shape[1:])
    return own_rows(whole.exponential_(generator=generator))


class _Sum(torch.autograd.Function):
    """Each process's sum depends on every process's value, so the gradients are summed, too."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return sum_over_processes(value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of each process's `value`, differentiable."""
    mean: Tensor = _Sum.apply(value) / world_size() if dist.is_initialized() else value
    return mean


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of each process's `value`, without a gradient."""
    if dist.is_initialized():
        value = value.detach().clone()
        dist.all_reduce(value)
    return value


def rows_of_all(rows: Tensor) -> Tensor:
    """Every process's rows, as many from each, behind each other; without a gradient."""
    if not dist.is_initialized():
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def names_of_all(names: Iterable[str]) -> tuple[str, ...]:
    """The names that any process has, sorted."""
    parts: list[list[str]] = [[] for _ in range(world_size())]
    if dist.is_initialized():
        dist.all_gather_object(parts, list(names))
    else:
        parts[0] = list(names)
    return tuple(sorted({name for part in parts for name in part}))


def from_first(value: Tensor) -> Tensor:
    """The first process's `value`, written into each one's."""
    if dist.is_initialized():
        dist.broadcast(value, 0)
    return value


def wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()
