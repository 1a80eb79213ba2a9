"""Normalisation of source text: NFKC, white space, and characters that cannot be seen.

Text that is copied from pages and documents has soft hyphens, zero-width spaces, direction marks
and byte order marks within its words. No reader sees them, and a model that never saw them reads
another word. They are dropped. Kept are format characters with a meaning: the joiners U+200C and
U+200D after letters of scripts whose shapes they change (Persian, Hindi, ...) and within emoji,
the tags of flags, and signs that are visible (U+0600 to U+0605, U+06DD, U+070F, U+180E).
"""

from __future__ import annotations

import re
import unicodedata

INVISIBLE = (
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e"
    r"\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0001]"
)
"""Control and format characters without a meaning in text."""
_JOINING = (
    r"\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\u1900-\u1aaf\u1b00-\u1c7f\ua800-\ua8ff"
    r"\ua930-\ua9df\uaae0-\uaaff\uabc0-\uabff\ufb50-\ufdff\ufe70-\ufefc"
    r"\U00010a00-\U00010fff\U00011000-\U00011fff\U0001e900-\U0001e95f"
)
"""Letters and marks of scripts whose shapes a joiner changes."""
_EMOJI = r"\u203c-\u3299\ufe0f\U0001f000-\U0001faff"
JOINERS = rf"(?<![{_JOINING}{_EMOJI}\u200c\u200d])[\u200c\u200d]+"
"""Joiners after anything else."""
TAGS = r"(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0020-\U000e007f]+"
"""Tags that are not of a flag, which begins with U+1F3F4."""
_DROPPED = re.compile(INVISIBLE)
_MISPLACED = re.compile(f"{JOINERS}|{TAGS}")


def drop_invisible(line: str) -> str:
    """Drop characters that cannot be seen and have no meaning."""
    if line.isascii() and line.isprintable():  # decides most lines at once
        return line
    return _MISPLACED.sub("", _DROPPED.sub("", line))


def fold_spaces(line: str) -> str:
    """NFKC, with each run of white space as one space, and none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", line).split())


def normalize_source(line: str) -> str:
    """Drop what cannot be seen, then fold."""
    return fold_spaces(drop_invisible(line))
