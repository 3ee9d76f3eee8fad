"""Checks that reject images before the first one is evaluated."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from srshards.errors import PhotoError, UsageError
from srshards.pair_names import pairs_among
from srshards.terminal.text import plural
from trainer.inference.photo_files import photo_size
from trainer.metrics_table import METRICS, OWN, Metric

_NUM_EXAMPLES = 4


def is_too_small(height: int, width: int, scale: int, metrics: Sequence[str]) -> bool:
    """Return whether one of the metrics is not defined for HR photos of this size in px, cropped to a multiple."""
    return min(height, width) // scale * scale - 2 * scale < _strictest(metrics).min_px


def size_needed(scale: int, metrics: Sequence[str]) -> str:
    """Return which metric needs the largest images, and how large: `NIQE needs 96 px inside a border of 4 px`."""
    metric = _strictest(metrics)
    return f"{metric.label} needs {metric.min_px} px inside a border of {scale} px"


def or_omit(metrics: Sequence[str]) -> str:
    """Return further advice for images that are too small: to omit the metric if that is possible, or nothing."""
    return "" if set(metrics) <= set(OWN) else ", or omit the metric"


def _strictest(metrics: Sequence[str]) -> Metric:
    # Of equal limits, the last one: that of PSNR is due to SSIM, which follows it.
    return max((METRICS[name] for name in reversed(metrics)), key=lambda metric: metric.min_px)


def refuse_pairs(photos: Sequence[Path], folder: Path) -> None:
    """Raise UsageError if some photos of a folder are LR or upsampled images by their names, as `shardgen` does."""
    found = pairs_among((photo.relative_to(folder).as_posix() for photo in photos), folder)
    if found is None:
        return
    hr = "the folder of the HR images" if found.hr in (None, found.lr) else found.hr
    raise UsageError(
        f"{folder} has not only HR photos: {found.num_images:,} of {len(photos):,} images are LR or upsampled images "
        f"by their names, e.g. {found.example}; pass {hr}"
    )


def check_photos(photos: Iterable[Path], scale: int, metrics: Sequence[str]) -> None:
    """Raise UsageError that lists the HR photos that are unreadable or too small for a metric.

    Only headers are read: damaged pixels are not found.
    """
    unreadable, small = [], []
    for photo in dict.fromkeys(photos):
        try:
            height, width = photo_size(photo)
        except PhotoError as error:
            unreadable.append(f"{photo} ({error})")
            continue
        if is_too_small(height, width, scale, metrics):
            small.append(f"{photo} ({width} x {height} px)")
    faults = []
    if unreadable:
        faults.append(f"cannot read {_listed(unreadable)}; remove {_them(unreadable)}")
    if small:
        reason = f" ({size_needed(scale, metrics)})"
        faults.append(f"cannot evaluate {_listed(small, reason)}; remove {_them(small)}{or_omit(metrics)}")
    if faults:
        raise UsageError("\n  ".join(faults))


def _listed(photos: Sequence[str], reason: str = "") -> str:
    dots = ", ..." if len(photos) > _NUM_EXAMPLES else ""
    return f"{plural(len(photos), 'photo')}{reason}: {', '.join(photos[:_NUM_EXAMPLES])}{dots}"


def _them(photos: Sequence[str]) -> str:
    return "it" if len(photos) == 1 else "them"
