"""Rows are chosen within their number and their bytes, the most telling first."""

from mt.report.row_selection import select_rows


def one(row):
    return 1


def test_all_rows_are_shown_where_they_fit():
    assert select_rows([[3.0, 1.0, 2.0]], one, 3, 3) == [0, 1, 2]
    assert select_rows([[3.0, 1.0, 2.0]] * 2, one, 9, 9) == [0, 1, 2]
    assert select_rows([[]], one, 9, 9) == []


def test_the_worst_the_most_changed_and_a_spread_are_taken_in_turn():
    chrf = [50.0] * 1000
    chrf[990] = 1.0
    changed = [50.0] * 1000
    changed[980], changed[990] = 99.0, 1.0
    assert select_rows([chrf, changed], one, 3, 99) == [0, 980, 990]
    rows = select_rows([[50.0] * 1000], one, 40, 99)  # half of them the first, as all are equal
    spread = [row for row in rows if row > 20]
    assert len(rows) == 40
    assert all(any(low <= row < low + 200 for row in spread) for low in range(0, 1000, 200))


def test_a_row_that_does_not_fit_is_left_out():
    chrf = [float(row) for row in range(10)]
    rows = select_rows([chrf], lambda row: 100 if row == 0 else 10, 10, 50)
    assert 0 not in rows
    assert len(rows) == 5
