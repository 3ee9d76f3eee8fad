"""README.md and README.zh-CN.md: the same commands, figures and links in both, and the figures those of the results."""

import json
import re
from collections import Counter
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
NAMES = ("README.md", "README.zh-CN.md")
HAN = "\u4e00-\u9fff"
FULL_WIDTH = "\u3001\u3002\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f"  # punctuation: , . ! ( ) and so on


class Section(NamedTuple):
    """From one heading to the next. `prose` are the lines that are neither of a block nor of a table."""

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
    assert block is None, f"{name}: a block that does not end"
    return found


ENGLISH, CHINESE = (sections(name) for name in NAMES)
PAIRS = [pytest.param(*pair, id=pair[0].heading) for pair in zip(ENGLISH, CHINESE, strict=False)]
both = pytest.mark.parametrize(("english", "chinese"), PAIRS)


def without_comments(block: str) -> list[str]:
    return [re.sub(r"(^|\s+)#.*", "", line) for line in block.splitlines()]


def without_code(text: str) -> str:
    """The words that are read: code, HTML comments and the targets of links left out."""
    text = re.sub(r"<!--.*?-->", "", text)
    return re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "`", text))


def codes(text: str) -> Counter[str]:
    return Counter(re.findall(r"`([^`]+)`", text))


def numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d(?:[\d,]*\.?\d)*", without_code(text)))


def targets(text: str, page: list[Section]) -> list[str]:
    """What links and images lead to, sorted: a heading of the page by its number, the other README as `other`."""
    anchors = {f"#{slug(section.heading)}": f"heading {number}" for number, section in enumerate(page)}
    others = dict.fromkeys(NAMES, "other")
    found = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", text)
    return sorted(mark + anchors.get(target, others.get(target, target)) for mark, target in found)


def slug(heading: str) -> str:
    """A heading's anchor as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_both_have_the_same_headings_in_levels_and_number() -> None:
    assert [section.level for section in ENGLISH] == [section.level for section in CHINESE]


@both
def test_blocks_are_equal_but_for_their_comments(english: Section, chinese: Section) -> None:
    pair = (english, chinese)
    blocks, others = ([without_comments(block) for block in section.blocks] for section in pair)
    assert blocks == others
    marks, others = (re.findall("<!--.*?-->", section.text) for section in pair)
    assert marks == others


@both
def test_commands_options_and_names_in_the_text_are_equal(english: Section, chinese: Section) -> None:
    assert codes("\n".join(english.prose)) == codes("\n".join(chinese.prose))


@both
def test_links_and_images_are_equal(english: Section, chinese: Section) -> None:
    assert targets(english.text, ENGLISH) == targets(chinese.text, CHINESE)


@both
def test_tables_have_the_same_rows_codes_and_figures(english: Section, chinese: Section) -> None:
    assert [len(table) for table in english.tables] == [len(table) for table in chinese.tables]
    for row, other in zip(english.rows, chinese.rows, strict=True):
        assert row.count("|") == other.count("|"), (row, other)
        assert codes(row) == codes(other), (row, other)
        assert numbers(row) == numbers(other), (row, other)
        assert row.count("**") == other.count("**"), (row, other)


@both
def test_figures_in_the_text_are_equal(english: Section, chinese: Section) -> None:
    assert numbers("\n".join(english.prose)) == numbers("\n".join(chinese.prose))


def test_each_names_the_other_at_its_top() -> None:
    for name, other in (NAMES, NAMES[::-1]):
        assert f"]({other})" in "\n".join((ROOT / name).read_text().splitlines()[:4])


@pytest.mark.parametrize("section", CHINESE, ids=lambda section: section.heading)
def test_chinese_is_set_as_chinese(section: Section) -> None:
    """Full-width punctuation, and one space between Chinese and what is Latin, a figure or code."""
    for line in [section.heading, *section.prose, *section.rows]:
        words = without_code(re.sub(r"^- ", "", line).replace("**", "")).replace("`", "X")
        words = re.sub(r"!?\[|\]", "", words)  # the brackets of links are not seen
        assert not re.search(rf"[{HAN}X] ?[,;:?!()]|[,;:?!()] ?[{HAN}]|[{HAN}]\.(?!\w)", words), line
        assert not re.search(rf"[{HAN}][A-Za-z0-9]|[A-Za-z0-9%\u00d7][{HAN}]", words), line
        assert not re.search(rf" [{FULL_WIDTH}]|[{FULL_WIDTH}] (?!\|)|  ", words), line


def results(name: str) -> dict[str, dict]:
    return json.loads((ROOT / "benchmarks/results" / f"{name}.json").read_text())


def cells(heading: str, start: str) -> list[str]:
    """The cells of the first row below this heading of README.md that begins so."""
    (section,) = (section for section in ENGLISH if section.heading == heading)
    row = next(row for row in section.rows if row.startswith(start))
    return [cell.strip(" *") for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("codec", ["npy", "png", "webp"])
def test_storage_is_what_was_measured(codec: str) -> None:
    for label, name in ((f"`{codec}`", "with up"), (f"`{codec}`, `--no-up`", "without up")):
        sizes = [results("choices")["codecs"][codec][name][scale] for scale in ("2x", "3x", "4x")]
        expected = [*(f"{size / 1e6:.2f}" for size in sizes), *(f"{size / 1e4:.0f}" for size in sizes)]
        assert cells("Storage", f"| {label} | ")[1:] == expected


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic", "area", "lanczos", "matlab"])
def test_methods_are_what_was_measured(method: str) -> None:
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
    ("start", "way"),
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
def test_rates_of_generating_are_what_was_measured(start: str, way: str) -> None:
    rate = results("generate")["cases"][way]["photos_per_second"]["work"]
    expected = f"{rate['median']:.0f} ({rate['min']:.0f}\u2013{rate['max']:.0f})"
    assert cells("Speed", start)[1].replace("*", "") == expected


@pytest.mark.parametrize(
    ("start", "peers", "digits"),
    [
        ("| JPEG decoded", ("online",), 0),
        ("| LMDB", ("LMDB raw", "WebDataset raw", "wids raw", "litdata raw", "MosaicML raw", "Arrow raw"), 1),
        ("| memory-mapped", ("PyTorch, batch", "PyTorch, samples"), 1),
        ("| FFCV", ("FFCV raw",), 2),
    ],
)
def test_rates_of_data_loading_are_what_was_measured(start: str, peers: tuple[str, ...], digits: int) -> None:
    rates = {name: case["patches_per_second"] for name, case in results("stream")["cases"].items()}
    ours, expected, ours_expected = rates["ours npy, up, 2 workers"], [], []
    for touch in ("untouched", "copied"):
        fastest_peer = [max(row) for row in zip(*(rates[peer][touch]["rounds"] for peer in peers), strict=True)]
        ratios = [top / peer for top, peer in zip(ours[touch]["rounds"], fastest_peer, strict=True)]
        times = f"{median(ratios):.{digits}f}\u00d7 ({min(ratios):.{digits}f}\u2013{max(ratios):.{digits}f})"
        expected += [spread_text(rates[peers[0]][touch]), times]
        ours_expected += [spread_text(ours[touch]), ""]
    assert cells("Speed", start)[1:] == expected
    assert [cell.replace("*", "") for cell in cells("Speed", "| **`npy` shards**")[1:]] == ours_expected


def spread_text(rate: dict[str, float]) -> str:
    return f"{rate['median']:,.0f} ({rate['min']:,.0f}\u2013{rate['max']:,.0f})"


def test_the_first_figures_are_those_of_the_table() -> None:
    introduction = " ".join(ENGLISH[0].text.split())
    ours, online = cells("Speed", "| **`npy` shards**")[1].replace("*", ""), cells("Speed", "| JPEG decoded")[1:]
    for cell in (ours, *online[:2], online[3]):
        middle, spread = re.fullmatch(r"([\d,]+)\u00d7? \((\S+)\)", cell).groups()
        assert middle in introduction and spread in introduction, cell


@pytest.mark.parametrize("model", ["ultra_lite", "lite", "standard"])
def test_steps_of_training_are_what_was_measured(model: str) -> None:
    found = results("train_step_cpu")["networks"][model]
    default = " (default)" if model == "lite" else ""
    _, _, step, rate, waiting, _ = cells("Speed", f"| `{model}`{default} | {found['parameters']:,}")
    assert float(step.removesuffix(" s")) == pytest.approx(found["step_seconds"]["median"], rel=0.02)
    assert float(rate) == pytest.approx(found["patches_per_second"]["median"], rel=0.05)
    assert float(waiting.removesuffix(" %")) == pytest.approx(100 * found["data_wait"]["median"], rel=0.2)


def test_planning_is_what_was_measured() -> None:
    text = " ".join("\n".join(section.text for section in ENGLISH).split())
    found = results("plan")
    worst = {check["name"]: check["worst"] for check in found["checks"]}
    plan = f"{found['plan']['total_s']['max']:.1f} s and {found['plan']['peak_rss_bytes']['max'] / 1e6:.0f} MB"
    start = f"{found['start']['shards']:,} finished shards takes {found['start']['up_to_date_s']['max']:.2f} s"
    worker = f"a worker uses {worst['worker, peak resident MB']:.0f} MB"
    assert f"Planning 1,000,000 photos takes {plan}, a start with {start}, and {worker}" in text
