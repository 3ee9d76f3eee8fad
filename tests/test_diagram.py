"""The diagram of docs/architecture.md."""

import pytest

from tools import diagram


def test_diagram_is_up_to_date() -> None:
    assert diagram.PATH.read_text() == diagram.draw(), "run `make diagram`"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("degradations",), "shardgen lacks {'degradation'} and has {'degradations'}"),
        (("", "degradation", "pairs"), "no straight way down from shard to pairs"),
    ],
)
def test_layout_must_fit_the_code(row: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [each for each in diagram.LAYOUT["shardgen"] if not {"pairs"} & {*each} or "pairs" not in row]
    monkeypatch.setitem(diagram.LAYOUT, "shardgen", (*rows[:-1], row))
    with pytest.raises(ValueError, match=message):
        diagram.draw()
