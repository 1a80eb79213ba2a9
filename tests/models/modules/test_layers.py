"""Layers of the Transformer."""

from __future__ import annotations

import pytest
import torch

from mt.models.modules.layers import SelfAttention


@pytest.mark.parametrize("packed", [False, True])
def test_attention_sharpened_by_the_root_of_its_width_is_softmax_of_plain_products(packed):
    attention = SelfAttention(16, 4, 0.0)
    attention.sharpness = 4**0.5
    x = torch.randn(2, 5, 16)
    query, key, value = (
        part.unflatten(-1, (4, 4)).transpose(1, 2)
        for part in (attention.query(x), *attention.key_value(x).chunk(2, -1))
    )
    mixed = (query @ key.transpose(-1, -2)).softmax(-1) @ value  # no sqrt(K)
    expected = attention.output(mixed.transpose(1, 2).flatten(2))
    if packed:
        attention.pack(torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(attention.attend_self(x, None, False), expected)
