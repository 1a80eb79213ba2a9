"""Ids of the special and reserved pieces, the same in every vocabulary."""

from __future__ import annotations

PAD, UNK, BEGIN, END = 0, 1, 2, 3
"""Ids of the special pieces, the same in every vocabulary."""
FIRST_RESERVED, N_RESERVED = 4, 64
"""The reserved control pieces stand at ids 4 to 67; they are named as they are used."""
MASK, BACK_TRANSLATED = FIRST_RESERVED, FIRST_RESERVED + 1
"""`<mask>` and `<bt>`, the first of them."""
FIRST_PIECE = FIRST_RESERVED + N_RESERVED
"""The first id that text can become."""
