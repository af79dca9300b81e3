"""From a design's logical steps to the records that the accelerator reads (`hw.step_table`): lanes, tiles, shifts."""

from __future__ import annotations

from hw.layout import Design
from hw.step_table import Lanes, Values, pack_table
from hw.steps import Buffer, Epilogue, Memory, Op, Package, Prologue, Step, Weights
from quant import functions as f
from quant.formats import MIN_SECOND_SHIFT, MIN_SHIFT, RESIDUAL_GUARD_BITS
from quant.network import QuantizedNetwork


def program_table(design: Design, num_rows: int, steps: range | None = None, num_words: int = 0) -> Lanes:
    """Header and records, int16 [1 + steps, RECORD_LANES], as they stand at the head of the weight stream.

    num_rows   of X that follow
    steps      positions of those that run, counted anew from 0; None: all of the program
    num_words  of the whole stream
    Raises NetworkError where a value does not fit its field.
    """
    program, network, model = design.program, design.network, design.network.model
    chosen = range(len(program.steps)) if steps is None else steps
    header: Values = {
        "digest": network_word(network),
        "num_steps": len(chosen),
        "num_words": num_words,
        "num_rows": num_rows,
        "num_prefix": model.num_prefix_tokens,
        "num_heads": model.num_heads,
        "package": Package(network.pruning.package),
        "grid": model.img_size // model.patch_size,
        "patch_lines": model.patch_size,
        "line_words": model.patch_size * model.in_chans // design.layout.image_lanes,
        "num_classes": model.num_classes,
        "logits_lane": design.layout.first_lane(Buffer.LOGITS),
    }
    records = [(program.steps[i].name, step_values(design, i, chosen)) for i in chosen]
    return pack_table(header, records)


def network_word(network: QuantizedNetwork) -> int:
    """The first 32 bits of its digest: in the header, and in the status after it ran."""
    return int(network.digest[:8], 16)


def step_values(design: Design, position: int, steps: range) -> Values:
    """The fields of one step's record.

    steps  the positions that the table holds
    """
    layout, step = design.layout, design.program.steps[position]
    head = step.head or 0
    works = step.op is Op.ENGINE
    weights_lane = 0
    if step.weights in (Weights.K, Weights.V):
        weights_lane = head * layout.head_lanes  # within K's bank, or V
    elif step.op is Op.DECIDE:
        weights_lane = layout.first_lane(Buffer.BRANCH)
    source_head = step.head if step.source in (Buffer.X, Buffer.Q) else None
    dest_head = step.head if step.dest in (Buffer.CONTEXT, Buffer.TOKEN_SCORES) else None
    return {
        "op": step.op,
        "rows": step.rows,
        "source": memory_of(step.source),
        "source_lane": layout.first_lane(step.source, source_head),
        "prologue": step.prologue,
        "split": split(step),
        "head": head,
        "weights": step.weights,
        "weights_lane": weights_lane,
        "in_tiles": layout.in_tiles(step) if works else 1,
        "out_tiles": layout.out_tiles(step) if works else 1,
        "epilogue": step.epilogue,
        "dest": memory_of(step.dest),
        "dest_lane": layout.first_lane(step.dest, dest_head),
        "pool": step.pool,
        "shift": score_shift(step),
        "norm_channels": step.norm_features,
        "norm_shift": f.RECIPROCAL_BITS - step.input_bits,
        "epsilon": step.epsilon,
        "residual_shift": residual_shift(step),
        "second_shift": second_shift(step),
        "frac_bits": function_bits(step),
        "aux_frac_bits": step.branch_bits,
        "threshold": step.threshold,
        "weight_width": step.weight_width,
        "next_engine": min(design.program.next_engine(position), steps.stop) - steps.start,
    }


def split(step: Step) -> int:
    """Where pooled features begin, or how many there are."""
    if step.op is Op.POOL:
        return step.out_features or 0
    return (step.in_features or 0) // 2 if step.prologue is Prologue.CONCAT else 0


def function_bits(step: Step) -> int:
    """Fraction bits of what enters the step's function."""
    if step.epilogue is Epilogue.GELU:
        return step.gelu_bits
    return step.source_bits if step.op is Op.DECIDE or step.prologue is Prologue.SOFTMAX else 0


def score_shift(step: Step) -> int:
    """What an accumulator drops to become a score, beyond MIN_SHIFT."""
    drop = step.input_bits + step.weight_bits - step.output_bits
    return drop - MIN_SHIFT if step.epilogue is Epilogue.SCORES else 0


def residual_shift(step: Step) -> int:
    """How far the residual is moved, to the guard bits below the result."""
    up = step.output_bits - step.residual_bits + RESIDUAL_GUARD_BITS
    return up if step.epilogue is Epilogue.RESIDUAL else 0


def second_shift(step: Step) -> int:
    """Bits dropped after the epilogue's multiplier."""
    if step.epilogue is Epilogue.GELU:
        return f.GELU_FRAC_BITS - step.output_bits
    if step.epilogue is Epilogue.CONTEXT:
        return f.divide_frac_bits() - (step.output_bits - step.weight_bits)
    return MIN_SECOND_SHIFT


def memory_of(buffer: Buffer) -> Memory:
    """Where a buffer lies."""
    return {Buffer.X: Memory.X, Buffer.V: Memory.V}.get(buffer, Memory.WORK)
