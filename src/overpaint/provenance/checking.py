"""The marks of a picture, and whether they are valid: XMP, receipt and C2PA manifest.

- A mark is evidence of an edit; its absence is no evidence, as any program can remove it. Every
  answer is shown with `CAVEAT`.
- A check fails when a receipt is not of exactly these bytes, or a C2PA manifest is not valid for
  them. A manifest that was not checked, because the package is missing or the manifest is stored
  elsewhere, is no failure; its state says so.
"""

import json
from pathlib import Path
from typing import Any

from overpaint import hashes
from overpaint.errors import OverpaintError
from overpaint.images import read_bytes
from overpaint.images.decoding import find_pixel_limit
from overpaint.plain_files import read_plain_file
from overpaint.provenance.c2pa import MIME, Signer, make_signer, read_manifest
from overpaint.provenance.containers import has_manifest
from overpaint.provenance.marking import MANIFESTS, RECEIPT
from overpaint.provenance.metadata import read_xmp
from overpaint.provenance.xmp import COMPOSITE, GENERATED, HUMAN_EDITS, read_mark

__all__ = [
    "CAVEAT",
    "Signer",
    "check_bytes",
    "check_file",
    "describe_marks",
    "is_edited",
    "make_signer",
]

CAVEAT = (
    "Marks can be removed, and an unsigned one can be forged. A file without a mark is not shown "
    "to be authentic: the absence of a mark proves nothing."
)

Record = dict[str, Any]
_RECEIPT_TEXTS = ("mask_sha256", "model", "weights_sha256", "version", "time")


def check_file(path: str | Path, anchors: str | None = None) -> Record:
    """The marks of one picture file: `xmp`, `receipt`, `c2pa`, and `failed`, the checks that fail.

    anchors: certificates in PEM whose C2PA signers count as trusted. `receipt` and `c2pa` are None
    where the picture has none. Raises `ImageError` when the file cannot be read.
    """
    path = Path(path)
    return check_bytes(read_bytes(path, find_pixel_limit(None)), path, anchors, beside=path)


def check_bytes(
    data: bytes, name: str | Path, anchors: str | None = None, *, beside: Path | None = None
) -> Record:
    """As `check_file`, for a picture in memory that is called `name`. beside: its path, to look for
    a receipt beside it; None looks for none."""
    kind, packet = read_xmp(data, name)
    digest = hashes.sha256(data)
    receipt = None if beside is None else _check_receipt(beside, digest)
    c2pa = _check_c2pa(data, kind, anchors)
    failed = []
    if receipt and receipt["state"] != "matches":
        failed.append(f"receipt: {receipt['problem']}")
    if c2pa and c2pa["state"] in ("Invalid", "unreadable"):
        failed.append(f"C2PA: {', '.join(c2pa['problems'])}")
    return {
        "file": str(name),
        "sha256": digest,
        "xmp": _read_mark(packet),
        "receipt": receipt,
        "c2pa": c2pa,
        "failed": failed,
    }


def is_edited(path: str | Path) -> bool:
    """Whether a picture says that overpaint filled something in; False where it cannot be read."""
    try:
        _, packet = read_xmp(read_bytes(Path(path), find_pixel_limit(None)), path)
        return (read_mark(packet).tool or "").startswith("overpaint ")
    except (OverpaintError, ValueError):
        return False


def describe_marks(record: Record) -> dict[str, str]:
    """The three marks of a record of `check_file`, in words, by name."""
    return {
        "XMP mark": _describe_xmp(record["xmp"]),
        "receipt": _describe_receipt(record["receipt"]),
        "C2PA": _describe_c2pa(record["c2pa"]),
    }


def _read_mark(packet: bytes | None) -> Record:
    record: Record = {"source_type": None, "tool": None, "agents": [], "problem": None}
    try:
        mark = read_mark(packet)
    except ValueError as error:
        return record | {"problem": str(error)}
    found = {"source_type": mark.source_type, "tool": mark.tool, "agents": list(mark.agents)}
    return record | found


def _check_receipt(path: Path, digest: str) -> Record | None:
    """What the receipt beside the picture says, and whether it is of these bytes."""
    beside = path.with_name(path.name + RECEIPT)
    record: Record = {"file": str(beside), "state": "unreadable", "problem": None}
    try:
        said = json.loads(read_plain_file(beside), parse_constant=_refuse)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        return record | {"problem": f"it cannot be read ({error})"}
    if not isinstance(said, dict) or not isinstance(said.get("sha256"), str):
        return record | {"problem": "it is no receipt of overpaint"}
    texts, source = {key: said.get(key) for key in _RECEIPT_TEXTS}, said.get("input")
    if wrong := [key for key, value in texts.items() if not isinstance(value, str | None)]:
        return record | {"problem": f"it is no receipt of overpaint ({', '.join(wrong)}: no text)"}
    if source is not None and not _is_of_texts(source):
        return record | {"problem": "it is no receipt of overpaint (input: not a name and a hash)"}
    record |= {"input": source, **texts}
    if said["sha256"] != digest:
        return record | {"state": "differs", "problem": "the file is not the one it was made for"}
    problem = _check_kept_manifest(path, said.get("source_c2pa"))
    return record | {"state": "differs" if problem else "matches", "problem": problem}


def _is_of_texts(found: object) -> bool:
    return isinstance(found, dict) and all(isinstance(value, str) for value in found.values())


def _refuse(number: str) -> None:
    raise ValueError(f"{number} is no number of JSON")


def _check_kept_manifest(path: Path, said: object) -> str | None:
    """What is wrong with the source's manifest file beside the picture; None where nothing is.

    said: the receipt's entry on it. A missing file is no problem: the picture may have been copied
    without it. One that the receipt does not name is of another picture.
    """
    beside = path.with_name(path.name + MANIFESTS)
    if not beside.is_file():
        return None
    if not isinstance(said, dict):
        return f"it does not name {beside.name}, which is beside the file"
    try:
        same = hashes.file_sha256(beside) == said.get("sha256")
    except OSError as error:
        return f"{beside.name} cannot be read ({error.strerror or error})"
    return None if same else f"{beside.name} is not the file that was kept from the source"


def _check_c2pa(data: bytes, kind: str, anchors: str | None) -> Record | None:
    try:
        return read_manifest(data, MIME.get(kind, "application/octet-stream"), anchors)
    except OverpaintError as error:  # without the package
        if not has_manifest(data):
            return None
        return {"state": "unchecked", "problems": [str(error)]}


def _describe_xmp(xmp: Record) -> str:
    if xmp["problem"]:
        return f"the XMP cannot be read ({xmp['problem']})"
    kind, agents = xmp["source_type"], ", ".join(dict.fromkeys(xmp["agents"]))
    if kind is None:
        said = "none, the file does not say how the picture was made"
    elif kind == GENERATED:
        said = "a picture that a trained network made"
    elif kind == COMPOSITE:
        said = "a photo of which a trained network made a part"
    elif kind == HUMAN_EDITS:
        said = "a photo that a person edited with tools that are not generative"
    else:
        said = f"digital source type {kind}"
    said += f"; tool {xmp['tool']}" if xmp["tool"] else ""
    return said + (f"; edited by {agents}" if agents else "")


def _describe_receipt(receipt: Record | None) -> str:
    if receipt is None:
        return "none beside the file"
    if receipt["state"] != "matches":
        return f"DOES NOT HOLD: {receipt['problem']}"
    source = receipt["input"] or {}
    return (
        f"is of this very file; written {receipt['time']} by overpaint {receipt['version']}; model "
        f"{receipt['model']}, weights {receipt['weights_sha256'] or 'none'}; input "
        f"{source.get('sha256')}; mask {receipt['mask_sha256']}"
    )


def _describe_c2pa(c2pa: Record | None) -> str:
    if c2pa is None:
        return "no manifest found"
    state, problems = c2pa["state"], ", ".join(c2pa["problems"])
    if state == "unchecked":
        return f"there is a manifest, not checked: {problems}"
    if state == "remote":
        return f"the manifest is stored elsewhere and was not fetched: {problems}"
    if state == "unreadable":
        return f"DOES NOT HOLD: the manifest cannot be read: {problems}"
    trust = "who is trusted" if state == "Trusted" else "who is unknown"
    said = f"signed by {c2pa['signer']}, {trust}"
    said += f", on {c2pa['time']}" if c2pa["time"] else ""
    actions = ", ".join(str(action["action"]) for action in c2pa["actions"])
    said += f"; actions: {actions or 'none'}"
    if state == "Invalid":
        return f"DOES NOT HOLD: changed since it was signed, or wrongly signed ({problems}); {said}"
    return f"holds, unchanged since it was {said}"
