"""Laws over every filter: a value a pair, in any chunks, in any process, and none for what it does
not know."""

import copy
import pickle
import time

import pytest
from filter_checks import FILTER, build
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mt.config.plugins import plugin, plugins

PAIRS = [
    ("This is a house.", "Das ist ein Haus."), ("This is a house.", "This is a house."),
    ("See https://a.example and {0}, 17 km, $5.", "Siehe dort, 71 km, 5 €."), ("x", "y" * 90),
    ("Дом", "Haus"), ("a <br> b\x07", "schÃ¶n"), ("1 2 3 4 5 6 7 8", "9"),
    ("a. b. c. d. e. f.", "a"),
    ("word " * 200, "wort"), ("no way " * 9, "nein"), ("This is a house.", "Das ist ein Haus."),
    ("The children play in the garden.", "Les enfants jouent dans le jardin."),
]  # fmt: skip


@pytest.fixture(params=plugins("filters"))
def made(request, tmp_path):
    """A filter of each kind, ready to check."""
    settings = {}
    if request.param == "dual_cross_entropy":
        for name in ("forward", "backward"):
            path = tmp_path / name
            path.write_text("".join(f"{-number}\n" for number in range(len(PAIRS))))
            settings[name] = str(path)
    rule = build(request.param, held_out=PAIRS[:1], **settings)
    if plugin("filters", request.param).Config.learns:
        rule.learn(PAIRS * 8)
    return rule


def values(rule, pairs):
    return list(rule.check([pair[0] for pair in pairs], [pair[1] for pair in pairs]))


def test_each_pair_has_a_value_and_some_sound_pair_none(made):
    found = values(made, PAIRS)
    assert len(found) == len(PAIRS)
    assert found[0] is None or "overlap" in type(made).__module__
    assert all(isinstance(value, (float, int, str, type(None))) for value in found)


def test_chunks_change_nothing(made):
    again = copy.deepcopy(made)
    assert values(made, PAIRS) == values(again, PAIRS[:5]) + values(again, PAIRS[5:])


def test_no_pairs_have_no_values(made):
    assert values(made, []) == []


def test_it_can_be_sent_to_another_process(made):
    assert values(pickle.loads(pickle.dumps(made)), PAIRS) == values(made, PAIRS)


@pytest.mark.parametrize("kind", plugins("filters"))
def test_its_config_says_which_pairs_it_must_see(kind):
    schema = plugin("filters", kind).Config
    assert schema.order in ("any", "kept", "all")
    assert schema.order == "any" or not schema.learns


def test_a_rule_may_have_another_name():
    assert FILTER.validate_python({"kind": "length"}).label == "length"
    assert FILTER.validate_python({"kind": "length", "name": "very_long"}).label == "very_long"


@pytest.mark.parametrize("kind", ["script", "language"])
def test_of_a_language_that_it_does_not_know_nothing_is_dropped(kind):
    notes = []
    rule = build(kind, source="xx", target="xx", notes=notes)
    assert values(rule, PAIRS) == [None] * len(PAIRS)
    assert notes


ODD = st.text(st.characters(exclude_characters="\n"), min_size=1, max_size=30)
MANY = 100_000
LONG = [
    "a", "a ", "ab", "{ ", "{{", "<", "<a ", "=", "== a ", "1", "1,000,", "12 ", ".", ". ", "@",
    "a@", "a.", "www.", "%1$", "&a", "[[", "我", "我们", "\u0301", "ß ", "http://", "9/", "\u00a0",
]  # fmt: skip


@given(st.lists(st.tuples(ODD, ODD), min_size=1, max_size=len(PAIRS)))
@settings(
    max_examples=25, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_no_text_is_a_fault(made, pairs):
    assert len(values(copy.deepcopy(made), pairs)) == len(pairs)


@pytest.mark.parametrize("kind", sorted(set(plugins("filters")) - {"dual_cross_entropy"}))
def test_a_long_line_takes_linear_time(kind):
    rule = build(kind, held_out=PAIRS[:1])
    if plugin("filters", kind).Config.learns:
        rule.learn(PAIRS * 8)
    pairs = [(part * (MANY // len(part)) + "x .@", "y") for part in LONG]
    pairs += [("{{" + " " * MANY, "y"), ("== " + " " * MANY + "x", "y")]
    pairs += [("% {" + "a" * MANY, "y")]
    began = time.process_time()
    values(rule, pairs)
    assert time.process_time() - began < 5
