"""python -m tests.release: check everything that a release needs, except what `make test` checks."""

import sys
from collections.abc import Iterable
from email.parser import Parser
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from srshards.terminal.help import Command
from tests.release.licences import licence_faults, licences
from tests.release.packages import build, installed_faults, read_metadata, sdist_faults, tracked_files, wheel_faults
from tests.release.requirements import required
from tests.release.versions import package_version, release_faults, version_faults

ROOT = Path(__file__).parent.parent.parent


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--unreleased", is_flag=True, help="Accept changes since the last release, as CI does.")
@click.option("--licences", "list_licences", is_flag=True, help="Also list the licence of each dependency.")
def main(unreleased: bool, list_licences: bool) -> None:
    """Check versions, packages, an installation and the licences of dependencies; exit code 1 if anything is wrong.

    Needs no network, but git and the packages that `make install` installs.

    \b
    Examples:
      python -m tests.release
      python -m tests.release --unreleased --licences
    """
    results = [_report("versions", version_faults(ROOT))]
    if not unreleased:
        results.append(_report("commit", release_faults(ROOT)))
    with TemporaryDirectory() as name:
        folder, tracked = Path(name), tracked_files(ROOT)
        sdist, wheel = build(ROOT, folder)
        results.append(_report(sdist.name, sdist_faults(sdist, tracked)))
        results.append(_report(wheel.name, wheel_faults(wheel, tracked)))
        results.append(_report("installed wheel", installed_faults(wheel, package_version(ROOT), folder)))
        stated = Parser().parsestr(read_metadata(wheel))
    extras = set(stated.get_all("Provides-Extra", []))
    packages = set(required(stated.get_all("Requires-Dist", []), extras)) - {"sr-shards"}
    found = licences(packages)
    for package, licence in found.items() if list_licences else ():
        click.echo(f"  {package}: {licence}")
    results.append(_report(f"licences of {len(found)} dependencies", licence_faults(packages)))
    if absent := sorted(packages - found.keys()):
        click.echo(f"not installed, so that their licences are not checked: {', '.join(absent)}")
    sys.exit(0 if all(results) else 1)


def _report(check: str, faults: Iterable[str]) -> bool:
    """Print the result of a check; return whether it passed."""
    faults = list(faults)
    click.echo(f"{check}: {'ok' if not faults else 'FAILED'}")
    for fault in faults:
        click.echo(f"  {fault}")
    return not faults


if __name__ == "__main__":
    main()
