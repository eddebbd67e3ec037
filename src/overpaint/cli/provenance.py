"""`overpaint provenance`: which marks a picture carries, and whether they hold.

Exit codes: 0 every file was read and no check failed; 1 some could not be read, or a receipt or a
C2PA manifest does not hold; 2 the command was used wrongly. A file without a mark is no failure.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from overpaint.terminal import say, say_json


def provenance(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Picture files.")],
    trust: Annotated[
        Path | None,
        typer.Option("--trust", help="Certificates (PEM) whose C2PA signers are trusted."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON output, one object a line.")
    ] = False,
) -> None:
    """Read and check the marks of pictures: XMP, the receipt beside them, the C2PA manifest.

    Nothing is written and nothing is fetched over a network. Checking C2PA manifests needs
    pip install "overpaint[c2pa]".

    Exit code 0: all read, and no check failed. 1: some could not be read, or a receipt or manifest
    does not hold. 2: wrong use. Marks can be removed: the absence of one proves nothing.
    """
    from overpaint.provenance.checking import CAVEAT, describe_marks

    anchors = _read_anchors(trust)
    records = []
    for path in files:
        record = _check(path, anchors)
        records.append(record)
        if as_json:
            say_json(record)
            continue
        say(path)
        if "error" in record:
            say(f"  could not be read: {record['error']}")
            continue
        for mark, words in describe_marks(record).items():
            say(f"  {mark}: {words}")
    if not as_json:
        say(CAVEAT)
    unread = sum("error" in record for record in records)
    failed = sum(bool(record.get("failed")) for record in records)
    if unread or failed:
        found = f"{unread} of {len(records)} could not be read, in {failed} a check failed"
        say(found, err=True)
        raise typer.Exit(1)


def _read_anchors(trust: Path | None) -> str | None:
    if trust is None:
        return None
    try:
        return trust.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{trust}: {error}", param_hint="--trust") from error


def _check(path: Path, anchors: str | None) -> dict[str, Any]:
    from overpaint.errors import OverpaintError
    from overpaint.provenance.checking import check_file

    try:
        return check_file(path, anchors)
    except (OverpaintError, OSError, MemoryError) as error:
        return {"file": str(path), "error": str(error) or type(error).__name__}
