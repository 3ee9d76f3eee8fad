"""The results of the drill as a Markdown page."""

from textwrap import fill
from typing import Any

_HEAD = """# Fault injection

`make drill` injects every fault below, as often as listed, and compares the results with those of an undisturbed run.
It exits with code 1 if any failure occurs. `make test` runs a few cases of each fault.

`python -m tests.drill --only NAME`
<!-- not run: tests/test_drill.py runs a few cases of each fault --> runs one fault, and `--seed` sets the seed of its
random choices. Results are stored in `build/drill.json`. A case without failures is counted in one of these columns:

- **recovered**: the result has the same bytes as that of an undisturbed run
- **reported**: the command exited with an error message and code 1 or 2
- **harmless**: training uses the same pixels (damaged photos: decoding twice gives the same pixels)

Failures are counted in these columns:

- **samples lost**: samples that are missing after resuming
- **partial files**: incomplete files under their final name, or temporary files left behind
- **silent errors**: bytes or pixels that differ from those of an undisturbed run, without any message (damaged shards:
  with `--verify`)
- **crashes**: tracebacks, exits by a signal, hangs
"""
_COLUMNS = {
    "times": "cases",
    "recovered": "recovered",
    "named": "reported",
    "harmless": "harmless",
    "samples_lost": "samples lost",
    "half_written": "partial files",
    "silent": "silent errors",
    "crashed": "crashes",
}


def page(results: dict[str, dict[str, Any]], machine: str) -> str:
    """Return the complete page. `results` are the records of `drill_line` by fault name."""
    rows = [
        " | ".join(["| fault", *_COLUMNS.values(), "seconds |"]),
        "|---|" + "---|" * (len(_COLUMNS) + 1),
    ]
    for found in results.values():
        cells = [f"{found[name]:,}" for name in _COLUMNS]
        rows.append(" | ".join([f"| {found['fault']}", *cells, f"{found['seconds']:,.0f} |"]))
    seeds = ", ".join(f"`{name}` {found['seed']}" for name, found in results.items())
    notes = [_wrapped(f"- {found['fault']}: {found['note']}", "  ") for found in results.values() if found["note"]]
    failures = [f"- {failure}" for found in results.values() for failure in found["failures"]]
    parts = [_HEAD, "\n".join(rows), "", _wrapped(f"{machine}. Seeds of the random choices: {seeds}."), ""]
    parts += [*notes, ""] if notes else []
    parts += ["## Failures", "", *failures, ""] if failures else []
    return "\n".join(parts)


def _wrapped(text: str, indent: str = "") -> str:
    return fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def summary(name: str, found: dict[str, Any]) -> str:
    """Summarise one fault for the terminal."""
    counts = ", ".join(f"{found[column]:,} {words}" for column, words in _COLUMNS.items() if found[column])
    verdict = "clean" if found["clean"] else "NOT CLEAN"
    return "\n".join(
        [
            f"{name}: {verdict} ({counts or 'no cases'}; seed {found['seed']}, {found['seconds']} s)",
            *(f"    {failure}" for failure in found["failures"][:5]),
        ]
    )
