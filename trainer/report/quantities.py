"""The quantities that the page plots over the steps: where they are in the journals, and how they are presented."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple

from trainer.metrics_table import METRICS, PERCEPTUAL
from trainer.report.journal_summary import DISCRIMINATOR, GAN, MAX_LOSSES, RATIO, SCORES, JournalSummary
from trainer.report.runs import Run, same_bicubic
from trainer.report.thinning import Thinned


class Quantity(NamedTuple):
    """A quantity in the journals and its presentation."""

    title: str
    description: str
    unit: str  # title of the axis
    curve: Callable[[JournalSummary], Thinned]
    name: str  # in the curve
    formatted: Callable[[float], str]
    axis: str = ""  # d3 format
    from_zero: bool = False
    baseline: str = ""  # attribute of Validated, drawn as a horizontal line
    wide: bool = False
    set: str = ""  # of which bicubic is drawn as a horizontal line
    log: bool = False  # whether the axis may be logarithmic
    lines: tuple[str, ...] = ()  # names in the curve, and labels, of the lines of a run if it has several
    max_points: int = 0  # of a line and of the table, 0 for the usual number


_TRAINED, _VALIDATED = attrgetter("trained"), attrgetter("validated")
_LOSS = Quantity("Loss", "Mean over the training patches.", "loss", _TRAINED, "loss", "{:.5f}".format, "~g", log=True)
PSNR = Quantity(
    "PSNR-Y",
    "Mean over the validation images. The dotted line is bicubic upscaling, the baseline.",
    *("dB", _VALIDATED, "psnr_y", "{:.2f} dB".format, "", False, "bicubic_psnr_y", True),
)
_QUANTITIES = (
    PSNR,
    _LOSS,
    Quantity(
        "SSIM-Y",
        "Mean over the validation images. The maximum is 1.",
        *("SSIM", _VALIDATED, "ssim_y", "{:.4f}".format, "", False, "bicubic_ssim_y"),
    ),
    Quantity("Learning rate", "As scheduled.", "rate", _TRAINED, "lr", "{:.2e}".format, "~e", True),
    Quantity(
        "Patches per second",
        "Training throughput, excluding validation and saving.",
        *("patches/s", _TRAINED, "patches_per_s", "{:,.1f}".format, "~s", True),
    ),
    Quantity(
        "Waiting for data",
        "Share of the training time spent waiting for batches.",
        *("share of time", _TRAINED, "data_wait", "{:.2%}".format, "%", True),
    ),
)
_GAIN = Quantity(
    "Gain over bicubic",
    "PSNR-Y minus that of bicubic upscaling of the same images.",
    *("dB", _VALIDATED, "gain", "{:+.2f} dB".format),
)
_POINTS_OF_LOSSES = 16_000  # of all plots of single losses, scores and ratio together, about
_SUM = "Mean over the training patches of the weighted sum of the single losses, without the discriminator's."
_SINGLE = (
    "Mean over the training patches, before it is weighted. A healthy curve falls and then levels off; it may rise "
    "where another loss starts, because the network then has to satisfy both."
)
_OF_GAN = {  # titles and descriptions, which have to hold for each kind of adversarial loss
    GAN: (
        "Adversarial loss",
        "High if the discriminator recognises the network's images as generated. As both keep improving, a healthy "
        "curve fluctuates around a level or rises slowly, instead of falling like other losses.",
    ),
    DISCRIMINATOR: (
        "Discriminator loss",
        "High if the discriminator mistakes real images (HR) for generated ones, or the reverse. A healthy curve "
        "fluctuates well above 0: if it stays near 0, the discriminator is always right, and its gradients no longer "
        "improve the network.",
    ),
}
_SCORES = Quantity(
    "Discriminator scores",
    "How real the discriminator finds real images (thick lines) and generated ones (thin lines): from 0 to 1 with the "
    "losses vanilla and relativistic, unlimited with lsgan and hinge. In a healthy training, real images are somewhat "
    "above generated ones, by a gap that neither vanishes nor keeps growing.",
    *("score", attrgetter("adversarial"), "", "{:.3f}".format, "~g", True),
    lines=tuple(SCORES),
)


def _ratios(summary: JournalSummary) -> Thinned:
    """Return the curve of the ratio of losses, empty if a negative one makes it meaningless."""
    is_positive = all(point.low > 0 for point in summary.of_loss(GAN).points("loss"))
    return summary.adversarial if is_positive else Thinned((RATIO,), 2)


_RATIO = Quantity(
    "Discriminator loss / adversarial loss",
    "A healthy curve fluctuates around a level; if it keeps falling, the discriminator is winning. Runs whose "
    "adversarial loss may be negative, as with hinge, have no ratio.",
    *("ratio", _ratios, RATIO, "{:.4g}".format, "~g"),
    log=True,
)


def quantities(runs: Sequence[Run]) -> list[Quantity]:
    """Return what is plotted of any runs, with the single losses and the discriminator's scores after the loss."""
    found = list(_QUANTITIES)
    losses = _of_losses(runs)
    if losses:
        at = found.index(_LOSS)
        found[at : at + 1] = [_LOSS._replace(description=_SUM), *losses]
    if not same_bicubic(runs):
        found.insert(1, _GAIN)
    return found


def _of_losses(runs: Sequence[Run]) -> list[Quantity]:
    """Return single losses in the order of the journals, then the adversarial ones with scores and ratio."""
    names = dict.fromkeys(name for run in runs for name in run.summary.losses)
    single = [name for name in names if name not in _OF_GAN][:MAX_LOSSES]
    found = [_loss(f"Loss: {name}", _SINGLE, name) for name in single]
    found += [_loss(*texts, name) for name, texts in _OF_GAN.items() if name in names]
    if not found:
        return []
    found += [_SCORES, _RATIO]
    max_points = max(2, _POINTS_OF_LOSSES // (len(runs) * len(found)))
    return [quantity._replace(max_points=max_points) for quantity in found]


def _loss(title: str, description: str, name: str) -> Quantity:
    def curve(summary: JournalSummary) -> Thinned:
        return summary.of_loss(name)

    return Quantity(title, description, "loss", curve, "loss", "{:.4g}".format, "~g", log=True)


def quantities_of_sets(runs: Sequence[Run]) -> list[Quantity]:
    """Return PSNR-Y, SSIM-Y and what else was measured on each set.

    PSNR-Y and SSIM-Y on a set that is the main one of all its runs are among `quantities`.
    """
    names = dict.fromkeys(name for run in runs for name in run.summary.sets)
    others = {name for run in runs for name in list(run.summary.sets)[1:]}
    wanted = ((("psnr_y", "ssim_y", *PERCEPTUAL) if name in others else PERCEPTUAL, name) for name in names)
    return [_of_set(metric, name) for metrics, name in wanted for metric in metrics]


def _of_set(metric: str, name: str) -> Quantity:
    def curve(summary: JournalSummary) -> Thinned:
        return summary.of_set(name).curves

    row = METRICS[metric]
    better = "Higher" if row.higher_is_better else "Lower"
    description = f"Mean over the images. {better} is better. The dotted line is bicubic upscaling."
    title, unit = f"{row.label} on {name}", row.unit or row.label
    return Quantity(title, description, unit, curve, metric, row.formatted, set=name)
