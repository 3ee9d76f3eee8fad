"""Draw the packages, their layers and the direction of imports as docs/images/architecture.svg (`make diagram`).

Boxes are placed by hand, in `LAYOUT`; arrows come from the code: each layer points to those layers it imports that it
does not also reach through another one (the transitive reduction of the imports).
"""

from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import grimp

PATH = Path(__file__).parent.parent / "docs" / "images" / "architecture.svg"

# Rows of layers from top to bottom, with one entry per column. An empty entry leaves its place free, "<" widens the box
# on its left. Layers in one entry are one box.
LAYOUT = {
    "shardgen": (
        ("cli",),
        ("commands",),
        ("inspection", "report"),
        ("generate",),
        ("engines",),
        ("shard",),
        ("pairs",),
        ("planning",),
        ("degradation",),
    ),
    "trainer": (
        ("cli",),
        ("commands",),
        ("report",),
        ("training",),
        ("losses", "runs", "distributed"),
        ("evaluation", "", ""),
        ("inference", "", ""),
        ("models", "<", ""),
        ("catalogue presets messages\nloss_terms loss_table\nmetrics_table weights_table",),
    ),
    "srshards": (
        ("adapters", "<", ""),
        ("loader", "<", ""),
        ("sampling", "shards", ""),
        ("", "terminal", "page"),
        ("imaging",),
        ("pair_names storage", "native"),
        ("format process errors extras plain_yaml",),
    ),
}
CAPTIONS = {"trainer": "trains networks", "shardgen": "makes shards", "srshards": "the library for both"}
# Not layers: shown in no box.
OMITTED = {"shardgen.__main__", "trainer.__main__", "shardgen.sample_photos"}
FLOW = (("photos", ""), ("shardgen", "shardgen"), ("shards", ""), ("trainer", "trainer"), ("weights", ""))

WIDTH = 640
MARGIN = 16
ROW, BOX = 54, 32  # from row to row, and the height of a box, in px
GAP = 12  # between boxes of a row
HEAD = 44  # from the top of a package to its first row
LINE = 20  # of text in a box with several layers

STYLE = """
text { font: 15px system-ui, -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; fill: #1f2328 }
.name { font-weight: 600 } .caption { fill: #59636e }
.middle { text-anchor: middle } .end { text-anchor: end }
.page { fill: #ffffff } .plain { fill: #f6f8fa; stroke: #d1d9e0 }
.arrow { fill: none; stroke: #818b98; stroke-width: 1.5 } .head { fill: #818b98 }
.shardgen { fill: #ddf4ff; stroke: #54aeff } .trainer { fill: #fff1e5; stroke: #fb8f44 }
.srshards { fill: #dafbe1; stroke: #4ac26b }
.package { fill: none }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .caption { fill: #9198a1 }
.page { fill: #0d1117 } .plain { fill: #151b23; stroke: #3d444d }
.arrow { stroke: #9198a1 } .head { fill: #9198a1 }
.shardgen { fill: #10233f; stroke: #1f6feb } .trainer { fill: #3a1f0c; stroke: #bd561d }
.srshards { fill: #0f2d1a; stroke: #238636 }
.package { fill: none }
}
"""


class Box(NamedTuple):
    """A drawn box: its layers, as lines of names, and its place in px."""

    text: str
    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


def main() -> None:
    PATH.write_text(draw())
    print(PATH.relative_to(Path.cwd()) if PATH.is_relative_to(Path.cwd()) else PATH)


def draw() -> str:
    """Return the diagram as SVG. ValueError if the layout lacks a layer, or has one that does not exist."""
    graph = grimp.build_graph(*LAYOUT, cache_dir=None)
    top = MARGIN + BOX + ROW - BOX + 6
    half = (WIDTH - 3 * MARGIN) / 2
    commands = {"shardgen": (MARGIN, half - 50), "trainer": (WIDTH - MARGIN - half - 50, half + 50)}
    boxes = {name: _place(LAYOUT[name], x + GAP, top + HEAD, width - 2 * GAP) for name, (x, width) in commands.items()}
    bottom = max(box.bottom for placed in boxes.values() for box in placed) + GAP
    below = bottom + ROW - BOX + 6
    parts = []
    for name, (x, width) in commands.items():
        parts += _draw_package(graph, Box(name, x, top, width, bottom - top), boxes[name])
        if graph.direct_import_exists(importer=name, imported="srshards", as_packages=True):
            parts.append(_arrow(x + width / 2, bottom, below))
    library = _place(LAYOUT["srshards"], MARGIN + GAP, below + HEAD, WIDTH - 2 * MARGIN - 2 * GAP)
    bottom = library[-1].bottom + GAP
    parts += _draw_package(graph, Box("srshards", MARGIN, below, WIDTH - 2 * MARGIN, bottom - below), library)
    height = bottom + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" '
            f'height="{height:g}" role="img" aria-labelledby="title">',
            '<title id="title">Layers of shardgen, trainer and srshards; arrows are imports</title>',
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{height:g}" rx="12"/>',
            *_draw_flow(),
            *parts,
            "</svg>\n",
        ]
    )


def _draw_flow() -> list[str]:
    """Draw what goes into the commands and what comes out, from left to right."""
    gap = 28
    width = (WIDTH - 2 * MARGIN - gap * (len(FLOW) - 1)) / len(FLOW)
    parts = []
    for number, (name, style) in enumerate(FLOW):
        box = Box(name, MARGIN + number * (width + gap), MARGIN, width, BOX)
        parts.append(_rectangle(box, style or "plain", 6 if style else BOX / 2))
        parts.append(_text(name, box.x + width / 2, box.y + BOX / 2, "middle name" if style else "middle"))
        if number:
            y = box.y + BOX / 2
            parts.append(f'<path class="arrow" d="M{box.x - gap + 3:g} {y:g}H{box.x - 7:g}"/>')
            parts.append(f'<path class="head" d="M{box.x - 2:g} {y:g}l-8 -4.5v9z"/>')
    return parts


def _draw_package(graph: grimp.ImportGraph, frame: Box, boxes: list[Box]) -> list[str]:
    package = frame.text
    owner = {layer: box for box in boxes for layer in box.text.split()}
    _check_layers(graph, package, set(owner))
    y = frame.y + HEAD / 2
    parts = [_rectangle(frame, f"{package} package", 10)]
    parts.append(_text(package, frame.x + GAP + 2, y, "name"))
    parts.append(_text(CAPTIONS[package], frame.right - GAP - 2, y, "caption end"))
    for source, target in _reduce(_imports(graph, package, owner)):
        parts.append(_connect(source, target, boxes))
    for box in boxes:
        parts.append(_rectangle(box, package, 6))
        for number, line in enumerate(box.text.splitlines()):
            x, y = box.x + box.width / 2, box.y + BOX / 2 + LINE * number
            parts.append(_text(line.replace(" ", "   "), x, y, "middle"))
    return parts


def _place(rows: tuple[tuple[str, ...], ...], x: float, y: float, width: float) -> list[Box]:
    boxes: list[Box] = []
    for number, row in enumerate(rows):
        each = (width - GAP * (len(row) - 1)) / len(row)
        for column, text in enumerate(row):
            if text == "<":
                boxes[-1] = boxes[-1]._replace(width=boxes[-1].width + GAP + each)
            elif text:
                height = BOX + LINE * text.count("\n")
                boxes.append(Box(text, x + column * (each + GAP), y + number * ROW, each, height))
    return boxes


def _check_layers(graph: grimp.ImportGraph, package: str, drawn: set[str]) -> None:
    exist = {child.rpartition(".")[2] for child in graph.find_children(package) if child not in OMITTED}
    if exist != drawn:
        raise ValueError(f"LAYOUT of tools/diagram.py: {package} lacks {exist - drawn} and has {drawn - exist}")


def _imports(graph: grimp.ImportGraph, package: str, owner: dict[str, Box]) -> dict[Box, set[Box]]:
    """Return the boxes that each box imports directly."""
    found: dict[Box, set[Box]] = {box: set() for box in owner.values()}
    for name, box in owner.items():
        top = f"{package}.{name}"
        for module in {top} | graph.find_descendants(top):
            for imported in graph.find_modules_directly_imported_by(module):
                parts = imported.split(".")
                if parts[0] == package and len(parts) > 1 and (other := owner.get(parts[1])) not in (None, box):
                    found[box].add(other)
    return found


def _reduce(edges: dict[Box, set[Box]]) -> list[tuple[Box, Box]]:
    """Return the edges of the transitive reduction, ordered by place."""

    def reachable(box: Box) -> set[Box]:
        return edges[box].union(*(reachable(other) for other in edges[box]))

    kept = [
        (box, other)
        for box, others in edges.items()
        for other in others
        if not any(other in reachable(between) for between in others - {other})
    ]
    return sorted(kept, key=lambda pair: (pair[0].y, pair[0].x, pair[1].y, pair[1].x))


def _connect(source: Box, target: Box, boxes: list[Box]) -> str:
    """Draw an arrow from the lower edge of a box straight down to another one."""
    left, right = max(source.x, target.x), min(source.right, target.right)
    x = (left + right) / 2
    hidden = any(source.bottom < box.y < target.y and box.x < x < box.right for box in boxes)
    if target.y < source.bottom or left >= right or hidden:
        raise ValueError(f"LAYOUT of tools/diagram.py: no straight way down from {source.text} to {target.text}")
    return _arrow(x, source.bottom, target.y)


def _arrow(x: float, y: float, to_y: float) -> str:
    line = f'<path class="arrow" d="M{x:g} {y:g}V{to_y - 7:g}"/>'
    return f'{line}<path class="head" d="M{x:g} {to_y - 1:g}l-4.5 -8h9z"/>'


def _rectangle(box: Box, style: str, radius: float) -> str:
    x, y, width, height = (f"{value:g}" for value in box[1:])
    return f'<rect class="{style}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius:g}"/>'


def _text(text: str, x: float, y: float, style: str) -> str:
    return f'<text class="{style}" x="{x:g}" y="{y:g}" dy=".35em" xml:space="preserve">{escape(text)}</text>'


if __name__ == "__main__":
    main()
