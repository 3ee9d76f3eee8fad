"""A page from its template."""

import functools
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from srshards.imaging.provenance import PAGE_MARK
from srshards.page.plots import plotting_library

MAX_PAGE_BYTES = 8_000_000


def render(package: str, template: str, **values: Any) -> bytes:
    """UTF-8 HTML. `template` lies in the folder `templates` of `package` and extends `page.html`.

    Values are escaped: names of files may hold anything, also halves of surrogates, which are written as their numbers.
    Scripts and styles come from the folders `assets`, by `asset(NAME)`.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__package__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "generator": Markup(PAGE_MARK),
        "asset": functools.partial(_asset, (package, __package__)),
        "plotting_library": lambda: Markup(plotting_library()),
    }
    return environment.get_template(template).render(**values).encode("utf-8", "backslashreplace")


def _asset(packages: tuple[str, ...], name: str) -> Markup:
    """Trusted text of ours: a style or a script."""
    for package in packages:
        path = files(package) / "assets" / name
        if path.is_file():
            return Markup(path.read_text("utf-8"))
    raise FileNotFoundError(name)
