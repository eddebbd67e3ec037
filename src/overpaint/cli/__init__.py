"""The command line. One file per command, each light to import: torch comes in their bodies.

A command file NAME.py holds either a function NAME or, where it has sub-commands, a Typer `app`.
"""

import importlib
import sys
from typing import Annotated

import typer

from overpaint.errors import OverpaintError
from overpaint.process import keep_freed_memory
from overpaint.terminal import guard, say

COMMANDS = (
    "detect",
    "scan",
    "report",
    "app",
    "inpaint",
    "provenance",
    "demo",
    "models",
    "weights",
    "export",
    "data",
    "synthesize",
    "forge",
    "train",
    "calibrate",
    "evaluate",
    "benchmark",
    "harden",
)


def build() -> typer.Typer:
    """The whole command line, with every command registered."""
    app = typer.Typer(
        name="overpaint",
        help="Find what an inpainting network filled in, and measure how well that works.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_common)
    for name in COMMANDS:
        module = importlib.import_module(f"overpaint.cli.{name}")
        commands = getattr(module, "app", None)
        if isinstance(commands, typer.Typer):
            app.add_typer(commands, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def main() -> None:
    """Entry point: an expected error is one line on stderr and exit code 1.

    Where the reader of a pipe goes away, the command ends quietly with exit code 1, too.
    """
    guard()
    keep_freed_memory()
    try:
        build()()
    except OverpaintError as error:
        say(f"overpaint: {error}", err=True)
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        from overpaint import __version__

        say(__version__)
        raise typer.Exit


def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="The version; nothing else is done."
        ),
    ] = False,
) -> None:
    pass
