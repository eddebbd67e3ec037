"""Output of the commands, with a filter for untrusted text.

- File names and text inside pictures may come from strangers. Escape sequences could change the
  terminal's screen, a line feed could fake a line, and marks for right-to-left text could reverse
  a suffix. So `make_printable` replaces invisible characters by escapes, also in pipes and logs.
- `say` prints whole lines; no character in a line can begin another line.
- `guard` puts the same filter in front of the streams, for messages of libraries: wrong use,
  warnings, tracebacks. Only `make_console` bypasses it, because it needs control sequences.
- Characters that a stream cannot encode are escaped, too, and raise no error.
- JSON is printed as ASCII, in which every name is complete: a byte of a name that is no UTF-8 is
  one of \\udc80 to \\udcff, as in Python (PEP 383).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, ProgressColumn

_JOINERS = "\u200c\u200d"  # Persian and some emoji are not written without them
# Characters other than ASCII and Latin letters, whose category has to be checked.
_SUSPECT = re.compile(r"[^ -~\u00a1-\u00ac\u00ae-\u024f]")


def make_printable(text: object) -> str:
    """The text in one line, with invisible characters as escapes: "\\x1b", "\\u202e"."""
    return _SUSPECT.sub(lambda match: _spell(match[0]), str(text))


def _spell(char: str) -> str:
    if char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs":
        return char
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"  # the byte of the file name
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def say(*lines: object, err: bool = False, above: Console | None = None) -> None:
    """Print lines to stdout, or to stderr; above: a console above whose bar they are printed.

    Raises `BrokenPipeError` when the reader has closed the pipe.
    """
    if above is not None:
        for line in lines:
            above.print(make_printable(line), highlight=False, markup=False, soft_wrap=True)
        return
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # a program without a console
        return
    text = "".join(f"{make_printable(line)}\n" for line in lines)
    stream.write(_make_encodable(text, stream))
    stream.flush()


def say_json(record: Mapping[str, Any]) -> None:
    """Print one JSON object as a line of ASCII."""
    say(json.dumps(record, allow_nan=False))


def show(renderable: RenderableType) -> None:
    """Print a table of rich to stdout; its cells have to be `make_printable`."""
    make_console().print(renderable)


def make_console(*, err: bool = False, quiet: bool = False) -> Console:
    """A console of rich, for bars and tables. Its text has to be `make_printable`."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(
        file=getattr(stream, "unfiltered", stream), quiet=quiet, highlight=False, markup=False
    )


def make_progress_bar(*columns: str | ProgressColumn, screen: Console | None = None) -> Progress:
    """A progress bar on stderr, for a `with` block; nothing if stderr is no terminal.

    columns: of the bar; the default ones if none are given. screen: its console, for lines above
    the bar (`say`); None makes a new one.
    """
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeRemainingColumn

    screen = screen or make_console(err=True)
    usual = (
        SpinnerColumn("line"),  # ASCII
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(
        *(columns or usual),
        console=screen,
        transient=True,
        redirect_stdout=False,  # otherwise records would be sent to stderr
        redirect_stderr=False,
        refresh_per_second=2,  # drawing takes processor time from the work
        disable=not screen.is_terminal,
    )


def guard() -> None:
    """Filter everything that this process prints from now on."""
    sys.stdout, sys.stderr = _guard_stream(sys.stdout), _guard_stream(sys.stderr)


@contextlib.contextmanager
def discard_stdout() -> Iterator[None]:
    """Within the block nothing reaches stdout, also not what C++ prints past `sys.stdout`; of all
    threads."""
    sys.stdout.flush()
    with Path(os.devnull).open("w") as nowhere:
        kept = os.dup(1)
        try:
            os.dup2(nowhere.fileno(), 1)
            yield
        finally:
            sys.stdout.flush()
            os.dup2(kept, 1)
            os.close(kept)


def _guard_stream(stream: TextIO | None) -> Any:
    if stream is None or isinstance(stream, _Filtered):
        return stream
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # for the console
    return _Filtered(stream)


class _Filtered(io.TextIOBase):
    """A text stream that escapes invisible characters except line feeds and tabs.

    It has no `buffer`, because bytes written to it would not be filtered.
    """

    def __init__(self, unfiltered: TextIO) -> None:
        self.unfiltered = unfiltered

    def write(self, text: str, /) -> int:
        lines = ("\t".join(map(make_printable, line.split("\t"))) for line in text.split("\n"))
        self.unfiltered.write(_make_encodable("\n".join(lines), self.unfiltered))
        return len(text)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.unfiltered.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.unfiltered.errors

    def flush(self) -> None:
        self.unfiltered.flush()

    def fileno(self) -> int:
        return self.unfiltered.fileno()

    def isatty(self) -> bool:
        return self.unfiltered.isatty()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing: Python closes the streams itself."""


def _make_encodable(text: str, stream: TextIO) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with contextlib.suppress(LookupError):
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text
