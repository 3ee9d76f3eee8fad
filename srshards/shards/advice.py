"""Commands of `shardgen` that messages about shards recommend."""

from srshards.format import Address

SAME_COMMAND = "the same `generate` or `pack` command"


def making_commands(output: "Address | str", photos: "Address | str" = "PHOTOS") -> str:
    """Return the commands that make shards in a folder: of photos, and of HR/LR pairs."""
    return (
        f"`python -m shardgen generate -i {photos} -o {output}` or, if HR/LR pairs exist already, "
        f"`python -m shardgen pack --hr HR --lr LR -o {output}`"
    )
