"""README.md and README.zh-CN.md: commands, figures and links are the same in both, and figures match the results."""

import json
import re
from collections import Counter
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest
from docs_commands import slug

from trainer.catalogue import default_model

ROOT = Path(__file__).parent.parent
NAMES = ("README.md", "README.zh-CN.md")
HAN = "\u4e00-\u9fff"
FULL_WIDTH = "\u3001\u3002\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f"  # punctuation


class Section(NamedTuple):
    """The text from one heading to the next; `prose` contains the lines outside of blocks and tables."""

    level: int
    heading: str
    blocks: list[str]
    tables: list[list[str]]
    prose: list[str]

    @property
    def rows(self) -> list[str]:
        return [row for table in self.tables for row in table]

    @property
    def text(self) -> str:
        return "\n".join([*self.prose, *self.rows])


def sections(name: str) -> list[Section]:
    found: list[Section] = []
    block: list[str] | None = None
    before = ""
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("```"):
            if block is not None:
                found[-1].blocks.append("\n".join(block))
            block = [line] if block is None else None
        elif block is not None:
            block.append(line)
        elif heading := re.match(r"(#+) (.+)", line):
            found.append(Section(len(heading[1]), heading[2], [], [], []))
        elif line.startswith("|"):
            if not before.startswith("|"):
                found[-1].tables.append([])
            found[-1].tables[-1].append(line)
        else:
            found[-1].prose.append(line)
        before = line
    assert block is None, f"{name}: unterminated block"
    return found


ENGLISH, CHINESE = (sections(name) for name in NAMES)
PAIRS = [pytest.param(*pair, id=pair[0].heading) for pair in zip(ENGLISH, CHINESE, strict=False)]


def without_comments(block: str) -> list[str]:
    return [re.sub(r"(^|\s+)#.*", "", line) for line in block.splitlines()]


def without_code(text: str) -> str:
    """Remove code, HTML comments and link targets."""
    text = re.sub(r"<!--.*?-->", "", text)
    return re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "`", text))


def codes(text: str) -> Counter[str]:
    return Counter(re.findall(r"`([^`]+)`", text))


def numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d(?:[\d,]*\.?\d)*", without_code(text)))


def targets(text: str, page: list[Section]) -> list[str]:
    """Return sorted link targets: a heading of the page as its number, the other README as `other`."""
    anchors = {f"#{slug(section.heading)}": f"heading {number}" for number, section in enumerate(page)}
    others = dict.fromkeys(NAMES, "other")
    found = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", text)
    return sorted(mark + anchors.get(target, others.get(target, target)) for mark, target in found)


def test_heading_levels_are_equal() -> None:
    assert [section.level for section in ENGLISH] == [section.level for section in CHINESE]


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_code_links_tables_and_figures_are_equal(english: Section, chinese: Section) -> None:
    pair = (english, chinese)
    blocks, others = ([without_comments(block) for block in section.blocks] for section in pair)
    assert blocks == others
    marks, others = (re.findall("<!--.*?-->", section.text) for section in pair)
    assert marks == others
    prose, other_prose = ("\n".join(section.prose) for section in pair)
    assert codes(prose) == codes(other_prose)
    assert numbers(prose) == numbers(other_prose)
    assert targets(english.text, ENGLISH) == targets(chinese.text, CHINESE)
    assert [len(table) for table in english.tables] == [len(table) for table in chinese.tables]
    for row, other in zip(english.rows, chinese.rows, strict=True):
        assert row.count("|") == other.count("|"), (row, other)
        assert codes(row) == codes(other), (row, other)
        assert numbers(row) == numbers(other), (row, other)
        assert row.count("**") == other.count("**"), (row, other)


def test_readmes_link_to_each_other_at_the_top() -> None:
    for name, other in (NAMES, NAMES[::-1]):
        assert f"]({other})" in "\n".join((ROOT / name).read_text().splitlines()[:4])


@pytest.mark.parametrize("section", CHINESE, ids=lambda section: section.heading)
def test_chinese_typography(section: Section) -> None:
    """Punctuation is full-width, and one space separates Chinese from Latin text, figures and code."""
    for line in [section.heading, *section.prose, *section.rows]:
        text = without_code(re.sub(r"^- ", "", line).replace("**", "")).replace("`", "X")
        text = re.sub(r"!?\[|\]", "", text)  # brackets of links are not rendered
        assert not re.search(rf"[{HAN}X] ?[,;:?!()]|[,;:?!()] ?[{HAN}]|[{HAN}]\.(?!\w)", text), line
        assert not re.search(rf"[{HAN}][A-Za-z0-9]|[A-Za-z0-9%\u00d7][{HAN}]", text), line
        assert not re.search(rf" [{FULL_WIDTH}]|[{FULL_WIDTH}] (?!\|)|  ", text), line


def results(name: str) -> dict[str, dict]:
    return json.loads((ROOT / "benchmarks/results" / f"{name}.json").read_text())


def cells(heading: str, start: str) -> list[str]:
    """Return the cells of the first row under this heading of README.md that begins with `start`."""
    (section,) = (section for section in ENGLISH if section.heading == heading)
    row = next(row for row in section.rows if row.startswith(start))
    return [cell.strip(" *") for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("codec", ["npy", "png", "webp"])
def test_storage_matches_the_results(codec: str) -> None:
    for label, name in ((f"`{codec}`", "with up"), (f"`{codec}`, `--no-up`", "without up")):
        sizes = [results("choices")["codecs"][codec][name][scale] for scale in ("2x", "3x", "4x")]
        expected = [*(f"{size / 1e6:.2f}" for size in sizes), *(f"{size / 1e4:.0f}" for size in sizes)]
        assert cells("Storage", f"| {label} | ")[1:] == expected


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic", "area", "lanczos", "matlab"])
def test_methods_match_the_results(method: str) -> None:
    default = " (default)" if method == "cubic" else ""
    _, psnr, ms, *_ = cells("Choosing options", f"| `{method}`{default} |")
    assert psnr == f"{results('choices')['methods'][method]['mean']:.2f} dB"
    (cost,) = (
        cost
        for cost in results("degrade")["costs"]
        if (cost["name"], cost["direction"], cost["scale"]) == (method, "shrink", 4)
    )
    assert ms == f"{cost['median_ms']['median']:.2f}"


@pytest.mark.parametrize(
    ("start", "case"),
    [
        ("| **`shardgen`, `npy`** ", "npy 4x"),
        ("| `shardgen`, `png` ", "png 4x"),
        ("| `shardgen`, `webp` ", "webp 4x"),
        ("| minimal pipeline: ", "floor 4x"),
        ("| minimal pipeline, flushed ", "floor+fsync 4x"),
        ("| a typical script, `multi", "PNG script, pool"),
        ("| a typical script, one ", "PNG script, one process"),
        ("| img2dataset, PNG", "img2dataset png"),
        ("| img2dataset, JPEG", "img2dataset jpg"),
    ],
)
def test_rates_of_generating_match_the_results(start: str, case: str) -> None:
    rate = results("generate")["cases"][case]["photos_per_second"]["work"]
    expected = f"{rate['median']:.0f} ({rate['min']:.0f}\u2013{rate['max']:.0f})"
    assert cells("Speed", start)[1].replace("*", "") == expected


@pytest.mark.parametrize(
    ("start", "peers", "digits"),
    [
        ("| JPEG decoded", ("online",), 0),
        ("| LMDB", ("LMDB raw", "WebDataset raw", "wids raw", "litdata raw", "MosaicML raw", "Arrow raw"), 1),
        ("| memory-mapped", ("PyTorch, samples",), 1),
        ("| FFCV", ("FFCV raw",), 2),
    ],
)
def test_rates_of_data_loading_match_the_results(start: str, peers: tuple[str, ...], digits: int) -> None:
    rates = {name: case["patches_per_second"] for name, case in results("stream")["cases"].items()}
    ours, expected, ours_expected = rates["ours npy, up, 2 workers"], [], []
    for touch in ("untouched", "copied"):
        fastest_peer = [max(row) for row in zip(*(rates[peer][touch]["rounds"] for peer in peers), strict=True)]
        ratios = [top / peer for top, peer in zip(ours[touch]["rounds"], fastest_peer, strict=True)]
        times = f"{median(ratios):.{digits}f}\u00d7 ({min(ratios):.{digits}f}\u2013{max(ratios):.{digits}f})"
        expected += [format_rate(rates[peers[0]][touch]), times]
        ours_expected += [format_rate(ours[touch]), ""]
    assert cells("Speed", start)[1:] == expected
    assert [cell.replace("*", "") for cell in cells("Speed", "| **`npy` shards**")[1:]] == ours_expected


def format_rate(rate: dict[str, float]) -> str:
    return f"{rate['median']:,.0f} ({rate['min']:,.0f}\u2013{rate['max']:,.0f})"


def test_figures_in_the_introduction_match_the_table() -> None:
    introduction = " ".join(ENGLISH[0].text.split())
    ours, online = cells("Speed", "| **`npy` shards**")[1].replace("*", ""), cells("Speed", "| JPEG decoded")[1:]
    for cell in (ours, *online[:2], online[3]):
        middle, spread = re.fullmatch(r"([\d,]+)\u00d7? \((\S+)\)", cell).groups()
        assert middle in introduction and spread in introduction, cell


@pytest.mark.parametrize("model", ["ultra_lite", "lite", "standard"])
def test_training_steps_match_the_results(model: str) -> None:
    found = results("train_step_cpu")["networks"][model]
    device = {default_model("cpu"): "CPU", default_model("cuda"): "GPU"}.get(model)
    default = f" (default on a {device})" if device else ""
    _, _, step, rate, waiting, _ = cells("Speed", f"| `{model}`{default} | {found['parameters']:,}")
    assert float(step.removesuffix(" s")) == pytest.approx(found["step_seconds"]["median"], rel=0.02)
    assert float(rate) == pytest.approx(found["patches_per_second"]["median"], rel=0.05)
    assert float(waiting.removesuffix(" %")) == pytest.approx(100 * found["data_wait"]["median"], rel=0.2)


def test_shares_of_the_wall_clock_time_match_the_results() -> None:
    networks = results("account")["networks"]
    ultra_lite, lite, standard = (f"{100 * networks[model]['steps_share']:.1f} %" for model in networks)
    text = " ".join("\n".join(section.text for section in ENGLISH).split())
    assert f"`ultra_lite` spends {ultra_lite} on steps, `lite` {lite} and `standard` {standard}" in text


def test_planning_matches_the_results() -> None:
    text = " ".join("\n".join(section.text for section in ENGLISH).split())
    found = results("plan")
    worst = {check["name"]: check["worst"] for check in found["checks"]}
    plan = f"{found['plan']['total_s']['max']:.1f} s and {found['plan']['peak_rss_bytes']['max'] / 1e6:.0f} MB"
    start = f"{found['start']['shards']:,} finished shards takes {found['start']['up_to_date_s']['max']:.2f} s"
    worker = f"a worker uses {worst['worker, peak resident MB']:.0f} MB"
    assert f"Planning 1,000,000 photos takes {plan}, a start with {start}, and {worker}" in text
