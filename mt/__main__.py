"""`mt`, `python -m mt` and `torchrun -m -- mt` are the command `mt`.

Nothing heavy is imported before Ctrl-C is safe.
"""

from mt.runtime import signals


def main() -> None:
    """Do what the command line says and exit with its code."""
    signals.exit_on_signals()
    from mt.cli import main as cli

    cli.main()


if __name__ == "__main__":
    main()
