"""`python -m overpaint` is the command `overpaint`."""

from overpaint.cli import main

if __name__ == "__main__":
    main()
