"""The three small architectures of structures.cpp, as Python sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
NUM_WORLDS = 3
KEY_BANK, NUM_BANKS = 1, 4


@dataclass(frozen=True)
class World:
    """One of them. `call` reaches its functions; sizes as in the C++."""

    harness: object
    number: int
    tile_in: int
    tile_out: int
    word: int
    group: int
    fill_lanes: int
    ports: int
    rows: int
    heads: int
    head_dim: int
    head_lanes: int
    embed_lanes: int
    bank_lanes: int
    prefix: int
    score_frac_bits: int
    gelu_frac_bits: int
    is_fast: bool

    def call(self, name: str, *arguments: Ints | int) -> int:
        padding = (0,) * (7 - len(arguments))
        return self.harness.call(name, self.number, *arguments, *padding)

    @property
    def package(self) -> str:
        return ("append", "add", "none")[self.number]

    @property
    def real_lanes(self) -> Ints:
        """Of the embedding: where channels stand."""
        channel = np.arange(self.heads * self.head_dim)
        return channel // self.head_dim * self.head_lanes + channel % self.head_dim

    def random_x(self, rng: np.random.Generator) -> Ints:
        """[rows, embed_lanes] int16, zero where heads are padded."""
        x = np.zeros((self.rows, self.embed_lanes), np.int64)
        x[:, self.real_lanes] = rng.integers(-32768, 32768, (self.rows, len(self.real_lanes)))
        return x

    def get_x(self) -> tuple[Ints, Ints, Ints]:
        """x [rows, embed_lanes], row statistics [rows, 2], head statistics [rows, heads, 2]"""
        x = np.zeros((self.rows, self.embed_lanes), np.int64)
        of_rows, of_heads = np.zeros((self.rows, 2), np.int64), np.zeros((self.rows, self.heads, 2), np.int64)
        self.call("get_x", x, of_rows, of_heads)
        return x, of_rows, of_heads

    def statistics(self, x: Ints) -> tuple[Ints, Ints]:
        """Sum and sum of squares: of the rows [rows, 2], of the heads [rows, heads, 2]."""
        heads = x.reshape(len(x), self.heads, self.head_lanes)
        of_heads = np.stack([heads.sum(-1), (heads * heads).sum(-1)], axis=-1)
        return of_heads.sum(axis=1), np.ascontiguousarray(of_heads)


def make_world(harness: object, number: int) -> World:
    sizes = np.zeros(16, np.int64)
    harness.call("sizes", number, sizes, *(0,) * 6)
    return World(harness, number, *map(int, sizes[:-1]), is_fast=bool(sizes[-1]))
