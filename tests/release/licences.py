"""Compare the licences of dependencies, as their metadata states them, with those that this project may depend on.

Libraries inside of wheels, such as FFmpeg in that of OpenCV, have licences of their own, which metadata does not name.
"""

import re
from collections.abc import Iterable
from email.message import Message
from importlib import metadata

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

# Permissive ones, and those that bind only changes of the package itself. "BSD" stands for any of its versions.
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CNRI-Python",
    "ISC",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-2.0",
    "OLDAP-2.8",
    "PSF-2.0",
    "Zlib",
}
# Names in metadata that are not SPDX identifiers, in lower case.
_NAMES = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd license": "BSD",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
# Packages without a licence in their metadata: read from their files.
_READ = {"axe-playwright-python": "MIT AND MPL-2.0"}


def licence_faults(packages: Iterable[str]) -> list[str]:
    """Return a line for each installed package whose licence is unknown or not in `ALLOWED`."""
    return [
        f"{name}: {licence or 'no known licence'}; if it is acceptable, add it to tests/release/licences.py"
        for name, licence in licences(packages).items()
        if not is_allowed(licence)
    ]


def licences(packages: Iterable[str]) -> dict[str, str]:
    """Return the licences of the installed ones of these packages, by name, as `licence_of` does."""
    found = {}
    for name in sorted(packages):
        try:
            found[name] = _READ.get(name) or licence_of(metadata.metadata(name))  # type: ignore[arg-type]
        except metadata.PackageNotFoundError:
            continue
    return found


def licence_of(package: Message) -> str:
    """Return the licence as an SPDX expression, or in words if there is none for it; "" if it is not stated."""
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in package.get_all("Classifier", [])
        if text.startswith("License :: OSI Approved :: ")
    ]
    first_line = (package.get("License") or "").partition("\n")[0].strip()
    for stated in (package.get("License-Expression") or "", first_line):
        if expression := _expression(stated):
            return expression
    # A package that names several does not say whether all apply, or any.
    return " AND ".join(_expression(name) or name for name in classifiers) or first_line


def is_allowed(licence: str) -> bool:
    """Whether all parts of an expression are allowed, or, if it is a choice, one of them."""
    allowed = [re.sub(r" WITH \S+", "", part) in ALLOWED for part in re.split(r" AND | OR ", licence.strip("()"))]
    is_choice = " OR " in licence and " AND " not in licence
    return any(allowed) if is_choice else all(allowed)


def _expression(stated: str) -> str:
    """Return an SPDX expression in its standard form, or ""."""
    if name := _NAMES.get(stated.lower()):
        return name
    try:
        return canonicalize_license_expression(stated)
    except InvalidLicenseExpression:
        return ""
