"""Checks that reject impossible runs before any data is read or written. Messages name the option to change."""

from heapq import nlargest

from srshards.errors import UsageError
from srshards.shards.cached import CachedShards
from srshards.shards.folder import Shards
from srshards.terminal.sizes import format_bytes
from trainer.distributed.rank import SINGLE_PROCESS, RankInfo
from trainer.evaluation.sets import ShardSet
from trainer.loss_table import LOSSES
from trainer.loss_terms import check_start, check_steps
from trainer.losses import find_loss_weights
from trainer.models import NetworkSpec
from trainer.models.discriminators import DISCRIMINATORS
from trainer.presets import PRESETS
from trainer.training.augment import PAIRING
from trainer.training.config import SCHEDULE_FREE, TrainConfig
from trainer.training.optimizers import load_package
from trainer.training.plan import Plan, derive_plan, patches_per_step
from trainer.training.schedule import check_milestone_steps, check_warmup
from trainer.training.sharpen import MIN_PX

_MAX_SUGGESTED_RANKS = 4096


def checked_plan(
    config: TrainConfig,
    folder: Shards,
    rank_info: RankInfo = SINGLE_PROCESS,
    spec: NetworkSpec | None = None,
) -> Plan:
    """Return the plan of a run, or raise UsageError if a check fails. Without a `spec`, settings choose the network."""
    check_settings(config, folder, rank_info)
    plan = derive_plan(config, folder, rank_info, spec)
    _check_batch(plan)
    _check_losses(plan)
    _check_gan(plan)
    _check_augments(plan)
    if config.optimizer != "adamw":
        load_package(config.optimizer)
    if config.sharpen_hr:
        _check_sharpening(plan)
    if folder.cached:
        _check_cache(plan, folder.cached)
    return plan


def check_settings(config: TrainConfig, folder: Shards, rank_info: RankInfo) -> None:
    """Raise UsageError if the settings do not fit the number of ranks or each other."""
    _check_init(config)
    _check_equal_shares(config, rank_info)
    _check_patches_per_sample(config)


def check_schedule(plan: Plan) -> None:
    """Raise UsageError if a new run would end before its warm-up, or its milestones are not steps between the two.

    A run of an earlier version may end before its warm-up; `as_started` checks what plan.json has.
    """
    check_warmup(plan.warmup, plan.total_steps)
    check_milestone_steps(plan.milestones, plan.warmup, plan.total_steps)


def _check_init(config: TrainConfig) -> None:
    """Raise UsageError if the preset starts from weights, and there are none."""
    if config.preset is not None and config.init is None and (weights := PRESETS[config.preset].init):
        raise UsageError(
            f"--preset {config.preset} starts from {weights}; pass their file as --init, e.g. --init "
            "runs/lite-4x/model.pth"
        )


def _check_equal_shares(config: TrainConfig, rank_info: RankInfo) -> None:
    """Raise UsageError if the patches of a step are not divisible by the number of processes."""
    per_step = patches_per_step(config, rank_info)
    if per_step % rank_info.world_size:
        divisors = [ranks for ranks in range(1, min(per_step, _MAX_SUGGESTED_RANKS) + 1) if per_step % ranks == 0]
        raise UsageError(
            f"a step of this run has {per_step} patches, which is not divisible by {rank_info.world_size} processes; "
            f"start e.g. {' or '.join(map(str, divisors[-3:]))} instead"
        )


def _check_patches_per_sample(config: TrainConfig) -> None:
    times = config.patches_per_sample
    if times is not None and config.steps is None and config.epochs % times:
        multiple = config.epochs - config.epochs % times
        raise UsageError(
            f"--epochs {config.epochs}: expected a multiple of --patches-per-sample {times}; "
            f"try --epochs {multiple or times}"
        )


def _check_batch(plan: Plan) -> None:
    batch, smallest = plan.loader.batch_size, plan.spec.min_batch
    if batch < smallest:
        raise UsageError(
            f"{plan.spec.name} normalises over a batch and needs {smallest} patches in each or more, but a process has "
            f"{batch}; pass a larger --batch-size"
        )


def _check_losses(plan: Plan) -> None:
    """Raise UsageError if a loss is never active, a step has none, or a loss needs larger patches, an EMA or a file."""
    terms = plan.config.loss
    check_steps(terms, plan.total_steps)
    for term in terms:
        row = LOSSES[term.name]
        if plan.patch_size < row.min_px:
            raise UsageError(
                f"--loss {term.name} needs patches of {row.min_px} px or more, not {plan.patch_size}; pass a larger "
                "--patch-size or omit the loss"
            )
        if row.uses_ema and not plan.ema:
            remedy = "another --optimizer" if plan.config.optimizer == SCHEDULE_FREE else "an --ema above 0"
            raise UsageError(f"--loss {term.name} compares with the EMA of the weights; pass {remedy}")
    find_loss_weights([term.name for term in terms], plan.config.perceptual_weights)


def _check_gan(plan: Plan) -> None:
    """Raise UsageError if the discriminator never starts, or cannot judge patches of this size."""
    config = plan.config
    if config.gan is None:
        return
    check_start("--gan", config.gan, plan.total_steps)
    row = DISCRIMINATORS[plan.discriminator]
    if plan.patch_size < row.min_px or plan.patch_size % row.multiple_px:
        raise UsageError(
            f"--discriminator {plan.discriminator} needs patches of {row.min_px} px or more, in multiples of "
            f"{row.multiple_px}, not {plan.patch_size}; pass another --patch-size"
        )


def _check_augments(plan: Plan) -> None:
    pairing = [one.name for one in plan.config.augment if one.name in PAIRING]
    if pairing and plan.loader.batch_size % 2:
        raise UsageError(
            f"--augment {pairing[0]} mixes pairs of patches, but a process has {plan.loader.batch_size} in a batch; "
            "pass another --batch-size, so that this number is even"
        )


def _check_sharpening(plan: Plan) -> None:
    """Raise UsageError for patches whose border cannot be reflected, and for HR that is sharpened already."""
    if plan.patch_size < MIN_PX:
        raise UsageError(
            f"--sharpen-hr needs patches of {MIN_PX} px or more, not {plan.patch_size}, to reflect their borders; pass "
            "a larger --patch-size or --no-sharpen-hr"
        )
    if plan.folder.manifest.raw["settings"].get("sharpen_hr"):
        raise UsageError(
            f"HR in {plan.folder.path} is sharpened already, by `generate --sharpen-hr`; pass --no-sharpen-hr, or "
            "shards generated without"
        )


def _check_cache(plan: Plan, cached: CachedShards) -> None:
    needed = _min_cache_bytes(plan)
    if needed > cached.cache.limit:
        raise UsageError(
            f"the cache {cached.cache.path} is limited to {format_bytes(cached.cache.limit)}, but the shards in use at "
            f"the same time need {format_bytes(needed)}; pass --cache-bytes {-(-needed // 10**6)}MB or more, on "
            "a disk with enough space"
        )


def _min_cache_bytes(plan: Plan) -> int:
    """Return the size of the shards needed at the same time, by training and by each local rank's validation."""
    sizes = [
        one.shards.cached.size(record)
        for one in plan.sets
        if isinstance(one, ShardSet) and one.shards.cached
        for record in one.records
    ]
    return plan.loader.cache_bytes(sum(nlargest(plan.rank_info.local_world_size, sizes)))
