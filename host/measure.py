"""Latency, throughput and their parts on a device; what `latency.json`, the notebook and the benchmark show.

A time is `board`, measured there, or `estimate`, from the cycle model behind the emulated device, or it is not given.
C-simulation's own time is none of these.
"""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from host.accelerator import Accelerator
from host.network import Network, OneImage
from host.power import PowerMeter
from host.result import ImageResult
from spvit.errors import DeviceError
from spvit.files import write_json
from spvit.images.sources import ImageSet, image_files, load_images

SCHEMA = 1
EMULATED_TIMEOUT_S = 600.0  # for a C-simulation, which takes seconds where the board takes milliseconds
PAPER_TABLE_4_MS = {"deit_t": (8.81, 5.60), "deit_s": (22.31, 13.23)}
"""ZCU102, 16 bit, as the paper measured: (unpruned, pruned)."""
PAPER_TABLE_4_GMACS = {"deit_t": (1.25, 0.90), "deit_s": (4.60, 2.64)}
"""Of the same rows: another workload takes another time."""
MOST_BINS = 12
"""Rows of the table of tokens against latency."""
SWITCHES = 100
RANDOM = "RANDOM WEIGHTS: tokens and classes say nothing of a trained model"
LABELS = {
    "board": "measured on the board",
    "estimate": "ESTIMATE from the accelerator's cycles: nothing here was measured",
    "none": "NO ESTIMATE: this device has no cycle model, and C-simulation's own time says nothing",
}


@dataclass(frozen=True)
class Summary:
    """Of times in milliseconds."""

    median: float
    p95: float
    p99: float
    mean: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Summary | None:
        known = [value for value in values if value is not None]
        if not known:
            return None
        median, p95, p99 = (float(np.percentile(known, share)) for share in (50, 95, 99))
        return cls(median, p95, p99, float(np.mean(known)), min(known), max(known))


@dataclass(frozen=True)
class Measurement:
    """Of one network.

    digest       of the design; network: of the network that ran on it
    kind         what the times are: board, estimate, none
    clock_mhz    that the accelerator ran at, and what its design was built for
    latency_ms   one image through the accelerator, from start to interrupt
    end_to_end_ms  with preprocessing and transfers, one image at a time
    throughput   images per second, preprocessing beside the accelerator
    shares       of preprocessing, transfer and compute in an image's time
    tokens       per image, rows after each token selector
    by_tokens    latency against tokens, in a few bins: mean rows after each selector, images, median latency; the least
                 and the most rows of all selectors together
    power_w      by rail, while the throughput was measured
    trained      false: tokens and classes are those of seeded random weights
    """

    kind: str
    model: str
    board: str
    digest: str
    network: str
    clock_mhz: float
    design_clock_mhz: float
    images: int
    warm_up: int
    runs: int
    waits_by_interrupt: bool
    tokens_before: int
    latency_ms: Summary | None = None
    end_to_end_ms: Summary | None = None
    throughput: float | None = None
    shares: dict[str, float] | None = None
    tokens: list[list[int]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    by_tokens: list[dict[str, Any]] = field(default_factory=list)
    power_w: dict[str, float] | None = None
    trained: bool = True

    @property
    def label(self) -> str:
        return LABELS[self.kind] if self.trained else f"{LABELS[self.kind]}; {RANDOM}"


@dataclass(frozen=True)
class Switch:
    """From one resident network to the other: no weights are sent, and no bitstream is loaded.

    registers  that the host writes for it
    host_ms    that this takes it
    """

    registers: int
    host_ms: Summary
    is_emulated: bool

    @property
    def label(self) -> str:
        return "this computer's time, with the EMULATED device's registers" if self.is_emulated else LABELS["board"]


def open_accelerator(bundle: str | Path, emulated: bool = False, **options: Any) -> Accelerator:
    """The bundle on the board, or on the emulated device. Raises BundleError, DeviceError."""
    if not emulated:
        return Accelerator(bundle, **options)
    options.setdefault("timeout_s", EMULATED_TIMEOUT_S)
    try:
        emulate = importlib.import_module("sim.device.emulated").emulate
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"the emulated device needs a checkout of the project, a bundle alone is not enough ({error.name} is "
            "missing); run this there with the bundle's path"
        ) from None
    return Accelerator(bundle, emulate(bundle), **options)


def image_list(source: str | Path, network: Network) -> tuple[tuple[str, ...], list[OneImage]]:
    """Names, and images as `stream` takes them: files stay files, so that reading them is measured too."""
    if str(source).startswith("digits:"):
        images: ImageSet = load_images(source, network.preprocessing)
        return images.names, list(images.pixels)
    folder, files = image_files(Path(source))
    return tuple(file.relative_to(folder).as_posix() for file in files), list(files)


def measure(
    network: Network, images: Sequence[OneImage], warm_up: int = 10, repeats: int = 10
) -> tuple[Measurement, list[ImageResult]]:
    """Warm up, then each image by itself, then all of them pipelined; and the results of each image.

    repeats  rounds over the images; on the emulated device one, since an estimate is the same each time
    """
    accelerator, packed = network.accelerator, network.packed
    bundle = accelerator.bundle
    if accelerator.is_emulated:
        warm_up, repeats = 0, 1
    list(network.stream(itertools.islice(itertools.cycle(images), warm_up)))
    results: list[ImageResult] = []
    walls: list[float] = []
    for image in list(images) * repeats:
        start = time.perf_counter()
        results += network.infer([image]).images
        walls.append((time.perf_counter() - start) * 1e3)
    first = results[: len(images)]
    latency = Summary.of([result.timing.compute_ms for result in results])
    known: dict[str, Any] = {}
    if accelerator.is_emulated:
        kind = "none" if latency is None else "estimate"
        known["throughput"] = None if latency is None else 1e3 / latency.mean
    else:
        kind = "board"
        with PowerMeter(accelerator.is_emulated) as meter:
            start = time.perf_counter()
            count = sum(1 for _ in network.stream(list(images) * repeats))
            known["throughput"] = count / (time.perf_counter() - start)
        known |= {"end_to_end_ms": Summary.of(walls), "shares": _shares(results), "power_w": meter.mean_w}
    return Measurement(
        kind, packed.name, bundle.board, bundle.digest, packed.digest, accelerator.clock_mhz, bundle.clock_mhz,
        len(images), warm_up, len(results), accelerator.waits_by_interrupt, packed.num_tokens, latency, **known,
        tokens=[list(result.tokens) for result in first],
        classes=[int(np.argmax(result.logits)) for result in first],
        by_tokens=_by_tokens(results),
        trained=packed.trained,
    ), first  # fmt: skip


def measure_switch(one: Network, other: Network, switches: int = SWITCHES) -> Switch:
    """Between two networks that are resident on the same accelerator, to and fro."""
    times, registers = [], 0
    other.activate()
    for i in range(switches):
        start = time.perf_counter()
        registers = (one, other)[i % 2].activate()
        times.append((time.perf_counter() - start) * 1e3)
    summary = Summary.of(times)
    assert summary is not None and registers
    return Switch(registers, summary, one.accelerator.is_emulated)


def latency_report(pruned: Measurement, baseline: Measurement | None, switch: Switch | None = None) -> dict[str, Any]:
    """What `latency.json` holds."""
    paper = PAPER_TABLE_4_MS.get(pruned.model)
    return {
        "schema": SCHEMA,
        "label": pruned.label,
        "measurement": asdict(pruned),
        "baseline": None if baseline is None else asdict(baseline),
        "switch": None if switch is None else {"label": switch.label} | asdict(switch),
        "paper_table_4_ms": None if paper is None else {"unpruned": paper[0], "pruned": paper[1]},
    }


def write_report(report: dict[str, Any], path: Path) -> None:
    """`latency.json`, whole or not at all. Raises FileError."""
    write_json(path, report)


def summary_table(pruned: Measurement, baseline: Measurement | None = None) -> str:
    """Latency and throughput beside the baseline's and the paper's, in plain text."""
    columns = {f"{pruned.model}": pruned} | ({"unpruned": baseline} if baseline is not None else {})
    lines = [
        pruned.label,
        f"clock: {pruned.clock_mhz:.2f} MHz, built for {pruned.design_clock_mhz:g}",
        _row("", *columns),
    ]
    lines += [
        _row(f"latency {name}, ms", *(_ms(m.latency_ms, name) for m in columns.values()))
        for name in ("median", "p95", "p99", "mean")
    ]
    if pruned.end_to_end_ms is not None:
        lines.append(_row("with preprocessing, ms", *(_ms(m.end_to_end_ms, "median") for m in columns.values())))
    lines.append(_row("images per second", *(_number(m.throughput, ".1f") for m in columns.values())))
    means = (" ".join(f"{mean:.1f}" for mean in np.mean(m.tokens, axis=0)) for m in columns.values())
    lines.append(_row(f"tokens, of {pruned.tokens_before}", *(mean or "all" for mean in means)))
    if pruned.shares is not None:
        parts = ", ".join(f"{name} {share:.0%}" for name, share in pruned.shares.items())
        lines.append(f"an image's time: {parts}")
    if pruned.power_w is not None:
        rails = ", ".join(f"{name} {watts:.2f}" for name, watts in pruned.power_w.items())
        lines.append(f"power, W: {rails}")
    if pruned.model in PAPER_TABLE_4_MS:
        unpruned_ms, pruned_ms = PAPER_TABLE_4_MS[pruned.model]
        unpruned_gmacs, pruned_gmacs = PAPER_TABLE_4_GMACS[pruned.model]
        lines.append(
            f"paper, Table 4, measured on its ZCU102: {pruned_ms:.2f} ms at {pruned_gmacs:.2f} GMACs, unpruned "
            f"{unpruned_ms:.2f} ms at {unpruned_gmacs:.2f}"
        )
    return "\n".join(lines)


def switch_line(switch: Switch) -> str:
    """For people."""
    return (
        f"from one network to the other: {switch.registers} registers, {switch.host_ms.median:.3f} ms (median, "
        f"{switch.label}); one bitstream, no weights sent"
    )


def tokens_table(measurement: Measurement) -> str:
    """Tokens against latency."""
    is_binned = any(entry["least"] < entry["most"] for entry in measurement.by_tokens)
    lines = [_row(f"{'mean ' if is_binned else ''}tokens after each selector", "images", "median, ms")]
    for entry in measurement.by_tokens:
        tokens = " ".join(f"{mean:.4g}" for mean in entry["tokens"]) or "not pruned"
        lines.append(_row(tokens, str(entry["images"]), _number(entry["latency_ms"], ".3f")))
    return "\n".join(lines)


def _row(name: str, *cells: str) -> str:
    return f"{name:28}" + "".join(f"{cell:>18}" for cell in cells)


def _ms(summary: Summary | None, name: str) -> str:
    return _number(None if summary is None else getattr(summary, name), ".3f")


def _number(value: float | None, form: str) -> str:
    return "no estimate" if value is None else format(value, form)


def _shares(results: Sequence[ImageResult]) -> dict[str, float]:
    parts = ("preprocess", "transfer", "compute")
    sums = {part: sum(getattr(result.timing, f"{part}_ms") for result in results) for part in parts}
    total = sum(sums.values())
    return {part: value / total for part, value in sums.items()}


def _by_tokens(results: Sequence[ImageResult]) -> list[dict[str, Any]]:
    """A row for each distinct number of rows; where there are many, for as wide a span of them as makes few bins."""
    totals = [sum(result.tokens) for result in results]
    first, span = min(totals), max(totals) + 1 - min(totals)
    distinct = sorted({result.tokens for result in results}, key=lambda tokens: (sum(tokens), tokens))
    binned: dict[Any, list[ImageResult]] = {}
    for result, total in zip(results, totals, strict=True):
        key = result.tokens if len(distinct) <= MOST_BINS else (total - first) * MOST_BINS // max(span, MOST_BINS)
        binned.setdefault(key, []).append(result)
    entries = []
    for own in sorted(binned.values(), key=lambda own: (sum(own[0].tokens), own[0].tokens)):
        summary = Summary.of([result.timing.compute_ms for result in own])
        sums = [sum(result.tokens) for result in own]
        entries.append(
            {
                "tokens": [float(mean) for mean in np.mean([result.tokens for result in own], axis=0)],
                "least": min(sums),
                "most": max(sums),
                "images": len(own),
                "latency_ms": None if summary is None else summary.median,
            }
        )
    return entries
