"""Copies, repetitions and lengths of translations."""

from mt.evaluation.output_figures import output_figures


def test_figures_are_shares_and_a_ratio():
    sources = ["one two three four", "ok ok", "a b c d", "x"]
    hypotheses = ["one two three four", "ok ok", "ha ha ha ha ha ha", "haha " * 5]
    references = ["eins zwei drei vier", "ok ok", "a", "haha " * 5]
    found = output_figures(sources, hypotheses, references)
    assert found["copied"] == 1 / 4  # two words may be a name
    assert found["repeated"] == 1 / 4  # the reference of the last repeats itself as well
    assert found["length_ratio"] == sum(map(len, hypotheses)) / sum(map(len, references))
    assert output_figures([], [], []) == {"copied": 0.0, "repeated": 0.0, "length_ratio": 0.0}
