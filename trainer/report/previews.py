"""Previews of several runs through time, as many as a page can carry: the same images one below the other."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from srshards.imaging.pixels import Pixels
from srshards.page.pictures import Comparison, Layer, exact
from srshards.storage.store import StoreError, read_bytes
from trainer.report.cells import Cells, Preview, PreviewError, read_preview
from trainer.report.runs import Run

_MAX_STEPS = 24  # of a run
_SEVERAL = 5
_WORDS_BYTES, _FIGURE_BYTES = 300, 3000  # at most, of what stands around a shot and around all shots of a figure
_MAX_FILE_BYTES = 64_000_000
# What a page has of HR and bicubic once, for several figures: the later ones are given it by the script.
_ELSEWHERE = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACADs="


@dataclass(frozen=True)
class Shot:
    """What a run made of an image after a step. `uri` is None for the one that the figure shows at first."""

    step: int
    caption: str
    uri: str | None


@dataclass
class Series:
    """A run's shots of one image, in order of the steps."""

    id: str
    run: Run
    shots: list[Shot] = field(default_factory=list)


@dataclass
class Scene:
    """An image of the validation split, and what the runs make of it."""

    name: str
    width: int
    height: int
    bicubic: str
    hr: str
    series: list[Series] = field(default_factory=list)

    def comparisons(self) -> Iterator[Comparison]:
        """One for each run, showing its last shot. HR and bicubic are in the first alone."""
        for number, series in enumerate(self.series):
            last = series.shots[-1]
            uris = (self.bicubic, self.hr) if number == 0 else (_ELSEWHERE, _ELSEWHERE)
            layers = [Layer("bicubic", uris[0]), Layer("network", last.uri or ""), Layer("HR", uris[1])]
            yield Comparison(series.id, series.run.label, self.width, self.height, layers, last.caption)

    def later(self) -> dict[str, list[tuple[int, str, str | None]]]:
        """By figure: step, caption and image of each shot, None for the image that the figure has."""
        return {
            series.id: [
                (shot.step, shot.caption, None if shot is series.shots[-1] else shot.uri) for shot in series.shots
            ]
            for series in self.series
        }


@dataclass(frozen=True)
class Whole:
    """A preview that does not say where its images are."""

    label: str
    step: int
    uri: str
    width: int
    height: int


@dataclass
class Gallery:
    """`left_out` says in sentences what the page does not show and why."""

    scenes: list[Scene] = field(default_factory=list)
    wholes: list[Whole] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def stops(self) -> list[int]:
        """The steps that anything is shown of."""
        return sorted({shot.step for scene in self.scenes for series in scene.series for shot in series.shots})


class _Filling:
    """A gallery that grows while there is room in the page."""

    def __init__(self, runs: Sequence[Run], room: int) -> None:
        self.gallery = Gallery()
        self._runs = runs
        self._room = room
        self._scenes: dict[str, Scene] = {}
        self._series: dict[tuple[str, str], Series] = {}
        self.rows: int | None = None  # of each preview; not known before the first of them

    def add(self, run: Run, step: int, preview: Preview) -> bool:
        """Show a step of a run, all rows of it or nothing. Whether there was room."""
        if preview.rows is None:
            return self._add_whole(run, step, preview.whole)
        made = [(cells, _key(cells), exact(cells.network)) for cells in preview.rows[: self.rows]]
        if self.rows is None:
            self.rows = self._rows_of([len(uri) for *_, uri in made])
        made = made[: self.rows]
        new = {key: (exact(cells.bicubic), exact(cells.hr)) for cells, key, _ in made if key not in self._scenes}
        needed = sum(len(uri) for *_, uri in made) + sum(len(uri) for uris in new.values() for uri in uris)
        needed += sum(_WORDS_BYTES + len(cells.caption) for cells, *_ in made)
        needed += sum(_FIGURE_BYTES + 50 * len(run.label) for _, key, _ in made if (key, run.label) not in self._series)
        if needed > self._room:
            return False
        self._room -= needed
        for cells, key, uri in made:
            if key in new:
                height, width = cells.hr.shape[:2]
                self._scenes[key] = Scene(cells.name, width, height, *new.pop(key))
                self.gallery.scenes.append(self._scenes[key])
            shots = self._series_of(key, run).shots
            shots.append(Shot(step, _caption(run, step, cells), uri))
            shots.sort(key=lambda shot: shot.step)
        return True

    def _rows_of(self, costs: Sequence[int]) -> int:
        """So many that there is room for several steps of every run: one image through time before three at its end.

        `costs` are the bytes that the network's image takes in each row of a preview; others may have more rows.
        """
        steps = sum(min(len(run.previews), _SEVERAL) for run in self._runs) + 2  # and for bicubic and HR
        return max(1, self._room * len(costs) // (sum(costs) * steps))

    def _series_of(self, key: str, run: Run) -> Series:
        if (key, run.label) not in self._series:
            series = Series(f"shown-{len(self._series)}", run)
            self._series[key, run.label] = series
            self._scenes[key].series.append(series)
        return self._series[key, run.label]

    def _add_whole(self, run: Run, step: int, picture: Pixels) -> bool:
        uri = exact(picture)
        if len(uri) <= self._room:
            self._room -= len(uri)
            height, width = picture.shape[:2]
            self.gallery.wholes.append(Whole(run.label, step, uri, width, height))
            return True
        return False


def gallery(runs: Sequence[Run], room: int) -> Gallery:
    """What fits into `room` bytes: of each run the last step, the best, the first, then what lies widest between."""
    filling = _Filling(runs, room)
    left_out = filling.gallery.left_out
    orders = {run.label: by_worth(list(run.previews), run.summary.best.step if run.summary.best else 0) for run in runs}
    shown: dict[str, int] = dict.fromkeys(orders, 0)
    rows: dict[str, int] = {}
    full: set[str] = set()
    for turn in range(max(map(len, orders.values()), default=0)):
        for run in runs:
            if turn >= min(len(orders[run.label]), _MAX_STEPS) or run.label in full:
                continue
            step = orders[run.label][turn]
            try:
                preview = _read(run, step)
            except PreviewError as error:
                left_out.append(f"{run.previews[step][0]}: {error}")
                continue
            if not filling.add(run, step, preview):
                full.add(run.label)
                continue
            shown[run.label] += 1
            rows[run.label] = len(preview.rows or ())
            if preview.rows is None:  # the last one alone
                full.add(run.label)
    left_out += _said(runs, shown, rows, filling.rows)
    return filling.gallery


def _said(runs: Sequence[Run], shown: dict[str, int], rows: dict[str, int], most_rows: int | None) -> Iterator[str]:
    for run in runs:
        had = len(run.previews)
        if shown[run.label] < had:
            yield f"{run.label}: {shown[run.label]} of {had:,} previews are in this page"
        if most_rows is not None and rows.get(run.label, 0) > most_rows:
            images = "first" if most_rows == 1 else f"first {most_rows}"
            yield f"{run.label}: the {images} of {rows[run.label]} images of each preview, to have room for more steps"


def by_worth(steps: Sequence[int], best: int) -> list[int]:
    """All steps, the most telling first: the last, the first, the best, then whatever is farthest from those so far.

    Distances are those of logarithms: a network changes most at the beginning.
    """
    if not steps:
        return []
    order = list(dict.fromkeys([max(steps), min(steps), *([best] if best in steps else [])]))
    rest = sorted(set(steps) - set(order))
    near = {step: min(_apart(step, other) for other in order) for step in rest}
    while near:
        step = max(near, key=lambda one: (near[one], one))
        order.append(step)
        del near[step]
        near = {one: min(distance, _apart(one, step)) for one, distance in near.items()}
    return order


def _apart(step: int, other: int) -> float:
    return abs(math.log((step + 1) / (other + 1)))


def _read(run: Run, step: int) -> Preview:
    address, size = run.previews[step]
    if size > _MAX_FILE_BYTES:
        raise PreviewError(f"{size:,} bytes are too many for a preview")
    try:
        return read_preview(read_bytes(address, size))
    except (OSError, StoreError) as error:
        raise PreviewError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except PreviewError as error:
        raise PreviewError(f"is damaged: {error}") from error


def _caption(run: Run, step: int, cells: Cells) -> str:
    best = ", its best" if run.summary.best and step == run.summary.best.step else ""
    psnr = run.summary.psnr_at[step]
    of_all = "" if math.isnan(psnr) else f"; all images: {psnr:.2f} dB"
    figures = ", ".join(cells.caption.split("   "))
    return f"step {step:,}{best}: {figures}{of_all}"


def _key(cells: Cells) -> str:
    """The same for the same image, whoever shows it."""
    digest = hashlib.sha256(str(cells.hr.shape).encode())
    for image in (cells.hr, cells.bicubic):
        digest.update(image.tobytes())
    return digest.hexdigest()
