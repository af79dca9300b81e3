"""The notebook's measurements without Jupyter: `python -m host.benchmark bundle/ images/ [--emulated]`.

Enters: a bundle, images, perhaps the unpruned network for the same bitstream. Leaves: a table, and latency.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from host.board import MODES
from host.measure import (
    image_list,
    latency_report,
    measure,
    measure_switch,
    open_accelerator,
    summary_table,
    switch_line,
    tokens_table,
    write_report,
)
from spvit.command import Parser
from spvit.errors import exit_on_user_error
from spvit.files import check_writable_file
from spvit.schema import Number, Whole


@dataclass(frozen=True)
class Request:
    """What is measured, as the command's help explains it.

    timeout  seconds per image; None: as the device needs
    """

    bundle: Path
    images: str
    network: Path | None
    baseline: Path | None
    emulated: bool
    warm_up: int
    repeats: int
    wait: str
    timeout: float | None
    out: Path


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("python -m host.benchmark", __doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="the unpacked bundle, or a build folder")
    parser.add_argument("images", help="a folder, an image, or digits:test")
    parser.add_argument("--network", type=Path, metavar="FOLDER", help="which, where the bundle has several")
    parser.add_argument(
        "--baseline", type=Path, metavar="FOLDER", help="the unpruned network, to stand beside it on the same bitstream"
    )
    parser.add_argument("--emulated", action="store_true", help="on the emulated device, in a checkout of the project")
    parser.add_argument(
        "--warm-up", type=Whole(0, 1_000_000), default=10, metavar="N", help="images before (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=Whole(1, 1_000_000), default=10, metavar="N", help="rounds (default: %(default)s)"
    )
    parser.add_argument("--wait", choices=MODES, default="auto", help="for the accelerator (default: %(default)s)")
    parser.add_argument("--timeout", type=Number(0, 86_400), metavar="S", help="per image (default: 10, emulated: 600)")
    parser.add_argument("--out", type=Path, default=Path("latency.json"), metavar="FILE", help="default: %(default)s")
    args = Request(**vars(parser.parse_args(argv)))
    check_writable_file(args.out)
    run(args)
    print(f"\n{args.out}")


def run(args: Request) -> None:
    """Both networks on one accelerator: both are there before the first image."""
    options = {} if args.timeout is None else {"timeout_s": args.timeout}
    with open_accelerator(args.bundle, args.emulated, wait=args.wait, **options) as accelerator:
        network = accelerator.network if args.network is None else accelerator.load(args.network)
        unpruned = None if args.baseline is None else accelerator.load(args.baseline)
        _, images = image_list(args.images, network)
        pruned, _ = measure(network, images, args.warm_up, args.repeats)
        baseline = switch = None
        if unpruned is not None:
            baseline, _ = measure(unpruned, images, args.warm_up, args.repeats)
            switch = measure_switch(network, unpruned)
    print(summary_table(pruned, baseline))
    if switch is not None:
        print(switch_line(switch))
    print()
    print(tokens_table(pruned))
    write_report(latency_report(pruned, baseline, switch), args.out)


if __name__ == "__main__":
    exit_on_user_error(main)
