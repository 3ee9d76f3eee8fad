"""Write the report: measure the samples of each scale and render the page."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from shardgen.planning.sources import printable
from shardgen.report.contents import Contents, contents_of
from shardgen.report.extremes import Photos, extremes
from shardgen.report.gallery import gallery
from shardgen.report.last_run import LastRun, read_last_run
from shardgen.report.pairs import Pairs, pairs_of
from shardgen.report.plots import class_plot, histogram, psnr_by_class, stage_plot
from shardgen.report.survey import Survey, num_to_measure, survey
from shardgen.report.text import setting_rows, short
from shardgen.shard.job import Progress
from srshards import __version__
from srshards.errors import ReportedError, RunError, UsageError
from srshards.format import Address, Manifest
from srshards.page.pictures import Comparison
from srshards.page.plots import Plot
from srshards.page.render import MAX_PAGE_BYTES, render
from srshards.shards.stored_samples import open_manifest, scale_folders
from srshards.storage.files import write_atomically, writing
from srshards.terminal.sizes import format_bytes
from srshards.terminal.text import plural

MAX_LISTED = 300
_SPARE_BYTES = 100_000
# Edge in px of the part of HR in a comparison; smaller with several scales, because they share the page's size.
_WINDOW_PX, _WINDOW_OF_SEVERAL_PX = 256, 192

# Called with the number of samples; returns a context manager that yields the progress callback.
Display = Callable[[int], AbstractContextManager[Callable[[Progress], None]]]


@dataclass(frozen=True)
class Written:
    """The result of `write_report`: size of the page, numbers of measured and of all samples, measuring time, damage.

    `damages` are (sample or shard, reason).
    """

    num_bytes: int
    num_measured: int
    num_samples: int
    measuring_s: float
    damages: Sequence[tuple[str, str]]


@dataclass
class ScaleSection:
    """The page's section about a scale."""

    scale: int
    folder: str
    contents: Contents
    survey: Survey
    plots: list[Plot]
    max_listed: int  # limit for the lists of failures and of damages
    pairs: Pairs | None = None
    comparisons: Sequence[Comparison] = ()

    @property
    def settings(self) -> Sequence[tuple[str, str]]:
        recipe = {"degradation": self.contents.degradation} if self.contents.degradation else {}
        return setting_rows({**self.contents.settings, **recipe})

    @property
    def failures(self) -> list[tuple[str, str, str]]:
        contents = self.contents
        both = [(*pair, "failed") for pair in contents.failures] + [(*pair, "skipped") for pair in contents.skipped]
        return [(short(path, 200), short(reason, 200), kind) for path, reason, kind in both[: self.max_listed]]

    @property
    def num_failures_left_out(self) -> int:
        return max(len(self.contents.failures) + len(self.contents.skipped) - self.max_listed, 0)

    @property
    def reasons(self) -> list[tuple[str, str]]:
        return [(short(reason, 200), f"{count:,}") for reason, count in self.contents.reasons()[:20]]


def write_report(folder: Address, output: Path, limit: int, display: Display) -> Written:
    """Measure up to `limit` samples of each scale and write the page.

    UsageError when there are no shards or no samples, RunError when the page cannot be written or no sample can be
    read.
    """
    manifests = [open_manifest(path) for path in scale_folders(folder)]
    contents = [contents_of(manifest) for manifest in manifests]  # first, to report errors before measuring
    with display(sum(num_to_measure(manifest, limit) for manifest in manifests)) as report:
        start = monotonic()
        surveys = [survey(manifest, limit, report) for manifest in manifests]
        measuring_s = monotonic() - start
    if not any(scale.measured for scale in surveys):
        raise _nothing_to_show(folder, surveys, contents)
    max_listed = MAX_LISTED // len(manifests)
    sections = [
        ScaleSection(
            scale.manifest.scale, str(scale.manifest.folder), content, scale, _plots(content, scale), max_listed
        )
        for scale, content in zip(surveys, contents, strict=True)
    ]
    page = _page(folder, manifests, sections)
    with writing(output):
        write_atomically(output, page)
    return Written(
        len(page),
        sum(len(scale.measured) for scale in surveys),
        sum(scale.num_samples for scale in surveys),
        measuring_s,
        [damage for scale in surveys for damage in scale.damages],
    )


def _nothing_to_show(folder: Address, surveys: Sequence[Survey], contents: Sequence[Contents]) -> ReportedError:
    if damages := [damage for survey in surveys for damage in survey.damages]:
        return RunError(
            f"no sample of {folder} can be read, e.g. {damages[0][1]}; to list all damage, run "
            f"`python -m shardgen verify {folder}`"
        )
    failures = [failure for content in contents for failure in content.failures + content.skipped]
    why = (
        f": no {contents[0].noun} produced one, e.g. {printable(failures[0][0])} ({printable(failures[0][1])})"
        if failures
        else ""
    )
    return UsageError(f"{folder} has no samples{why}")


def _plots(contents: Contents, survey: Survey) -> list[Plot]:
    samples = survey.measured
    plots = [class_plot(contents)]
    if psnrs := [sample.psnr for sample in samples if sample.psnr is not None]:
        what = "The baseline for a network: upsampled LR against HR, per sample."
        plots += [histogram("PSNR of up", what, "dB", psnrs, 0, 1), psnr_by_class(samples)]
    if samples:
        what = "Mean of luma: 0 is black, 1 is white."
        plots.append(histogram("Brightness", what, "brightness", [one.brightness for one in samples], 1, 2))
        what = "log10 of the variance of luma's Laplacian: higher means more fine detail, or noise."
        plots.append(histogram("Sharpness", what, "sharpness", [one.sharpness for one in samples], 2, 2))
    return plots


def _page(folder: Address, manifests: Sequence[Manifest], sections: Sequence[ScaleSection]) -> bytes:
    """Render the page twice: first without galleries, to find the bytes left for them, then with them."""
    photos = Photos()
    window_px = _WINDOW_PX if len(sections) == 1 else _WINDOW_OF_SEVERAL_PX
    for section in sections:
        section.pairs = pairs_of(section.survey, photos, len(sections), window_px)
    run = read_last_run(manifests[0].folder)
    values = {
        "name": short(str(folder)),
        "version": __version__,
        "sections": sections,
        "extremes": extremes([section.survey for section in sections], photos),
        "lines": photos.lines,
        "run": run,
        "run_plots": [stage_plot(run.stage_s)] if isinstance(run, LastRun) and run.stage_s else [],
        "total": {
            "samples": sum(section.contents.samples for section in sections),
            "shards": sum(section.contents.shards for section in sections),
            "bytes": format_bytes(sum(section.contents.bytes for section in sections)),
        },
        "measured": sum(len(section.survey.measured) for section in sections),
        "format_bytes": format_bytes,
        "plural": plural,
        "has_val": any(not sample.is_excludable for section in sections for sample in section.survey.measured),
        "tiled": any(section.contents.settings.get("fit") == "tile" for section in sections),
    }
    room = MAX_PAGE_BYTES - _SPARE_BYTES - len(render("shardgen.report", "report.html", **values))
    for section in sections:
        section.comparisons = gallery(section.survey, room // len(sections), window_px)
    return render("shardgen.report", "report.html", **values)
