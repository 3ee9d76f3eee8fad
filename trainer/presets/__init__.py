"""Settings of published trainings, one YAML file for `--config` each. Does not import PyTorch."""

from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Preset:
    """What is known of a preset besides its settings, and what these expect of the run.

    `init` says which weights `--init` has to have; None: it is optional. `recipe` is that of the LR images, None for
    any, and `scales` are those of the shards, empty for any.
    """

    summary: str
    init: str | None = None
    recipe: str | None = None
    scales: tuple[int, ...] = ()


_REALESRGAN_SCALES = (2, 4)  # of the published configurations

PRESETS = {
    "realesrnet": Preset("stage 1 of Real-ESRGAN: L1", recipe="realesrgan", scales=_REALESRGAN_SCALES),
    "realesrgan": Preset(
        "stage 2 of Real-ESRGAN: L1, perceptual and adversarial, from the weights of stage 1",
        init="the weights of a training with --preset realesrnet",
        recipe="realesrgan",
        scales=_REALESRGAN_SCALES,
    ),
    "compact-finetune": Preset(
        "fine-tuning of SRVGGNetCompact as in traiNNer-redux: MS-SSIM, colour, perceptual and adversarial",
        init="the weights to fine-tune",
    ),
}


def preset_text(name: str) -> str:
    """Return the YAML of a preset, with its comments."""
    return (resources.files("trainer.presets") / f"{name}.yaml").read_text("utf-8")
