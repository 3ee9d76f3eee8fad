"""What the page says of all scales together, and of each scale only where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from shardgen.report.contents import Contents
from shardgen.report.pairs import Pairs
from shardgen.report.plots import class_plot, histogram, psnr_by_class
from shardgen.report.survey import Survey
from shardgen.report.text import setting_rows, short
from srshards.page.pictures import Comparison
from srshards.page.plots import Plot
from srshards.terminal.sizes import format_bytes

MAX_LISTED = 300  # failures or damages, of all scales together
_MAX_REASONS = 20
_OF_SCALE = ("scale", "hr_size")  # settings that differ between scales that are made from the same images

Rows = Sequence[tuple[str, str]]
T = TypeVar("T")


@dataclass
class Block:
    """Figures, settings and plots, of all scales or of one."""

    tiles: Rows
    settings: Rows
    plots: Sequence[Plot]


@dataclass(frozen=True)
class Failures:
    """Photos without a sample: the reasons with their counts, and the first (path, reason, result)."""

    where: str  # the scale as text, empty if they are those of all scales
    reasons: Rows
    listed: Sequence[tuple[str, str, str]]
    num_left_out: int


@dataclass
class ScaleSection:
    """The page's section about a scale. `own` is what is not the same at the other scales."""

    scale: int
    folder: str
    contents: Contents
    survey: Survey
    own: Block
    pairs: Pairs | None = None
    comparisons: Sequence[Comparison] = ()


@dataclass(frozen=True)
class Sections:
    """The sections of a page: `common` is the same at all scales."""

    common: Block
    scales: Sequence[ScaleSection]
    failures: Sequence[Failures]
    max_damages_listed: int


def sections_of(contents: Sequence[Contents], surveys: Sequence[Survey]) -> Sections:
    """Return the sections, without pairs and galleries."""
    tiles, own_tiles = _split_common([_tiles(one) for one in contents])
    settings, own_settings = _split_common([_settings(one) for one in contents])
    same = all(are_alike(one, contents[0]) for one in contents)
    fullest = max(range(len(surveys)), key=lambda number: len(surveys[number].measured))
    common = Block(tiles, settings, _hr_plots(contents[fullest], surveys[fullest]) if same else [])
    scales = [
        ScaleSection(
            survey.manifest.scale,
            str(survey.manifest.folder),
            content,
            survey,
            Block(
                [*own, *_scale_tiles(content)],
                own_setting,
                ([] if same else _hr_plots(content, survey)) + _lr_plots(survey),
            ),
        )
        for content, survey, own, own_setting in zip(contents, surveys, own_tiles, own_settings, strict=True)
    ]
    return Sections(common, scales, _failures(contents, surveys), MAX_LISTED // len(contents))


def are_alike(left: Contents, right: Contents) -> bool:
    """Return whether two scales were made from the same images, with the same settings."""

    def images(contents: Contents) -> Contents:
        settings = {name: value for name, value in contents.settings.items() if name not in _OF_SCALE}
        of_lr = replace(contents, psnr_mean=None, psnr_min=None, psnr_max=None, identical=0)
        return replace(of_lr, settings=settings, bytes=0)

    return images(left) == images(right)


def _split_common(of_scales: Sequence[Sequence[T]]) -> tuple[list[T], list[list[T]]]:
    """Return the items that all scales have, and the others of each scale."""
    common = [one for one in of_scales[0] if all(one in others for others in of_scales)]
    return common, [[one for one in items if one not in common] for items in of_scales]


def _tiles(contents: Contents) -> Rows:
    noun = contents.noun
    counts = [
        (f"{noun}s", contents.photos, True),
        ("train samples", contents.of_split["train"], True),
        ("val samples", contents.of_split["val"], True),
        ("photos upscaled to HR", contents.enlarged, False),
        (f"{noun}s converted to sRGB", contents.converted, False),
        ("colour profiles not applied", contents.unusable_profiles, False),
        (f"{noun}s failed", len(contents.failures), False),
        (f"{noun}s skipped", len(contents.skipped), False),
    ]
    return [(name, f"{count:,}") for name, count, always in counts if count or always]


def _scale_tiles(contents: Contents) -> Rows:
    rows = [("shards", f"{contents.shards:,}"), ("total size", format_bytes(contents.bytes))]
    if contents.samples:
        rows.append(("per sample", format_bytes(contents.bytes // contents.samples)))
    rows.append(("PSNR of up, mean", psnr_text(contents)))
    if contents.psnr_min is not None and contents.psnr_max is not None:
        rows.append(("PSNR of up, range", f"{contents.psnr_min:.0f} \N{EN DASH} {contents.psnr_max:.0f} dB"))
    return rows


def psnr_text(contents: Contents) -> str:
    """Return the mean PSNR of `up` as text."""
    if contents.psnr_mean is not None:
        return f"{contents.psnr_mean:.2f} dB"
    return "\N{INFINITY} dB" if contents.identical else "\N{EN DASH}"


def _settings(contents: Contents) -> Rows:
    recipe = {"degradation": contents.degradation} if contents.degradation else {}
    settings = {name: value for name, value in contents.settings.items() if name != "scale"}
    return setting_rows({**settings, **recipe})


def _hr_plots(contents: Contents, survey: Survey) -> list[Plot]:
    plots, samples = [class_plot(contents)], survey.measured
    if samples:
        what = "Mean of luma: 0 is black, 1 is white."
        plots.append(histogram("Brightness", what, "brightness", [one.brightness for one in samples], 1, 2))
        what = "log10 of the variance of luma's Laplacian: higher means more fine detail, or noise."
        plots.append(histogram("Sharpness", what, "sharpness", [one.sharpness for one in samples], 2, 2))
    return plots


def _lr_plots(survey: Survey) -> list[Plot]:
    plots, samples = [], survey.measured
    if psnrs := [sample.psnr for sample in samples if sample.psnr is not None]:
        what = "The baseline for a network: upsampled LR against HR, per sample."
        plots += [histogram("PSNR of up", what, "dB", psnrs, 0, 1), psnr_by_class(samples)]
    if aliased := [sample.aliasing for sample in samples if sample.aliasing is not None]:
        what = "Detail too fine for LR, which appears in it as false patterns: its RMS in LR."
        plots.append(histogram("Aliasing", what, "grey levels", aliased, 3, 1))
    return plots


def _failures(contents: Sequence[Contents], surveys: Sequence[Survey]) -> list[Failures]:
    """Return the failures of all scales if they are the same, otherwise those of each scale."""
    first = contents[0]
    if all((one.failures, one.skipped) == (first.failures, first.skipped) for one in contents):
        return [_failures_of(first, "", MAX_LISTED)] if first.failures or first.skipped else []
    return [
        _failures_of(content, f" at {survey.manifest.scale}\N{MULTIPLICATION SIGN}", MAX_LISTED // len(contents))
        for content, survey in zip(contents, surveys, strict=True)
        if content.failures or content.skipped
    ]


def _failures_of(contents: Contents, where: str, max_listed: int) -> Failures:
    both = [(*pair, "failed") for pair in contents.failures] + [(*pair, "skipped") for pair in contents.skipped]
    return Failures(
        where,
        [(short(reason, 200), f"{count:,}") for reason, count in contents.reasons()[:_MAX_REASONS]],
        [(short(path, 200), short(reason, 200), kind) for path, reason, kind in both[:max_listed]],
        max(len(both) - max_listed, 0),
    )
