"""Render a page from its template."""

import functools
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from srshards.imaging.provenance import PAGE_WRITERS, page_mark
from srshards.page.plots import plotting_library

MAX_PAGE_BYTES = 8_000_000


def render(package: str, template: str, **values: Any) -> bytes:
    """Return UTF-8 HTML. `template` is in the folder `templates` of `package` and extends `page.html`.

    The value `writer` is the command named in the page's head, by which `FileToWrite` recognises the file; the default
    is PAGE_WRITERS.
    Values are escaped: file names may contain anything, even lone surrogates, which are written as escape sequences.
    Scripts and styles are included from the folders `assets` with `asset(NAME)`.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__package__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "writer": PAGE_WRITERS,
        "page_mark": lambda writer: Markup(page_mark(writer)),
        "asset": functools.partial(_asset, (package, __package__)),
        "plotting_library": lambda: Markup(plotting_library()),
    }
    return environment.get_template(template).render(**values).encode("utf-8", "backslashreplace")


def _asset(packages: tuple[str, ...], name: str) -> Markup:
    """Return a style or script of the packages, which needs no escaping."""
    for package in packages:
        path = files(package) / "assets" / name
        if path.is_file():
            return Markup(path.read_text("utf-8"))
    raise FileNotFoundError(name)
