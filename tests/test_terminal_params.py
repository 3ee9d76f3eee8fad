"""Options that all commands share: addresses, files of this machine, numbers of bytes."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from helpers import trainer
from hypothesis import given
from hypothesis import strategies as st

from srshards.terminal.params import ADDRESS, BYTE_SIZE, PATH
from srshards.terminal.sizes import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("0", 0),
        ("1000000", 10**6),
        ("12 B", 12),
        ("1k", 1000),
        ("256MB", 256 * 10**6),
        ("1.5 GB", 15 * 10**8),
        ("1TB", 10**12),
        ("2p", 2 * 10**15),
        ("1KiB", 1024),
        ("3 mib", 3 << 20),
        ("1GiB", 1 << 30),
        ("0.5TiB", 1 << 39),
        ("0.3GB", 300_000_000),
        ("1.9999", 1),
        ("  7KB ", 7000),
        (f"{10**30}TB", 10**42),
    ],
)
def test_sizes_are_read_in_decimal_and_binary_units(text: str, num_bytes: int) -> None:
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize(
    "text", ["", "MB", "-5MB", "10XB", "1e9", "1,000", "1iB", "0x10", "1.GB", ".5GB", "5 M B", "5\N{KELVIN SIGN}B"]
)
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number of bytes such as 256MB, 1GiB or 1000000") as refused:
        parse_bytes(text)
    assert str(refused.value).startswith(repr(text))


@given(st.integers(0, 10**18))
def test_what_is_shown_can_be_typed(num_bytes: int) -> None:
    shown = format_bytes(num_bytes).replace(",", "").removesuffix("ytes").removesuffix("yte").upper()
    assert parse_bytes(shown) == pytest.approx(num_bytes, rel=0.05)


def test_sizes_are_shown_in_decimal_units() -> None:
    numbers = (0, 5, 999, 1500, 2_340_000, 1_140_000_000, 10**12, 12_345 * 10**12)
    assert [format_bytes(number) for number in numbers] == [
        *("0 bytes", "5 bytes", "999 bytes", "1.5 kB", "2.3 MB", "1.14 GB", "1.00 TB", "12,345 TB")
    ]
    assert format_bytes(10**400).endswith("000 TB")
    rounded = (999_949, 999_950, 999_949_999, 999_950_000, 999_994_999_999, 999_995_000_000)
    assert [format_bytes(number) for number in rounded] == [
        *("999.9 kB", "1.0 MB", "999.9 MB", "1.00 GB", "999.99 GB", "1.00 TB")
    ]


@click.command()
@click.argument("address", type=ADDRESS)
@click.argument("path", type=PATH)
@click.argument("size", type=BYTE_SIZE)
def command(address: object, path: Path, size: int) -> None:
    click.echo(f"{address}|{path}|{size}")


def test_addresses_paths_and_sizes_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    done = CliRunner().invoke(command, ["memory://a/b/", "~/x", "1MiB"])
    assert done.output == "memory://a/b|/home/me/x|1048576\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("", "x", "1"), "the path is empty; expected a folder or a file, or . for the working directory"),
        (("nowhere://x", "x", "1"), "nowhere://x: unknown store nowhere://"),
        (("x", "memory://a", "1"), "memory://a is in an object store; expected a local path"),
        (("x", "", "1"), "the path is empty"),
        (("x", "x", "1XB"), "'1XB': expected a number of bytes such as 256MB, 1GiB or 1000000"),
    ],
)
def test_others_are_refused(words: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 2 and message in done.output


@pytest.mark.parametrize(
    "words",
    [
        ("--cache", "memory://a"),
        ("--init", "memory://a"),
        ("evaluate", "--weights", "memory://a"),
        ("upscale", "memory://a", "--weights", "x", "-o", "y"),
        ("export", "--weights", "memory://a"),
    ],
)
def test_the_trainer_names_what_has_to_be_on_this_machine(words: tuple[str, ...]) -> None:
    done = trainer(*words)
    assert done.code == 2 and "memory://a is in an object store; expected a local path" in done.err
