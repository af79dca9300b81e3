"""What a person may say about a checkpoint, where the file leaves a choice. No torch here.

Enters: `--ema 1 --pos interpolate`, or make's EMA= and POS=. Leaves: `CheckpointOptions`.
"""

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class CheckpointOptions:
    """How a checkpoint is read.

    ema          take the running mean of the weights, where it stands beside them
    interpolate  resize the position embedding of another image size, bicubic, as timm does
    """

    ema: bool = False
    interpolate: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """What was chosen, for the names of folders and for digests; empty where nothing was."""
        return (("ema",) if self.ema else ()) + (("pos", "interpolate") if self.interpolate else ())


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ema", choices=("0", "1"), help="1: take the checkpoint's running mean of the weights (default: the weights)"
    )
    parser.add_argument(
        "--pos",
        choices=("exact", "interpolate"),
        help="interpolate: resize the positions of a checkpoint of another image size (default: exact, refuse it)",
    )


def checkpoint_options(args: argparse.Namespace) -> CheckpointOptions:
    return CheckpointOptions(args.ema == "1", args.pos == "interpolate")
