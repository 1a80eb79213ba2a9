"""Text decoded with the wrong encoding, such as `schÃ¶n`, by the package ftfy (Speer 2019).

Neither OpusFilter nor mozilla/translations has this rule; ftfy's own heuristic is the threshold.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mt.config.schema import FilterConfig
from mt.data.cleaning import Context, EachSide, Filter
from mt.errors import MachineError


class Config(FilterConfig):
    """Nothing to choose."""

    kind: Literal["mojibake"] = "mojibake"

    compares_sides: ClassVar[bool] = False


def build(config: Config, context: Context) -> Filter:
    """Return the filter.

    Raises:
        MachineError: ftfy is not installed.
    """
    try:
        import ftfy  # noqa: F401
    except ImportError:
        what, advice = "ftfy is not installed", "pip install 'mt[data]'"
        raise MachineError("CLEAN-PACKAGE", f"data.clean: {config.label}", what, advice) from None
    return EachSide(_judge, _judge)


def _judge(text: str) -> str | None:
    if text.isascii():
        return None
    import ftfy

    fixed = ftfy.fix_encoding(text)
    return None if fixed == text else fixed[:60]
