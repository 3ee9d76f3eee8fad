"""The options of training. Does not import PyTorch, which is too slow for help and completion."""

import functools
from collections.abc import Sequence

import click

from srshards.terminal.params import ADDRESS, BYTE_SIZE, PATH, OneFolder
from srshards.terminal.text import Choice
from trainer.catalogue import default_model
from trainer.commands.types import AUGMENT, BEST, GAN, LOSS, METRIC_NAMES, MILESTONES, NAMED_SET, ModelName
from trainer.loss_table import LOSSES
from trainer.loss_terms import LossTerm
from trainer.presets import PRESETS
from trainer.training.augment import AUGMENTATIONS
from trainer.training.config import (
    AMP_MODES,
    DEFAULT_DISCRIMINATOR,
    DEFAULT_DISCRIMINATOR_LR,
    DEFAULT_EMA,
    DEFAULT_PATCH_SIZE,
    DISCRIMINATORS,
    GAN_LOSSES,
    INPUTS,
    OPTIMIZERS,
    STEP_MODES,
    TrainConfig,
)
from trainer.training.schedule import SCHEDULES

_default = functools.partial(click.option, show_default=True)
METRIC_WEIGHTS = click.option(
    "--metric-weights",
    type=PATH,
    help="Folder with the weights files of LPIPS, DISTS, TOPIQ and NIQE, or one such file.  "
    "[default: the caches of pyiqa and torchvision, in ~/.cache/torch/hub]",
)


def _only_one(context: click.Context, option: click.Parameter, terms: Sequence[LossTerm]) -> LossTerm | None:
    """Return the value of an option that may be passed once. Of other options, the last one counts."""
    if len(terms) > 1:
        raise click.BadParameter(f"{' and '.join(map(str, terms))}: a run has one adversarial loss; pass one of them")
    return terms[0] if terms else None


OPTIONS = [
    click.option(
        "--shards",
        cls=OneFolder,
        type=ADDRESS,
        help="Shard folder of one scale, e.g. shards/scale_4x or s3://bucket/shards/scale_4x.",
    ),
    click.option(
        "--preset",
        type=Choice(PRESETS),
        help="Settings of a published training; all other options take precedence.",
    ),
    click.option(
        "--cache",
        type=PATH,
        help="Folder on a fast local disk in which shards are cached.  [default for s3://: ~/.cache/sr-shards]",
    ),
    click.option(
        "--cache-bytes",
        type=BYTE_SIZE,
        help="Size limit of the cache, e.g. 200GB.  [default: most of the free disk space]",
    ),
    click.option("--cache-decoded", is_flag=True, help="Cache the decoded images of png, webp and tlc shards."),
    click.option(
        "--model",
        type=ModelName(),
        help=f"Network to train.  [default: that of --init, or else {default_model('cuda')} on a GPU, "
        f"{default_model('cpu')} on a CPU]",
    ),
    _default(
        "--input",
        type=Choice(INPUTS),
        default=TrainConfig.input,
        help="Network input: LR, to upscale, or the upsampled image, to restore at HR size.",
    ),
    _default("--epochs", type=int, default=TrainConfig.epochs, help="Passes over the training samples."),
    click.option(
        "--steps",
        type=int,
        help="Optimiser steps, instead of --epochs; in a --config file with both, steps take precedence.",
    ),
    _default("--batch-size", type=int, default=TrainConfig.batch_size, help="Patches per batch and process."),
    click.option(
        "--ranks",
        type=int,
        help="Number of processes for which --batch-size is meant; any other number splits the same steps.  "
        "[default: the processes started]",
    ),
    click.option(
        "--patch-size",
        type=int,
        help=f"Patch edge in HR px.  [default: {DEFAULT_PATCH_SIZE}, or nearby if the network needs that]",
    ),
    _default(
        "--optimizer",
        type=Choice(OPTIMIZERS),
        default=TrainConfig.optimizer,
        help="Optimiser; all but adamw need the extra `optimizers`.",
    ),
    click.option("--lr", type=float, help="Peak learning rate.  [default: the network's for the optimiser]"),
    click.option("--warmup", type=int, help="Warmup steps.  [default: 30% of the run, at most 500]"),
    click.option(
        "--schedule",
        type=Choice(SCHEDULES),
        help="Learning rate after the warmup: falling along a cosine, halved at --milestones, constant, or constant "
        "with a linear decay to 0 in the last 30% (wsd, warmup-stable-decay).  [default: cosine; constant for "
        "schedulefree]",
    ),
    click.option(
        "--milestones",
        type=MILESTONES,
        help="Steps or shares of the run at which multistep halves the rate, e.g. 250000,400000 or 0.5,0.8.  "
        "[default: 0.5,0.8,0.9,0.95]",
    ),
    _default(
        "--loss",
        type=LOSS,
        multiple=True,
        default=TrainConfig.loss,
        help=f"Training loss: {', '.join(LOSSES)}. Repeat it for a sum, each with a weight and from step START to step "
        "STOP, e.g. fft:0.05@1000-20000.",
    ),
    _default(
        "--sharpen-hr/--no-sharpen-hr",
        default=TrainConfig.sharpen_hr,
        help="Sharpen HR as Real-ESRGAN does, for every --loss but not for --gan.",
    ),
    click.option(
        "--perceptual-weights",
        type=PATH,
        help="Weights file of the network of a perceptual loss, or a folder with such files.  "
        "[default: PyTorch's cache, ~/.cache/torch/hub/checkpoints]",
    ),
    click.option(
        "--gan",
        type=GAN,
        multiple=True,
        callback=_only_one,
        help=f"Also train against a discriminator, with the adversarial loss {', '.join(GAN_LOSSES[:-1])} or "
        f"{GAN_LOSSES[-1]}, e.g. vanilla:0.1@5000-.  [default: no discriminator]",
    ),
    click.option(
        "--discriminator",
        type=Choice(DISCRIMINATORS),
        help=f"Discriminator of --gan.  [default: {DEFAULT_DISCRIMINATOR}]",
    ),
    click.option(
        "--discriminator-lr",
        type=float,
        help=f"Peak learning rate of the discriminator.  [default: {DEFAULT_DISCRIMINATOR_LR:g}]",
    ),
    click.option(
        "--discriminator-init",
        type=PATH,
        help="Initial weights of the discriminator, e.g. RealESRGAN_x4plus_netD.pth.  [default: random]",
    ),
    _default(
        "--amp",
        type=Choice(AMP_MODES),
        default=TrainConfig.amp,
        help="Mixed precision; auto uses bf16 where the device supports it natively.",
    ),
    click.option("--compile", "step", flag_value="compiled", hidden=True),  # the option of earlier versions
    _default(
        "--step",
        type=Choice(STEP_MODES),
        default=TrainConfig.step,
        help="How a step runs: kernel by kernel, captured as a CUDA graph, compiled, or both.",
    ),
    click.option(
        "--ema",
        type=float,
        help=f"EMA decay of the weights; 0: no EMA.  [default: {DEFAULT_EMA}; 0 for schedulefree]",
    ),
    click.option(
        "--augment",
        type=AUGMENT,
        multiple=True,
        help=f"Augmentation of batches and the share of the steps that use it, e.g. cutblur:0.3; repeat it for several "
        f"of {', '.join(AUGMENTATIONS)}.  [default: none]",
    ),
    _default("--grad-accum", type=int, default=TrainConfig.grad_accum, help="Batches accumulated per step."),
    _default("--clip", type=float, default=TrainConfig.clip, help="Maximum gradient norm; 0 disables clipping."),
    click.option(
        "--workers",
        type=int,
        help="Data worker processes.  [default: the process's share of the CPUs, on a GPU less 2]",
    ),
    _default("--prefetch", type=int, default=TrainConfig.prefetch, help="Batches each worker prepares ahead."),
    click.option(
        "--patches-per-sample",
        type=int,
        help="Number of consecutive steps that crop patches from the same samples.  "
        "[default: 1 for npy and tlc, otherwise 4]",
    ),
    click.option("--resident", is_flag=True, help="Keep all samples in device memory; uses no data workers."),
    _default("--seed", type=int, default=TrainConfig.seed, help="Seed for weights, sample order, crops and flips."),
    _default("--device", default=TrainConfig.device, help="cpu, cuda or cuda:1; auto uses a GPU if there is one."),
    click.option(
        "--init",
        type=PATH,
        help="Weights file to start from, also of other tools, e.g. runs/lite-4x/best.pth.",
    ),
    click.option(
        "--val",
        type=NAMED_SET,
        multiple=True,
        help="Further images to validate on: HR photos or shards, e.g. Set5=photos/Set5; repeat it for several sets.",
    ),
    click.option(
        "--val-every",
        type=int,
        help="Steps between validations.  [default: one epoch, but 200 to 5000; then at most 2% of the time]",
    ),
    _default("--val-samples", type=int, default=TrainConfig.val_samples, help="Images of each set to validate on."),
    click.option(
        "--best",
        type=BEST,
        help="Metric and set by which best.pth is chosen, e.g. lpips@Set5.  [default: psnr_y of the validation split]",
    ),
    click.option(
        "--metrics",
        type=METRIC_NAMES,
        help="Metrics to measure in validations besides PSNR and SSIM, separated by commas, e.g. lpips,dists.",
    ),
    METRIC_WEIGHTS,
    click.option(
        "--save-every",
        type=int,
        help="Steps between saves, in addition to one at each validation.  [default: every ten minutes]",
    ),
    _default("--out", type=ADDRESS, default=TrainConfig.out, help="Folder that holds the runs."),
    click.option("--run", help="Name of the run.  [default: model and scale, e.g. lite-4x; numbered if that exists]"),
    click.option("--resume", is_flag=True, help="Resume --run exactly where it stopped."),
    click.option("--verify", is_flag=True, help="Check the SHA-256 of every shard before training."),
    click.option(
        "--config",
        "config_file",
        type=PATH,
        help="YAML file with these options; the command line takes precedence.",
    ),
]
