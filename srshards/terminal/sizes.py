"""Parse and format sizes in bytes."""

import re
from decimal import Decimal

_PREFIXES = "KMGTP"
_WRITTEN = re.compile(rf"([0-9]+(?:\.[0-9]+)?)\s*(?:([{_PREFIXES}])(I?))?B?", re.IGNORECASE | re.ASCII)


def parse_bytes(text: str) -> int:
    """Parse a size such as `256MB`, `1.5 GiB`, `200g` or `1000000`. K, M, G, T, P are powers of 1000, Ki ... of 1024.

    A fraction of a byte is truncated. ValueError for any other text.
    """
    match = _WRITTEN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r}: expected a number of bytes such as 256MB, 1GiB or 1000000")
    number, prefix, binary = match.groups()
    power = _PREFIXES.index(prefix.upper()) + 1 if prefix else 0
    return int(Decimal(number) * (1024 if binary else 1000) ** power)


def format_bytes(num_bytes: int) -> str:
    """Format as `5 bytes`, `1.5 kB`, `2.3 MB`, `1.14 GB` or `1.00 TB`: powers of 1000, two decimals from 1 GB."""
    if num_bytes >= 10**15:  # may exceed the range of a float
        return f"{num_bytes // 10**12:,} TB"
    if num_bytes < 1000:
        return "1 byte" if num_bytes == 1 else f"{num_bytes} bytes"
    for unit, size, decimals in (("kB", 1e3, 1), ("MB", 1e6, 1), ("GB", 1e9, 2)):
        if round(num_bytes / size, decimals) < 1000:
            return f"{num_bytes / size:.{decimals}f} {unit}"
    return f"{num_bytes / 1e12:.2f} TB"
