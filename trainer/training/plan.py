"""What a run will do: all that follows from its settings and the shards, before anything is read or made."""

from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import count

import psutil
import torch

from srshards.errors import UsageError
from srshards.loader.prefetch import Ahead
from srshards.loader.resident import drawing_bytes, resident_bytes
from srshards.process.resources import available_cpus, available_memory_bytes
from srshards.sampling.chunks import LESS_FOR_WORKERS, Chunks, Rows
from srshards.sampling.patches import PatchGrid
from srshards.sampling.schedule import Schedule
from srshards.shards.cache_folder import size_text
from srshards.shards.cached import CachedShards
from srshards.shards.folder import ShardFolder
from trainer.distributed.rank import ONE_PROCESS, Place
from trainer.evaluation.metrics import SSIM_WINDOW_PX
from trainer.models import NetworkSpec, network_spec, num_parameters
from trainer.training.config import DEFAULT_LR, TrainConfig
from trainer.training.device import Precision, choose_device, choose_precision, describe_device

_MIN_VAL_EVERY, _MAX_VAL_EVERY = 200, 5000
_MIN_WARMUP, _MAX_WARMUP = 50, 500
_MAX_LOG_EVERY = 50
_USABLE_SHARE = 0.8  # of the free memory: the rest is for training
_PATCHES_PER_DECODED_SAMPLE = 4
_MAX_NAMED_RANKS = 4096
_INDEX_SHARE = 0.01  # of a shard's bytes, about: what lies beside it in a cache


@dataclass(frozen=True)
class Plan:
    """All that follows from settings and shards before anything is read or made. UsageError if they do not fit.

    `rows` are those of this process, in `place`; whose batches `config` has is in its `ranks`.
    """

    config: TrainConfig
    place: Place
    folder: ShardFolder
    spec: NetworkSpec
    grid: PatchGrid
    rows: Rows
    schedule: Schedule
    total_steps: int
    val_every: int
    device: torch.device
    precision: Precision
    workers: int
    shared_bytes: int  # with the workers

    @property
    def samples_left_out(self) -> int:
        """At the very end of the last epoch; those of the other epochs begin the next one."""
        if self.config.steps is not None:
            return 0
        return self.schedule.samples_left_out(self.config.epochs)

    @property
    def ahead(self) -> Ahead:
        """What training has to have in a cache soon."""
        times, config = self.schedule.patches_per_sample, self.config
        chunks = Chunks.of(self.rows, self.grid, self.folder.codec, times, config.prefetch)
        steps = chunks.size * chunks.num_slots(self.workers)
        return Ahead(self.schedule, self.folder.train, steps, self.total_steps)

    @property
    def lr(self) -> float:
        return self.config.lr or DEFAULT_LR[self.config.model]

    @property
    def warmup(self) -> int:
        given = self.config.warmup
        if given is not None:
            return given
        # At the peak rates of the small networks a steeper start can break them for good.
        return min(_MAX_WARMUP, max(_MIN_WARMUP, self.total_steps // 20), self.total_steps // 2)

    @property
    def smaller(self) -> str:
        """What to try when memory does not suffice."""
        config, scale = self.config, self.folder.scale
        if self.rows.batch > 1:
            batch, accum = self.rows.batch // 2, self.rows.micro_batches * 2
            return f"try --batch-size {batch} --grad-accum {accum}: about half of the memory, and as large a step"
        patch = max(scale, config.patch_size // 2 // scale * scale)
        return f"try --patch-size {patch}, or a smaller --model"

    @property
    def log_every(self) -> int:
        return max(1, min(_MAX_LOG_EVERY, self.total_steps // 20))


def plan_run(
    config: TrainConfig, folder: ShardFolder, place: Place = ONE_PROCESS, block_bytes: int | None = None
) -> Plan:
    """Check everything that can be checked without making anything. `block_bytes` are those of the schedule."""
    config = replace(config, ranks=config.ranks or place.ranks)
    scale = folder.scale
    config.check_patch(folder.hr_size, scale)
    if not folder.train:
        raise UsageError(
            f"{folder.path} has no training samples; generate from more photos, or a smaller --val-fraction"
        )
    if config.input == "up" and not folder.manifest.has_up:
        raise UsageError(
            f"--input up: {folder.path} has no upsampled images; generate without --no-up, or take --input lr"
        )
    judged = folder.hr_size - 2 * scale
    if folder.val and judged < SSIM_WINDOW_PX:
        raise UsageError(
            f"{folder.path}: SSIM needs {SSIM_WINDOW_PX} px without a border of {scale} px, but the stored HR images "
            f"have {folder.hr_size} px; generate shards with a larger --size"
        )
    spec = network_spec(config.model, scale if config.input == "lr" else 1)
    rows = _rows(config, place)
    schedule = Schedule(
        [record.samples for record in folder.train],
        [folder.num_bytes(record) for record in folder.train],
        config.seed,
        rows.global_batch,
        _patches_per_sample(config, folder.codec),
        block_bytes,
    )
    steps_per_epoch = max(1, schedule.num_samples // rows.global_batch)
    device = choose_device(config.device, place.local_rank if place.ranks > 1 else None)
    grid = PatchGrid(folder.hr_size, scale, config.patch_size, scale if config.input == "lr" else 1)
    workers = place.share(available_cpus()) if config.workers is None else config.workers
    if rows.batch * grid.bytes_per_row > psutil.virtual_memory().total:
        raise UsageError(
            f"--batch-size {rows.batch}: that is more than this machine's memory; try --batch-size {rows.batch // 2} "
            f"--grad-accum {2 * rows.micro_batches}, or much less"
        )
    if config.resident:
        _check_resident(_resident_bytes(grid, schedule, folder, config), schedule.num_samples, device, place)
    batch_bytes = _batch_bytes(rows, grid, schedule, folder.codec, config, workers, place)
    plan = Plan(
        config=config,
        place=place,
        folder=folder,
        spec=spec,
        grid=grid,
        rows=rows,
        schedule=schedule,
        total_steps=config.steps or schedule.num_steps(config.epochs),
        val_every=config.val_every or min(max(steps_per_epoch, _MIN_VAL_EVERY), _MAX_VAL_EVERY),
        device=device,
        precision=choose_precision(config.amp, device),
        workers=workers,
        shared_bytes=0 if config.resident else batch_bytes,
    )
    if folder.cached:
        _check_cache(plan, folder.cached)
    return plan


def _check_cache(plan: Plan, cached: CachedShards) -> None:
    folder = plan.folder
    judged_at_once = nlargest(plan.place.local_ranks, map(cached.size, folder.val))
    needed = plan.ahead.most_bytes(cached) + sum(judged_at_once)
    if folder.is_decoded:  # beside one of which lies what it is decoded from
        needed += max(record.bytes for record in (*folder.train, *folder.val))
    needed += int(_INDEX_SHARE * needed)
    if needed > cached.cache.limit:
        raise UsageError(
            f"the cache {cached.cache.path} may have {size_text(cached.cache.limit)}, but the shards that have to "
            f"be there at once take {size_text(needed)}: --cache-bytes {-(-needed // 10**6)}MB or more, on a disk "
            "with so much room"
        )


def _rows(config: TrainConfig, place: Place) -> Rows:
    """This process's part of the step that the settings describe, in batches that are no larger than theirs.

    As many processes as there are share the same step, however many it was meant for.
    """
    per_step = config.batch_size * config.grad_accum * (config.ranks or place.ranks)
    if per_step % place.ranks:
        fitting = [ranks for ranks in range(1, min(per_step, _MAX_NAMED_RANKS) + 1) if per_step % ranks == 0]
        raise UsageError(
            f"a step of this run has {per_step} patches, which {place.ranks} processes cannot share equally; start as "
            f"many as divide it, e.g. {' or '.join(map(str, fitting[-3:]))}"
        )
    own = per_step // place.ranks
    parts = next(parts for parts in count(-(-own // config.batch_size)) if own % parts == 0)
    return Rows(own // parts, parts, place.rank, place.ranks)


def _batch_bytes(
    rows: Rows, grid: PatchGrid, schedule: Schedule, codec: str, config: TrainConfig, workers: int, place: Place
) -> int:
    """The memory that making batches takes on this machine. UsageError when there is not enough of it."""
    if config.resident:
        needed, what, less = drawing_bytes(rows), "--resident needs", "take a smaller --batch-size or --grad-accum"
    else:
        chunks = Chunks.of(rows, grid, codec, schedule.patches_per_sample, config.prefetch)
        needed, less = chunks.num_slots(workers) * chunks.num_bytes, LESS_FOR_WORKERS
        what = f"{workers} workers with --prefetch {config.prefetch} need"
    free = place.share(available_memory_bytes())
    if needed > _USABLE_SHARE * free:
        raise UsageError(
            f"{what} {needed // 10**6} MB of memory for batches, but {free / 1e6:.0f} MB are free, and training needs "
            f"some; {less}"
        )
    return needed


def _patches_per_sample(config: TrainConfig, codec: str) -> int:
    """What is asked for, or as many as there are whole rounds of, up to four, where samples have to be decoded."""
    times = config.patches_per_sample
    if times is None:
        most = 1 if codec == "npy" else _PATCHES_PER_DECODED_SAMPLE
        return next(k for k in range(most, 0, -1) if config.steps is not None or config.epochs % k == 0)
    if config.steps is None and config.epochs % times:
        below = config.epochs - config.epochs % times
        raise UsageError(
            f"--patches-per-sample {times} goes through {times} epochs at a time, which --epochs {config.epochs} is "
            f"not divisible by; try --epochs {below or times}"
        )
    return times


def _resident_bytes(grid: PatchGrid, schedule: Schedule, folder: ShardFolder, config: TrainConfig) -> int:
    return resident_bytes(grid, schedule.num_samples, len(folder.inputs(config.input)))


def _check_resident(needed: int, num_samples: int, device: torch.device, place: Place) -> None:
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else place.share(available_memory_bytes())
    if needed > _USABLE_SHARE * free:
        raise UsageError(
            f"--resident: the images of {num_samples:,} samples take {needed / 1e9:.1f} GB, but {device} has "
            f"{free / 1e9:.1f} GB free, of which training needs some; leave --resident out"
        )


def describe(plan: Plan) -> str:
    """What the run is about to do, in lines for people."""
    folder, config, spec = plan.folder, plan.config, plan.spec
    sees = f"LR in, {folder.scale}x out" if config.input == "lr" else "upsampled image in, restored image out"
    steps = f"{plan.total_steps:,} of {plan.rows.global_batch} patches of {config.patch_size} px"
    if config.steps is None:
        steps += f": {config.epochs} epochs of {plan.schedule.num_samples:,} samples"
        left_out = plan.samples_left_out
        steps += f", but the last {left_out}, which fill no batch" if left_out else ""
    else:
        epochs = plan.total_steps * plan.rows.global_batch / plan.schedule.num_samples
        steps += f": {epochs:.1f} epochs of {plan.schedule.num_samples:,} samples"
    rows = plan.rows
    if rows.micro_batches > 1:
        steps += f"; {rows.micro_batches} batches of {rows.batch} each" + " and process" * (rows.ranks > 1)
    lines = [
        f"Data     {folder.path}: {folder.num_samples('train'):,} train, {folder.num_samples('val'):,} val samples, "
        f"HR {folder.hr_size} px, {folder.scale}x by {_degraded(folder)}, {folder.codec}",
        f"Network  {spec.name}, {num_parameters(spec.build()):,} parameters, {sees}",
        f"Device   {describe_device(plan.device)}, {plan.precision}; {_data_workers(plan)}",
        f"Steps    {steps}",
    ]
    if rows.ranks > 1:
        here = f", {plan.place.local_ranks} of them on this machine" * (plan.place.local_ranks < rows.ranks)
        lines.insert(3, f"Ranks    {rows.ranks} processes{here}, {rows.per_step} patches of each step to each")
    if config.ranks != rows.ranks:
        lines.append(
            f"Note     {config.ranks} x {config.grad_accum} batches of {config.batch_size} make a step of this run; "
            f"the same step is now {rows.ranks} x {rows.micro_batches} of {rows.batch}"
        )
    if folder.codec != "npy" and not config.resident:
        times = plan.schedule.patches_per_sample
        cut = " for every patch" if times == 1 else f"; {times} steps in a row cut their patches from the same samples"
        lines.append(f"Note     {folder.codec} has to be decoded{cut}. Shards with --codec npy train faster")
    if folder.cached:
        lines.append(f"Cache    {_cache(folder.cached)}")
    if not folder.val:
        lines.append("Note     there are no validation samples: nothing is measured, and best.pth is not written")
    return "\n".join(lines)


def _cache(cached: CachedShards) -> str:
    there = cached.present()
    decoded = ", decoded" if cached.is_decoded else ""
    held, limit, missing = map(size_text, (there.held_bytes, cached.cache.limit, there.missing_bytes))
    return (
        f"{cached.cache.path}: {there.shards} of {there.of} shards there{decoded}, {held} of {limit}; "
        f"{missing} to be fetched"
    )


def _degraded(folder: ShardFolder) -> str:
    """What made LR of HR, and in how many variants. Version 1 of the manifest knows methods alone."""
    settings, variants = folder.manifest.raw["settings"], folder.manifest.variants
    degradation = settings.get("degradation")
    by = degradation.get("name") if isinstance(degradation, dict) else settings.get("method")
    return f"{by}, {variants} variants" if variants > 1 else str(by)


def _data_workers(plan: Plan) -> str:
    if plan.config.resident:
        size = _resident_bytes(plan.grid, plan.schedule, plan.folder, plan.config)
        return f"all samples in its memory ({size / 1e6:.0f} MB)"
    if not plan.workers:
        return "no data workers"
    return f"{plan.workers} data workers, {plan.shared_bytes / 1e6:.0f} MB shared with them"
