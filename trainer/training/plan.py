"""The plan of a run: values derived from its settings, its shards and this machine."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch

from srshards import PatchLoader
from srshards.errors import UsageError
from srshards.format import CROP_CODECS
from srshards.shards.folder import Shards
from trainer.catalogue import NETWORKS, typical_network
from trainer.distributed.rank import SINGLE_PROCESS, RankInfo
from trainer.evaluation.best import BestBy
from trainer.evaluation.sets import EvaluationSet
from trainer.models import NetworkSpec
from trainer.runs.folder import RunFolder
from trainer.training.config import (
    DEFAULT_DISCRIMINATOR,
    DEFAULT_DISCRIMINATOR_LR,
    DEFAULT_EMA,
    SCHEDULE_FREE,
    TrainConfig,
)
from trainer.training.device import Precision, choose_device, choose_precision
from trainer.training.network import choose_spec, default_patch_size
from trainer.training.optimizers import RATES
from trainer.training.schedule import DEFAULT_MILESTONES, check_milestone_steps, check_warmup
from trainer.training.sets import choose_best, open_sets
from trainer.training.step_mode import StepMode, choose_step_mode

_MIN_VAL_EVERY, _MAX_VAL_EVERY = 200, 5000
_WARMUP_SHARE, _MAX_WARMUP = 0.3, 500  # of the steps; steps
_MAX_LOG_EVERY = 50
_PATCHES_PER_DECODED_SAMPLE = 4
_CAUTIOUS_LR = 1e-4  # for architectures without a row in the catalogue
# The defaults that a resumed run keeps, with their types in plan.json.
_KEPT = {"lr": (int, float), "warmup": (int,), "ema": (int, float), "schedule": (str,), "milestones": (list,)}


@dataclass(frozen=True)
class Plan:
    """Plan of a run on this rank. `loader` yields its batches; `config.ranks` is the process count of the settings.

    `sets` are the images to validate on, the main set first; `best_by` is None without any.
    """

    config: TrainConfig
    rank_info: RankInfo
    folder: Shards
    spec: NetworkSpec
    loader: PatchLoader
    patch_size: int  # HR px
    precision: Precision
    total_steps: int
    lr: float  # peak learning rate
    warmup: int  # steps of the linear warm-up
    schedule: str  # of the rate after the warm-up, one of SCHEDULES
    milestones: tuple[float, ...]  # of the schedule multistep: steps, or floats as shares of the run; else empty
    ema: float  # EMA decay of the weights; 0: no EMA
    discriminator: str  # of an adversarial training
    discriminator_lr: float  # peak
    step_mode: StepMode
    sets: tuple[EvaluationSet, ...]
    best_by: BestBy | None

    @property
    def device(self) -> torch.device:
        return self.loader.device

    @property
    def samples_left_out(self) -> int:
        """Samples dropped at the end of the last epoch; those left over in earlier epochs are used in the next one."""
        if self.config.steps is not None:
            return 0
        used = self.total_steps * self.loader.patches_per_step
        return max(0, self.config.epochs * self.loader.num_samples - used) // self.loader.patches_per_sample

    @property
    def val_every(self) -> int:
        """Steps between validations, at first if `adapts_val_every`."""
        steps_per_epoch = len(self.loader) // self.loader.micro_batches
        return self.config.val_every or min(max(steps_per_epoch, _MIN_VAL_EVERY), _MAX_VAL_EVERY)

    @property
    def adapts_val_every(self) -> bool:
        """Whether the interval between validations grows if they take too much of the time."""
        return self.config.val_every is None

    @property
    def log_every(self) -> int:
        """Steps between lines of the journal."""
        return max(1, min(_MAX_LOG_EVERY, self.total_steps // 20))


def derive_plan(
    config: TrainConfig,
    folder: Shards,
    rank_info: RankInfo = SINGLE_PROCESS,
    spec: NetworkSpec | None = None,
) -> Plan:
    """Return the plan for settings that `check_settings` accepts. Without a `spec`, they choose the network.

    UsageError for a device, precision or mode that this machine lacks, and for a refused set or choice of the best
    weights; ArgumentError for arguments the loader rejects.
    """
    spec = spec or choose_spec(config, folder)
    named = spec.name if spec.name in NETWORKS else None
    patch_size = config.patch_size or default_patch_size(spec, config, folder)
    discriminator = config.discriminator or DEFAULT_DISCRIMINATOR
    discriminator_lr = config.discriminator_lr or DEFAULT_DISCRIMINATOR_LR
    config = replace(
        config,
        ranks=config.ranks or rank_info.world_size,
        model=config.model or named,
        patch_size=patch_size,
    )
    if config.gan:
        config = replace(config, discriminator=discriminator, discriminator_lr=discriminator_lr)
    device = choose_device(config.device, rank_info.local_rank if rank_info.world_size > 1 else None)
    loader = _loader(config, patch_size, folder, rank_info, device)
    sets = open_sets(config, folder)
    total_steps = config.steps or loader.num_steps(config.epochs)
    row = NETWORKS[config.model] if config.model else typical_network(spec.architecture)
    is_schedule_free = config.optimizer == SCHEDULE_FREE
    return Plan(
        config=config,
        rank_info=rank_info,
        folder=folder,
        spec=spec,
        loader=loader,
        patch_size=patch_size,
        precision=choose_precision(config.amp, device),
        total_steps=total_steps,
        lr=config.lr or (row.lr if row else _CAUTIOUS_LR) * RATES[config.optimizer],
        warmup=default_warmup(total_steps) if config.warmup is None else config.warmup,
        schedule=config.schedule or ("constant" if is_schedule_free else "cosine"),
        milestones=(config.milestones or DEFAULT_MILESTONES) if config.schedule == "multistep" else (),
        ema=(0.0 if is_schedule_free else DEFAULT_EMA) if config.ema is None else config.ema,
        discriminator=discriminator,
        discriminator_lr=discriminator_lr,
        step_mode=choose_step_mode(
            config.step, device, rank_info.world_size, spec.architecture, total_steps, config.optimizer
        ),
        sets=sets,
        best_by=choose_best(config, sets),
    )


def default_warmup(total_steps: int) -> int:
    """Return the steps of the warm-up: docs/decisions/034-warm-up-and-rates.md."""
    return min(_MAX_WARMUP, math.ceil(_WARMUP_SHARE * total_steps))


def as_started(plan: Plan, facts: Mapping[str, Any], run: RunFolder) -> Plan:
    """Return the plan of a resumed run with the defaults of its start, from `facts`, the content of its plan.json.

    Earlier versions did not record them, and had a shorter warm-up. UsageError for values that no run can have.
    """
    config = plan.config
    kept = {name: facts[name] for name in _KEPT if getattr(config, name) is None and name in facts}
    if config.warmup is None and "warmup" not in facts:
        kept["warmup"] = min(500, max(50, plan.total_steps // 20), plan.total_steps // 2)
    if not all(type(value) in _KEPT[name] for name, value in kept.items()):
        raise run.damaged_plan()
    if "milestones" in kept:
        kept["milestones"] = tuple(kept["milestones"])
    started = replace(plan, **kept)
    steps = facts.get("steps")  # which config.yaml, if it was edited, contradicts: not a fault of plan.json
    total_steps = steps if type(steps) is int else plan.total_steps
    try:
        replace(config, **kept)  # checks the ranges
        if "warmup" in kept:
            check_warmup(started.warmup, total_steps)
        check_milestone_steps(started.milestones, started.warmup, total_steps)
    except UsageError as error:
        raise run.damaged_plan() from error
    if (started.schedule == "multistep") != bool(started.milestones):
        raise run.damaged_plan()
    return started


def patches_per_step(config: TrainConfig, rank_info: RankInfo) -> int:
    """Return the patches of a step over all ranks, independent of the world size if `config.ranks` is set."""
    return config.batch_size * config.grad_accum * (config.ranks or rank_info.world_size)


def _loader(
    config: TrainConfig, patch_size: int, folder: Shards, rank_info: RankInfo, device: torch.device
) -> PatchLoader:
    """Return this rank's loader: its share of each step, in equal micro-batches of at most `config.batch_size`."""
    share = patches_per_step(config, rank_info) // rank_info.world_size
    micro_batches = next(parts for parts in count(-(-share // config.batch_size)) if share % parts == 0)
    return PatchLoader(
        folder,
        patch_size,
        share // micro_batches,
        input=config.input,
        workers=config.workers,
        seed=config.seed,
        device=device,
        rank=rank_info.rank,
        world_size=rank_info.world_size,
        local_rank=rank_info.local_rank,
        local_world_size=rank_info.local_world_size,
        prefetch=config.prefetch,
        micro_batches=micro_batches,
        patches_per_sample=_patches_per_sample(config, folder.codec),
        resident=config.resident,
    )


def _patches_per_sample(config: TrainConfig, codec: str) -> int:
    """Return the configured value, or the largest divisor of the epochs up to 4 (1 for npy and tlc)."""
    if config.patches_per_sample is not None:
        return config.patches_per_sample
    limit = 1 if codec in CROP_CODECS else _PATCHES_PER_DECODED_SAMPLE
    return next(k for k in range(limit, 0, -1) if config.steps is not None or config.epochs % k == 0)
