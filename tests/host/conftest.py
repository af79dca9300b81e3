"""A micro accelerator's build folder, compiled once per session, and emulated devices that run it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import array_api_compat.numpy as arrays
import numpy as np
import pytest
from numpy.typing import NDArray

from host.bundle import Bundle, PackedNetwork, load_bundle, load_network
from hw.generate import make_design, make_project, write_network, write_project
from hw.layout import Design
from hw.target import resolve_target
from quant.network import QuantizedNetwork
from sim.build import build_library
from sim.device.emulated import EmulatedDevice
from sim.golden import Golden, GoldenResult
from tests.sim.networks import design_of, micro, random_images


@dataclass(frozen=True)
class Build:
    """A network, its design and their folder; images with what the golden makes of them."""

    design: Design
    folder: Path
    pixels: NDArray[np.uint8]
    golden: GoldenResult

    @property
    def bundle(self) -> Bundle:
        return load_bundle(self.folder)

    @property
    def packed(self) -> PackedNetwork:
        return load_network(self.folder, self.bundle)

    def with_network(self, network: QuantizedNetwork, folder: Path) -> Build:
        """Another one, packed for the same design: `folder` holds nothing else."""
        layout = self.design.layout
        design = make_design(network, layout.architecture, layout.capacities)
        write_network(make_project(design, resolve_target("zcu102")), folder)
        pixels = random_images(network.model, len(self.pixels))
        return Build(design, folder, pixels, Golden(network, design.program, arrays).run(pixels, taps=True))

    @property
    def tokens(self) -> list[list[int]]:
        """Per image, after each selector."""
        return [[int(counts[image]) for counts in self.golden.tokens] for image in range(len(self.pixels))]

    def kept(self, image: int) -> list[list[int]]:
        """The patches that each selector kept, from the golden's taps."""
        alive, kept = np.arange(self.design.network.model.num_patches), []
        for selector in range(self.design.network.pruning.num_selectors):
            alive = alive[self.golden.taps[f"selectors.{selector}.keep"][image][:, 0] != 0]
            kept.append(alive.tolist())
        return kept

    def device(self, **options: Any) -> EmulatedDevice:
        return EmulatedDevice(self.folder, **options)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Micro with two weight ports, as `make hls` leaves it."""
    design = design_of(micro(), tile_in=16, tile_out=16)
    folder = tmp_path_factory.mktemp("host") / "micro-zcu102"
    write_project(make_project(design, resolve_target("zcu102")), folder)
    build_library(folder / "src")
    pixels = random_images(design.network.model, 4)
    return Build(design, folder, pixels, Golden(design.network, design.program, arrays).run(pixels, taps=True))


@pytest.fixture(scope="session")
def unpruned(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The same model without token selectors, for the same design."""
    return build.with_network(micro(keep=(), locations=()), tmp_path_factory.mktemp("host") / "micro-keep-none")
