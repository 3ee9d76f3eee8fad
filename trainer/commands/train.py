"""`python -m trainer --shards ...`: train."""

import functools
import os
import shlex
from pathlib import Path
from typing import Any

import click

from srshards.shards.cache_folder import cache_for
from srshards.shards.folder import ShardFolder, open_shards
from srshards.storage.store import list_files, list_folders
from srshards.terminal.text import Bar, say, shows_bars
from trainer.commands.settings import refuse_changes, resolve
from trainer.commands.tables import quality_table
from trainer.distributed.group import World, open_world
from trainer.distributed.rank import Place
from trainer.runs.run_folder import RunFolder, new_run
from trainer.training.config import TrainConfig
from trainer.training.plan import Plan, plan_run
from trainer.training.run import Outcome, train
from trainer.training.stopping import StopRequest


def train_command(context: click.Context, config_file: Path | None, resume: bool, values: dict[str, Any]) -> int:
    """Train, as one of the processes that torchrun started or alone, and say how it went. Returns the exit code."""
    with open_world(Place.of(os.environ)) as world:
        job, restarted = world.place.job, world.restarted
        config, run, asked = world.led(lambda: resolve(context, values, config_file, resume, job, restarted))
        plan = world.together(lambda: plan_run(config, _open(config, world.place), world.place))
        if run is not None:
            world.together(lambda: refuse_changes(asked, _settled(plan), run.home))
        folder = run.locked() if run else new_run(config.out, config.run, _default_name(plan))
        with StopRequest() as stop:
            outcome = train(plan, folder, stop, functools.partial(say, err=True), world)
        if world.leads:
            _say_how_it_went(outcome, plan, world)
    return 0 if outcome.finished else 128 + int(stop.signal_number or 0)


def _say_how_it_went(outcome: Outcome, plan: Plan, world: World) -> None:
    if outcome.finished:
        say(_result(outcome))
    else:
        steps = f"step {outcome.progress.step:,} of {plan.total_steps:,}"
        click.echo(f"Stopped after {steps}; all is saved. Go on with: {_again(outcome.run, world)}", err=True)


def _open(config: TrainConfig, place: Place) -> ShardFolder:
    cache = cache_for(config.shards, config.cache, config.cache_bytes, config.cache_decoded)
    if not config.verify:
        return open_shards(config.shards, cache=cache, decoded=config.cache_decoded)
    quiet = not (place.leads and shows_bars())
    with Bar(desc="verifying", unit="B", unit_scale=True, disable=quiet) as bar:
        return open_shards(
            config.shards, True, bar.update, cache, config.cache_decoded, place.local_rank, place.local_ranks
        )


def _default_name(plan: Plan) -> str:
    return f"{plan.config.model}-{plan.folder.scale}x" + ("-up" if plan.config.input == "up" else "")


def _settled(plan: Plan) -> dict[str, Any]:
    """The settings of a run with what they came to where they were left open."""
    came_to = {"steps": plan.total_steps, "lr": plan.lr, "warmup": plan.warmup, "val_every": plan.val_every}
    return {**vars(plan.config), **came_to, "patches_per_sample": plan.schedule.patches_per_sample}


def _again(run: RunFolder, world: World) -> str:
    # torchrun would take --run for a word of its own, were it not for the two dashes.
    start = "python -m trainer" if world.ranks == 1 else "torchrun ... -m -- trainer"
    return f"{start} --out {shlex.quote(str(run.home.parent))} --run {shlex.quote(run.home.name)} --resume"


def _result(outcome: Outcome) -> str:
    """The table at the end, and what was made."""
    progress, run = outcome.progress, outcome.run
    lines = []
    if outcome.last:
        lines.append(quality_table({"bicubic": outcome.last.bicubic, "network": outcome.last.network}))
    patches_per_s = progress.step * outcome.patches_per_step / max(progress.trained_s, 1e-9)
    lines.append(
        f"{progress.step:,} steps in {_duration(progress.trained_s)} ({patches_per_s:,.0f} patches/s); "
        f"at most {outcome.peak_memory_bytes / 1e9:.1f} GB of memory"
    )
    made = {run.weights.name: "the weights at the end"}
    if progress.best_psnr_y is not None:
        best = f"{progress.best_psnr_y:.2f} dB after step {progress.best_step:,}"
        made |= {run.best.name: f"the best weights: {best}", f"{run.previews.name}/": "bicubic | network | HR"}
    there = {*list_files(run.home), *(f"{name}/" for name in list_folders(run.home))}
    for name, what in made.items():  # of a run that had ended before, any may be gone
        lines.append(f"{run.home}/{name}  {what}" if name in there else f"{run.home}/{name} is missing; it held {what}")
    lines.append(f"{run.home / run.journal.name}, {run.home / run.tensorboard.name}/  all figures")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
