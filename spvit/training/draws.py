"""What training draws depends on where it stands alone: each draw's seed is made from the recipe's and its place.

So a run that is resumed, or that more processes share, draws what it would have drawn.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(*place: int | str) -> int:
    """63 bits from the recipe's seed and what comes after it: phase, step, or epoch and position."""
    text = "/".join(map(str, place)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


@contextmanager
def drawing(*place: int | str, device: torch.device | None = None) -> Iterator[None]:
    """torch's own generators stand at `place`, for a while."""
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed_of(*place))
        yield
