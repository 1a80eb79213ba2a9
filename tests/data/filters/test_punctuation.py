"""Rule: very different numbers of sentence ends."""

from filter_checks import check


def test_the_value_is_the_difference():
    pairs = [("A. B. C. D. E. F.", "A."), ("A.", "A! B! C? D. E. F。"), ("A. B.", "A. B. C.")]
    assert check("punctuation", *pairs) == [5, 5, None]


def test_marks_that_follow_each_other_are_one():
    assert check("punctuation", ("What?!?!?!", "Was"), ("Well.........", "Tja")) == [None, None]
