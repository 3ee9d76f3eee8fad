"""Describe shard folders, shards and samples, as data and as tables."""

from collections import Counter
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape, render
from rich.padding import Padding
from rich.table import Table

from shardgen.degradation.describe import format_step, summary
from shardgen.generate.manifest import malformed_as_format_error
from shardgen.pairs.summary import PairSummary, describe_settings, figures, stored_check
from shardgen.planning.sources import printable
from srshards.format import Address, Manifest, lr_name, shard_of_key
from srshards.shards.stored_samples import (
    StoredSample,
    find_sample,
    map_in_order,
    open_manifest,
    scale_folders,
    stored_samples,
)

# Least width in columns of a cell that may be folded, and of the first cell of a row. Numbers and keys are shorter.
_MIN_FOLDED, _MIN_FOLDED_FIRST = 16, 24


def describe_folders(folder: Address, shard: str | None = None, key: str | None = None) -> dict[str, dict[str, Any]]:
    """Return, by folder, the manifest with derived values, or the samples of `shard`, or the sample with `key`.

    UsageError when there are no shards, or no such shard or sample.
    """
    folders = scale_folders(folder)
    if shard:
        return {str(path): _describe_shard(path, shard) for path in folders}
    if key:
        return {str(path): _describe_sample(path, key) for path in folders}
    described = {}
    for path in folders:
        with malformed_as_format_error(path):
            described[str(path)] = _describe_manifest(open_manifest(path))
    return described


def _describe_manifest(manifest: Manifest) -> dict[str, Any]:
    totals = manifest.raw["totals"]
    reasons = Counter(failure["reason"] for failure in manifest.raw["failures"])
    return {
        **manifest.raw,
        "bytes_per_sample": round(totals["bytes"] / totals["samples"]) if totals["samples"] else None,
        "failures_by_reason": dict(reasons.most_common()),
    }


def _describe_shard(folder: Address, shard: str) -> dict[str, Any]:
    samples = stored_samples(folder, shard)
    described = map_in_order(samples, lambda sample: {"key": sample.key, **sample.describe()}, folder)
    return {"shard": shard, "samples": list(described)}


def _describe_sample(folder: Address, key: str) -> dict[str, Any]:
    sample = find_sample(folder, key)
    return {"shard": shard_of_key(key), "key": key, **sample.describe(), "members": _describe_members(sample)}


def _describe_members(sample: StoredSample) -> list[dict[str, Any]]:
    return [
        {
            "name": member.name,
            "bytes": member.size,
            "offset": member.offset,
            "shape": None if what == "json" else list(sample.image(what).shape),
        }
        for what, member in sample.members.items()
    ]


def _shown(value: object) -> str:
    """Return a cell's text, escaped: file names may contain rich markup or terminal control codes."""
    return escape(printable(str(value)))


def _setting(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else _shown(value)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=_shown(title), title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _width(text: str) -> int:
    return max(cell_len(line) for line in render(text).plain.split("\n"))


def _print(console: Console, table: Table) -> None:
    """Print the table, or one line per cell where the terminal is too narrow for a legible table."""
    widths = [max(_width(str(cell)) for cell in (c.header, *c.cells)) for c in table.columns]
    least = [min(width, _MIN_FOLDED if number else _MIN_FOLDED_FIRST) for number, width in enumerate(widths)]
    borders = 3 * len(widths) + 1
    if sum(least) + borders <= console.width:
        for column, width, enough in zip(table.columns, widths, least, strict=True):
            column.no_wrap = width <= enough
        console.print(table)
        return
    console.print(table.title or "", style="bold")
    heads = [str(column.header) for column in table.columns]
    for first, *others in zip(*(column.cells for column in table.columns), strict=True):
        if len(others) == 1:
            console.print(Padding(f"{first}: {others[0]}", (0, 0, 0, 2), expand=False))
            continue
        console.print(Padding(str(first), (0, 0, 0, 2), expand=False))
        for head, cell in zip(heads[1:], others, strict=True):
            console.print(Padding(f"{head}: {cell}", (0, 0, 0, 4), expand=False))


def render_folder(name: str, described: dict[str, Any]) -> None:
    """Print a scale's settings, splits, classes and failures."""
    with malformed_as_format_error(name):
        _render_folder(name, described)


def _render_folder(name: str, described: dict[str, Any]) -> None:
    console = Console()
    settings = _table(name, "setting", "value")
    for key, value in {**described["settings"], **described["totals"]}.items():
        if key == "degradation" and value:
            value = f"{value['name']}: {summary(value['steps'])}"
        if key == "pairs" and value:
            value = describe_settings(value)
        settings.add_row(key.replace("_", " "), _setting(value))
    settings.add_row("bytes per sample", f"{described['bytes_per_sample'] or 0:,}")
    _print(console, settings)
    _print(console, _split_table(described["splits"]))
    _print(console, _class_table(described["splits"]))
    if "pairs" in described:
        _print(console, _pair_table(PairSummary.from_dict(described["pairs"])))
    profiles = described.get("profiles", {"converted": {}, "unusable": []})  # since format version 3
    if profiles["converted"] or profiles["unusable"]:
        _print(console, _profile_table(profiles))
    if described["failures_by_reason"]:
        table = _table("failures", "reason", "photos")
        for reason, count in described["failures_by_reason"].items():
            table.add_row(_shown(reason), f"{count:,}")
        _print(console, table)
        shown = "\n".join(
            printable(f"  {failure['path']}: {failure['reason']}") for failure in described["failures"][:10]
        )
        more = len(described["failures"]) - 10
        console.print(shown + (f"\n  ... and {more:,} more in the manifest" if more > 0 else ""), markup=False)


def _profile_table(profiles: dict[str, Any]) -> Table:
    table = _table("colour profiles", "profile", "photos")
    for name, count in Counter(profiles["converted"]).most_common():
        table.add_row(f"{_shown(name)}, converted to sRGB", f"{count:,}")
    for reason, count in Counter(item["reason"] for item in profiles["unusable"]).most_common():
        table.add_row(f"not applied: {_shown(reason)}", f"{count:,}")
    return table


def _split_table(splits: dict[str, Any]) -> Table:
    table = _table("splits", "what", *splits)
    columns = [_split_column(values) for values in splits.values()]
    for what in columns[0]:
        table.add_row(what, *(column[what] for column in columns))
    return table


def _split_column(values: dict[str, Any]) -> dict[str, str]:
    psnr = values["psnr_up_db"]
    spread = f"{psnr['mean']:.2f} ({psnr['min']:.2f} to {psnr['max']:.2f})" if psnr["mean"] is not None else "-"
    return {
        "shards": f"{values['shards']:,}",
        "samples": f"{values['samples']:,}",
        "bytes": f"{values['bytes']:,}",
        "HR channel mean R G B": " ".join(f"{level:.4f}" for level in values["channel_mean"]),
        "HR channel std R G B": " ".join(f"{level:.4f}" for level in values["channel_std"]),
        "PSNR of up (dB)": spread,
    }


def _class_table(splits: dict[str, Any]) -> Table:
    table = _table("samples per class", "class", *splits)
    per_split = [values["samples_per_class"] for values in splits.values()]
    for name in sorted(set().union(*per_split)):
        table.add_row(_shown(name), *(f"{counts.get(name, 0):,}" for counts in per_split))
    return table


def _pair_table(found: PairSummary) -> Table:
    table = _table("checks of the given pairs", "what", "value")
    for what, count in (
        ("pairs checked and used", found.checked),
        ("HR cropped to a multiple of the scale", found.cropped),
        ("accepted in spite of the check", found.accepted),
    ):
        table.add_row(what, f"{count:,}")
    if found.worst:
        table.add_row("worst pair", _shown(f"{found.worst.path} ({found.worst.figure})"))
    return table


def render_shard(name: str, described: dict[str, Any]) -> None:
    """Print a shard's samples."""
    table = _table(f"{name}/{described['shard']}", "key", "source", "box x y w h", "PSNR of up (dB)")
    for sample in described["samples"]:
        psnr = sample.get("psnr_up_db")
        box = " ".join(str(edge) for edge in sample["box"])
        table.add_row(sample["key"], _shown(sample["source"]), box, "inf" if psnr is None else f"{psnr:.2f}")
    _print(Console(), table)


def render_sample(name: str, described: dict[str, Any]) -> None:
    """Print a sample's description and its members."""
    table = _table(f"{name}/{described['key']}", "what", "value")
    for key, value in described.items():
        if key == "degradation":
            for variant, steps in enumerate(value):
                table.add_row(lr_name(variant), "\n".join(_shown(format_step(step)) for step in steps))
        elif key == "libraries":
            table.add_row(key, _shown(", ".join(f"{name} {number}" for name, number in value.items())))
        elif key == "pair":
            check = stored_check(value, described["scale"], f"{name}: {described['key']}.json")
            for what, figure in figures(check):
                table.add_row(f"pair: {what}", _shown(figure))
        elif key == "box":
            table.add_row("box x y w h", " ".join(str(edge) for edge in value))
        elif key != "members":
            table.add_row(key.replace("_", " "), _shown(value))
    for member in described["members"]:
        shape = " x ".join(str(edge) for edge in member["shape"] or ())
        table.add_row(member["name"], f"{shape or 'text'}, {member['bytes']:,} bytes at {member['offset']:,}")
    _print(Console(), table)
