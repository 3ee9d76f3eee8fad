"""The quality metrics by name, with what options, tables and reports need to know. Does not import PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MetricFile:
    """A published weights file that a metric needs."""

    name: str
    url: str
    size: str  # for messages
    sha256: str  # first digits, "" if unknown
    cache: str  # folder below PyTorch's hub cache in which the library that downloads the file keeps it


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
    files: tuple[MetricFile, ...] = ()

    def formatted(self, value: float) -> str:
        """Return a value with its unit: `31.04 dB`, `0.8912`."""
        return f"{value:.{self.decimals}f}{' ' * bool(self.unit)}{self.unit}"

    def is_better(self, value: float, best: float) -> bool:
        return value > best if self.higher_is_better else value < best


def _pyiqa(name: str, size: str, sha256: str) -> MetricFile:
    url = f"https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/{name}"
    return MetricFile(name, url, size, sha256, cache="pyiqa")


def _torchvision(name: str, size: str, sha256: str) -> MetricFile:
    return MetricFile(name, f"https://download.pytorch.org/models/{name}", size, sha256, cache="checkpoints")


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
        files=(
            _torchvision("alexnet-owt-7be5be79.pth", "244 MB", "7be5be79"),
            _pyiqa("LPIPS_v0.1_alex-df73285e.pth", "6 kB", "df73285e"),
        ),
    ),
    Metric(
        "dists",
        "DISTS",
        "",
        4,
        higher_is_better=False,
        needs_target=True,
        min_px=32,
        files=(
            _torchvision("vgg16-397923af.pth", "553 MB", "397923af"),
            _pyiqa("DISTS_weights-f5e65c96.pth", "12 kB", "f5e65c96"),
        ),
    ),
    Metric(
        "topiq",
        "TOPIQ",
        "",
        4,
        higher_is_better=True,
        needs_target=True,
        min_px=32,
        files=(_pyiqa("cfanet_fr_kadid_res50-2c4cc61d.pth", "145 MB", "2c4cc61d"),),
    ),
    Metric(
        "niqe",
        "NIQE",
        "",
        2,
        higher_is_better=False,
        needs_target=False,
        min_px=96,
        files=(_pyiqa("niqe_modelparameters.mat", "10 kB", ""),),
    ),
)

METRICS = {metric.name: metric for metric in (*_OWN, *_PERCEPTUAL)}
OWN = tuple(metric.name for metric in _OWN)  # in the order of the columns of `trainer.evaluation.metrics.measure`
PERCEPTUAL = tuple(metric.name for metric in _PERCEPTUAL)  # computed with pyiqa (extra `metrics`)
