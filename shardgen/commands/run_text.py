"""Text that `generate` and `pack` print: the plan, what would be replaced, and the result."""

from collections import Counter
from typing import Any

from shardgen.degradation.differences import recipe_differences
from shardgen.generate.run import STATS_NAME, Outcome, Preparation
from shardgen.pairs.summary import PairSummary, describe_settings
from shardgen.planning.config import Config
from shardgen.planning.exclusion import Exclusion
from shardgen.planning.sources import Listing, Source, printable, shown
from shardgen.planning.validation import is_small, larger_fraction
from srshards.format import scale_folder
from srshards.terminal.sizes import format_bytes
from srshards.terminal.text import plural


def photo_lines(p: Preparation) -> list[str]:
    """Return lines about the photos or pairs: how many are used, and which choices were made."""
    inputs, noun = p.inputs, p.config.noun
    train, val = p.photos_of("train"), p.photos_of("val")
    if inputs.val is None:
        used = f"{train + val:,} of {len(inputs.listing.photos):,} in {p.config.input} ({train:,} train, {val:,} val)"
        lines = [f"{noun.capitalize()}s  ".ljust(8) + used + _left_out(inputs.listing)]
    else:
        used = f"{train:,} of {len(inputs.listing.photos):,} in {p.config.input} (train)"
        lines = [
            f"{noun.capitalize()}s  ".ljust(8) + used + _left_out(inputs.listing),
            f"Val     {val:,} in {p.config.val}{_left_out(inputs.val)}",
        ]
    lines += [f"Note    {note}" for note in inputs.notes]
    return lines + (_exclusion_lines(inputs.excluded, noun) if inputs.excluded else [])


def _validation_lines(p: Preparation) -> list[str]:
    """Return a note if few of the photos are reserved for validation; a folder of `--val` is the user's choice."""
    val = p.photos_of("val")
    if p.inputs.val is not None or not is_small(p.photos_of("train"), val):
        return []
    note = (
        f"Note    {plural(val, f'validation {p.config.noun}')}: results will depend on {'it' if val == 1 else 'them'}"
    )
    larger = larger_fraction(p.inputs.listing.photos, p.config)
    return [f"{note}; --val-fraction {larger[0]} reserves {larger[1]:,}" if larger else note]


def _left_out(listing: Listing[Source]) -> str:
    others = f", {plural(listing.num_ignored, 'other file')} ignored" if listing.num_ignored else ""
    links = listing.num_links_skipped
    return others + (f", {plural(links, 'link')} to already listed folders not followed" if links else "")


def preparation_text(p: Preparation) -> str:
    """Return the plan: the inputs, the shards to build at each scale, what would be replaced, and the space needed."""
    lines = [*photo_lines(p), *_validation_lines(p)]
    for inventory in p.inventories:
        scale, hr = inventory.scale, p.config.hr_size(inventory.scale)
        cropped = f" ({p.config.size} cropped to a multiple of {scale})" if hr != p.config.size else ""
        about = "about " if p.config.fit == "tile" else ""
        samples = plural(p.samples_to_build(scale), "sample")
        counts = [f"{plural(len(inventory.to_build), 'shard')} to build ({about}{samples})"]
        counts += [f"{len(inventory.kept):,} kept"] if inventory.kept else []
        counts += [f"{len(inventory.stale):,} outdated to remove"] if inventory.stale else []
        settings = f"HR {hr} px{cropped}, LR {hr // scale} px, {_lr_method(p.config)}, {p.config.codec}"
        lines.append(f"{scale_folder(scale)}  {settings}: {', '.join(counts)}")
    lines += replacement_lines(p)
    need = f"{format_bytes(p.bytes_to_build)} needed"
    lines.append(f"Store   {need}" if p.free_bytes is None else f"Disk    {need}, {format_bytes(p.free_bytes)} free")
    return "\n".join(lines)


def replacement_lines(p: Preparation) -> list[str]:
    """Return a line per scale that was finished with other settings: their differences, and what would be removed."""
    lines = []
    for inventory in p.inventories:
        if inventory.changed:
            differences = (_difference(name, *values) for name, values in inventory.changed.items())
            num = len(inventory.stale)
            removed = f"{plural(num, 'finished shard')} would be removed"
            lines.append(f"{inventory.folder} was generated with other settings ({', '.join(differences)}): {removed}")
    return lines


def _difference(name: str, old: Any, new: Any) -> str:
    note = f" ({', '.join(recipe_differences(old, new))})" if name == "degradation" and old and new else ""
    return f"{name} {_formatted(old)} -> {_formatted(new)}{note}"


def _formatted(value: Any) -> str:
    if isinstance(value, dict) and "steps" not in value:
        return describe_settings(value)
    if isinstance(value, dict):
        return f"{value.get('name')} with {plural(len(value.get('steps', ())), 'step')}"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _exclusion_lines(excluded: Exclusion, noun: str) -> list[str]:
    name, unknown = excluded.file.name, excluded.unknown
    lines = [f"Exclude {plural(excluded.num_photos, noun)} listed in {name}"]
    if unknown:
        some = ", ".join(shown(path) for path in unknown[:3])
        dots = ", ..." if len(unknown) > 3 else ""
        lines.append(f"  {plural(len(unknown), 'path')} in {name} not found in the input: {some}{dots}")
    return lines


def _lr_method(config: Config) -> str:
    if config.pairs:
        up = "given" if config.pairs.train.ups else f"by {config.method}"
        return f"LR given, up {up if config.up else 'not stored'}"
    method = config.degradation.name if config.degradation else config.method
    return f"{method}, {config.variants} variants" if config.variants > 1 else method


def outcome_text(outcome: Outcome) -> str:
    """Return what was built, and for pairs how well they match."""
    config = outcome.inputs.config
    output, size, noun = config.output, config.size, config.noun
    if not (outcome.built or outcome.removed):
        kept = f"All {outcome.kept:,} shards are up to date." if outcome.kept != 1 else "The only shard is up to date."
        return "\n".join([kept, *_card_lines(outcome)])
    lines = []
    for scale, manifest in outcome.manifests.items():
        totals = manifest["totals"]
        extras = {
            f"upscaled (smaller than {size} px)": totals["enlarged"],
            "skipped (smaller than a tile)": totals["skipped"],
            "failed": totals["failures"],
        }
        content = f"{plural(totals['samples'], 'sample')} in {plural(totals['shards'], 'shard')}"
        lines.append(
            f"{output / scale_folder(scale)}: {content}, {format_bytes(totals['bytes'])}"
            + "".join(f", {count:,} {what}" for what, count in extras.items() if count)
        )
        lines += _pair_lines(manifest)
    lines += _profile_lines(outcome)
    lines.append(f"Shards: {outcome.built:,} built, {outcome.kept:,} kept, {outcome.removed:,} removed.")
    if outcome.work.photos:
        rate = outcome.work.photos / max(outcome.work.wall_s, 1e-9)
        speed = f"{plural(outcome.work.photos, noun)} in {outcome.work.wall_s:.1f} s ({rate:.0f} {noun}s/s)"
        lines.append(f"{speed}; see {output / STATS_NAME}.")
    return "\n".join([*lines, *_card_lines(outcome)])


def _profile_lines(outcome: Outcome) -> list[str]:
    converted = outcome.profiles["converted"]
    if not converted:
        return []
    common = ", ".join(printable(name) for name, _ in Counter(converted).most_common(3))
    dots = ", ..." if len(converted) > 3 else ""
    num = plural(sum(converted.values()), outcome.inputs.config.noun)
    return [f"{num} converted to sRGB from {common}{dots}."]


def _card_lines(outcome: Outcome) -> list[str]:
    if not outcome.outdated_cards:
        return []
    cards = ", ".join(map(str, outcome.outdated_cards))
    return [
        f"Kept {cards}, which shardgen did not write or which was edited, although it does not describe these shards; "
        "to get a new dataset card, rename it and run the same command again."
    ]


def _pair_lines(manifest: dict[str, Any]) -> list[str]:
    if "pairs" not in manifest:
        return []
    found = PairSummary.from_dict(manifest["pairs"])
    if not found.checked:
        return []
    extras = {
        "with HR cropped to a multiple of the scale": found.cropped,
        "accepted in spite of the check": found.accepted,
    }
    counts = "".join(f", {count:,} {what}" for what, count in extras.items() if count)
    lines = [f"  {plural(found.checked, 'pair')} checked{counts}"]
    if found.worst:
        lines.append(f"  Worst pair: {shown(found.worst.path)} ({found.worst.figure})")
    return lines
