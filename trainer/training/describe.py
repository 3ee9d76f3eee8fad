"""A plan in lines for people."""

from collections.abc import Iterator

from srshards.shards.cached import CachedShards
from srshards.shards.folder import Shards
from srshards.terminal.sizes import format_bytes
from trainer.models import num_parameters
from trainer.training.device import describe_device
from trainer.training.plan import Plan


def describe(plan: Plan) -> str:
    """What the run is about to do: one line on each of data, network, device and steps, and notes."""
    return "\n".join([_data(plan.folder), _network(plan), _device(plan), *_ranks(plan), _steps(plan), *_notes(plan)])


def less_memory_advice(plan: Plan) -> str:
    """Options to try when training runs out of memory."""
    config, scale = plan.config, plan.folder.scale
    if plan.loader.batch_size > 1:
        batch, accum = plan.loader.batch_size // 2, plan.loader.micro_batches * 2
        return f"try --batch-size {batch} --grad-accum {accum}: about half of the memory, and as large a step"
    patch = max(scale, config.patch_size // 2 // scale * scale)
    return f"try --patch-size {patch}, or a smaller --model"


def _data(folder: Shards) -> str:
    return (
        f"Data     {folder.path}: {len(folder.train):,} train, {len(folder.val):,} val samples, "
        f"HR {folder.hr_size} px, {folder.scale}x by {_degradation(folder)}, {folder.codec}"
    )


def _degradation(folder: Shards) -> str:
    """The recipe or method that made LR from HR, and its number of variants. Version 1 manifests have methods only."""
    settings, variants = folder.manifest.raw["settings"], folder.manifest.variants
    degradation = settings.get("degradation")
    by = degradation.get("name") if isinstance(degradation, dict) else settings.get("method")
    return f"{by}, {variants} variants" if variants > 1 else str(by)


def _network(plan: Plan) -> str:
    direction = f"LR in, {plan.folder.scale}x out"
    if plan.config.input == "up":
        direction = "upsampled image in, restored image out"
    return f"Network  {plan.spec.name}, {num_parameters(plan.spec.build()):,} parameters, {direction}"


def _device(plan: Plan) -> str:
    return f"Device   {describe_device(plan.device)}, {plan.precision}; {_data_workers(plan)}"


def _data_workers(plan: Plan) -> str:
    if plan.config.resident:
        return f"all samples in its memory ({format_bytes(plan.loader.memory_bytes)})"
    if not plan.loader.workers:
        return "no data workers"
    return f"{plan.loader.workers} data workers, {format_bytes(plan.loader.memory_bytes)} shared with them"


def _ranks(plan: Plan) -> Iterator[str]:
    ranks, local = plan.loader.world_size, plan.rank_info.local_world_size
    if ranks > 1:
        here = f", {local} of them on this machine" * (local < ranks)
        share = plan.loader.patches_per_step // ranks
        yield f"Ranks    {ranks} processes{here}, {share} patches of each step to each"


def _steps(plan: Plan) -> str:
    loader, patch = plan.loader, plan.config.patch_size
    line = f"Steps    {plan.total_steps:,} of {loader.patches_per_step} patches of {patch} px: {_epochs(plan)}"
    if loader.micro_batches > 1:
        line += f"; {loader.micro_batches} batches of {loader.batch_size} each" + " and process" * (
            loader.world_size > 1
        )
    return line


def _epochs(plan: Plan) -> str:
    samples, left_out = plan.loader.num_samples, plan.samples_left_out
    if plan.config.steps is not None:
        return f"{plan.total_steps * plan.loader.patches_per_step / samples:.1f} epochs of {samples:,} samples"
    but = f", but the last {left_out}, which fill no batch" if left_out else ""
    return f"{plan.config.epochs} epochs of {samples:,} samples{but}"


def _notes(plan: Plan) -> Iterator[str]:
    config, folder, loader = plan.config, plan.folder, plan.loader
    if config.ranks != loader.world_size:
        yield (
            f"Note     {config.ranks} x {config.grad_accum} batches of {config.batch_size} make a step of this run; "
            f"the same step is now {loader.world_size} x {loader.micro_batches} of {loader.batch_size}"
        )
    if folder.codec != "npy" and not config.resident:
        times = loader.patches_per_sample
        cut = " for every patch" if times == 1 else f"; {times} steps in a row cut their patches from the same samples"
        yield f"Note     {folder.codec} has to be decoded{cut}. Shards with --codec npy train faster"
    if folder.cached:
        yield f"Cache    {_cache(folder.cached)}"
    if not folder.val:
        yield "Note     there are no validation samples: nothing is measured, and best.pth is not written"


def _cache(cached: CachedShards) -> str:
    there = cached.present()
    decoded = ", decoded" if cached.is_decoded else ""
    held, limit, missing = map(format_bytes, (there.held_bytes, cached.cache.limit, there.missing_bytes))
    return (
        f"{cached.cache.path}: {there.shards} of {there.of} shards there{decoded}, {held} of {limit}; "
        f"{missing} to be fetched"
    )
