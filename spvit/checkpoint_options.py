"""What a person may say about a checkpoint, where the file leaves a choice. No torch here.

Enters: `--ema --pos interpolate --threshold 0.5`, or make's EMA=, POS= and THRESHOLD=. Leaves: `CheckpointOptions`
and `ThresholdRequest`.
"""

from dataclasses import dataclass

from spvit.config import PruningConfig
from spvit.errors import ConfigError
from spvit.options import SelectorOptions, WeightOptions

MIN_THRESHOLD = 2.0**-16  # below, the fixed-point decision cannot tell a threshold from zero
CALIBRATE = "calibrate"


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


def checkpoint_options(args: WeightOptions) -> CheckpointOptions:
    return CheckpointOptions(args.ema, args.pos == "interpolate")


@dataclass(frozen=True)
class ThresholdRequest:
    """Which thresholds the selectors should decide with.

    value       all the same number; None: not asked for
    calibrate   fit them to the model's keep ratios, even those of trained selectors
    keep_asked  KEEP= names fractions, so thresholds that were made for others are fitted to these
    """

    value: float | None = None
    calibrate: bool = False
    keep_asked: bool = False


def threshold_request(args: SelectorOptions, pruning: PruningConfig) -> ThresholdRequest:
    """What `--threshold` and `--keep` ask for, of the pruning that they lead to. Raises ConfigError."""
    keep_asked = args.keep is not None and bool(pruning.keep)
    if args.threshold is None:
        return ThresholdRequest(keep_asked=keep_asked)
    asked = f"THRESHOLD={args.threshold}"
    if not pruning.num_selectors:
        why = "KEEP=none leaves" if args.keep is not None else "the model has"
        raise ConfigError(f"{asked}: {why} no selectors that could decide by it; leave THRESHOLD= out")
    if args.threshold == CALIBRATE:
        if not pruning.keep:
            raise ConfigError(
                f"{asked}: keep is not set; give KEEP= with a fraction for each of {pruning.num_selectors} selectors"
            )
        return ThresholdRequest(calibrate=True, keep_asked=keep_asked)
    try:
        value = float(args.threshold)
    except ValueError:
        value = float("nan")
    if not MIN_THRESHOLD <= value <= 1:
        raise ConfigError(f"{asked} must be a keep probability from 2**-16 to 1, such as 0.5, or {CALIBRATE}")
    if keep_asked:
        raise ConfigError(f"KEEP={args.keep} and {asked}: both say what is kept; give one of them")
    return ThresholdRequest(value)
