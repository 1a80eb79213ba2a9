"""`python -m mt` and `torchrun -m mt` are the command `mt`."""

from mt.cli import main

if __name__ == "__main__":
    main()
