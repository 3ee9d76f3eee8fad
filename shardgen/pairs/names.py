"""Rules by which the names of LR images derive from those of HR images.

A template such as `{name}x{scale}` describes a file name without its extension. `{name}` is the text that both images
of a pair have in common, `{scale}` a digit. The images of a pair also have the same folder below their roots. In a
template with `/`, `{name}` includes the folders.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from shardgen.planning.sources import Photo
from srshards.errors import UsageError
from srshards.pair_names import SCALE_DIGIT

_FIELDS = {"{name}": r"(?P<name>[^/]+)", "{scale}": f"(?P<scale>{SCALE_DIGIT})", "{variant}": r"[0-9]+"}


class Naming(NamedTuple):
    """Templates of the names of a pair's HR image, LR image, upsampled LR image and further LR variants."""

    hr: str
    lr: str
    up: str | None = None
    variants: str | None = None

    def __str__(self) -> str:
        return f"{self.hr} with {self.lr}"


_DERIVED = ("{name}_lr_{scale}x", "{name}_upsampled_{scale}x", "{name}_lr{variant}_{scale}x")

# The recognised rules; docs/reference/pairs.md explains where they come from.
NAMINGS = (
    Naming("{name}", "{name}"),
    Naming("{name}", *_DERIVED),
    Naming("{name}_hr", *_DERIVED),
    Naming("{name}", "{name}x{scale}"),
    Naming("{name}", "{name}x{scale}m"),
    Naming("{name}", "{name}x{scale}d"),
    Naming("{name}_SRF_{scale}_HR", "{name}_SRF_{scale}_LR"),
)


def parse_pattern(pattern: str) -> Naming:
    """Return the naming described by `LR`, `HR:LR` or `HR:LR:UP`. UsageError for anything else."""
    parts = pattern.split(":")
    if len(parts) > 3:
        raise _bad_pattern(pattern, f"has {len(parts)} templates, separated by colons")
    for part in parts:
        if part.count("{name}") != 1:
            raise _bad_pattern(pattern, f"has {part.count('{name}')} times {{name}} in {part!r}")
        if part.count("{scale}") > 1 or re.search(r"[{}]", re.sub(r"\{(name|scale)\}", "", part)):
            raise _bad_pattern(pattern, f"has other fields than one {{name}} and one {{scale}} in {part!r}")
        if re.search(r"\.[a-z]{3,4}$", part, re.IGNORECASE):
            raise _bad_pattern(pattern, f"has a file extension in {part!r}")
        if part.startswith("/"):
            raise _bad_pattern(pattern, f"has an absolute path in {part!r}")
    return Naming("{name}", pattern) if len(parts) == 1 else Naming(*parts)


def _bad_pattern(pattern: str, problem: str) -> UsageError:
    return UsageError(
        f"--pattern {pattern!r} {problem}; expected the names of LR images without extension, e.g. '{{name}}x{{scale}}'"
        " for 0001.png with 0001x4.png, or those of HR and LR images, e.g. '{name}_HR:{name}_LR{scale}'"
    )


@dataclass
class Index:
    """Images by their name, which includes the folder. `rest` are those that do not match the template.

    `duplicates` have the name of an indexed image. `scales` has the first image of each scale that the names state.
    """

    by_name: dict[str, Photo] = field(default_factory=dict)
    duplicates: list[tuple[Photo, Photo]] = field(default_factory=list)
    rest: list[Photo] = field(default_factory=list)
    scales: dict[int, Photo] = field(default_factory=dict)


def index_names(photos: Iterable[Photo], template: str | None) -> Index:
    """Index images by the template; no image matches None."""
    if template is None:
        return Index(rest=list(photos))
    index = Index()
    match = None if template == "{name}" else _compiled(template).fullmatch
    for photo in photos:
        name = photo.path.rpartition(".")[0]
        if match is not None:
            if (found := match(name)) is None:
                index.rest.append(photo)
                continue
            groups = found.groupdict()
            name = groups.get("folder", "") + groups["name"]
            if groups.get("scale"):
                scale = int(groups["scale"])
                index.scales[scale] = min(index.scales.get(scale, photo), photo)
        if (former := index.by_name.setdefault(name, photo)) is not photo:
            index.duplicates.append((former, photo))
    return index


def _compiled(template: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+\})", template)
    text = "".join(_FIELDS.get(part) or re.escape(part) for part in parts)
    expression = text.replace("[^/]+", ".+", 1) if "/" in template else rf"(?P<folder>(?:.*/)?){text}"
    return re.compile(expression, re.DOTALL)
