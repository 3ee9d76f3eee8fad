"""The quality metrics by name, with what options, tables and reports need to know. Does not import PyTorch."""

from dataclasses import dataclass

from trainer import weights_table
from trainer.weights_table import WeightsFile


@dataclass(frozen=True)
class Metric:
    """One metric. Its values are rounded to `decimals` in tables; `unit` is "dB" or ""."""

    name: str  # in options, journals and JSON
    label: str  # in tables and reports
    unit: str
    decimals: int
    higher_is_better: bool
    needs_target: bool  # False: it judges the output alone
    min_px: int  # smallest height and width, inside the border, for which it is defined
    files: tuple[WeightsFile, ...] = ()

    def formatted(self, value: float) -> str:
        """Return a value with its unit: `31.04 dB`, `0.8912`."""
        return f"{value:.{self.decimals}f}{' ' * bool(self.unit)}{self.unit}"

    def is_better(self, value: float, best: float) -> bool:
        return value > best if self.higher_is_better else value < best


VISIBLE_DB = 0.1  # smaller differences of PSNR cannot be seen
SSIM_WINDOW_PX = 11  # also the limit for PSNR, which is measured together with SSIM
_OWN = (
    Metric("psnr_rgb", "PSNR", "dB", 2, higher_is_better=True, needs_target=True, min_px=SSIM_WINDOW_PX),
    Metric("psnr_y", "PSNR-Y", "dB", 2, higher_is_better=True, needs_target=True, min_px=SSIM_WINDOW_PX),
    Metric("ssim_rgb", "SSIM", "", 4, higher_is_better=True, needs_target=True, min_px=SSIM_WINDOW_PX),
    Metric("ssim_y", "SSIM-Y", "", 4, higher_is_better=True, needs_target=True, min_px=SSIM_WINDOW_PX),
)
_PERCEPTUAL = (
    Metric(
        "lpips",
        "LPIPS",
        "",
        4,
        higher_is_better=False,
        needs_target=True,
        min_px=31,
        files=(weights_table.ALEXNET, weights_table.LPIPS),
    ),
    Metric(
        "dists",
        "DISTS",
        "",
        4,
        higher_is_better=False,
        needs_target=True,
        min_px=32,
        files=(weights_table.VGG16, weights_table.DISTS),
    ),
    Metric(
        "topiq",
        "TOPIQ",
        "",
        4,
        higher_is_better=True,
        needs_target=True,
        min_px=32,
        files=(weights_table.TOPIQ,),
    ),
    Metric(
        "niqe",
        "NIQE",
        "",
        2,
        higher_is_better=False,
        needs_target=False,
        min_px=96,
        files=(weights_table.NIQE,),
    ),
)

METRICS = {metric.name: metric for metric in (*_OWN, *_PERCEPTUAL)}
OWN = tuple(metric.name for metric in _OWN)  # in the order of the columns of `trainer.evaluation.metrics.measure`
PERCEPTUAL = tuple(metric.name for metric in _PERCEPTUAL)  # computed with pyiqa (extra `metrics`)
