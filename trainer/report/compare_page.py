"""Write the HTML page of `evaluate --compare-page`: tables of metrics, and the networks' outputs to compare."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from srshards.errors import UsageError
from srshards.imaging.provenance import COMPARE_PAGE_WRITER
from srshards.page.pictures import PLACEHOLDER, Comparison, Layer, lossless_uri
from srshards.page.render import MAX_PAGE_BYTES, render
from srshards.storage.files import write_atomically, writing
from srshards.terminal.text import plural
from trainer.evaluation.names import BICUBIC, HR
from trainer.evaluation.results import SetResult, best_of, value_text
from trainer.evaluation.scores import Scores
from trainer.metrics_table import METRICS, VISIBLE_DB
from trainer.report.crops import CROP_PX, Crop, Crops, compared_versions
from trainer.report.names import part_in_words, sample_in_words, shortened, unbroken

MAX_NETWORKS = 24  # so that the page can show at least one image, with lossless crops of all networks
_MAX_IMAGES = 24
_SPARE_BYTES = 1_000  # for what the page states about omitted images


class Cell(NamedTuple):
    """A formatted value, and whether it is the best of all versions."""

    text: str
    is_best: bool = False


class Table(NamedTuple):
    """A table with a heading per row, which is HTML."""

    label: str
    columns: list[str]
    rows: list[tuple[Markup, list[Cell]]]


@dataclass(frozen=True)
class Scene:
    """An image of the page: its crop in all versions, and the values of the whole image.

    The script fills the two layers of `comparison` with the versions that are chosen.
    """

    comparison: Comparison
    layers: list[Layer]
    table: Table

    @property
    def versions(self) -> list[str]:
        return [layer.name for layer in self.layers]


@dataclass
class Section:
    """A set of images on the page."""

    name: str
    about: str
    means: Table
    wins: Table | None
    scenes: list[Scene]
    omitted: str = ""


class ComparePage:
    """Collects the images of several sets while they are evaluated, then writes the page.

    `networks` are the name of each network and a description of it. At most `_MAX_IMAGES` images are kept in memory,
    divided equally among the sets. UsageError for too many networks.
    """

    def __init__(self, networks: Sequence[tuple[str, str]], num_sets: int) -> None:
        if len(networks) > MAX_NETWORKS:
            raise UsageError(f"a page can compare {MAX_NETWORKS} networks, not {len(networks):,}; pass fewer --weights")
        self._networks = networks
        names = [name for name, _ in networks]
        self._short = {BICUBIC: BICUBIC, HR: HR} | dict(zip(names, shortened(names), strict=True))
        self._num_per_set = max(1, _MAX_IMAGES // num_sets)
        self._sets: list[tuple[SetResult, Crops]] = []

    def begin(self, result: SetResult) -> Crops:
        """Return the object that takes the images of a set."""
        crops = Crops(self._num_per_set)
        self._sets.append((result, crops))
        return crops

    def write(self, path: Path) -> int:
        """Write the page and return its size in bytes. RunError if it cannot be written."""
        sections = [_section(result, self._short) for result, _ in self._sets]
        budget_bytes = MAX_PAGE_BYTES - len(self._rendered(sections)) - _SPARE_BYTES * len(sections)
        self._add_scenes(sections, budget_bytes)
        page = self._rendered(sections)
        with writing(path):
            write_atomically(path, page)
        return len(page)

    def _add_scenes(self, sections: Sequence[Section], budget_bytes: int) -> None:
        """Add images to the sections in turn, those with the largest disagreement first, until the budget is used."""
        crops = [of_set.by_disagreement() for _, of_set in self._sets]
        turns = [pair for turn in zip_longest(*crops) for pair in zip(sections, turn, strict=True)]
        for number, (section, crop) in enumerate((section, crop) for section, crop in turns if crop is not None):
            scene = _scene(f"image-{number}", f"{section.name}: " if len(sections) > 1 else "", crop, self._short)
            budget_bytes -= len(render("trainer.report", "compare_scene.html", scene=scene))
            if budget_bytes < 0:
                break
            section.scenes.append(scene)
        for section, (result, _) in zip(sections, self._sets, strict=True):
            section.omitted = _omitted(section, len(result.images))

    def _rendered(self, sections: Sequence[Section]) -> bytes:
        first = self._sets[0][0].images[0]
        versions = [*first.versions, HR]
        full = compared_versions(versions)
        compared = [self._short[version] for version in full]
        names = [unbroken(version, self._short[version]) for version in full]
        return render(
            "trainer.report",
            "compare.html",
            writer=COMPARE_PAGE_WRITER,
            networks=[(unbroken(name, self._short[name]), description) for name, description in self._networks],
            verdicts=[sentence for result, _ in self._sets if (sentence := _verdict(result, self._short))],
            sections=sections,
            versions=[self._short[version] for version in versions],
            shown=compared[:2],
            title=" and ".join(compared) if len(compared) == 2 else f"{len(compared)} networks",
            heading=Markup(" and ").join(names) if len(names) == 2 else f"{len(names)} networks",
            compared="the networks" if len(self._networks) > 1 else "bicubic and the network",
            crop_px=CROP_PX,
        )


def _section(result: SetResult, short: Mapping[str, str]) -> Section:
    about = f"{plural(len(result.images), 'image')} at {result.scale}\N{MULTIPLICATION SIGN}, {result.data}"
    means = _values_table(f"Means of {result.name}", result.means(), short)
    return Section(result.name, about, means, _wins_table(result, short), [])


def _verdict(result: SetResult, short: Mapping[str, str]) -> Markup | None:
    """Return a sentence on the difference between the best network and bicubic; None if it is not defined."""
    means = result.means()
    bicubic = means.pop(BICUBIC)
    metric = METRICS["psnr_y" if "psnr_y" in bicubic else next(iter(bicubic))]
    best = best_of({name: values[metric.name] for name, values in means.items()}, metric.name)
    difference = means[best[0]][metric.name] - bicubic[metric.name] if best else math.nan
    if not math.isfinite(difference):
        return None
    of_several = f", the best of {len(means)} networks," if len(means) > 1 else ""
    remark = "" if metric.higher_is_better else ", of which lower values are better"
    if metric.unit == "dB" and abs(difference) < VISIBLE_DB:
        remark = ", a difference that cannot be seen"
    return Markup("<strong>{}</strong>{} is <strong>{} {} bicubic</strong> in {} on {}{}.").format(
        unbroken(best[0], short[best[0]]),
        of_several,
        metric.formatted(abs(difference)),
        "below" if difference < 0 else "above",
        metric.label,
        result.name,
        remark,
    )


def _wins_table(result: SetResult, short: Mapping[str, str]) -> Table | None:
    """Return on how many images bicubic and each of several networks are the best; None for a single network."""
    wins = result.wins()
    versions = list(next(iter(wins.values())))
    if len(versions) == 2:
        return None
    rows = [(unbroken(name, short[name]), [Cell(f"{counts[name]:,}") for counts in wins.values()]) for name in versions]
    return Table(f"Images of {result.name} won", [METRICS[metric].label for metric in wins], rows)


def _values_table(label: str, versions: Mapping[str, Scores], short: Mapping[str, str]) -> Table:
    """Return a row of values per version. The best ones are marked."""
    metrics = list(versions[BICUBIC])
    best = {metric: best_of({name: values[metric] for name, values in versions.items()}, metric) for metric in metrics}
    rows = [
        (
            unbroken(name, short[name]),
            [Cell(value_text(metric, values[metric]), name in best[metric]) for metric in metrics],
        )
        for name, values in versions.items()
    ]
    return Table(label, [METRICS[metric].label for metric in metrics], rows)


def _scene(id: str, prefix: str, crop: Crop, short: Mapping[str, str]) -> Scene:
    height, width = crop.versions[HR].shape[:2]
    layers = [Layer(short[version], lossless_uri(pixels)) for version, pixels in crop.versions.items()]
    path, part = sample_in_words(crop.result.image)
    title = prefix + path
    table = _values_table(f"Values of {title}", crop.result.versions, short)
    caption = [f"Disagreement {crop.disagreement:.1f}", *([part] if part else [])]
    if crop.position is not None:
        caption.append(f"Crop of {part_in_words(*crop.position, width, height)}")
    comparison = Comparison(
        id,
        title,
        width,
        height,
        [Layer(short[version], PLACEHOLDER) for version in compared_versions(list(crop.versions))[:2]],
        ". ".join(caption) + ".",
        [
            (short[name], _line(table.columns, row))
            for name, (_, row) in zip(crop.result.versions, table.rows, strict=True)
        ],
    )
    return Scene(comparison, layers, table)


def _line(columns: Sequence[str], cells: Sequence[Cell]) -> str:
    return ", ".join(f"{column} {cell.text}" for column, cell in zip(columns, cells, strict=True))


def _omitted(section: Section, num_images: int) -> str:
    """Return which images the section omits; empty if it shows all."""
    num_shown = len(section.scenes)
    if num_shown == num_images:
        return ""
    return f"{num_shown:,} of {num_images:,} images are shown: those with the largest disagreement."
