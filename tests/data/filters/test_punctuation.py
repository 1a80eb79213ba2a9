"""Rule: very different numbers of sentence ends."""

from filter_checks import check


def test_the_value_is_the_difference():
    pairs = [("A. B. C. D. E. F.", "A."), ("A.", "A! B! C? D. E. F。"), ("A. B.", "A. B. C.")]
    assert check("punctuation", *pairs) == [5, 5, None]


def test_marks_that_follow_each_other_are_one():
    assert check("punctuation", ("What?!?!?!", "Was"), ("Well.........", "Tja")) == [None, None]


def test_the_dots_of_abbreviations_end_no_sentence():
    assert check("punctuation", ("This is S.H.I.E.L.D. here", "Das ist Schild")) == [None]
    assert check("punctuation", ('"A." (B.) C! D? E…', "Das")) == [5]
