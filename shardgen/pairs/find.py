"""Find the pairs of HR and LR folders by their names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shardgen.pairs.pair import Pair
from shardgen.planning.exclusion import Exclusion
from srshards.format import Address


@dataclass(frozen=True)
class PairListing:
    """The pairs of an HR folder and its LR folders, sorted by path, and the folders they are in.

    The roots may be folders below those passed, e.g. `scale_4x` or `GT`; `notes` has a sentence for each such choice.
    Every pair has an LR image at every scale of `lr_roots`, and an upsampled one at every scale of `up_roots`, which is
    empty or has the same scales. `num_ignored` counts other files.
    """

    pairs: list[Pair]
    hr_root: Address
    lr_roots: dict[int, Address]
    up_roots: dict[int, Address]
    num_ignored: int = 0
    num_links_skipped: int = 0
    notes: tuple[str, ...] = ()
    excluded: Exclusion | None = None

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales of the LR images, in ascending order."""
        return tuple(sorted(self.lr_roots))


def find_pairs(
    hr: Address,
    lrs: Sequence[Address] = (),
    ups: Sequence[Address] = (),
    pattern: str | None = None,
    *,
    meta_info: "Address | None" = None,
    exclude: Path | None = None,
    skip_unpaired: bool = False,
) -> PairListing:
    """Return the pairs of an HR folder and its LR folders, one per scale or their parent.

    `lrs` may be empty when HR and LR are in the same folder. `pattern` (`--pattern`) describes names that are not
    recognised, `meta_info` (`--meta-info`) is a BasicSR text file that lists the pairs to use, `exclude` a file of HR
    paths to leave out. Images without a counterpart are an error, unless `skip_unpaired` (`--skip-unpaired`) leaves
    them out.

    Only names are used, except for the headers of a few pairs, from which the scales follow. UsageError for folders
    that are missing or whose pairs are not certain; StoreError when a store's requests fail.
    """
    raise NotImplementedError
