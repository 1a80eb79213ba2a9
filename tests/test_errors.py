"""Errors: one line for each problem, then the advice, safe for a terminal."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt import errors


def test_an_error_is_a_line_for_each_problem_and_one_of_advice():
    error = errors.DataError("DATA-X", "a.en:3", "bad", "mend it", [("b.en:4", "worse")])
    assert str(error).splitlines() == [
        "mt: error[DATA-X] a.en:3: bad", "mt: error[DATA-X] b.en:4: worse", "mend it",
    ]  # fmt: skip


@pytest.mark.parametrize("odd", ["\x1b[2J", "\n", "\u202e", "\u2028", "\x9b"])
def test_nothing_that_an_error_shows_can_steer_the_terminal(odd):
    error = errors.ModelError("X", f"a{odd}", f"b{odd}", f"c{odd}")
    assert all(line.isprintable() for line in str(error).split("\n"))
    assert len(str(error).split("\n")) == 2


@given(
    st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\*"), min_size=8
    ),
    st.text(max_size=20),
    st.sampled_from(["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD"]),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_secret_of_the_environment_is_never_shown(secret, around, name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, secret)
        error = errors.DownloadError("X", f"{around}{secret}", f"{secret}{around}", secret * 2)
        assert secret not in f"{error}"
        assert secret not in errors.redact(f"a {secret} b\n{secret}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pass@host/x?y=1", "https://***@host/x?y=1"),
        ("GET http://token@host: 401", "GET http://***@host: 401"),
        ("https://host/a@b and c@d", "https://host/a@b and c@d"),
        ("token hf_abcDEF12345 is refused", "token *** is refused"),
        (
            "https://h/x?X-Amz-Signature=ab&part=2&token=d",
            "https://h/x?X-Amz-Signature=***&part=2&token=***",
        ),
    ],
)
def test_what_looks_like_a_secret_is_not_shown(text, shown):
    assert errors.printable(text) == shown


def test_a_short_value_is_no_secret(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert errors.printable("it is false") == "it is false"


def test_a_long_text_is_cut_to_the_limit():
    assert errors.printable("x" * 300) == "x" * 300
    assert errors.printable("x" * 301) == "x" * 297 + "..."
    assert len(errors.printable("\x00" * 100, limit=50)) == 50


def test_each_kind_of_error_has_its_own_exit_code():
    kinds = errors.MtError.__subclasses__()
    codes = [kind.exit_code for kind in kinds]
    assert sorted(codes) == list(range(2, 2 + len(kinds)))
    assert errors.Stopped(15, "x").exit_code == 143
    assert not issubclass(errors.Stopped, Exception)


def test_an_error_of_another_process_is_the_same_error():
    error = errors.DataError("DATA", "a", "one", "mend it", [("b", "two"), ("c\n", "three")])
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is errors.DataError
    assert (str(copy), copy.exit_code) == (str(error), error.exit_code)
