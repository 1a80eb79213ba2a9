"""Lines for the user: on standard error, safe, once where work is repeated, in columns."""

from __future__ import annotations

from mt.runtime.console import align_columns, print_line, print_lines_once


def test_a_line_goes_to_standard_error_and_cannot_steer_the_terminal(capsys):
    print_line("a\x1b[2Jb\nc")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "a\\x1b[2Jb\\nc\n"


def test_repeated_work_prints_each_line_once(capsys):
    with print_lines_once():
        for line in ("one", "two", "one"):
            print_line(line)
    print_line("one")
    print_line("one")
    assert capsys.readouterr().err == "one\ntwo\none\none\n"


def test_columns_are_aligned_and_end_without_spaces():
    rows = [["", "MB", "x"], ["long name", "1.5", ""], ["b", "10.25", "2"]]
    lines = list(align_columns(rows))
    assert lines == ["              MB  x", "long name    1.5", "b          10.25  2"]
