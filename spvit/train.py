"""Train an SPViT: the backbone unless a checkpoint brings it, then selectors and backbone under masks, then thresholds.

    spvit train --model deit_digits
    spvit train --model deit_s --data imagenet/ --ckpt deit_small.pth --budget 6ms --target zcu102
    torchrun --nproc-per-node 8 -m spvit_fpga train ...        # the same on eight GPUs; --batch is that of all together

Enters: a model, a data set, perhaps a checkpoint and a budget. Leaves: OUT.safetensors for `make hls CKPT=`, whose mean
cost over the training images is the asked one; OUT.json with what it reaches; while it runs, OUT.state, from which
`--resume` goes on exactly; the log of it (`spvit.training.log`): OUT-log.csv, OUT-events/, OUT-curve.png.
"""

import importlib
import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from spvit import distributed
from spvit.budget import solve_keep
from spvit.calibration import calibrate_cost
from spvit.checkpoint_options import CheckpointOptions, checkpoint_options
from spvit.checkpoints import save_checkpoint
from spvit.config import ModelSpec, PruningConfig, resolve_model, to_table
from spvit.console import Console
from spvit.cost import count_macs, kept_patches
from spvit.errors import ConfigError
from spvit.files import write_json, write_whole
from spvit.options import TrainOptions
from spvit.pruned_vit import SPViT
from spvit.training import progressive, pruning
from spvit.training.backbone import load_backbone, train_backbone
from spvit.training.budget import Budget, CostOf, macs_budget, parse_budget
from spvit.training.data import Data, data_name, load_data, sample
from spvit.training.log import Log
from spvit.training.loop import Run
from spvit.training.measure import Result, measure
from spvit.training.plots import plot_progress, plot_similarity
from spvit.training.recipe import Recipe, resolve_recipe
from spvit.training.similarity import similarity_to_class_token
from spvit.training.state import OUT_FOLDER, Journal

SIMILARITY_IMAGES = 512
SMALL_MACS = 1e8  # of an image; a second thread costs smaller models more in waiting than it brings


@dataclass(frozen=True)
class Request:
    """What is asked for.

    checkpoint   of the backbone, perhaps with selectors; None: it is trained
    budget       limit, unit and how to count towards it; None: the model's own keep ratios
    progressive  seek the selectors' places and rates; else the model's own places are used
    options      how the checkpoint is read
    """

    spec: ModelSpec
    checkpoint: Path | None = None
    budget: tuple[float, str, CostOf] | None = None
    progressive: bool = False
    options: CheckpointOptions = field(default_factory=CheckpointOptions)


@dataclass(frozen=True)
class Trained:
    """net is the trained one, teacher the unpruned, both in evaluation mode; steps are the progressive schedule's.

    spec  the model as it came out: its keep ratios, and the selectors' places where they were sought
    """

    spec: ModelSpec
    net: SPViT
    teacher: SPViT
    result: Result
    steps: tuple[progressive.Step, ...] = ()


def train(request: Request, run: Run) -> Trained:
    """Everything from the backbone to calibrated thresholds. Raises UserErrors."""
    spec, recipe = request.spec, run.recipe
    if request.budget is not None and not request.progressive:
        spec = replace(spec, pruning=replace(spec.pruning, keep=solved_keep(spec, request.budget)))
    # what chooses the rates is not what the choice is judged by, nor what the weights so far have seen
    searching = run
    if request.progressive:
        rest, held_out = run.data.hold_out(recipe.held_out_images)
        searching = replace(run, data=rest)
    pruned: SPViT | None = None
    if request.checkpoint is not None:
        teacher, pruned = load_backbone(spec, request.checkpoint, request.options)
        teacher = teacher.to(run.device)
    else:
        teacher = train_backbone(spec, searching)
    steps: tuple[progressive.Step, ...] = ()
    if request.progressive:
        net, steps = progressive.search(teacher, spec.pruning, searching, held_out)
        net = progressive.phased(net, recipe.merge_within, recipe.seed)
        if request.budget is not None:
            met = met_budget(replace(spec, pruning=net.pruning), request.budget)
            net = pruning.with_selectors(net, met, recipe.seed)
    else:
        net = pruning.with_selectors(teacher if pruned is None else pruned, spec.pruning, recipe.seed)
    if not net.pruning.num_selectors:
        net = net.to(run.device)
    elif (done := run.journal.done.get(pruning.NAME)) is not None:
        net.load_state_dict(done["net"])
        net = net.to(run.device).eval()
    else:
        pruning.prune(net, teacher, run)
        run.journal.finish(pruning.NAME, {"net": net.state_dict()})
    return calibrate(net, teacher, request, run, steps)


def train_in_memory(request: Request, data: str, recipe: Recipe) -> Trained:
    """`train` alone: nothing is written, and nothing is left to be resumed. Raises UserErrors."""
    if request.spec.pruning.num_selectors and request.budget is None:
        require_keep(request.spec)
    model, threads = request.spec.model, torch.get_num_threads()
    device = distributed.start("auto")
    try:
        if count_macs(model, request.spec.pruning.without()).total < SMALL_MACS:
            torch.set_num_threads(1)
        return train(request, Run(load_data(data, model, recipe), recipe, Journal(None, {}), device))
    finally:
        torch.set_num_threads(threads)
        distributed.stop()


def require_keep(spec: ModelSpec) -> None:
    """Raise ConfigError for selectors of which nobody knows how much they are to keep."""
    if not spec.pruning.keep:
        raise ConfigError(
            f"{spec.model.name}: keep is not set; give BUDGET=, or KEEP= with a fraction for each of "
            f"{spec.pruning.num_selectors} selectors"
        )


def calibrate(
    net: SPViT, teacher: SPViT, request: Request, run: Run, steps: tuple[progressive.Step, ...] = ()
) -> Trained:
    """Thresholds whose mean cost over training images is the target, and what the model then reaches."""
    found = replace(request.spec, pruning=net.pruning)
    if request.budget is None:
        budget = macs_budget(found)
    else:
        limit, unit, cost_of = request.budget
        budget = Budget(limit, unit, cost_of(found))
        if all(fraction == 1 for fraction in net.pruning.keep):  # more may be spent than there is to spend
            budget = replace(budget, limit=min(limit, budget.cost(kept_patches(found.model, found.pruning))))
    images = sample(run.data.training, run.recipe.calibration_images)
    if net.pruning.num_selectors:
        keep, _ = calibrate_cost(
            net, images.images, net.pruning.keep, budget.cost, budget.limit, run.recipe.cost_tolerance
        )
        distributed.from_first(net.thresholds)
        net.pruning = replace(net.pruning, keep=keep)
    result = measure(net, teacher, run.data, images, budget, run.recipe.cost_tolerance)
    return Trained(replace(found, pruning=net.pruning), net.eval(), teacher, result, steps)


def solved_keep(spec: ModelSpec, budget: tuple[float, str, CostOf]) -> tuple[float, ...]:
    """Geometric keep ratios that meet the budget (Eq. 10). Raises ConfigError when nothing can."""
    limit, unit, cost_of = budget
    return solve_keep(spec.model, spec.pruning, cost_of(spec), limit, unit)


def met_budget(spec: ModelSpec, budget: tuple[float, str, CostOf]) -> PruningConfig:
    """The pruning with its first selector's rate changed to meet the budget. Raises ConfigError when that cannot."""
    limit, unit, cost_of = budget
    return progressive.meet_budget(spec, cost_of, limit, unit)


def write(out: Path, trained: Trained, data: Data) -> None:
    """The weights, what they reach, and for a progressive schedule its pictures and the model's own TOML."""
    save_checkpoint(out, trained.net)
    report = trained.result.as_json
    if trained.steps:
        images = data.calibration(SIMILARITY_IMAGES)
        similarity = similarity_to_class_token(trained.teacher, images)
        plot_similarity(similarity, out.with_name(f"{out.stem}-similarity.png"))
        plot_progress(trained.steps, trained.net.pruning.locations, out.with_name(f"{out.stem}-progressive.png"))
        write_whole(out.with_suffix(".toml"), as_toml(trained.spec))
        report |= {"progressive": [asdict(step) for step in trained.steps], "similarity": similarity}
    write_json(out.with_suffix(".json"), report)


def as_toml(spec: ModelSpec) -> str:
    """A model whose selectors found places of their own, for MODEL=; named apart from the one that it came from."""
    model = replace(spec.model, name=f"{spec.model.name}-progressive")
    tables = {"model": to_table(model), "pruning": to_table(spec.pruning), "engine": dict(spec.engine)}
    lines = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def request_of(options: TrainOptions) -> Request:
    """What the command line asks for. Raises ConfigError, for a budget that nothing can meet too."""
    if options.budget is not None and options.keep is not None:
        raise ConfigError(f"KEEP={options.keep} and BUDGET={options.budget}: both say what is kept; give one of them")
    budget = parse_budget(options.budget, options.cost, options.target)
    spec = resolve_model(options.model, options.keep)
    if budget is not None and not spec.pruning.num_selectors and not options.progressive:
        raise ConfigError(f"BUDGET={options.budget}: {spec.model.name} has no selectors; set locations in [pruning]")
    if spec.pruning.num_selectors and budget is None and not options.progressive:
        require_keep(spec)
    request = Request(spec, options.ckpt, budget, options.progressive, checkpoint_options(options))
    if budget is not None and options.progressive:
        earliest = replace(spec, pruning=replace(spec.pruning, locations=(1,), keep=(1.0,)))
        met_budget(earliest, budget)
    elif budget is not None:
        solved_keep(spec, budget)
    return request


def open_journal(options: TrainOptions, spec: ModelSpec, recipe: Recipe) -> tuple[Path, Journal]:
    """Where the weights go, and the journal beside them. Raises ConfigError, CheckpointError."""
    out = options.out or (OUT_FOLDER / f"{spec.model.name}.safetensors")
    if options.resume is not None and options.out is None:
        out = options.resume.with_suffix(".safetensors")
    asked = {name: getattr(options, name) for name in ("budget", "target", "cost", "progressive")}
    asked |= {"data": data_name(options.data, spec.model), "ckpt": None if options.ckpt is None else str(options.ckpt)}
    asked |= {"reading": checkpoint_options(options).parts or None}
    identity = {
        "model": asdict(spec.model),
        "pruning": asdict(spec.pruning),
        "recipe": recipe.identity,
        "asked": asked,
    }
    return out, Journal.beside(out, options.resume, identity)


def has_hardware(spec: ModelSpec) -> bool:
    """Whether `make hls` takes the model, as the hardware half says, which is asked by name: SPViT needs none of it."""
    try:
        importlib.import_module("quant.build").refuse_what_has_no_unit(spec, spec.model.name)
    except ConfigError:
        return False
    return True


def run(options: TrainOptions) -> None:
    request = request_of(options)
    recipe = resolve_recipe(request.spec.model.name, options.recipe, options.changes)
    data = load_data(data_name(options.data, request.spec.model), request.spec.model, recipe)
    device = distributed.start(options.device)
    try:
        out, journal = open_journal(options, request.spec, recipe)
        with journal:
            log = Log(out if distributed.is_first() else None, resumed=options.resume is not None)
            train_and_write(request, Run(data, recipe, journal, device, log=log), out, options)
    finally:
        distributed.stop()


def train_and_write(request: Request, run: Run, out: Path, options: TrainOptions) -> None:
    """Train, and leave the weights and what they reach."""
    journal = run.journal
    try:
        trained = train(request, run)
    except KeyboardInterrupt:
        if journal.path is not None and journal.path.exists() and distributed.is_first():
            print(f"\nstopped; RESUME={journal.path} goes on", file=sys.stderr)
        raise
    if distributed.is_first():
        write(out, trained, run.data)
        keep = ",".join(f"{fraction:g}" for fraction in trained.net.pruning.keep) or "none"
        console = Console()
        for line in (*trained.result.tables(), *trained.result.lines()):
            console.print(line)
        model = out.with_suffix(".toml") if trained.steps else f"{options.model} KEEP={keep}"
        step = f"hls TARGET={options.target or 'zcu102'}" if has_hardware(trained.spec) else "eval"
        console.print(f"{out}: make {step} CKPT={out} MODEL={model}")
    distributed.wait_for_all()
    journal.remove()
