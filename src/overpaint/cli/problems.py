"""Photos that a long command could not use: told at once, and exit code 1 at its end."""

import typer

from overpaint.terminal import say


class Problems:
    """Called with each problem, a line of text."""

    def __init__(self) -> None:
        self.num = 0

    def __call__(self, problem: str) -> None:
        say(problem, err=True)
        self.num += 1

    def exit(self) -> None:
        """End with exit code 1 where there were any; the rest is done then."""
        if self.num:
            say(f"{self.num} could not be used; the rest is done", err=True)
            raise typer.Exit(1)
