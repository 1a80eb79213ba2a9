"""Laws of noise: what it keeps, how much it takes, and that only (seed, row) decide it."""

import itertools

import pytest
import torch

from mt.data import noising
from mt.special_tokens import MASK, PAD

WIDTH = 40
SEED = torch.tensor(7)


@pytest.fixture
def rows():
    return torch.arange(400)


@pytest.fixture
def lengths(rows):
    return 1 + rows % WIDTH


@pytest.fixture
def tokens(lengths):
    """Each row counts up from 100, so that a token tells its place."""
    place = torch.arange(WIDTH)
    return torch.where(place < lengths[:, None], 100 + place, PAD)


def lists(tokens, lengths):
    return [row[:n].tolist() for row, n in zip(tokens, lengths, strict=True)]


def test_numbers_are_uniform_and_unlike_for_rows_places_seeds_and_purposes(rows):
    numbers = noising.uniform_hash(SEED, rows, noising.ORDER, 50)
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    counts = torch.histc(numbers, 10, 0, 1) / numbers.numel()
    torch.testing.assert_close(counts, torch.full((10,), 0.1), atol=0.01, rtol=0)
    others = [
        noising.uniform_hash(SEED + 1, rows, noising.ORDER, 50),
        noising.uniform_hash(SEED, rows, noising.DELETE, 50),
        noising.uniform_hash(SEED, rows + 1, noising.ORDER, 50),
        numbers.roll(1, 1),
    ]
    for other in others:
        both = torch.stack((numbers.flatten(), other.flatten()))
        assert abs(float(torch.corrcoef(both)[0, 1])) < 0.03
        assert float((numbers == other).float().mean()) < 0.001


def test_a_row_is_noised_alike_alone_in_any_batch_and_in_any_width(tokens, lengths, rows):
    table = noising.poisson_lengths(3.0)
    whole = lists(*noising.infill_spans(tokens, lengths, 0.4, table, SEED, rows))
    some = torch.tensor([3, 17, 250])
    part = lists(*noising.infill_spans(tokens[some], lengths[some], 0.4, table, SEED, rows[some]))
    assert part == [whole[i] for i in some]
    wide = torch.nn.functional.pad(tokens, (0, 9))
    assert lists(*noising.infill_spans(wide, lengths, 0.4, table, SEED, rows)) == whole
    other = lists(*noising.infill_spans(tokens, lengths, 0.4, table, SEED + 1, rows))
    assert sum(a == b for a, b in zip(whole, other, strict=True)) < 100


def test_infilling_covers_its_share_by_spans_that_are_one_mask_each(tokens, lengths, rows):
    table = noising.poisson_lengths(3.0)
    out, left = noising.infill_spans(tokens, lengths, 0.3, table, SEED, rows)
    spans = []
    covered = 0
    for row, n in zip(lists(out, left), lengths.tolist(), strict=True):
        kept = [token for token in row if token != MASK]
        assert kept == sorted(set(kept))
        assert len(row) <= n
        missing = n - len(kept)
        assert abs(missing - 0.3 * n) < 1
        covered += missing
        edges = [99, *row, 100 + n]
        for i, token in enumerate(edges):
            if token == MASK:
                assert MASK not in (edges[i - 1], edges[i + 1])  # spans never touch
                spans.append(edges[i + 1] - edges[i - 1] - 1)
        assert sum(b - a - 1 for a, b in itertools.pairwise(edges) if MASK not in (a, b)) == 0
    assert covered / int(lengths.sum()) == pytest.approx(0.3, abs=0.01)
    assert 0 in spans
    assert 2.0 < sum(spans) / len(spans) < 3.0  # the last is cut to what is left
    assert bool((out[torch.arange(WIDTH) >= left[:, None]] == PAD).all())


@pytest.mark.parametrize(("share", "mean"), [(0.0, 3.0), (0.95, 0.1), (0.5, 50.0), (0.99, 1.0)])
def test_infilling_never_makes_a_row_longer(tokens, lengths, rows, share, mean):
    out, left = noising.infill_spans(
        tokens, lengths, share, noising.poisson_lengths(mean), SEED, rows
    )
    assert bool((left <= lengths).all())
    assert bool(((out != PAD).sum(1) == left).all())
    if share == 0:
        assert torch.equal(out, tokens)


def test_order_noise_moves_no_token_further_than_its_distance(tokens, lengths, rows):
    out = noising.local_shuffle(tokens, lengths, 3, SEED, rows)
    assert torch.equal(out.sort(1).values, tokens.sort(1).values)
    moved = torch.where(out == PAD, 0, (out - tokens).abs())
    assert int(moved.max()) == 3
    assert torch.equal(noising.local_shuffle(tokens, lengths, 0, SEED, rows), tokens)


def test_deletion_keeps_the_order_and_its_share(tokens, lengths, rows):
    out, left = noising.delete_tokens(tokens, lengths, 0.2, SEED, rows)
    for row in lists(out, left):
        assert row == sorted(set(row))
        assert PAD not in row
    assert 1 - int(left.sum()) / int(lengths.sum()) == pytest.approx(0.2, abs=0.01)
    assert torch.equal(noising.delete_tokens(tokens, lengths, 0.0, SEED, rows)[0], tokens)


def test_a_cloze_masks_changes_and_keeps_as_bert_does(tokens, rows):
    text = tokens != PAD
    out, asked = noising.mask_tokens(tokens, text, 0.5, (100, 140), SEED, rows)
    assert not bool((asked & ~text).any())
    assert torch.equal(out[~asked], tokens[~asked])
    drawn = out[asked]
    masked = float((drawn == MASK).float().mean())
    same = float((drawn == tokens[asked]).float().mean())
    assert float(asked.sum()) / float(text.sum()) == pytest.approx(0.5, abs=0.02)
    assert masked == pytest.approx(0.8, abs=0.02)
    assert same == pytest.approx(0.1 + 0.1 / 40, abs=0.02)
    assert bool(((drawn == MASK) | ((drawn >= 100) & (drawn < 140))).all())


def test_the_table_is_of_the_poisson_distribution():
    drawn = torch.searchsorted(
        noising.poisson_lengths(3.5), torch.rand(20_000), right=True
    ).double()
    assert float(drawn.mean()) == pytest.approx(3.5, abs=0.06)
    assert float(drawn.var()) == pytest.approx(3.5, abs=0.2)
