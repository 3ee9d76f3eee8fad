"""`python -m trainer --shards ...`: train."""

import functools
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from trainer.cache.folder import cache_for
from trainer.commands.settings import resolve
from trainer.commands.tables import quality_table
from trainer.commands.types import ADDRESS, PATH, NumBytes
from trainer.config import AMP_MODES, DEFAULT_LR, INPUTS, TrainConfig
from trainer.losses import LOSSES
from trainer.models import MODELS
from trainer.place import Place
from trainer.plan import Plan, plan_run
from trainer.run import Outcome, train
from trainer.run_folder import RunFolder, new_run
from trainer.shards import ShardFolder, open_shards
from trainer.stopping import StopRequest
from trainer.world import World, open_world

_default = functools.partial(click.option, show_default=True)
_RATES = ", ".join(f"{rate:g} for {model}" for model, rate in DEFAULT_LR.items())

OPTIONS = [
    click.option(
        "--shards", type=ADDRESS, help="Folder of one scale, e.g. shards/scale_4x or s3://bucket/shards/scale_4x."
    ),
    click.option(
        "--cache", type=PATH, help="Folder on a fast disk for shards that lie elsewhere.  [default: ~/.cache/sr-shards]"
    ),
    click.option(
        "--cache-bytes", type=NumBytes(), help="What it may hold, e.g. 200GB.  [default: most of what is free there]"
    ),
    click.option("--cache-decoded", is_flag=True, help="Decode png and webp shards once, into the cache."),
    _default("--model", type=click.Choice(MODELS), default=TrainConfig.model, help="Network."),
    _default(
        "--input",
        type=click.Choice(INPUTS),
        default=TrainConfig.input,
        help="What the network sees: LR, which it enlarges, or the upsampled image, which it restores.",
    ),
    _default("--epochs", type=int, default=TrainConfig.epochs, help="Passes over the samples."),
    click.option("--steps", type=int, help="Optimiser steps, instead of --epochs."),
    _default("--batch-size", type=int, default=TrainConfig.batch_size, help="Patches in a batch, of each process."),
    click.option(
        "--ranks",
        type=int,
        help="Processes that --batch-size counts for; as many as there are share the same steps.  "
        "[default: those that there are]",
    ),
    _default("--patch-size", type=int, default=TrainConfig.patch_size, help="Edge of a patch in HR px."),
    click.option("--lr", type=float, help=f"Peak learning rate.  [default: {_RATES}]"),
    click.option("--warmup", type=int, help="Steps up to the peak.  [default: a twentieth of the run, 50 to 500]"),
    _default("--loss", type=click.Choice(tuple(LOSSES)), default=TrainConfig.loss, help="What is made small."),
    _default(
        "--amp",
        type=click.Choice(AMP_MODES),
        default=TrainConfig.amp,
        help="Mixed precision; auto takes bf16 where the device computes in it.",
    ),
    click.option("--compile", is_flag=True, help="Compile the network (torch.compile)."),
    _default("--ema", type=float, default=TrainConfig.ema, help="Decay of the averaged weights; 0 for none."),
    _default("--grad-accum", type=int, default=TrainConfig.grad_accum, help="Batches per step."),
    _default("--clip", type=float, default=TrainConfig.clip, help="Largest norm of the gradient; 0 for no limit."),
    click.option("--workers", type=int, help="Data workers.  [default: the process's share of the CPUs]"),
    _default("--prefetch", type=int, default=TrainConfig.prefetch, help="Batches that each worker is ahead."),
    click.option(
        "--patches-per-sample",
        type=int,
        help="Steps in a row that cut their patches from the same samples.  [default: npy 1, others 4]",
    ),
    click.option("--resident", is_flag=True, help="Keep all samples in the device's memory; no data workers."),
    _default("--seed", type=int, default=TrainConfig.seed, help="Draws weights, order, crops and flips."),
    _default("--device", default=TrainConfig.device, help="cpu, cuda, cuda:1; auto takes a GPU if there is one."),
    click.option("--init", type=PATH, help="Weights to begin with, instead of random ones."),
    click.option("--val-every", type=int, help="Steps between validations.  [default: an epoch, but 200 to 5000]"),
    _default("--val-samples", type=int, default=TrainConfig.val_samples, help="Validation images that are looked at."),
    click.option(
        "--save-every",
        type=int,
        help="Steps between saves, beside those of validations.  [default: by the clock, every ten minutes]",
    ),
    _default("--out", type=ADDRESS, default=TrainConfig.out, help="Folder for runs."),
    click.option("--run", help="Name of the run.  [default: e.g. lite-4x, with a number if that is taken]"),
    click.option("--resume", is_flag=True, help="Go on with --run exactly where it was."),
    click.option("--verify", is_flag=True, help="Compare every shard's sha256 before the start."),
    click.option(
        "--config",
        "config_file",
        type=PATH,
        help="YAML file of these options; the command line wins.",
    ),
]


def train_command(context: click.Context, config_file: Path | None, resume: bool, values: dict[str, Any]) -> int:
    """Train, as one of the processes that torchrun started or alone, and say how it went. Returns the exit code."""
    with open_world(Place.of(os.environ)) as world:
        job, restarted = world.place.job, world.restarted
        config, run = world.led(lambda: resolve(context, values, config_file, resume, job, restarted))
        plan = world.together(lambda: plan_run(config, _open(config, world.place), world.place))
        run = world.led(lambda: run or new_run(config.out, config.run, _default_name(plan)))
        with StopRequest() as stop:
            outcome = train(plan, run, stop, functools.partial(click.echo, err=True), world)
        if world.leads:
            _say_how_it_went(outcome, plan, run, world)
    return 0 if outcome.finished else 128 + int(stop.signal_number or 0)


def _say_how_it_went(outcome: Outcome, plan: Plan, run: RunFolder, world: World) -> None:
    if outcome.finished:
        click.echo(_result(outcome, run))
    else:
        steps = f"step {outcome.progress.step:,} of {plan.total_steps:,}"
        click.echo(f"Stopped after {steps}; all is saved. Go on with: {_again(run, world)}", err=True)


def _open(config: TrainConfig, place: Place) -> ShardFolder:
    cache = cache_for(config.shards, config.cache, config.cache_bytes, config.cache_decoded)
    if not config.verify:
        return open_shards(config.shards, cache=cache, decoded=config.cache_decoded)
    quiet = not (place.leads and sys.stderr.isatty())
    with tqdm(desc="verifying", unit="B", unit_scale=True, dynamic_ncols=True, disable=quiet) as bar:
        return open_shards(
            config.shards, True, bar.update, cache, config.cache_decoded, place.local_rank, place.local_ranks
        )


def _default_name(plan: Plan) -> str:
    return f"{plan.config.model}-{plan.folder.scale}x" + ("-up" if plan.config.input == "up" else "")


def _again(run: RunFolder, world: World) -> str:
    # torchrun would take --run for a word of its own, were it not for the two dashes.
    start = "python -m trainer" if world.ranks == 1 else "torchrun ... -m -- trainer"
    return f"{start} --out {shlex.quote(str(run.home.parent))} --run {shlex.quote(run.home.name)} --resume"


def _result(outcome: Outcome, run: RunFolder) -> str:
    """The table at the end, and what was made."""
    progress = outcome.progress
    lines = []
    if outcome.last:
        lines.append(quality_table({"bicubic": outcome.last.bicubic, "network": outcome.last.network}))
    patches_per_s = progress.step * outcome.patches_per_step / max(progress.trained_s, 1e-9)
    lines.append(
        f"{progress.step:,} steps in {_duration(progress.trained_s)} ({patches_per_s:,.0f} patches/s); "
        f"at most {outcome.peak_memory_bytes / 1e9:.1f} GB of memory"
    )
    lines.append(f"{run.home / run.weights.name}  the weights at the end")
    if progress.best_psnr_y is not None:
        best = f"{progress.best_psnr_y:.2f} dB after step {progress.best_step:,}"
        lines.append(f"{run.home / run.best.name}  the best weights: {best}")
        lines.append(f"{run.home / run.previews.name}/  bicubic | network | HR")
    lines.append(f"{run.home / run.journal.name}, {run.home / run.tensorboard.name}/  all figures")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
