"""Figures as people read them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.metrics import Quality


def quality_table(means: "dict[str, Quality]") -> str:
    """A line for each name: PSNR and SSIM of luma and of RGB."""
    lines = [f"{'':9}{'PSNR-Y':>10}{'SSIM-Y':>9}{'PSNR':>10}{'SSIM':>9}"]
    for name, q in means.items():
        lines.append(f"{name:9}{q.psnr_y:>7.2f} dB{q.ssim_y:>9.4f}{q.psnr_rgb:>7.2f} dB{q.ssim_rgb:>9.4f}")
    return "\n".join(lines)
