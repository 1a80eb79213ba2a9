"""mt: a small, fast, careful trainer for machine translation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mt.decoding.translate import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`mt.load`, imported when it is asked for, so that `import mt` costs nothing."""
    if name == "load":
        from mt.decoding.translate import load

        return load
    raise AttributeError(f"module 'mt' has no attribute {name!r}")
