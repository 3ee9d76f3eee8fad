"""The images that a run is validated on: the validation split of its shards, and the sets of `--val`."""

from collections.abc import Sequence

from srshards.errors import UsageError
from srshards.shards.folder import Shards
from srshards.terminal.text import did_you_mean
from trainer.evaluation.best import BestBy
from trainer.evaluation.set_names import MAIN_SET
from trainer.evaluation.sets import EvaluationSet, ShardSet, open_set
from trainer.metrics_table import METRICS, OWN
from trainer.training.config import TrainConfig


def open_sets(config: TrainConfig, folder: Shards) -> tuple[EvaluationSet, ...]:
    """Return the validation split, unless it is empty, and the sets of `--val`. UsageError if one is refused."""
    upsampled, limit, metrics = config.input == "up", config.val_samples, measured(config)
    main = [ShardSet(MAIN_SET, folder, "val", upsampled, limit, metrics)] if folder.val else []
    others = (
        open_set(
            one,
            folder.scale,
            upsampled,
            limit,
            metrics,
            cache=config.cache,
            cache_bytes=config.cache_bytes,
            decode=config.cache_decoded,
        )
        for one in config.val
    )
    return (*main, *others)


def best_images(sets: Sequence[EvaluationSet], best_by: BestBy | None) -> str:
    """Return the fingerprint of the set by which the best weights are chosen; empty for the validation split."""
    others = {one.name: one for one in sets if one.name != MAIN_SET}
    return others[best_by.set].fingerprint() if best_by and best_by.set in others else ""


def measured(config: TrainConfig) -> tuple[str, ...]:
    """Return the metrics that validations measure, in the order of METRICS: PSNR, SSIM, and those asked for."""
    wanted = {*OWN, *(config.metrics or ()), *([config.best.metric] if config.best else [])}
    return tuple(name for name in METRICS if name in wanted)


def choose_best(config: TrainConfig, sets: Sequence[EvaluationSet]) -> BestBy | None:
    """Return what `best.pth` is chosen by, None without validation images. UsageError for an unknown set."""
    if not sets:
        asked = "--best" if config.best else "--metrics" if config.metrics else None
        if asked:
            raise UsageError(
                f"{asked}: this run has no validation images; pass --val NAME=FOLDER, or generate the shards with "
                "--val-fraction"
            )
        return None
    names = [one.name for one in sets]
    given = config.best or BestBy("psnr_y")
    chosen = given.set or names[0]
    if chosen not in names:
        others = " or ".join(str(BestBy(given.metric, name)) for name in names)
        hint = did_you_mean(chosen, names) or f"pass it with --val {chosen}=FOLDER, or pass --best {others}"
        raise UsageError(f"--best {given}: there is no set {chosen!r}; {hint}")
    return BestBy(given.metric, chosen)
