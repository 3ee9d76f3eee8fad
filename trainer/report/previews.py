"""Select validation previews for the page within its size limit, grouped by image across runs and steps."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from srshards.imaging.pixels import Pixels
from srshards.page.pictures import PLACEHOLDER, Comparison, Layer, lossless_uri
from srshards.storage.store import StoreError, read_bytes
from trainer.report.cells import Cells, Preview, PreviewError, read_preview
from trainer.report.names import sample_in_words
from trainer.report.runs import Run

_MAX_STEPS = 24  # of a run
_MIN_STEPS = 5  # of a run, if it has as many, before further rows of its previews are included
_SHOT_BYTES, _FIGURE_BYTES = 300, 3000  # upper bounds of the markup of a shot and of a figure, without their images
_MAX_FILE_BYTES = 64_000_000


@dataclass(frozen=True)
class Shot:
    """A run's output for an image after a step. `uri` is None for the shot that the figure shows initially."""

    step: int
    caption: str
    uri: str | None


@dataclass
class Series:
    """A run's shots of one image, ordered by step."""

    id: str
    run: Run
    shots: list[Shot] = field(default_factory=list)


@dataclass
class Scene:
    """A validation image and the runs' outputs for it."""

    name: str
    part: str  # of the photo, in words; may be empty
    width: int
    height: int
    bicubic: str
    hr: str
    series: list[Series] = field(default_factory=list)

    def comparisons(self) -> Iterator[Comparison]:
        """Yield one comparison per run, showing its last shot. The first has HR and bicubic for all of them."""
        for number, series in enumerate(self.series):
            last = series.shots[-1]
            uris = (self.bicubic, self.hr) if number == 0 else (PLACEHOLDER, PLACEHOLDER)
            layers = [Layer("bicubic", uris[0]), Layer("network", last.uri or ""), Layer("HR", uris[1])]
            yield Comparison(
                series.id, series.run.short, self.width, self.height, layers, last.caption, full_title=series.run.label
            )

    def shots_by_figure(self) -> dict[str, list[tuple[int, str, str | None]]]:
        """Return step, caption and image of each shot by figure; None for the image that is already in the figure."""
        return {
            series.id: [
                (shot.step, shot.caption, None if shot is series.shots[-1] else shot.uri) for shot in series.shots
            ]
            for series in self.series
        }


@dataclass(frozen=True)
class UnsplitPreview:
    """A preview without a layout, shown as one image."""

    run: Run
    step: int
    uri: str
    width: int
    height: int


@dataclass
class Gallery:
    """The previews of a page. `left_out` lists what is not shown and why."""

    scenes: list[Scene] = field(default_factory=list)
    unsplit: list[UnsplitPreview] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def stops(self) -> list[int]:
        """The steps of the slider: all steps that are shown."""
        return sorted({shot.step for scene in self.scenes for series in scene.series for shot in series.shots})


class _GalleryBuilder:
    """Adds previews to a gallery until a budget of bytes is used up."""

    def __init__(self, runs: Sequence[Run], budget_bytes: int) -> None:
        self.gallery = Gallery()
        self._runs = runs
        self._budget_bytes = budget_bytes
        self._scenes: dict[str, Scene] = {}
        self._series: dict[tuple[str, str], Series] = {}
        self.max_rows: int | None = None  # of each preview; set by the first one

    def add(self, run: Run, step: int, preview: Preview) -> bool:
        """Add all rows of a step, or nothing if the budget does not suffice. Return whether it was added."""
        if preview.rows is None:
            return self._add_whole(run, step, preview.image)
        rows = [(cells, _key(cells), lossless_uri(cells.network)) for cells in preview.rows[: self.max_rows]]
        if self.max_rows is None:
            self.max_rows = self._affordable_rows([len(uri) for *_, uri in rows])
        rows = rows[: self.max_rows]
        new = {
            key: (lossless_uri(cells.bicubic), lossless_uri(cells.hr))
            for cells, key, _ in rows
            if key not in self._scenes
        }
        needed = sum(len(uri) for *_, uri in rows) + sum(len(uri) for uris in new.values() for uri in uris)
        needed += sum(_SHOT_BYTES + len(cells.caption) for cells, *_ in rows)
        needed += sum(_FIGURE_BYTES + 50 * len(run.label) for _, key, _ in rows if (key, run.label) not in self._series)
        if needed > self._budget_bytes:
            return False
        self._budget_bytes -= needed
        for cells, key, uri in rows:
            if key in new:
                height, width = cells.hr.shape[:2]
                self._scenes[key] = Scene(*sample_in_words(cells.name), width, height, *new.pop(key))
                self.gallery.scenes.append(self._scenes[key])
            shots = self._series_of(key, run).shots
            shots.append(Shot(step, _caption(run, step, cells), uri))
            shots.sort(key=lambda shot: shot.step)
        return True

    def _affordable_rows(self, costs: Sequence[int]) -> int:
        """Return the rows per preview with which several steps of every run fit: more steps matter more than rows.

        `costs` are the bytes of the network's image in each row of the first preview.
        """
        steps = sum(min(len(run.previews), _MIN_STEPS) for run in self._runs) + 2  # two more for bicubic and HR
        return max(1, self._budget_bytes * len(costs) // (sum(costs) * steps))

    def _series_of(self, key: str, run: Run) -> Series:
        if (key, run.label) not in self._series:
            series = Series(f"shown-{len(self._series)}", run)
            self._series[key, run.label] = series
            self._scenes[key].series.append(series)
        return self._series[key, run.label]

    def _add_whole(self, run: Run, step: int, image: Pixels) -> bool:
        uri = lossless_uri(image)
        if len(uri) > self._budget_bytes:
            return False
        self._budget_bytes -= len(uri)
        height, width = image.shape[:2]
        self.gallery.unsplit.append(UnsplitPreview(run, step, uri, width, height))
        return True


def gallery(runs: Sequence[Run], budget_bytes: int) -> Gallery:
    """Return the previews that fit in `budget_bytes`, chosen from each run in the order of `by_importance`."""
    builder = _GalleryBuilder(runs, budget_bytes)
    left_out = builder.gallery.left_out
    orders = {
        run.label: by_importance(list(run.previews), run.summary.best.step if run.summary.best else 0) for run in runs
    }
    shown: dict[str, int] = dict.fromkeys(orders, 0)
    rows: dict[str, int] = {}
    full: set[str] = set()
    for position in range(max(map(len, orders.values()), default=0)):
        for run in runs:
            if position >= min(len(orders[run.label]), _MAX_STEPS) or run.label in full:
                continue
            step = orders[run.label][position]
            try:
                preview = _read(run, step)
            except PreviewError as error:
                left_out.append(f"{run.previews[step][0]}: {error}")
                continue
            if not builder.add(run, step, preview):
                full.add(run.label)
                continue
            shown[run.label] += 1
            rows[run.label] = len(preview.rows or ())
            if preview.rows is None:  # show only the most important one
                full.add(run.label)
    left_out += _omissions(runs, shown, rows, builder.max_rows)
    return builder.gallery


def _omissions(runs: Sequence[Run], shown: dict[str, int], rows: dict[str, int], max_rows: int | None) -> Iterator[str]:
    for run in runs:
        total = len(run.previews)
        if shown[run.label] < total:
            yield f"{run.label}: {shown[run.label]} of {total:,} previews are shown"
        if max_rows is not None and rows.get(run.label, 0) > max_rows:
            images = "first" if max_rows == 1 else f"first {max_rows}"
            yield f"{run.label}: only the {images} of {rows[run.label]} images of each preview, to show more steps"


def by_importance(steps: Sequence[int], best: int) -> list[int]:
    """Return all steps in the order of last, first, best, then always the step farthest from the previous ones.

    Distances are logarithmic, because a network changes most in the beginning.
    """
    if not steps:
        return []
    order = list(dict.fromkeys([max(steps), min(steps), *([best] if best in steps else [])]))
    rest = sorted(set(steps) - set(order))
    distances = {step: min(_distance(step, other) for other in order) for step in rest}
    while distances:
        step = max(distances, key=lambda one: (distances[one], one))
        order.append(step)
        del distances[step]
        distances = {one: min(distance, _distance(one, step)) for one, distance in distances.items()}
    return order


def _distance(step: int, other: int) -> float:
    return abs(math.log((step + 1) / (other + 1)))


def _read(run: Run, step: int) -> Preview:
    address, size = run.previews[step]
    if size > _MAX_FILE_BYTES:
        raise PreviewError(f"too large for a preview ({size:,} bytes)")
    try:
        return read_preview(read_bytes(address, size))
    except (OSError, StoreError) as error:
        raise PreviewError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except PreviewError as error:
        raise PreviewError(f"is damaged: {error}") from error


def _caption(run: Run, step: int, cells: Cells) -> str:
    best = " (best)" if run.summary.best and step == run.summary.best.step else ""
    psnr = run.summary.psnr_at[step]
    mean = "" if math.isnan(psnr) else f"; all images: {psnr:.2f} dB"
    metrics = ", ".join(cells.caption.split("   "))
    return f"step {step:,}{best}: {metrics}{mean}"


def _key(cells: Cells) -> str:
    """Return a key that is equal for the same image in different runs."""
    digest = hashlib.sha256(str(cells.hr.shape).encode())
    for image in (cells.hr, cells.bicubic):
        digest.update(image.tobytes())
    return digest.hexdigest()
