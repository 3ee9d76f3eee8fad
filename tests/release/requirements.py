"""The packages that a package requires, directly and indirectly, as far as they are installed."""

from collections.abc import Iterator
from importlib import metadata

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def required(requirements: list[str], extras: set[str]) -> Iterator[str]:
    """Yield the names of direct and indirect dependencies, of which some may not be installed."""
    seen = set()
    queue = [(Requirement(text), extras) for text in requirements]
    while queue:
        requirement, wanted = queue.pop()
        if not any(_holds(requirement.marker, extra) for extra in wanted | {""}):
            continue
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key not in seen:
            seen.add(key)
            yield key[0]
            try:
                more = metadata.requires(requirement.name) or []
            except metadata.PackageNotFoundError:
                continue
            queue += [(Requirement(text), set(requirement.extras)) for text in more]


def _holds(marker: Marker | None, extra: str) -> bool:
    return marker is None or marker.evaluate({"extra": extra})
