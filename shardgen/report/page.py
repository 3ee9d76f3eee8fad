"""Write the report: measure the samples of each scale and render the page."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from shardgen.planning.sources import printable
from shardgen.report.cards import Photos
from shardgen.report.contents import Contents, contents_of
from shardgen.report.extremes import extremes
from shardgen.report.gallery import gallery
from shardgen.report.last_run import LastRun, read_last_run
from shardgen.report.pairs import pairs_of
from shardgen.report.plots import stage_plot
from shardgen.report.rerun import rerun
from shardgen.report.sections import Sections, are_alike, psnr_text, sections_of
from shardgen.report.survey import Survey, num_to_measure, survey
from shardgen.report.text import TIMES, short
from shardgen.report.verdict import verdict
from shardgen.shard.job import Progress
from srshards import __version__
from srshards.errors import ReportedError, RunError, UsageError
from srshards.format import Address, Manifest
from srshards.page.render import MAX_PAGE_BYTES, render
from srshards.shards.stored_samples import open_manifest, scale_folders
from srshards.storage.files import write_atomically, writing
from srshards.storage.store import storage_of
from srshards.terminal.sizes import format_bytes
from srshards.terminal.text import plural

_SPARE_BYTES = 100_000
_WINDOW_PX = 192  # edge of the part of HR in a comparison

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


def write_report(folder: Address, output: Path, limit: int, display: Display) -> Written:
    """Measure up to `limit` samples of each scale and write the page.

    UsageError when there are no shards or no samples, RunError when the page cannot be written or no sample can be
    read.
    """
    manifests = [open_manifest(_with_name(path)) for path in scale_folders(folder)]
    contents = [contents_of(manifest) for manifest in manifests]  # first, to report errors before measuring
    with display(sum(num_to_measure(manifest, limit) for manifest in manifests)) as report:
        start = monotonic()
        surveys = [
            survey(manifest, limit, report, _compares_splits(content, contents[:number]))
            for number, (manifest, content) in enumerate(zip(manifests, contents, strict=True))
        ]
        measuring_s = monotonic() - start
    if not any(scale.measured for scale in surveys):
        raise _nothing_to_show(folder, surveys, contents)
    page = _page(folder, manifests, sections_of(contents, surveys))
    with writing(output):
        write_atomically(output, page)
    return Written(
        len(page),
        sum(len(scale.measured) for scale in surveys),
        sum(scale.num_samples for scale in surveys),
        measuring_s,
        [damage for scale in surveys for damage in scale.damages],
    )


def _with_name(folder: Address) -> Address:
    """Return the folder by a path that has a parent, unlike `.` and `..`."""
    return storage_of(folder).resolved(folder) if folder.name in ("", "..") else folder


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


def _compares_splits(contents: Contents, earlier: Sequence[Contents]) -> bool:
    """Return whether train and val of a scale are compared: not if they are the same as at an earlier scale."""
    return all(contents.of_split.values()) and not any(are_alike(contents, one) for one in earlier)


def _page(folder: Address, manifests: Sequence[Manifest], sections: Sections) -> bytes:
    """Render the page twice: first without galleries, to find the bytes left for them, then with them."""
    photos, scales = Photos(), sections.scales
    surveys, contents = [one.survey for one in scales], [one.contents for one in scales]
    for section in scales:
        section.pairs = pairs_of(section.survey, photos, len(scales), _WINDOW_PX)
    run = read_last_run(manifests[0].folder)
    found = extremes(surveys, photos)
    values = {
        "name": short(str(folder)),
        "version": __version__,
        "noun": contents[0].noun,
        "sections": sections,
        "lists": found.lists,
        "remarks": [],
        "rerun": rerun(manifests, run.excluded if isinstance(run, LastRun) else 0),
        "lines": photos.lines,
        "run": run,
        "run_plots": [stage_plot(run.stage_s)] if isinstance(run, LastRun) and run.stage_s else [],
        "overview": [
            ("samples", f"{sum(one.samples for one in contents):,}"),
            ("shards", f"{sum(one.shards for one in contents):,}"),
            ("total size", format_bytes(sum(one.bytes for one in contents))),
            *((f"PSNR of up, {one.scale}{TIMES}", psnr_text(one.contents)) for one in scales),
        ],
        "measured": sum(len(survey.measured) for survey in surveys),
        "plural": plural,
        "has_val": any(not sample.is_excludable for survey in surveys for sample in survey.measured),
        "tiled": any(one.settings.get("fit") == "tile" for one in contents),
    }
    bytes_left = MAX_PAGE_BYTES - _SPARE_BYTES - len(render("shardgen.report", "report.html", **values))
    for section in scales:
        section.comparisons = gallery(section.survey, bytes_left // len(scales), _WINDOW_PX)
    # Last, because lists and galleries may find further damage.
    pairs = {one.scale: one.pairs for one in scales if one.pairs}
    values["remarks"] = verdict(contents, surveys, found, pairs)
    return render("shardgen.report", "report.html", **values)
