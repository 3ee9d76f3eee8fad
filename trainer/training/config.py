"""What a training run does: the settings, checked once, never changed afterwards."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from srshards.errors import UsageError
from srshards.format import Address

INPUTS = ("lr", "up")
AMP_MODES = ("auto", "bf16", "fp16", "off")
LOSS_NAMES = ("l1", "charbonnier")

# Peak learning rates for AdamW at batches of 16, found by trial on real photos: docs/architecture.md.
DEFAULT_LR = {"ultra_lite": 4e-3, "lite": 1e-3, "standard": 2e-4}

MAX_SEED = 2**63 - 1
MAX_PREFETCH = 64  # what is asked of a worker at once must fit into a pipe, of which some systems give 16 kB
MAX_NAME_BYTES = 255
# Far below what a float, a state and a loader can count. Memory sets the limit on all other counts.
_MAX_COUNT = 2**31 - 1
_COUNTS = ("epochs", "steps", "warmup", "grad_accum", "ranks", "patches_per_sample", "val_every", "save_every")

# What may be different when a run is resumed: none of it changes the batches or the arithmetic of a step.
FREE_TO_CHANGE = frozenset(
    {
        "shards",
        "cache",
        "cache_bytes",
        "workers",
        "prefetch",
        "resident",
        "device",
        "save_every",
        "out",
        "run",
        "verify",
    }
)


@dataclass(frozen=True)
class TrainConfig:
    """The options of a run, by the names that they have on the command line. UsageError for a value out of range."""

    shards: Address
    cache: Path | None = None  # None: the user's, for shards in a store
    cache_bytes: int | None = None  # None: most of what the disk has free
    cache_decoded: bool = False
    model: str = "lite"
    input: Literal["lr", "up"] = "lr"  # what the network sees: LR, or the upsampled image at HR size
    epochs: int = 15
    steps: int | None = None  # optimiser steps; instead of epochs
    batch_size: int = 16  # patches per step and process, times grad_accum
    ranks: int | None = None  # processes that these are the batches of; None: those that there are
    patch_size: int = 192  # HR px
    lr: float | None = None  # peak; None: the model's own
    warmup: int | None = None  # steps up to the peak; None: a twentieth of the run, 50 to 500
    loss: str = "l1"
    amp: str = "auto"
    compile: bool = False
    ema: float = 0.999  # decay of the averaged weights; 0: none
    grad_accum: int = 1
    clip: float = 1.0  # largest norm of the gradient; 0: no limit
    workers: int | None = None  # None: the CPUs that this process may use
    prefetch: int = 16  # batches per worker
    patches_per_sample: int | None = None  # steps in a row that share a decoded sample; None: 1 for npy, 4 otherwise
    resident: bool = False  # all samples in the device's memory
    seed: int = 0
    device: str = "auto"
    init: Path | None = None  # weights to begin with
    val_every: int | None = None  # steps; None: once per epoch, but within 200 to 5,000 steps
    val_samples: int = 100  # images of the validation split that are looked at
    save_every: int | None = None  # steps between saves of the state; None: ten minutes, and at each validation
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
                raise UsageError(f"{_option(name)} {value}: expected {low} or more")
            if value is not None and value > _MAX_COUNT and name in _COUNTS:
                raise UsageError(f"{_option(name)}: expected at most {_MAX_COUNT}")
        if self.lr is not None and not 0 < self.lr < 1:
            raise UsageError(f"--lr {self.lr}: expected a rate above 0 and below 1, e.g. 2e-4")
        if not 0 <= self.ema < 1:
            raise UsageError(f"--ema {self.ema}: expected a decay from 0 (off) to below 1, e.g. 0.999")
        if self.prefetch > MAX_PREFETCH:
            raise UsageError(f"--prefetch {self.prefetch}: expected at most {MAX_PREFETCH}")
        if self.seed > MAX_SEED:
            raise UsageError(f"--seed {self.seed}: expected at most {MAX_SEED}")
        if self.run is not None:
            _check_name(self.run)
        if not self.clip >= 0:
            raise UsageError(f"--clip {self.clip}: expected 0 (off) or a norm above it")

    def as_yaml(self) -> dict[str, Any]:
        """The settings by their options' names, as `config.yaml` has them and `--config` takes them."""
        plain = {
            name: value if value is None or isinstance(value, str | int | float) else str(value)  # an address
            for name, value in asdict(self).items()
        }
        return {name.replace("_", "-"): value for name, value in plain.items()}


def option_names() -> list[str]:
    """`batch-size`, ...: what a configuration file may hold."""
    return [field.name.replace("_", "-") for field in fields(TrainConfig)]


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_name(run: str) -> None:
    is_text = run.encode("utf-8", "ignore").decode() == run
    if run in ("", ".", "..") or "/" in run or "\0" in run or not is_text:
        raise UsageError(f"--run {run!r}: expected a plain name for a folder in --out, not a path")
    if len(run.encode()) > MAX_NAME_BYTES:
        raise UsageError(f"--run {run}: File name too long, expected at most {MAX_NAME_BYTES} bytes")
