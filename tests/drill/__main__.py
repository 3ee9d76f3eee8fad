"""python -m tests.drill: inject every fault and count the outcomes. Exit code 1 if there is any failure."""

import json
import os
import platform
import sys
from pathlib import Path

import click

from srshards.process.resources import available_cpus
from srshards.terminal.help import Command
from srshards.terminal.text import Choice
from tests.drill.commands import environment
from tests.drill.line import drill_line
from tests.drill.lines import LINES
from tests.drill.table import page, summary


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--only", multiple=True, type=Choice(LINES), help="Run only this fault; may be repeated.")
@click.option("--table", is_flag=True, help="Run nothing, only build the page from the stored results.")
@click.option("--short", is_flag=True, help="Run a few cases of each fault, as the tests do.")
@click.option("--share", type=float, default=1.0, show_default=True, help="Share of the complete number of cases.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random choices.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("build/drill.json"),
    show_default=True,
    help="File that collects the results of all faults, also of separate runs.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write the Markdown page to."
)
def main(
    only: tuple[str, ...], table: bool, short: bool, share: float, seed: int, results: Path, output: Path | None
) -> None:
    """Inject every fault, and list all stored results in one table.

    \b
    Examples:
      python -m tests.drill --short
      python -m tests.drill --only generate-killed --share 0.1
    """
    os.environ.update(environment())  # before the fork server, whose processes have its PyTorch, is started
    for name in () if table else only or LINES:
        line = LINES[name]
        found = drill_line(name, line.short if short else max(1, round(line.times * share)), seed)
        _keep(results, name, found)
        click.echo(summary(name, found))
    known = json.loads(results.read_text())
    known = {name: known[name] for name in LINES if name in known}
    text = page(known, _machine())
    if output:
        output.write_text(text)
    click.echo(text)
    sys.exit(0 if all(found["clean"] for found in known.values()) else 1)


def _keep(results: Path, name: str, found: dict[str, object]) -> None:
    """Add a result to the file, which another process may have changed meanwhile."""
    results.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(results.read_text()) if results.exists() else {}
    results.write_text(json.dumps({**known, name: found}, indent=2) + "\n")


def _machine() -> str:
    return f"{platform.machine()}, {available_cpus()} cores, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
