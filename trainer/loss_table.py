"""The training losses by name, with what options and messages need to know. Does not import PyTorch."""

from dataclasses import dataclass

from trainer import weights_table
from trainer.metrics_table import METRICS, SSIM_WINDOW_PX


@dataclass(frozen=True)
class LossRow:
    """One loss; docs/reference/losses.md has formulas and sources."""

    min_px: int = 1  # smallest patch edge, in HR px
    weights: tuple[str, ...] = ()  # names of published files: trainer/weights_table.py
    uses_ema: bool = False  # whether it also compares with the output of the EMA network


_MS_SSIM_PX = SSIM_WINDOW_PX * 2**4  # a window at the last of five scales
_VGG19 = LossRow(min_px=16, weights=(weights_table.VGG19.name,))


def _iqa(name: str) -> LossRow:
    """Return the row of a metric that is used as a loss."""
    metric = METRICS[name]
    return LossRow(metric.min_px, tuple(file.name for file in metric.files))


LOSSES = {
    "l1": LossRow(),
    "charbonnier": LossRow(),
    "msssim": LossRow(min_px=_MS_SSIM_PX),
    "fft": LossRow(),
    "focal_frequency": LossRow(),
    "luma": LossRow(min_px=21),
    "colour": LossRow(min_px=21),
    "gradient": LossRow(min_px=3),
    "ldl": LossRow(min_px=4, uses_ema=True),
    "perceptual": _VGG19,
    "lpips": _iqa("lpips"),
    "dists": _iqa("dists"),
    "contextual": _VGG19,
}
