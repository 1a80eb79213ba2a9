"""Options that several commands have."""

import pytest

from mt.cli.options import engine_options


@pytest.mark.parametrize(
    ("sets", "search", "device"),
    [
        (["search.beams=8"], {"beams": 8}, None),
        (["search={kind: greedy}"], {"kind": "greedy"}, None),
        (["runtime.device=cpu", "search.beams=2"], {"beams": 2}, "cpu"),
    ],
)
def test_set_reaches_the_engine(sets, search, device):
    options = engine_options(sets, "last", None)
    assert (options.search, options.device, options.checkpoint) == (search, device, "last")
