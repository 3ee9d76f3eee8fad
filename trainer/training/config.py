"""The settings of a training run, validated once and immutable."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from srshards.errors import UsageError
from srshards.format import Address
from trainer.evaluation.best import BestBy
from trainer.evaluation.set_names import NamedSet, check_names
from trainer.loss_terms import LossTerm, check_stop, check_terms
from trainer.messages import option_name
from trainer.training.augment import Augment, check_augments
from trainer.training.schedule import SCHEDULES, check_milestones

INPUTS = ("lr", "up")  # those of srshards, repeated so that --help need not import NumPy
AMP_MODES = ("auto", "bf16", "fp16", "off")
GAN_LOSSES = ("vanilla", "lsgan", "hinge", "relativistic")
DISCRIMINATORS = ("unet", "patchgan", "dunet")
STEP_MODES = ("auto", "eager", "graph", "compiled", "compiled-graph")
OPTIMIZERS = ("adamw", "adan", "schedulefree", "muon")
SCHEDULE_FREE = "schedulefree"
DEFAULT_PATCH_SIZE = 192
DEFAULT_EMA = 0.999
DEFAULT_DISCRIMINATOR, DEFAULT_DISCRIMINATOR_LR = "unet", 1e-4
OF_GAN = ("discriminator", "discriminator_lr", "discriminator_init")  # settings that only `gan` uses

MAX_SEED = 2**63 - 1
MAX_PREFETCH = 64  # a worker's outstanding requests must fit in a pipe, which holds only 16 kB on some systems
MAX_NAME_BYTES = 255
# Floats, states and the loader can represent far more. All other counts are limited by memory.
_MAX_COUNT = 2**31 - 1
_COUNTS = ("epochs", "steps", "warmup", "grad_accum", "ranks", "patches_per_sample", "val_every", "save_every")

# Settings that may change when a run is resumed: none affects the batches, or a step beyond rounding.
FREE_TO_CHANGE = frozenset(
    {
        "shards",
        "cache",
        "cache_bytes",
        "workers",
        "prefetch",
        "resident",
        "device",
        "step",
        "val",
        "val_every",
        "best",
        "metrics",
        "metric_weights",
        "perceptual_weights",
        "save_every",
        "out",
        "run",
        "verify",
    }
)


@dataclass(frozen=True)
class TrainConfig:
    """The options of a run, named as on the command line. UsageError for a value out of range."""

    shards: Address
    preset: str | None = None  # whose settings apply where neither the command line nor --config has any
    cache: Path | None = None  # None: the user's cache folder for shards in an object store, no cache otherwise
    cache_bytes: int | None = None  # None: most of the free disk space
    cache_decoded: bool = False
    model: str | None = None  # None: that of `init`, or else `default_model` of the device
    input: Literal["lr", "up"] = "lr"  # network input: LR, or the upsampled image of HR size
    epochs: int = 15
    steps: int | None = None  # optimiser steps; overrides epochs
    batch_size: int = 16  # patches per batch and process; a step has grad_accum batches
    ranks: int | None = None  # process count that batch_size refers to; None: the processes started
    patch_size: int | None = None  # HR px; None: DEFAULT_PATCH_SIZE, or nearby if the network needs that
    lr: float | None = None  # peak; None: that of the network and the optimiser
    warmup: int | None = None  # steps up to the peak; None: 30% of the run, at most 500
    optimizer: str = "adamw"
    schedule: str | None = None  # of the rate after the warm-up; None: cosine, with schedulefree constant
    milestones: tuple[float, ...] | None = None  # of multistep: steps, or floats as shares of the run; None: SwinIR's
    loss: tuple[LossTerm, ...] = (LossTerm("l1"),)  # summed with their weights
    sharpen_hr: bool = False  # for all losses but the adversarial one
    perceptual_weights: Path | None = None  # where the weights files of losses are; None: PyTorch's cache
    gan: LossTerm | None = None  # the adversarial loss; None: no discriminator
    discriminator: str | None = None  # None: DEFAULT_DISCRIMINATOR
    discriminator_lr: float | None = None  # peak; None: DEFAULT_DISCRIMINATOR_LR
    discriminator_init: Path | None = None  # its initial weights
    amp: str = "auto"
    step: str = "auto"
    ema: float | None = None  # EMA decay of the weights; 0: no EMA; None: DEFAULT_EMA, with schedulefree 0
    augment: tuple[Augment, ...] = ()
    grad_accum: int = 1  # batches per step
    clip: float = 1.0  # maximum gradient norm; 0: no clipping
    workers: int | None = None  # None: the process's share of the CPUs, on a GPU less two
    prefetch: int = 16  # batches per worker
    patches_per_sample: int | None = None  # consecutive steps that share a sample; None: 1 for npy and tlc, else 4
    resident: bool = False  # all samples in device memory
    seed: int = 0
    device: str = "auto"
    init: Path | None = None  # initial weights
    val: tuple[NamedSet, ...] = ()  # further images to validate on, besides the validation split of the shards
    val_every: int | None = None  # steps; None: one epoch within 200 to 5,000 steps, growing (cadence.py)
    val_samples: int = 100  # validation images to evaluate, of each set
    best: BestBy | None = None  # what best.pth is chosen by; None: PSNR-Y of the validation split or the first set
    metrics: tuple[str, ...] | None = None  # to measure in validations besides PSNR, SSIM and that of best
    metric_weights: Path | None = None  # where the weights of the perceptual metrics are
    save_every: int | None = None  # steps, in addition to a save at each validation; None: every ten minutes
    out: Address = Path("runs")
    run: str | None = None
    verify: bool = False

    def __post_init__(self) -> None:
        for name, low in {
            "cache_bytes": 1,
            "epochs": 1,
            "steps": 1,
            "batch_size": 1,
            "ranks": 1,
            "patch_size": 1,
            "grad_accum": 1,
            "prefetch": 1,
            "patches_per_sample": 1,
            "warmup": 0,
            "workers": 0,
            "seed": 0,
            "val_every": 1,
            "val_samples": 1,
            "save_every": 1,
        }.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"{option_name(name)} {value}: expected {low} or more")
            if value is not None and value > _MAX_COUNT and name in _COUNTS:
                raise UsageError(f"{option_name(name)}: expected at most {_MAX_COUNT}")
        if self.lr is not None and not 0 < self.lr < 1:
            raise UsageError(f"--lr {self.lr}: expected a rate above 0 and below 1, e.g. 2e-4")
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"--optimizer {self.optimizer}: expected one of {', '.join(OPTIMIZERS)}")
        if self.optimizer == SCHEDULE_FREE and self.schedule not in (None, "constant"):
            raise UsageError(
                f"--schedule {self.schedule}: {SCHEDULE_FREE} averages the weights instead of lowering the rate; "
                "pass --schedule constant or another --optimizer"
            )
        if self.optimizer == SCHEDULE_FREE and self.ema:
            raise UsageError(
                f"--ema {self.ema}: {SCHEDULE_FREE} averages the weights itself; pass --ema 0 or another --optimizer"
            )
        if self.schedule is not None and self.schedule not in SCHEDULES:
            raise UsageError(f"--schedule {self.schedule}: expected one of {', '.join(SCHEDULES)}")
        if self.milestones is not None:
            check_milestones(self.milestones)
            if self.schedule != "multistep":
                raise UsageError("--milestones needs --schedule multistep; pass both or none")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise UsageError(f"--ema {self.ema}: expected 0 (off) or a decay below 1, e.g. 0.999")
        if self.prefetch > MAX_PREFETCH:
            raise UsageError(f"--prefetch {self.prefetch}: expected at most {MAX_PREFETCH}")
        if self.seed > MAX_SEED:
            raise UsageError(f"--seed {self.seed}: expected at most {MAX_SEED}")
        if self.run is not None:
            _check_name(self.run)
        if not self.clip >= 0:
            raise UsageError(f"--clip {self.clip}: expected 0 (off) or a positive norm")
        check_names(self.val, "--val")
        check_terms(self.loss)
        if self.gan is not None:
            check_stop("--gan", self.gan)
            if self.input == "up":
                raise UsageError("--gan trains networks that upscale; omit --input up, which restores at HR size")
        else:
            for name in OF_GAN:
                if getattr(self, name) is not None:
                    raise UsageError(f"{option_name(name)} needs --gan, e.g. --gan vanilla:0.1; pass both or none")
        if self.discriminator_lr is not None and not 0 < self.discriminator_lr < 1:
            raise UsageError(
                f"--discriminator-lr {self.discriminator_lr}: expected a rate above 0 and below 1, e.g. 1e-4"
            )
        check_augments(self.augment)

    def as_yaml(self) -> dict[str, Any]:
        """Return the settings by option name, as written to `config.yaml` and accepted by `--config`."""
        return {field.name.replace("_", "-"): _plain(getattr(self, field.name)) for field in fields(self)}


def option_names() -> list[str]:
    """Return the keys of a configuration file: `batch-size`, ..."""
    return [field.name.replace("_", "-") for field in fields(TrainConfig)]


def _plain(value: Any) -> Any:
    """Return a value as it is written to YAML: several as a list, and what is not plain, e.g. an address, as text."""
    if type(value) is tuple:
        return list(map(_plain, value))
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _check_name(run: str) -> None:
    is_text = run.encode("utf-8", "ignore").decode() == run
    if run in ("", ".", "..") or "/" in run or "\0" in run or not is_text:
        raise UsageError(f"--run {run!r}: expected the name of a folder in --out, not a path")
    if len(run.encode()) > MAX_NAME_BYTES:
        raise UsageError(f"--run {run}: name too long, expected at most {MAX_NAME_BYTES} bytes")
