"""The options of training. Without PyTorch, for which neither help nor completion should wait."""

import functools

import click

from srshards.terminal.params import ADDRESS, BYTE_SIZE, PATH
from srshards.terminal.text import Choice
from trainer.training.config import AMP_MODES, DEFAULT_LR, INPUTS, LOSS_NAMES, TrainConfig

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
        "--cache-bytes", type=BYTE_SIZE, help="What it may hold, e.g. 200GB.  [default: most of what is free there]"
    ),
    click.option("--cache-decoded", is_flag=True, help="Decode png and webp shards once, into the cache."),
    _default("--model", type=Choice(DEFAULT_LR), default=TrainConfig.model, help="Network."),
    _default(
        "--input",
        type=Choice(INPUTS),
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
    _default("--loss", type=Choice(LOSS_NAMES), default=TrainConfig.loss, help="What is made small."),
    _default(
        "--amp",
        type=Choice(AMP_MODES),
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
