"""C2PA ("content credentials"): sign an edited picture, and read and check a file's manifest.

- Source: the C2PA specification 2.x; the work is done by c2pa-python (MIT or Apache-2.0), an
  optional package that is imported at first use.
- The manifest says: the source was opened (its parent, with its own manifest if it has one), and
  edited by overpaint, with the IPTC source type of the XMP mark.
- Thumbnails are off: one of the source would show the photo before the edit.
- Nothing goes over a network, except to a time-stamping service that the caller names.
- An unknown signer is no failure: "Valid" means unchanged since it was signed, by whomever;
  "Trusted" that the signer's chain ends at one of the given anchors.
"""

import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from overpaint import __version__
from overpaint.errors import InputError, OverpaintError
from overpaint.images.decoding import Photo
from overpaint.provenance.xmp import VOCABULARY

ALGORITHMS = ("es256", "ps256", "ed25519")

MIME = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "HEIF": "image/heif",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "GIF": "image/gif",
}
"""MIME type of each `Photo.format`."""

_TOOL = {"name": "overpaint", "version": __version__}
_UNTRUSTED = "signingCredential.untrusted"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: files in PEM, the chain with the signer's own certificate first.

    algorithm: one of `ALGORITHMS`, that of the key. timestamp_url: RFC 3161 service that is asked
    over the network; None signs without a time.
    """

    certificates: Path
    key: Path
    algorithm: str = "es256"
    timestamp_url: str | None = None


def make_signer(
    certificates: str | Path | None = None,
    key: str | Path | None = None,
    *,
    algorithm: str = "es256",
    timestamp_url: str | None = None,
) -> Signer | None:
    """The signer that the arguments or OVERPAINT_C2PA_CERT and OVERPAINT_C2PA_KEY name, else None.

    A trial signature is made, so that a wrong key is found before any picture is edited. Raises
    `InputError` when one of the two files is not named or the algorithm is unknown, and
    `OverpaintError` without the package c2pa-python, or when the files cannot sign.
    """
    certificates = certificates or os.environ.get("OVERPAINT_C2PA_CERT")
    key = key or os.environ.get("OVERPAINT_C2PA_KEY")
    if not certificates and not key:
        return None
    if not certificates or not key:
        missing = "certificate" if key else "private key"
        raise InputError(f"signing needs a certificate and a private key; name the {missing} too")
    if algorithm not in ALGORITHMS:
        raise InputError(f"algorithm {algorithm!r}: give one of {', '.join(ALGORITHMS)}")
    signer = Signer(Path(certificates), Path(key), algorithm)
    trial = io.BytesIO()
    Image.new("RGB", (1, 1)).save(trial, "PNG")
    made = {"action": "c2pa.created", "digitalSourceType": f"{VOCABULARY}digitalCreation"}
    _sign(signer, _make_manifest("trial", [made]), None, trial.getvalue(), "image/png")
    return replace(signer, timestamp_url=timestamp_url)


def sign(
    signer: Signer,
    picture: bytes,
    mime: str,
    *,
    title: str,
    photo: Photo,
    source: bytes,
    edit: str,
    source_type: str,
) -> bytes:
    """The encoded picture with a signed manifest inside.

    mime: of the picture. photo, source: the source, decoded and as bytes. edit: what was done, in
    words. source_type: the IPTC digital source type of the edit. Raises `OverpaintError` when it
    cannot be signed, or does not validate afterwards.
    """
    actions = [
        {"action": "c2pa.opened", "parameters": {"ingredientIds": ["source"]}},
        {
            "action": "c2pa.edited",
            "digitalSourceType": source_type,
            "softwareAgent": _TOOL,
            "description": edit,
        },
    ]
    title, opened = _replace_no_text(title), _replace_no_text(photo.path.name)
    parent = {"title": opened, "relationship": "parentOf", "label": "source"}
    ingredient = (parent, MIME.get(photo.format, "application/octet-stream"), source)
    signed = _sign(signer, _make_manifest(title, actions), ingredient, picture, mime)
    found = read_manifest(signed, mime)
    if found is None or found["state"] not in ("Valid", "Trusted"):
        reason = "no manifest" if found is None else ", ".join(found["problems"])
        raise OverpaintError(f"{title}: its new C2PA manifest is not valid ({reason})")
    return signed


def _replace_no_text(name: str) -> str:
    """A file name as a manifest can hold it: bytes that are no UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _make_manifest(title: str, actions: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "title": title,
        "claim_generator_info": [_TOOL],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": actions}}],
    }


def _sign(
    signer: Signer,
    manifest: dict[str, Any],
    ingredient: tuple[dict[str, str], str, bytes] | None,
    picture: bytes,
    mime: str,
) -> bytes:
    c2pa = _import_c2pa()
    try:
        certificates, key = signer.certificates.read_bytes(), signer.key.read_bytes()
    except OSError as error:
        raise OverpaintError(f"{error.filename}: cannot be read ({error.strerror})") from error
    out = io.BytesIO()
    try:
        info = c2pa.C2paSignerInfo(signer.algorithm, certificates, key, signer.timestamp_url)
        builder = c2pa.Builder(manifest, context=c2pa.Context.from_dict(_make_settings()))
        if ingredient:
            about, kind, source = ingredient
            builder.add_ingredient(about, kind, io.BytesIO(source))
        builder.sign(c2pa.Signer.from_info(info), mime, io.BytesIO(picture), out)
    except c2pa.C2paError as error:
        files = f"{signer.certificates}, {signer.key}"
        remedy = f"give a C2PA certificate chain and its {signer.algorithm} key, both in PEM"
        raise OverpaintError(f"{files}: cannot sign with them ({error}); {remedy}") from error
    return out.getvalue()


def read_manifest(data: bytes, mime: str, anchors: str | None = None) -> dict[str, Any] | None:
    """What the active C2PA manifest says and whether it holds; None when there is none.

    anchors: certificates in PEM whose signers count as trusted. The record has `state` (Valid,
    Trusted, Invalid; remote: it lies elsewhere and is not fetched; unreadable), `signer`, `time`,
    `actions`, `parents` and `problems` (C2PA status codes or a reason).
    Raises `OverpaintError` without the package c2pa-python.
    """
    c2pa = _import_c2pa()
    try:
        context = c2pa.Context.from_dict(_make_settings(anchors))
        reader = c2pa.Reader.try_create(mime, io.BytesIO(data), None, context)
        if reader is None:
            return None
        with reader:
            manifest = reader.get_active_manifest() or {}
            state, results = reader.get_validation_state(), reader.get_validation_results()
    except c2pa.C2paError.NotSupported:  # a format that cannot hold a manifest
        return None
    except c2pa.C2paError as error:
        is_remote = str(error).startswith("Remote")
        return {"state": "remote" if is_remote else "unreadable", "problems": [str(error)]}
    failures = ((results or {}).get("activeManifest") or {}).get("failure") or []
    signature = manifest.get("signature_info") or {}
    return {
        "state": state,
        "signer": signature.get("common_name") or signature.get("issuer"),
        "issuer": signature.get("issuer"),
        "time": signature.get("time"),
        "actions": _list_actions(manifest),
        "parents": [
            {"title": part.get("title"), "has_manifest": "active_manifest" in part}
            for part in manifest.get("ingredients") or []
        ],
        "problems": [f["code"] for f in failures if f.get("code") != _UNTRUSTED],
    }


def _list_actions(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Name, source type and tool of each action."""
    out = []
    for assertion in manifest.get("assertions") or []:
        if not str(assertion.get("label", "")).startswith("c2pa.actions"):
            continue
        for action in assertion["data"].get("actions") or []:
            agent = action.get("softwareAgent")
            out.append(
                {
                    "action": action.get("action"),
                    "source_type": action.get("digitalSourceType"),
                    "tool": agent.get("name") if isinstance(agent, dict) else agent,
                }
            )
    return out


def _make_settings(anchors: str | None = None) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "version": 1,
        "builder": {"thumbnail": {"enabled": False}},
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    }
    return settings | ({"trust": {"trust_anchors": anchors}} if anchors else {})


def _import_c2pa() -> Any:
    try:
        import c2pa
    except ImportError as error:
        remedy = 'run: pip install "overpaint[c2pa]"'
        raise OverpaintError(f"C2PA manifests need one more package; {remedy}") from error
    return c2pa
