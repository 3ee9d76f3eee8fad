"""Images without a counterpart, or with more than one."""

from collections.abc import Iterable, Mapping, Sequence

from shardgen.pairs.match import NUM_EXAMPLES, examples
from shardgen.planning.sources import Photo, shown
from srshards.errors import UsageError
from srshards.format import Address
from srshards.terminal.text import plural


def refuse_duplicates(duplicates: Sequence[tuple[Photo, Photo]], role: str, root: Address) -> None:
    """Raise UsageError if images of a folder differ only in what is not part of their common name."""
    if duplicates:
        pairs = sorted(duplicates)[:NUM_EXAMPLES]
        some = ", ".join(" and ".join(shown(photo.path) for photo in sorted(pair)) for pair in pairs)
        dots = ", ..." if len(duplicates) > NUM_EXAMPLES else ""
        advice = ", or list it in --exclude" if role == "HR" else ""
        raise UsageError(
            f"{root} has several {role} images of one name: {some}{dots} ({len(duplicates):,} in total); rename or "
            f"remove one of each{advice}"
        )


def refuse_several_scales(by_scale: Mapping[int, Photo], root: Address, option: str) -> None:
    """Raise UsageError if a folder has images of more than one scale. `by_scale` has an example of each."""
    if len(by_scale) > 1:
        found = ", ".join(f"{scale}x ({shown(photo.path)})" for scale, photo in sorted(by_scale.items()))
        raise UsageError(
            f"{root} has images of several scales: {found}; pass a folder for each scale as {option}, or select one by "
            "--pattern, e.g. '{name}x4'"
        )


class Unpaired:
    """Collects the images that are not part of a pair."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, photos: Iterable[Photo], what: str, lacking: str) -> None:
        """Add images that lack something: `what` is `HR image`, `lacking` e.g. `LR image in OST_LR/scale_4x`."""
        if alone := list(photos):
            self._parts.append(f"{plural(len(alone), what)} without {lacking}: {examples(alone)}")

    def __str__(self) -> str:
        return "; ".join(self._parts)

    @property
    def notes(self) -> list[str]:
        """A sentence for each kind, for when they are left out."""
        return [f"left out {part}" for part in self._parts]

    def refuse(self) -> None:
        """Raise UsageError if there are any."""
        if self._parts:
            raise UsageError(
                f"{self}; add the missing images or remove the others, or pass --skip-unpaired to leave them out"
            )
