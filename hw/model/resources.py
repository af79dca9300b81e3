"""What a design takes of its board, before any synthesis: DSPs, block RAMs, LUTs, flip-flops; and whether it fits.

Enters: a `Layout` (model and engine) and a `Target`. Leaves: `Resources`, part by part, each an estimate.

DSPs are counted from the widths in the C++. LUTs and flip-flops are those of small Verilog modules, one per part,
mapped to UltraScale+ by yosys (`hw/model/measure.py`); what could not be measured so stands in `ASSUMED`, with why.
Expect LUTs within ERROR of Vivado's: yosys leaves two small functions in two LUTs where Vivado packs them into
one, and Vitis HLS adds control and pipeline registers that no small module shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hw.architecture import PARAM_LANES, PORT_BITS, TILE_SIZES, Architecture, most_fill_lanes, most_ports
from hw.hardware import NUM_BANKS, Capacities, Hardware
from hw.layout import Layout
from hw.model.latency import COLUMNS_PER_GROUP, OPERATORS, position_lanes
from hw.model.memory import bram36, uram
from hw.target import Target
from spvit.config import ModelConfig
from spvit.errors import ConfigError

ERROR = 0.2
"""Of LUTs and flip-flops, as a fraction; of DSPs 0.03. No synthesis has been seen yet."""
HP_PORTS = 4
"""Of a Zynq UltraScale+: what a block design has a SmartConnect for, each with one or two of the kernel's masters."""
HEADROOM = {"dsp": 0.94, "bram36": 0.85, "lut": 0.75, "ff": 0.75, "uram": 1.0}
"""The share of the board that routes well: what exploration aims at. Above it a design is reported, not refused."""


@dataclass(frozen=True)
class Cost:
    """Of one instance."""

    lut: float
    ff: float
    dsp: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.lut + other.lut, self.ff + other.ff, self.dsp + other.dsp)

    def __mul__(self, count: float) -> Cost:
        return Cost(self.lut * count, self.ff * count, self.dsp * count)


@dataclass(frozen=True)
class Key:
    """A module of `lanes/`, with its parameters."""

    module: str
    parameters: tuple[tuple[str, int], ...] = ()

    @property
    def text(self) -> str:
        return " ".join([self.module, *(f"{name}={value}" for name, value in self.parameters)])


def _sized(module: str, costs: Iterable[tuple[int, int, int]], **parameters: int) -> dict[Key, Cost]:
    """A module measured at each of the engine's sizes."""
    return {
        Key(module, (("N", size), *parameters.items())): Cost(*cost)
        for size, cost in zip(TILE_SIZES, costs, strict=True)
    }


# LUTs, flip-flops, DSPs; yosys 0.23, synth_xilinx -family xcup. `spvit measure` prints them again.
MEASURED: dict[Key, Cost] = {
    **_sized("column", [(160, 230, 4), (261, 436, 8), (499, 780, 16), (871, 1466, 32), (1719, 2880, 64)], FAST=1),
    **_sized("column", [(131, 228, 8), (235, 364, 16), (345, 634, 32), (663, 1214, 64), (1244, 2337, 128)], FAST=0),
    **_sized("tile_column", [(9, 360, 0), (12, 616, 0), (16, 1128, 0), (21, 2152, 0), (38, 4200, 0)], FILL=8),
    **_sized("rotator", [(256, 128, 0), (512, 256, 0), (1536, 512, 0), (3072, 1024, 0), (8192, 2048, 0)]),
    **_sized("sum_tree", [(71, 72, 0), (150, 166, 0), (316, 338, 0), (604, 639, 0), (1230, 1250, 0)], W=16),
    **_sized("sum_tree", [(135, 136, 0), (278, 310, 0), (588, 626, 0), (1116, 1183, 0), (2270, 2306, 0)], W=32),
    **_sized("max_tree", [(345, 112, 0), (699, 240, 0), (1417, 496, 0), (2847, 1008, 0), (5726, 2032, 0)]),
    Key("epilogue_lane"): Cost(443, 343, 1),
    Key("norm_lane"): Cost(354, 178, 1),
    Key("exp_lane"): Cost(143, 91, 0),
    Key("fill_lane"): Cost(16, 16, 0),
    Key("bias_group"): Cost(48, 48, 0),
    Key("source_lane"): Cost(65, 32, 0),
    Key("weigh_lane"): Cost(48, 48, 1),
    Key("reciprocal"): Cost(515, 182, 1),
}

# LUTs and flip-flops that were not measured. Each may be off by half; together they are a tenth of a large engine.
ASSUMED: dict[str, tuple[Cost, str]] = {
    "m_axi adapter": (
        Cost(900, 1500),
        "a 128-bit port with 16 outstanding bursts, as csynth reports of public designs have it",
    ),
    "s_axi_control": (Cost(400, 600), "some twenty registers, likewise"),
    "loop control": (Cost(4000, 4000), "counters, addresses"),
    "step table": (
        Cost(2000, 5000, 6),
        "loading and checking a record each cycle; two records ride in each register that a plan passes",
    ),
    "small loops": (Cost(3000, 4000), "loading, storing, pooling, deciding: their control and addresses"),
    "pipelined lane": (
        Cost(3, 64),
        "16 bits that ride the loop's pipeline: shift registers and their ends, three values",
    ),
    "broadcast column": (
        Cost(0, OPERATORS["broadcast"].cycles * 16 / COLUMNS_PER_GROUP),
        "per activation: its copy for eight columns, in two stages",
    ),
    "SmartConnect": (Cost(2500, 3000), "PG247, 128 bit, one or two masters; one per memory port and one for control"),
    "SmartConnect, wide or fast": (
        Cost(4000, 6000),
        "PG247: with a 256-bit master, converted to 128 bits at the clock of the memory's port",
    ),
    "unpacked weight": (
        Cost(16 + 12, 12),
        "what lies below narrow weights: 12 bits that gather, chosen by the width; they, or a word",
    ),
    "arriving weight": (
        Cost(36, 5 * 16),
        "an int16 through read_port, join_ports, checksum_words and FrontWord: registers of five stages; the "
        "checksum's XOR and the enables",
    ),
    "timer, interrupt, reset": (Cost(700, 900), "PG079, PG099, PG164"),
}


def dsps(a_bits: int, b_bits: int) -> int:
    """DSP48E2 of a signed product: 27 x 18 bits each; the wider operand is cut into pieces of 26 below its top one."""
    wide, narrow = max(a_bits, b_bits), min(a_bits, b_bits)
    pieces = 1 if wide <= 27 else 1 + -(-(wide - 27) // 26)
    return pieces * (1 if narrow <= 18 else 1 + -(-(narrow - 18) // 17))


@dataclass(frozen=True)
class Part:
    """`count` instances of one thing."""

    name: str
    count: float
    each: Cost

    @property
    def cost(self) -> Cost:
        return self.each * self.count


@dataclass(frozen=True)
class Resources:
    """Of a whole design, block design included: an estimate."""

    parts: tuple[Part, ...]
    bram36: float
    uram: int = 0

    @property
    def dsp(self) -> int:
        return round(sum(part.cost.dsp for part in self.parts))

    @property
    def lut(self) -> int:
        return round(sum(part.cost.lut for part in self.parts))

    @property
    def ff(self) -> int:
        return round(sum(part.cost.ff for part in self.parts))

    def used(self) -> dict[str, float]:
        return {"dsp": self.dsp, "bram36": self.bram36, "uram": self.uram, "lut": self.lut, "ff": self.ff}

    def shares(self, target: Target) -> dict[str, float]:
        """Of what the target has; a kind that it hasn't is left out."""
        return {kind: used / getattr(target, kind) for kind, used in self.used().items() if getattr(target, kind)}

    def surely_used(self) -> dict[str, float]:
        """LUTs and flip-flops at the low end of what they may be: what is refused must not fit even so."""
        return {kind: used * (1 - ERROR) if kind in ("lut", "ff") else used for kind, used in self.used().items()}

    def fits(self, target: Target) -> bool:
        return all(used <= getattr(target, kind) for kind, used in self.surely_used().items())


def estimate_resources(layout: Hardware) -> Resources:
    """Every part of the design, with its count."""
    return Resources(tuple(_parts(layout)), bram36(layout), uram(layout))


def array_multipliers(architecture: Architecture) -> int:
    """DSPs of the array alone."""
    return architecture.multipliers


def _parts(layout: Hardware) -> list[Part]:
    architecture = layout.architecture
    tile_in, tile_out, word = architecture.tile_in, architecture.tile_out, architecture.word
    fast = int(architecture.is_fast)

    def sized(module: str, size: int, **parameters: int) -> Cost:
        return MEASURED[Key(module, (("N", size), *parameters.items()))]

    def single(module: str) -> Cost:
        return MEASURED[Key(module)]

    def assumed(name: str) -> Cost:
        return ASSUMED[name][0]

    narrow = 3  # bundles of image, logits, status: one width each
    others = min(narrow, max(HP_PORTS - architecture.weight_ports, 0))  # of the board's ports, without weights
    port_width = 0.5 + architecture.port_bits / 256  # half of an adapter is control
    loads = -(-architecture.fill_lanes // position_lanes(architecture) // 4)  # a LUT6 chooses of four
    norm = single("norm_lane")
    return [
        Part("array: columns", tile_out, sized("column", tile_in, FAST=fast)),
        Part("array: tile registers", tile_out, sized("tile_column", tile_in, FILL=8)),
        Part(
            "array: what fills a column",
            1,
            single("fill_lane") * tile_in + single("bias_group") * (architecture.fill_lanes // PARAM_LANES),
        ),
        Part("array: activations to the columns", tile_in * tile_out, assumed("broadcast column")),
        Part("fast product: pair terms", fast, sized("sum_tree", tile_in, W=32) + Cost(0, 0, dsps(16, 16)) * tile_in),
        Part("prologue: source", tile_in, single("source_lane")),
        Part("prologue: LayerNorm", tile_in, Cost(norm.lut, norm.ff, dsps(norm_bits(layout.capacities), 18))),
        Part("prologue: LayerNorm, once per row", 1, single("reciprocal") + Cost(900, 1000, dsps(27, 27))),
        Part("prologue: softmax", tile_in, single("exp_lane")),
        Part("prologue: sum of exponentials", 1, sized("sum_tree", tile_in, W=16)),
        Part("epilogue: lanes", tile_out, single("epilogue_lane")),
        Part("epilogue: 1 / sum of exponentials", 1, single("reciprocal")),
        Part("epilogue: statistics", 1, sized("sum_tree", tile_out, W=16) + sized("sum_tree", tile_out, W=32)),
        Part("epilogue: row maximum", 1, sized("max_tree", tile_out)),
        Part("epilogue: pooling", tile_out, Cost(2 * 27, 2 * 27)),
        Part("values: rotators", 2, sized("rotator", word)),
        Part("pipeline: X, WORK, residual", (NUM_BANKS + 1) * word, assumed("pipelined lane")),
        Part("token packager: lanes", word, single("weigh_lane")),
        Part("token packager: division", 1, single("reciprocal") + Cost(700, 500, dsps(27, 18) + dsps(16, 16))),
        Part(
            "token selector",
            1,
            single("reciprocal") * 2
            + Cost(2500, 2000, 2 * dsps(27, 18) + dsps(24, 16) + dsps(24, 24) + 2 * dsps(16, 8)),
        ),
        Part("loading: statistics of X", position_lanes(architecture), Cost(64, 32, dsps(16, 16))),
        Part("loading: part of a word", position_lanes(architecture), Cost(16 * loads, 16)),
        Part(
            "control",
            1,
            assumed("loop control") + assumed("step table") + assumed("small loops") + assumed("s_axi_control"),
        ),
        Part("memory ports", narrow, assumed("m_axi adapter")),
        Part("memory ports: weights", architecture.weight_ports, assumed("m_axi adapter") * port_width),
        Part("weights: readers, checksum, first word", architecture.fill_lanes, assumed("arriving weight")),
        Part("weights: unpacking", architecture.fill_lanes, assumed("unpacked weight")),
        Part(
            "block design",
            1,
            assumed("SmartConnect") * (others + 1)
            + assumed("SmartConnect, wide or fast") * architecture.weight_ports
            + assumed("timer, interrupt, reset"),
        ),
    ]


def norm_bits(room: Capacities) -> int:
    """Of C x - sum in hls_templates/prologue.hpp: beyond 1,024 channels more than a DSP's wide factor."""
    return 17 + (room.embed_dim - 1).bit_length()


# --- whether it fits ---

KINDS = {"dsp": "DSPs", "bram36": "BRAM36", "uram": "URAM", "lut": "LUTs", "ff": "flip-flops"}


def check_fits(layout: Layout, target: Target) -> None:
    """Raises ConfigError, saying by how much it is too large and what would fit."""
    resources = estimate_resources(layout)
    least = resources.surely_used()
    over = {kind: used - getattr(target, kind) for kind, used in least.items() if used > getattr(target, kind)}
    if not over:
        return
    # the kind that is exceeded most, as a share of what is there
    kind = max(over, key=lambda one: over[one] / max(getattr(target, one), 1))
    used, has = resources.used()[kind], getattr(target, kind)
    at_least = f" (at least {_count(least[kind])})" if least[kind] < used else ""
    where = " on chip" if kind == "bram36" else ""
    raise ConfigError(
        f"{layout.model.name} with a {_engine(layout.architecture)} engine needs an estimated {_count(used)} "
        f"{KINDS[kind]}{where}{at_least}, {target.name} has {_count(has)}: {_count(over[kind])} too many; "
        f"{_what_fits(layout, target)}"
    )


def _what_fits(layout: Layout, target: Target) -> str:
    model, architecture = layout.model, layout.architecture

    def fits(model: ModelConfig, engine: Architecture = architecture) -> bool:
        return estimate_resources(Layout(model, engine)).fits(target)

    for engine in smaller_engines(architecture):
        if fits(model, engine):
            return f"it would fit with [engine] tile_in={engine.tile_in} and tile_out={engine.tile_out}"
    for image in range(model.img_size - model.patch_size, 0, -model.patch_size):
        smaller = _replace(model, img_size=image)
        if fits(smaller):
            return f"it would fit with img_size={image} ({smaller.num_tokens} tokens)"
    for heads in range(model.num_heads - 1, 0, -1):
        if fits(_replace(model, num_heads=heads, embed_dim=heads * model.head_dim)):
            return f"it would fit with embed_dim={heads * model.head_dim} and num_heads={heads}"
    return "not even a smaller model or a smaller engine alone fits: choose a larger board"


def smaller_engines(architecture: Architecture) -> list[Architecture]:
    """Every engine with fewer multipliers and the same inner product, largest first, squares before oblongs."""
    found = [
        replace(
            architecture,
            tile_in=tile_in,
            tile_out=tile_out,
            fill_lanes=lanes,
            weight_ports=max(most_ports(lanes, architecture.weight_ports, bits), 1),
            port_bits=bits,
        )
        for tile_in in TILE_SIZES
        for tile_out in TILE_SIZES
        for lanes in [min(architecture.fill_lanes, most_fill_lanes(tile_in, tile_out))]
        for bits in [architecture.port_bits if most_ports(lanes, 1, architecture.port_bits) else PORT_BITS[0]]
        if tile_in * tile_out < architecture.tile_in * architecture.tile_out
    ]
    return sorted(found, key=lambda one: (-one.multipliers, abs(one.tile_in - one.tile_out), one.tile_in))


def _replace(model: ModelConfig, **fields: int) -> ModelConfig:
    return replace(model, **fields)  # type: ignore[arg-type]


def _engine(architecture: Architecture) -> str:
    return f"{architecture.tile_in}x{architecture.tile_out} {architecture.inner_product}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}".removesuffix(".0")


def verdict(resources: Resources, target: Target) -> str:
    """Whether it fits, in words: the estimate's error and the head-room are said."""

    def names(kinds: Iterable[str]) -> str:
        return " and ".join(KINDS[kind] for kind in kinds)

    used, shares = resources.used(), resources.shares(target)
    if not resources.fits(target):
        return "does NOT fit"
    uncertain = [kind for kind in KINDS if used[kind] > getattr(target, kind)]
    if uncertain:
        return f"may not fit: {names(uncertain)} are within the estimate's error of {ERROR:.0%}"
    tight = [kind for kind in shares if shares[kind] > HEADROOM[kind]]
    if tight:
        return f"fits, over the head-room of {', '.join(f'{HEADROOM[kind]:.0%} in {KINDS[kind]}' for kind in tight)}"
    return "fits with head-room"


def summary(resources: Resources, target: Target) -> list[str]:
    """A line per kind: used, of how many, per cent."""
    shares = resources.shares(target)
    return [
        f"{KINDS[kind]:10} {_count(used):>9} of {_count(getattr(target, kind)):>9}  {shares[kind]:6.1%}"
        for kind, used in resources.used().items()
        if kind in shares
    ]
