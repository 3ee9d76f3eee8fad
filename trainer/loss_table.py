"""The training losses by name, with what options and messages need to know. Does not import PyTorch."""

from dataclasses import dataclass

from trainer import weights_table
from trainer.metrics_table import METRICS, SSIM_WINDOW_PX


@dataclass(frozen=True)
class LossRow:
    """One loss."""

    label: str  # one line, for a list of losses
    source: str  # paper or project, and year
    min_px: int = 1  # smallest patch edge, in HR px
    weights: tuple[str, ...] = ()  # names of published files: trainer/weights_table.py
    uses_ema: bool = False  # whether it also compares with the output of the EMA network


_MS_SSIM_PX = SSIM_WINDOW_PX * 2**4  # a window at the last of five scales
_VGG19 = (weights_table.VGG19.name,)


def _iqa(name: str, label: str, source: str) -> LossRow:
    """Return the row of a metric that is used as a loss."""
    metric = METRICS[name]
    return LossRow(label, source, metric.min_px, tuple(file.name for file in metric.files))


LOSSES = {
    "l1": LossRow("mean absolute error", "Zhao et al., 2017"),
    "charbonnier": LossRow("L1 made smooth at zero", "Lai et al., LapSRN, 2017"),
    "msssim": LossRow("structural similarity at five scales", "Wang et al., 2003", min_px=_MS_SSIM_PX),
    "fft": LossRow("L1 of the spectrum", "Cho et al., MIMO-UNet, 2021"),
    "focal_frequency": LossRow("squared error of the spectrum, weighted by itself", "Jiang et al., 2021"),
    "luma": LossRow("L1 of the blurred luma: brightness without detail", "after neosr's consistency loss, 2024", 21),
    "colour": LossRow("L1 of the blurred chroma: colour without detail", "after neosr's consistency loss, 2024", 21),
    "gradient": LossRow("L1 of the gradients: sharpness of edges", "Sobel and Feldman, 1968", min_px=3),
    "ldl": LossRow("L1 where the network produces artefacts", "Liang et al., LDL, 2022", min_px=4, uses_ema=True),
    "perceptual": LossRow("L1 of features of VGG19", "Wang et al., Real-ESRGAN, 2021", 16, _VGG19),
    "lpips": _iqa("lpips", "LPIPS on AlexNet, by pyiqa", "Zhang et al., 2018"),
    "dists": _iqa("dists", "DISTS on VGG16, by pyiqa", "Ding et al., 2020"),
    "contextual": LossRow("similarity of the best match of each feature of VGG19", "Mechrez et al., 2018", 16, _VGG19),
}
