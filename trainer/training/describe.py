"""Text that describes a plan in the terminal."""

from collections.abc import Iterator, Sequence

from srshards import native
from srshards.format import CROP_CODECS
from srshards.shards.cached import CachedShards
from srshards.shards.folder import Shards
from srshards.terminal.sizes import format_bytes
from srshards.terminal.text import plural
from trainer.evaluation.set_names import MAIN_SET
from trainer.evaluation.sets import EvaluationSet
from trainer.losses.adversarial import ADVERSARIAL_LOSSES
from trainer.metrics_table import PERCEPTUAL
from trainer.models import num_parameters
from trainer.presets import PRESETS
from trainer.runs.checkpoint import DEFAULT_BEST
from trainer.training.cadence import MAX_SHARE
from trainer.training.config import TrainConfig
from trainer.training.device import describe_device
from trainer.training.network import patch_step
from trainer.training.plan import Plan
from trainer.training.step_mode import StepMode

_FEW_STEPS = 500  # PSNR may be below that of bicubic in the first few hundred
_SUGGESTED_STEPS = 3000


def describe(plan: Plan) -> str:
    """Return one line each on data, network, weights, device, ranks, steps, losses and validations, and the notes."""
    lines = [_data(plan.folder), _network(plan), *_init(plan.config), _device(plan), *_ranks(plan), _steps(plan)]
    lines += [*_losses(plan), *_optimizer(plan), *_cadence(plan)]
    return "\n".join([*lines, *_notes(plan)])


def memory_advice(plan: Plan) -> str:
    """Return options to try when training runs out of memory."""
    config = plan.config
    if plan.step_mode.captures:
        batch = max(1, plan.loader.batch_size // 2)
        return f"try --step eager, because a CUDA graph needs memory of its own, or --batch-size {batch}"
    if plan.loader.batch_size > 1:
        batch, accum = plan.loader.batch_size // 2, plan.loader.micro_batches * 2
        return f"try --batch-size {batch} --grad-accum {accum}, which needs about half the memory for an equal step"
    step = patch_step(plan.spec, config, plan.folder)
    patch = max(step, plan.patch_size // 2 // step * step)
    return f"try --patch-size {patch}, or a smaller --model"


def few_steps(plan: Plan) -> list[str]:
    """Return a note if the default number of epochs gives a network that starts from scratch too few steps."""
    config = plan.config
    is_default = config.steps is None and config.epochs == TrainConfig.epochs
    if not is_default or config.init is not None or plan.total_steps >= _FEW_STEPS:
        return []
    return [
        f"Note     only {plural(plan.total_steps, 'step')}: a network usually needs 1,000 or more to be clearly better "
        f"than bicubic; pass --steps {_SUGGESTED_STEPS}, or use more photos"
    ]


def _data(folder: Shards) -> str:
    return (
        f"Data     {folder.path}: {len(folder.train):,} train, {len(folder.val):,} val samples, "
        f"HR {folder.hr_size} px, {folder.scale}x {_degradation(folder)}, {folder.codec}"
    )


def _degradation(folder: Shards) -> str:
    """Return the recipe or method that produced LR, and its variants. Version 1 manifests have methods only."""
    settings, variants = folder.manifest.raw["settings"], folder.manifest.variants
    if settings.get("pairs"):
        return "with LR as given"
    name = _recipe(folder) or settings.get("method")
    return f"by {name}, {variants} variants" if variants > 1 else f"by {name}"


def _recipe(folder: Shards) -> str | None:
    """Return the name of the recipe that produced LR; None if there was none."""
    degradation = folder.manifest.raw["settings"].get("degradation")
    return degradation.get("name") if isinstance(degradation, dict) else None


def _network(plan: Plan) -> str:
    direction = f"LR in, {plan.folder.scale}x out"
    if plan.config.input == "up":
        method = plan.folder.up_method
        direction = f"upsampled image{f' (computed from LR by {method})' if method else ''} in, restored image out"
    return f"Network  {plan.spec.name}, {num_parameters(plan.spec.build()):,} parameters, {direction}"


def _init(config: TrainConfig) -> Iterator[str]:
    """Yield the files of the initial weights, if there are any."""
    files = {"network": config.init, "discriminator": config.discriminator_init}
    given = [f"{name} from {path}" for name, path in files.items() if path]
    if given:
        yield f"Init     {', '.join(given)}"


def _device(plan: Plan) -> str:
    mode = f", {plan.step_mode}" if plan.step_mode != StepMode() else ""
    return f"Device   {describe_device(plan.device)}, {plan.precision}{mode}; {_data_workers(plan)}"


def _data_workers(plan: Plan) -> str:
    if plan.config.resident:
        return f"all samples in device memory ({format_bytes(plan.loader.memory_bytes)})"
    if not plan.loader.workers:
        return "no data workers"
    return f"{plural(plan.loader.workers, 'data worker')}, {format_bytes(plan.loader.memory_bytes)} shared memory"


def _ranks(plan: Plan) -> Iterator[str]:
    ranks, local = plan.loader.world_size, plan.rank_info.local_world_size
    if ranks > 1:
        here = f" ({local} on this machine)" * (local < ranks)
        share = plan.loader.patches_per_step // ranks
        yield f"Ranks    {ranks} processes{here}, {share} patches per step each"


def _steps(plan: Plan) -> str:
    loader, patch = plan.loader, plan.patch_size
    line = f"Steps    {plan.total_steps:,}, each {loader.patches_per_step} patches of {patch} px: {_epochs(plan)}"
    if loader.micro_batches > 1:
        per = "step and process" if loader.world_size > 1 else "step"
        line += f"; {loader.micro_batches} batches of {loader.batch_size} per {per}"
    return line


def _epochs(plan: Plan) -> str:
    samples, left_out = plan.loader.num_samples, plan.samples_left_out
    if plan.config.steps is not None:
        return f"{plan.total_steps * plan.loader.patches_per_step / samples:.1f} epochs of {samples:,} samples"
    dropped = f", dropping the last {plural(left_out, 'sample')}, too few for a step" if left_out else ""
    return f"{plural(plan.config.epochs, 'epoch')} of {samples:,} samples{dropped}"


def _losses(plan: Plan) -> Iterator[str]:
    """Yield losses and discriminator, unless they are the defaults."""
    config = plan.config
    if config.sharpen_hr or config.loss != TrainConfig.loss:
        yield f"Loss     {', '.join(map(str, config.loss))}{', with sharpened HR' * config.sharpen_hr}"
    if config.gan:
        peak = f"peak rate {plan.discriminator_lr:g}"
        yield f"GAN      {config.gan} with the discriminator {plan.discriminator}, {peak}"


def _optimizer(plan: Plan) -> Iterator[str]:
    """Yield optimiser, schedule and augmentations, unless they are the defaults."""
    if (plan.config.optimizer, plan.schedule) != (TrainConfig.optimizer, "cosine"):
        at = f" at {', '.join(map(str, plan.milestones))}" if plan.milestones else ""
        yield (
            f"Optimise by {plan.config.optimizer}, peak rate {plan.lr:g} after {plural(plan.warmup, 'step')}, then "
            f"{plan.schedule}{at}"
        )
    if plan.config.augment:
        shares = (f"{one.name} in {one.probability:.3g} of the steps" for one in plan.config.augment)
        yield f"Augment  {', '.join(shares)}"


def _cadence(plan: Plan) -> Iterator[str]:
    if plan.sets:
        grows = f", less often if that takes over {MAX_SHARE:.0%} of the time" if plan.adapts_val_every else ""
        yield f"Validate {_images(plan.sets)} every {plural(plan.val_every, 'step')} and at the end{grows}"
    if plan.best_by and str(plan.best_by) != DEFAULT_BEST:
        yield f"Best     best.pth is chosen by {plan.best_by.name}"


def _images(sets: Sequence[EvaluationSet]) -> str:
    """Return e.g. `100 images`, or `100 images of val, 5 of Set5, 100 of the 109 of Manga109`."""
    if [one.name for one in sets] == [MAIN_SET]:
        return plural(sets[0].num_images, "image")
    texts = [
        f"{one.num_images:,} of {one.name}"
        if one.num_images == one.num_found or one.name == MAIN_SET
        else f"{one.num_images:,} of the {one.num_found:,} of {one.name}"
        for one in sets
    ]
    return ", ".join([texts[0].replace(" of ", " images of ", 1), *texts[1:]])


def _notes(plan: Plan) -> Iterator[str]:
    config, folder, loader = plan.config, plan.folder, plan.loader
    if config.preset is not None:
        yield from _unexpected(config.preset, folder)
    if config.gan and plan.best_by and plan.best_by.metric not in PERCEPTUAL:
        yield (
            f"Note     best.pth is chosen by {plan.best_by.name}, which usually falls in adversarial training; use "
            "model.pth, or choose by a perceptual metric, e.g. with --best lpips"
        )
    is_divided = loader.micro_batches > 1 or config.grad_accum > 1
    if config.gan and ADVERSARIAL_LOSSES[config.gan.name].is_relativistic and is_divided:
        yield (
            f"Note     --gan {config.gan.name} compares with mean logits of {loader.batch_size * loader.world_size} of "
            f"the step's {loader.patches_per_step} patches, a batch of each process; with another number of "
            "processes or of batches per step, results differ. A larger --batch-size without --grad-accum avoids that"
        )
    if config.ranks != loader.world_size:
        yield (
            f"Note     the settings describe a step of {config.ranks} x {config.grad_accum} x {config.batch_size} "
            f"patches (processes x batches x patches); it is computed as "
            f"{loader.world_size} x {loader.micro_batches} x {loader.batch_size}"
        )
    if folder.codec not in CROP_CODECS and not config.resident:
        times = loader.patches_per_sample
        how_often = "for every patch" if times == 1 else f"once per {times} consecutive steps, which share samples"
        yield f"Note     {folder.codec} images are decoded {how_often}; shards with --codec tlc or npy train faster"
    if folder.codec in CROP_CODECS and not (config.resident or native.is_available()):
        yield (
            "Note     the compiled core of srshards is missing, so batches are read by slower code; with a C "
            "compiler, `pip install .` in a clone of the project builds it"
        )
    if folder.cached:
        yield f"Cache    {_cache(folder.cached)}"
    if not plan.sets:
        yield (
            "Note     no validation samples: PSNR and SSIM are not measured, best.pth is not written; to validate on "
            "photos, pass --val NAME=FOLDER"
        )


def _unexpected(name: str, folder: Shards) -> Iterator[str]:
    """Yield a note if the shards have another scale or recipe than a preset expects."""
    preset = PRESETS[name]
    scales = preset.scales or (folder.scale,)
    if preset.recipe in (None, _recipe(folder)) and folder.scale in scales:
        return
    scale = folder.scale if folder.scale in scales else scales[-1]
    yield (
        f"Note     --preset {name} expects shards of {' or '.join(f'{one}x' for one in scales)} by {preset.recipe}, "
        f"but these are {folder.scale}x {_degradation(folder)}; to make such shards, run `python -m shardgen generate "
        f"-i PHOTOS -o SHARDS -s {scale} --degradation {preset.recipe}`"
    )


def _cache(cached: CachedShards) -> str:
    usage = cached.usage()
    decoded = ", decoded" if cached.is_decoded else ""
    used, limit, missing = map(format_bytes, (usage.used_bytes, cached.cache.limit, usage.missing_bytes))
    return (
        f"{cached.cache.path}: {usage.shards:,} of {usage.num_shards:,} shards cached{decoded}, "
        f"{used} of {limit} used; {missing} to fetch"
    )
