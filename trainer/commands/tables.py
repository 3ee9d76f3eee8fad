"""Tables of metrics for the terminal."""

import sys
from typing import TYPE_CHECKING

from srshards.terminal.text import columns

if TYPE_CHECKING:
    from trainer.evaluation.metrics import Quality


def quality_table(means: "dict[str, Quality]") -> str:
    """Return a table with one row per name: PSNR and SSIM of Y and of RGB, below each other on a narrow terminal."""
    luma = [f"{'PSNR-Y':>10}{'SSIM-Y':>9}", *(f"{q.psnr_y:>7.2f} dB{q.ssim_y:>9.4f}" for q in means.values())]
    rgb = [f"{'PSNR':>10}{'SSIM':>9}", *(f"{q.psnr_rgb:>7.2f} dB{q.ssim_rgb:>9.4f}" for q in means.values())]
    names = [f"{name:9}" for name in ("", *means)]
    lines = ["".join(parts) for parts in zip(names, luma, rgb, strict=True)]
    if len(lines[0]) > (columns(sys.stdout) or len(lines[0])):
        lines = ["".join(parts) for half in (luma, rgb) for parts in zip(names, half, strict=True)]
    return "\n".join(lines)
