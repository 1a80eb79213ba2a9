"""A cache of keys and values attends to what was decoded and to the source."""

from __future__ import annotations

import pytest
import torch

from mt.models.modules.attention import attend
from mt.models.modules.kv_cache import KeyValueCache


@pytest.mark.parametrize(
    ("beams", "steps"),
    [
        (1, 9),
        (3, 30),
        pytest.param(5, 40, marks=pytest.mark.slow),
    ],
)
def test_a_cache_attends_to_what_each_beam_decoded_and_to_its_source(beams, steps):
    """Reordered, dropped and fed several tokens at once, against histories kept one by one."""
    generator = torch.Generator().manual_seed(beams)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    sentences, heads, width, length = 4, 2, 8, 6
    valid = torch.arange(length) < torch.tensor([[6], [3], [1], [5]])
    source = [(draw(sentences, heads, length, width), draw(sentences, heads, length, width))]
    cache = KeyValueCache(source, valid, beams, steps + 3)
    known = torch.arange(sentences)  # which sentences are left
    histories = [[[] for _ in range(beams)] for _ in range(sentences)]
    most = 0
    for step in range(steps):
        fed = 1 if step == 0 else beams
        tokens = 3 if step == 4 else 1
        rows = len(known) * fed
        query, key, value = (draw(rows, tokens, heads, width) for _ in range(3))
        found = cache.attend(0, query, key, value).unflatten(-1, (heads, width))
        across = cache.attend_source(0, query).unflatten(-1, (heads, width))
        cache.advance(rows, tokens)
        most = max(most, cache.filled)
        for row in range(rows):
            sentence, beam = divmod(row, fed)
            past = histories[known[sentence]]
            for n in range(beams) if fed == 1 else [beam]:
                past[n] = past[n] + list(zip(key[row], value[row], strict=True))
            for t in range(tokens):
                held = past[beam][: len(past[beam]) - tokens + t + 1]
                keys, values = (torch.stack(each, dim=1)[None] for each in zip(*held, strict=True))
                wanted = attend(query[row, t][None, :, None], keys, values)
                torch.testing.assert_close(found[row, t], wanted[0, :, 0])
            k, v = (each[known[sentence], None] for each in source[0])
            wanted = attend(query[row][None].transpose(1, 2), k, v, valid[known[sentence], None])
            torch.testing.assert_close(across[row], wanted[0].transpose(0, 1))
        if step == 7:
            left = torch.tensor([0, 2, 3])
            cache.select_sentences(left)
            known = known[left]
        if beams > 1:
            origins = torch.randint(0, beams, (len(known), beams), generator=generator)
            cache.reorder((origins + beams * torch.arange(len(known))[:, None]).flatten())
            for sentence, row in zip(known.tolist(), origins.tolist(), strict=True):
                histories[sentence] = [histories[sentence][n] for n in row]
    if beams > 1:
        assert most < 0.8 * beams * steps, "no dead cell was dropped"
