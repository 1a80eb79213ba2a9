"""Rule: sides of very different length."""

from filter_checks import check


def words(number):
    return " ".join(["word"] * number)


def test_the_value_is_the_ratio_of_words_whichever_side_is_longer():
    long = [(words(20), words(5)), (words(5), words(20)), (words(15), words(5))]
    assert check("ratio", *long) == [4.0, 4.0, None]


def test_short_pairs_are_spared():
    assert check("ratio", (words(1), words(8)), (words(1), words(9))) == [None, 9.0]
    assert check("ratio", (words(1), words(6)), spared=5) == [6.0]


def test_languages_without_spaces_are_compared_by_characters():
    pair = (words(10), "我们昨天在城里看到了一只很大的狗")
    assert check("ratio", pair, target="zh") == [None]
    assert check("ratio", pair, target="de") == [10.0]
