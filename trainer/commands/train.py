"""`python -m trainer --shards ...`: train."""

import functools
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from srshards.shards.folder import Shards
from srshards.shards.opening import open_shards
from srshards.storage.store import list_files, list_folders
from srshards.terminal.sizes import format_bytes
from srshards.terminal.text import Bar, plural, say, shows_bars
from trainer.commands.settings import refuse_changes, resolve
from trainer.commands.tables import DEFAULT_METRICS, table, values_group
from trainer.commands.wall_clock import wall_clock
from trainer.distributed.group import RankGroup, open_group
from trainer.distributed.rank import RankInfo
from trainer.evaluation.best import parse_best
from trainer.evaluation.sets import ShardSet
from trainer.messages import format_duration
from trainer.metrics_table import PERCEPTUAL
from trainer.models import NetworkSpec
from trainer.runs.folder import RunFolder
from trainer.runs.lookup import new_run
from trainer.training.checks import check_schedule, checked_plan
from trainer.training.config import TrainConfig
from trainer.training.network import choose_spec, stored_spec
from trainer.training.plan import Plan, as_started
from trainer.training.run import TrainingResult, train
from trainer.training.stopping import StopRequest
from trainer.training.validation import ValidationResult


def train_command(
    context: click.Context, config_file: Path | None, resume: bool, values: dict[str, Any], start_s: float
) -> int:
    """Train, alone or as one of torchrun's processes, and print a summary. Return the exit code.

    `start_s` is the reading of `time.monotonic` at the start of the command.
    """
    with open_group(RankInfo.from_environment(os.environ)) as group:
        job, restarted = group.rank_info.job, group.restarted
        config, run, requested = group.run_on_rank0(
            lambda: resolve(context, values, config_file, resume, job, restarted)
        )
        shards = group.run_on_all(lambda: _open(config))
        facts = group.run_on_rank0(run.read_plan) if run else None
        spec = group.run_on_rank0(lambda: _spec(config, shards, run, facts))
        plan = group.run_on_all(lambda: checked_plan(config, shards, group.rank_info, spec))
        if run is None:
            group.run_on_all(lambda: check_schedule(plan))
        if config.verify:
            group.run_on_all(lambda: _verify(plan))
        if run is not None:
            if facts is not None:
                plan = group.run_on_all(lambda: as_started(plan, facts, run))
            group.run_on_all(lambda: refuse_changes(requested, _effective_settings(plan), run.home))
        folder = run.locked() if run else new_run(config.out, config.run, _default_name(plan))
        with StopRequest() as stop:
            result = train(plan, folder, stop, functools.partial(say, err=True), group, start_s)
        if group.is_rank0:
            _print_outcome(result, plan, group)
    return 0 if result.finished else 128 + int(stop.signal_number or 0)


def _print_outcome(result: TrainingResult, plan: Plan, group: RankGroup) -> None:
    if result.finished:
        say(_summary(result))
    else:
        steps = f"step {result.progress.step:,} of {plan.total_steps:,}"
        command = _resume_command(result.run, group)
        click.echo(f"Stopped after {steps}; everything is saved. Resume with: {command}", err=True)
        if result.account:
            click.echo(wall_clock(result.account), err=True)


def _open(config: TrainConfig) -> Shards:
    return open_shards(config.shards, cache=config.cache, cache_bytes=config.cache_bytes, decode=config.cache_decoded)


def _verify(plan: Plan) -> None:
    """Verify the shards of the run and of its sets. The ranks of a machine share the work."""
    rank_info = plan.rank_info
    folders = [plan.folder, *(one.shards for one in plan.sets if isinstance(one, ShardSet))]
    for shards in {folder.path: folder for folder in folders}.values():
        quiet = not (rank_info.is_rank0 and shows_bars())
        with Bar(desc="verifying", unit="B", unit_scale=True, disable=quiet) as bar:
            shards.verify(bar.update, rank_info.local_rank, rank_info.local_world_size)


def _spec(config: TrainConfig, shards: Shards, run: RunFolder | None, facts: Mapping[str, Any] | None) -> NetworkSpec:
    """Return the network of a run to resume, of whose plan.json `facts` are the content, or of a new run."""
    stored = stored_spec(run, facts, config.model) if run and facts else None
    return stored or choose_spec(config, shards)


def _default_name(plan: Plan) -> str:
    model = plan.config.model or plan.spec.architecture.lower()
    return f"{model}-{plan.folder.scale}x" + ("-up" if plan.config.input == "up" else "")


def _effective_settings(plan: Plan) -> dict[str, Any]:
    """Return the settings of a run, with derived values in place of open defaults."""
    names = ("lr", "warmup", "schedule", "milestones", "ema")
    derived = {"steps": plan.total_steps, **{name: getattr(plan, name) for name in names}}
    return {**vars(plan.config), **derived, "patches_per_sample": plan.loader.patches_per_sample}


def _resume_command(run: RunFolder, group: RankGroup) -> str:
    # Without the two dashes, torchrun would parse --run as an option of its own.
    start = "python -m trainer" if group.world_size == 1 else "torchrun ... -m -- trainer"
    return f"{start} --out {shlex.quote(str(run.home.parent))} --run {shlex.quote(run.home.name)} --resume"


def _means_table(result: ValidationResult) -> str:
    """Return the means of all metrics that were measured, grouped by set if there are several."""
    sets = result.sets
    metrics = [*DEFAULT_METRICS, *(name for name in PERCEPTUAL if name in next(iter(sets.values())).network)]
    groups = [
        values_group(name if len(sets) > 1 else "", {"bicubic": one.bicubic, "network": one.network}, metrics)
        for name, one in sets.items()
    ]
    return table(groups, metrics)


def _is_below_bicubic(result: ValidationResult) -> bool:
    """Return whether the network has a lower PSNR-Y than bicubic on the first set."""
    first = next(iter(result.sets.values()))
    return first.network["psnr_y"] < first.bicubic["psnr_y"]


def _summary(result: TrainingResult) -> str:
    """Return the closing table, the throughput and the list of written files."""
    progress, run = result.progress, result.run
    lines = []
    if result.last:
        lines.append(_means_table(result.last))
    if result.was_finished:
        lines.append(
            f"{run.home} has already finished, at step {progress.step:,}; nothing was trained. To train further, start "
            f"a new run with --init {run.home / run.weights.name} and the additional --steps or --epochs"
        )
    else:
        patches_per_s = progress.step * result.patches_per_step / max(progress.trained_s, 1e-9)
        lines.append(
            f"{plural(progress.step, 'step')} in {format_duration(progress.trained_s)} "
            f"({patches_per_s:,.0f} patches/s); peak memory {format_bytes(result.peak_memory_bytes)}"
        )
    if result.account:
        lines.append(wall_clock(result.account))
    outputs = {run.weights.name: "final weights"}
    if progress.best is not None:
        best = f"{parse_best(progress.best_by).described(progress.best)} after step {progress.best_step:,}"
        outputs |= {run.best.name: f"best weights, {best}", f"{run.previews.name}/": "bicubic | network | HR"}
    present = {*list_files(run.home), *(f"{name}/" for name in list_folders(run.home))}
    if run.discriminator.name in present:
        outputs[run.discriminator.name] = "final weights of the discriminator, for --discriminator-init"
    elif result.last and _is_below_bicubic(result.last) and not result.was_finished:
        lines.append("Note: the network is below bicubic; a new run with more --steps usually helps.")
    for name, content in outputs.items():  # those of a run that had finished earlier may have been deleted
        line = f"{run.home}/{name}  {content}"
        lines.append(line if name in present else f"{run.home}/{name} is missing ({content})")
    lines.append(f"{run.home / run.journal.name}, {run.home / run.tensorboard.name}/  training log")
    return "\n".join(lines)
