"""Refusals of runs that cannot work, before anything is read or made. Each message names an option to change."""

from heapq import nlargest

import psutil
import torch

from srshards.errors import UsageError
from srshards.process.resources import available_memory_bytes
from srshards.sampling.chunks import LESS_FOR_WORKERS
from srshards.shards.cache_folder import size_text
from srshards.shards.cached import CachedShards
from srshards.shards.folder import Shards
from trainer.distributed.rank import SINGLE_PROCESS, RankInfo
from trainer.evaluation.metrics import SSIM_WINDOW_PX
from trainer.training.config import TrainConfig
from trainer.training.plan import Plan, derive_plan, patches_per_step

_USABLE_SHARE = 0.8  # of the free memory: the rest is for training
_MAX_NAMED_RANKS = 4096
_INDEX_SHARE = 0.01  # of a shard's bytes, about: what lies beside it in a cache


def checked_plan(
    config: TrainConfig, folder: Shards, rank_info: RankInfo = SINGLE_PROCESS, block_bytes: int | None = None
) -> Plan:
    """The plan of a run, once all checks have passed. UsageError otherwise. `block_bytes` are those of the schedule."""
    check_settings(config, folder, rank_info)
    plan = derive_plan(config, folder, rank_info, block_bytes)
    check_resources(plan)
    return plan


def check_settings(config: TrainConfig, folder: Shards, rank_info: RankInfo) -> None:
    """UsageError unless settings, shards and number of ranks fit each other."""
    config.check_patch(folder.hr_size, folder.scale)
    _check_training_samples(folder)
    _check_input(config, folder)
    _check_validation_size(folder)
    _check_equal_shares(config, rank_info)
    _check_patches_per_sample(config)


def check_resources(plan: Plan) -> None:
    """UsageError when the memory, or the cache, is too small for the plan."""
    _check_batch(plan)
    if plan.config.resident:
        _check_resident(plan)
    _check_batch_memory(plan)
    if plan.folder.cached:
        _check_cache(plan, plan.folder.cached)


def _check_training_samples(folder: Shards) -> None:
    if not folder.train:
        raise UsageError(
            f"{folder.path} has no training samples; generate from more photos, or a smaller --val-fraction"
        )


def _check_input(config: TrainConfig, folder: Shards) -> None:
    if config.input == "up" and not folder.manifest.has_up:
        raise UsageError(
            f"--input up: {folder.path} has no upsampled images; generate without --no-up, or take --input lr"
        )


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


def _check_batch(plan: Plan) -> None:
    rows = plan.rows
    if rows.batch * plan.grid.bytes_per_row > psutil.virtual_memory().total:
        raise UsageError(
            f"--batch-size {rows.batch}: that is more than this machine's memory; try --batch-size {rows.batch // 2} "
            f"--grad-accum {2 * rows.micro_batches}, or much less"
        )


def _check_resident(plan: Plan) -> None:
    device, needed = plan.device, plan.resident_bytes
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else plan.rank_info.share(available_memory_bytes())
    if needed > _USABLE_SHARE * free:
        raise UsageError(
            f"--resident: the images of {plan.schedule.num_samples:,} samples take {needed / 1e9:.1f} GB, but {device} "
            f"has {free / 1e9:.1f} GB free, of which training needs some; leave --resident out"
        )


def _check_batch_memory(plan: Plan) -> None:
    needed, free = plan.batch_bytes, plan.rank_info.share(available_memory_bytes())
    if needed <= _USABLE_SHARE * free:
        return
    if plan.config.resident:
        what, less = "--resident needs", "take a smaller --batch-size or --grad-accum"
    else:
        what, less = f"{plan.workers} workers with --prefetch {plan.config.prefetch} need", LESS_FOR_WORKERS
    raise UsageError(
        f"{what} {needed // 10**6} MB of memory for batches, but {free / 1e6:.0f} MB are free, and training needs "
        f"some; {less}"
    )


def _check_cache(plan: Plan, cached: CachedShards) -> None:
    needed = _least_cache_bytes(plan, cached)
    if needed > cached.cache.limit:
        raise UsageError(
            f"the cache {cached.cache.path} may have {size_text(cached.cache.limit)}, but the shards that have to "
            f"be there at once take {size_text(needed)}: --cache-bytes {-(-needed // 10**6)}MB or more, on a disk "
            "with so much room"
        )


def _least_cache_bytes(plan: Plan, cached: CachedShards) -> int:
    """The shards that have to be in the cache at once, for training and for each local rank's validation."""
    folder = plan.folder
    validated_at_once = nlargest(plan.rank_info.local_world_size, map(cached.size, folder.val.records))
    needed = plan.upcoming_shards.most_bytes(cached) + sum(validated_at_once)
    if folder.is_decoded:  # beside one of which lies what it is decoded from
        needed += max(record.bytes for record in (*folder.train.records, *folder.val.records))
    return needed + int(_INDEX_SHARE * needed)
