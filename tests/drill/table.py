"""The drill's result as a page of Markdown."""

from typing import Any

_HEAD = """# The fault drill

`make drill` does every fault below as often as its line says, compares what comes out with an undisturbed run, and ends
with exit code 1 if a column that must be zero is not; `make test` does a few of each.

A line can be done alone, `python -m tests.drill --only NAME`
<!-- not run: tests/test_drill.py does a little of each -->, and repeated with `--seed`; each result is kept in
`build/drill.json`. The columns:

- **went on**: ended with the same bytes as an undisturbed run; **named**: refused with a message, exit code 1 or 2;
  **harmless**: training takes the same pixels (of a spoilt image: it decodes, and twice to the same pixels)
- **samples lost** after the resume; **half-written** files under their final name, or temporary ones that stayed;
  **in silence**: other bytes or pixels than an undisturbed run's without a word (of damaged shards: with `--verify`);
  **crashes**: tracebacks, deaths, hangs
"""
_COLUMNS = {
    "times": "times",
    "recovered": "went on",
    "named": "named",
    "harmless": "harmless",
    "samples_lost": "samples lost",
    "half_written": "half-written",
    "silent": "in silence",
    "crashed": "crashes",
}


def page(results: dict[str, dict[str, Any]], machine: str) -> str:
    """The whole page. `results` are the records of `drill_line` by the line's name."""
    rows = [
        " | ".join(["| fault", *_COLUMNS.values(), "seconds |"]),
        "|---|" + "---|" * (len(_COLUMNS) + 1),
    ]
    for found in results.values():
        cells = [f"{found[name]:,}" for name in _COLUMNS]
        rows.append(" | ".join([f"| {found['fault']}", *cells, f"{found['seconds']:,.0f} |"]))
    seeds = ", ".join(f"`{name}` {found['seed']}" for name, found in results.items())
    notes = [f"- {found['fault']}: {found['note']}" for found in results.values() if found["note"]]
    failures = [f"- {failure}" for found in results.values() for failure in found["failures"]]
    parts = [_HEAD, "\n".join(rows), "", f"{machine}. Seeds, with which a line can be repeated: {seeds}.", ""]
    parts += [*notes, ""] if notes else []
    parts += ["## What must not be", "", *failures, ""] if failures else []
    return "\n".join(parts)


def summary(name: str, found: dict[str, Any]) -> str:
    """A line for the terminal."""
    counts = ", ".join(f"{found[column]:,} {words}" for column, words in _COLUMNS.items() if found[column])
    verdict = "clean" if found["clean"] else "NOT CLEAN"
    return "\n".join(
        [
            f"{name}: {verdict} ({counts or 'nothing done'}; seed {found['seed']}, {found['seconds']} s)",
            *(f"    {failure}" for failure in found["failures"][:5]),
        ]
    )
