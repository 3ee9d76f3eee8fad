"""Refusals of runs that cannot work, before anything is read or made. Each message names an option to change."""

from heapq import nlargest

from srshards.errors import UsageError
from srshards.shards.cached import CachedShards
from srshards.shards.folder import Shards
from srshards.terminal.sizes import format_bytes
from trainer.distributed.rank import SINGLE_PROCESS, RankInfo
from trainer.evaluation.metrics import SSIM_WINDOW_PX
from trainer.training.config import TrainConfig
from trainer.training.plan import Plan, derive_plan, patches_per_step

_MAX_NAMED_RANKS = 4096


def checked_plan(config: TrainConfig, folder: Shards, rank_info: RankInfo = SINGLE_PROCESS) -> Plan:
    """The plan of a run, once all checks have passed. UsageError otherwise."""
    check_settings(config, folder, rank_info)
    plan = derive_plan(config, folder, rank_info)
    if folder.cached:
        _check_cache(plan, folder.cached)
    return plan


def check_settings(config: TrainConfig, folder: Shards, rank_info: RankInfo) -> None:
    """UsageError unless the settings fit the validation images, the number of ranks and each other."""
    _check_validation_size(folder)
    _check_equal_shares(config, rank_info)
    _check_patches_per_sample(config)


def _check_validation_size(folder: Shards) -> None:
    scale = folder.scale
    if folder.val and folder.hr_size - 2 * scale < SSIM_WINDOW_PX:
        raise UsageError(
            f"{folder.path}: SSIM needs {SSIM_WINDOW_PX} px without a border of {scale} px, but the stored HR images "
            f"have {folder.hr_size} px; generate shards with a larger --size"
        )


def _check_equal_shares(config: TrainConfig, rank_info: RankInfo) -> None:
    """The ranks that there are share the same step, however many it was meant for."""
    per_step = patches_per_step(config, rank_info)
    if per_step % rank_info.world_size:
        fitting = [ranks for ranks in range(1, min(per_step, _MAX_NAMED_RANKS) + 1) if per_step % ranks == 0]
        raise UsageError(
            f"a step of this run has {per_step} patches, which {rank_info.world_size} processes cannot share equally; "
            f"start as many as divide it, e.g. {' or '.join(map(str, fitting[-3:]))}"
        )


def _check_patches_per_sample(config: TrainConfig) -> None:
    times = config.patches_per_sample
    if times is not None and config.steps is None and config.epochs % times:
        below = config.epochs - config.epochs % times
        raise UsageError(
            f"--patches-per-sample {times} goes through {times} epochs at a time, which --epochs {config.epochs} is "
            f"not divisible by; try --epochs {below or times}"
        )


def _check_cache(plan: Plan, cached: CachedShards) -> None:
    needed = _least_cache_bytes(plan, cached)
    if needed > cached.cache.limit:
        raise UsageError(
            f"the cache {cached.cache.path} may have {format_bytes(cached.cache.limit)}, but the shards that have to "
            f"be there at once take {format_bytes(needed)}: --cache-bytes {-(-needed // 10**6)}MB or more, on a disk "
            "with so much room"
        )


def _least_cache_bytes(plan: Plan, cached: CachedShards) -> int:
    """The shards that have to be in the cache at once, for training and for each local rank's validation."""
    validated_at_once = nlargest(plan.rank_info.local_world_size, map(cached.size, plan.folder.val.records))
    return plan.loader.cache_bytes(sum(validated_at_once))
