"""The tokenizer of the Moses scripts, by sacremoses, in the form that sacreBLEU calls.

Papers that give "tokenised" BLEU mostly cut both sides with it (`tokenizer.perl`), often after
lower-casing; `multi-bleu.perl` then counts n-grams as sacreBLEU does with `tokenize: none`.
"""

from __future__ import annotations


class MosesTokenizer:
    """Cuts lines of one language into words."""

    def __init__(self, language: str) -> None:
        """language: such as `de`; abbreviations of a language that Moses lacks are the English.

        Raises:
            ImportError: sacremoses is not installed.
        """
        import sacremoses

        self._moses = sacremoses.MosesTokenizer(lang=language)
        self._signature = f"moses-{language}-sacremoses-{sacremoses.__version__}"

    def signature(self) -> str:
        """Return the value of `tok` in the signature of a score."""
        return self._signature

    def __call__(self, line: str) -> str:
        """Return the words of a line, escaped as Moses does, with a space between them."""
        return self._moses.tokenize(line, return_str=True)
