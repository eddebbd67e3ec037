"""C2PA signatures, what `overpaint provenance` reads, and what it says when somebody interfered."""

import datetime
import io
import json
import math
import os
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from overpaint.cli import build
from overpaint.errors import ImageError, InputError, OverpaintError, TooLargeError
from overpaint.images import read_image
from overpaint.provenance.c2pa import Signer, _make_settings, make_signer
from overpaint.provenance.checking import CAVEAT, check_file, describe_marks
from overpaint.provenance.containers import extract_manifests
from overpaint.provenance.marking import mark_edited, read_source, write_edited
from overpaint.provenance.xmp import COMPOSITE


class Keys(NamedTuple):
    chain: Path
    key: Path
    anchor: Path


def make_keys(folder: Path, kind: str = "es256") -> Keys:
    """A certificate for signing e-mail (as C2PA allows), by an authority made for it."""
    pytest.importorskip("cryptography", reason="certificates are made by the package cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> x509.Name:
        parts = [(NameOID.ORGANIZATION_NAME, "overpaint tests"), (NameOID.COMMON_NAME, common)]
        return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])

    usages = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    usages += ("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")

    def certificate(common: str, public: Any, is_authority: bool) -> bytes:
        used = ("key_cert_sign", "crl_sign") if is_authority else ("digital_signature",)
        now, issuer = datetime.datetime.now(datetime.UTC), authority.public_key()
        extensions = [
            (x509.BasicConstraints(ca=is_authority, path_length=None), True),
            (x509.KeyUsage(**{usage: usage in used for usage in usages}), True),
            (x509.SubjectKeyIdentifier.from_public_key(public), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), False),
        ]
        if not is_authority:
            mail = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            extensions.append((mail, True))
        builder = x509.CertificateBuilder(name("Authority"), name(common), public)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=9))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        signed = builder.sign(authority, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    authority = ec.generate_private_key(ec.SECP256R1())
    made = {
        "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }
    own = made[kind]()
    anchor = certificate("Authority", authority.public_key(), True)
    keys = Keys(folder / "chain.pem", folder / "key.pem", folder / "anchor.pem")
    keys.anchor.write_bytes(anchor)
    keys.chain.write_bytes(certificate("Ann Editor", own.public_key(), False) + anchor)
    keys.key.write_bytes(
        own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def signer(keys: Keys) -> Signer:
    pytest.importorskip("c2pa", reason='signing needs pip install "overpaint[c2pa]"')
    made = make_signer(keys.chain, keys.key)
    assert made is not None
    return made


@pytest.fixture(autouse=True)
def no_keys_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OVERPAINT_C2PA_CERT", "OVERPAINT_C2PA_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def source(tmp_path: Path, photo: np.ndarray) -> Path:
    Image.fromarray(photo).save(tmp_path / "photo.jpg", quality=90)
    return tmp_path / "photo.jpg"


def edit(source: Path, out: Path, **how: Any) -> Path:
    photo = read_source(source)
    hole = np.zeros(photo.photo.pixels.shape[:2], np.uint8)
    hole[5:30, 5:40] = 1
    samples = photo.samples.fill(np.full((*hole.shape, 3), 99, np.uint8), hole, grey=False)
    hashes = {"mask_sha256": "a" * 64, "weights_sha256": "b" * 64}
    about = {"hole": hole, "model": "lama", "trained": True, "parameters": {"radius": 3}}
    write_edited(out, mark_edited(out, samples, photo, **about, **hashes, **how))
    return out


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build(), ["provenance", *map(str, arguments)])


def flip(path: Path, at: bytes, ahead: int) -> None:
    """Change one bit of a file, so many bytes behind a text in it."""
    data = bytearray(path.read_bytes())
    data[data.rindex(at) + ahead] ^= 1
    path.write_bytes(bytes(data))


class TestSigned:
    @pytest.mark.parametrize("suffix", [".png", ".jpg"])
    def test_manifest_says_opened_and_edited(self, source, signer, suffix):
        out = edit(source, source.with_name(f"out{suffix}"), signer=signer)
        c2pa = check_file(out)["c2pa"]
        assert c2pa["state"] == "Valid"
        assert (c2pa["signer"], c2pa["problems"]) == ("Ann Editor", [])
        assert [(a["action"], a["source_type"], a["tool"]) for a in c2pa["actions"]] == [
            ("c2pa.opened", None, None),
            ("c2pa.edited", COMPOSITE, "overpaint"),
        ]
        assert c2pa["parents"] == [{"title": "photo.jpg", "has_manifest": False}]

    def test_pixels_and_xmp_mark_are_those_of_the_unsigned_picture(self, source, signer):
        one = edit(source, source.with_name("one.png"))
        other = edit(source, source.with_name("other.png"), signer=signer)
        np.testing.assert_array_equal(read_image(one).pixels, read_image(other).pixels)
        assert check_file(one)["xmp"] == check_file(other)["xmp"]

    def test_names_that_are_no_utf_8(self, source, signer):
        odd = source.with_name("photo\udcff.jpg")
        try:
            source.rename(odd)
        except (OSError, UnicodeError):
            pytest.skip("names here are always UTF-8")
        c2pa = check_file(edit(odd, odd.with_name("out\udcff.png"), signer=signer))["c2pa"]
        assert c2pa["state"] == "Valid"
        assert [parent["title"] for parent in c2pa["parents"]] == ["photo\ufffd.jpg"]

    def test_no_thumbnail_is_inside(self, source, signer):
        out = edit(source, source.with_name("out.png"), signer=signer)
        store = extract_manifests(out.read_bytes())
        assert store is not None
        assert b"c2pa.actions" in store
        assert b"thumbnail" not in store
        assert b"\xff\xd8\xff" not in store

    def test_signer_is_trusted_if_the_caller_trusts_its_authority(self, source, signer, keys):
        out = edit(source, source.with_name("out.png"), signer=signer)
        assert check_file(out, keys.anchor.read_text())["c2pa"]["state"] == "Trusted"
        assert "who is trusted" in run(out, "--trust", keys.anchor).stdout
        assert "who is unknown" in run(out).stdout

    def test_a_signed_source_becomes_the_parent_with_its_manifest(self, source, signer):
        first = edit(source, source.with_name("first.jpg"), signer=signer)
        second = edit(first, source.with_name("second.png"), signer=signer)
        record = check_file(second)
        assert record["c2pa"]["state"] == "Valid"
        assert record["c2pa"]["parents"] == [{"title": "first.jpg", "has_manifest": True}]
        assert record["receipt"]["state"] == "matches"
        assert not second.with_name("second.png.source.c2pa").exists()

    def test_without_a_key_the_sources_manifest_stays_beside_and_still_holds(
        self, source, signer, tmp_path
    ):
        import c2pa

        first = io.BytesIO()  # more than 64 KiB, so that the JPEG holds it in parts
        made = {"action": "c2pa.created", "digitalSourceType": COMPOSITE}
        assertions = [
            {"label": "c2pa.actions", "data": {"actions": [made]}},
            {"label": "org.example.long", "data": {"text": "long " * 30000}},
        ]
        builder = c2pa.Builder(
            {"claim_generator_info": [{"name": "test"}], "assertions": assertions},
            context=c2pa.Context.from_dict(_make_settings()),
        )
        files = (signer.certificates.read_bytes(), signer.key.read_bytes())
        info = c2pa.C2paSignerInfo("es256", *files, None)
        data = source.read_bytes()
        builder.sign(c2pa.Signer.from_info(info), "image/jpeg", io.BytesIO(data), first)
        (tmp_path / "first.jpg").write_bytes(first.getvalue())
        out = edit(tmp_path / "first.jpg", tmp_path / "out.png")
        kept = (tmp_path / "out.png.source.c2pa").read_bytes()
        assert len(kept) > 2**17
        with c2pa.Reader("image/jpeg", io.BytesIO(first.getvalue()), kept) as reader:
            assert reader.get_validation_state() == "Valid"
        assert check_file(out)["c2pa"] is None
        assert check_file(out)["failed"] == []
        flip(tmp_path / "out.png.source.c2pa", b"long ", 9)
        assert "out.png.source.c2pa is not the file" in check_file(out)["failed"][0]

    def test_ed25519(self, source, tmp_path):
        pytest.importorskip("c2pa", reason='signing needs pip install "overpaint[c2pa]"')
        other = make_keys(tmp_path, "ed25519")
        made = make_signer(other.chain, other.key, algorithm="ed25519")
        out = edit(source, source.with_name("out.png"), signer=made)
        assert check_file(out)["c2pa"]["state"] == "Valid"


class TestSigner:
    def test_comes_from_the_environment_or_not_at_all(self, keys, signer, monkeypatch):
        assert make_signer() is None
        monkeypatch.setenv("OVERPAINT_C2PA_CERT", str(keys.chain))
        with pytest.raises(InputError, match="name the private key too"):
            make_signer()
        monkeypatch.setenv("OVERPAINT_C2PA_KEY", str(keys.key))
        assert make_signer() == signer
        url = "http://time.invalid"  # not asked until a picture is signed
        assert make_signer(timestamp_url=url) == Signer(*signer_fields(signer), url)

    def test_that_cannot_sign_is_found_before_any_edit(self, keys, signer, tmp_path):
        junk = tmp_path / "junk.pem"
        junk.write_text("junk")
        (tmp_path / "other").mkdir()
        other = make_keys(tmp_path / "other")
        pairs = [(junk, keys.key), (keys.chain, junk), (keys.chain, other.key)]
        for chain, key in pairs:
            with pytest.raises(OverpaintError, match=f"{key}: cannot sign with them.*PEM"):
                make_signer(chain, key)
        with pytest.raises(OverpaintError, match=r"gone\.pem: cannot be read"):
            make_signer(keys.chain, tmp_path / "gone.pem")
        with pytest.raises(InputError, match="es256, ps256, ed25519"):
            make_signer(keys.chain, keys.key, algorithm="rot13")

    def test_failing_leaves_nothing_written(self, source, keys, signer, tmp_path):
        bad = Signer(keys.chain, tmp_path / "gone.pem")
        with pytest.raises(OverpaintError, match=r"gone\.pem"):
            edit(source, tmp_path / "out.png", signer=bad)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["photo.jpg"]

    def test_without_the_package_the_extra_is_named(self, source, keys, monkeypatch):
        monkeypatch.setitem(sys.modules, "c2pa", None)
        with pytest.raises(OverpaintError, match=r'pip install "overpaint\[c2pa\]"'):
            make_signer(keys.chain, keys.key)
        with pytest.raises(OverpaintError, match=r"overpaint\[c2pa\]"):
            edit(source, source.with_name("out.png"), signer=Signer(keys.chain, keys.key))


def signer_fields(signer: Signer) -> tuple[Path, Path, str]:
    return signer.certificates, signer.key, signer.algorithm


class TestInterference:
    def test_a_pixel_changed_after_signing(self, source, signer):
        out = edit(source, source.with_name("out.jpg"), signer=signer)
        assert check_file(out)["failed"] == []
        data = bytearray(out.read_bytes())
        data[-200] ^= 1
        out.write_bytes(bytes(data))
        record = check_file(out)
        assert record["c2pa"]["state"] == "Invalid"
        assert record["c2pa"]["problems"] == ["assertion.dataHash.mismatch"]
        assert [text.split(":")[0] for text in record["failed"]] == ["receipt", "C2PA"]
        assert sum("DOES NOT HOLD" in words for words in describe_marks(record).values()) == 2

    def test_a_manifest_changed_after_signing(self, source, signer):
        out = edit(source, source.with_name("out.jpg"), signer=signer)
        flip(out, b"filled in by lama", 14)
        assert check_file(out)["c2pa"]["state"] == "Invalid"

    def test_a_file_changed_after_its_receipt(self, source):
        out = edit(source, source.with_name("out.jpg"))
        assert check_file(out)["receipt"]["state"] == "matches"
        with out.open("ab") as file:
            file.write(b"!")
        assert check_file(out)["receipt"]["state"] == "differs"
        assert check_file(out)["failed"] == ["receipt: the file is not the one it was made for"]

    @pytest.mark.parametrize("text", ["{", "[1]", '{"sha256": 3}', '{"sha256": NaN}', "[" * 9999])
    def test_a_receipt_that_is_none(self, source, text):
        out = edit(source, source.with_name("out.jpg"))
        out.with_name("out.jpg.receipt.json").write_text(text)
        record = check_file(out)
        assert record["receipt"]["state"] == "unreadable"
        assert len(record["failed"]) == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"model": math.inf},
            {"model": ["lama"]},
            {"weights_sha256": 3},
            {"mask_sha256": {}},
            {"version": True},
            {"time": 1.5},
            {"input": {"file": "a.png", "sha256": math.inf}},
            {"input": "a.png"},
        ],
    )
    def test_a_receipt_with_values_that_no_receipt_has(self, source, change):
        out = edit(source, source.with_name("out.png"))
        receipt = out.with_name("out.png.receipt.json")
        said = json.dumps(json.loads(receipt.read_text()) | change)
        receipt.write_text(said.replace("Infinity", "1e999"))
        record = check_file(out)
        assert record["receipt"]["state"] == "unreadable"
        (problem,) = record["failed"]
        assert problem.startswith(f"receipt: it is no receipt of overpaint ({next(iter(change))}: ")
        result = run(out, source, "--json")
        assert result.exit_code == 1
        assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == [
            *(str(out), str(source))
        ]

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
    def test_a_receipt_that_is_a_pipe_or_endless_is_not_waited_for(self, source):
        out = edit(source, source.with_name("out.png"))
        receipt = out.with_name("out.png.receipt.json")
        receipt.unlink()
        os.mkfifo(receipt)
        assert "no regular file" in check_file(out)["receipt"]["problem"]
        receipt.unlink()
        with receipt.open("wb") as file:
            file.truncate(2**24 + 1)
        assert "more than 16,777,216 bytes" in check_file(out)["receipt"]["problem"]

    def test_marks_stripped_are_none_and_no_failure(self, source):
        out = edit(source, source.with_name("out.png"))
        with Image.open(out) as image:
            Image.fromarray(np.array(image)).save(source.with_name("stripped.png"))
        record = check_file(source.with_name("stripped.png"))
        assert (record["receipt"], record["c2pa"], record["failed"]) == (None, None, [])
        assert record["xmp"] == {"source_type": None, "tool": None, "agents": [], "problem": None}

    def test_without_the_package_a_manifest_is_seen_and_not_checked(
        self, source, signer, monkeypatch
    ):
        out = edit(source, source.with_name("out.png"), signer=signer)
        monkeypatch.setitem(sys.modules, "c2pa", None)
        record = check_file(out)
        assert record["c2pa"]["state"] == "unchecked"
        assert "overpaint[c2pa]" in describe_marks(record)["C2PA"]
        assert check_file(source)["c2pa"] is None

    @pytest.mark.parametrize("kind", ["BMP", "GIF", "WEBP", "TIFF", "AVIF"])
    def test_other_formats_are_read_too(self, tmp_path, picture, kind):
        Image.fromarray(picture).save(tmp_path / "a", kind)
        assert check_file(tmp_path / "a")["failed"] == []

    def test_a_manifest_that_lies_elsewhere_is_not_fetched(self, tmp_path, picture, signer):
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            xmp = (
                '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
                'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
                'rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" '
                f'dcterms:provenance="http://127.0.0.1:{server.getsockname()[1]}/manifest"/>'
                "</rdf:RDF></x:xmpmeta>"
            )
            Image.fromarray(picture).save(tmp_path / "a.jpg", xmp=xmp.encode())
            record = check_file(tmp_path / "a.jpg")
            signed = check_file(edit(tmp_path / "a.jpg", tmp_path / "b.png", signer=signer))
            with pytest.raises(BlockingIOError):  # nobody has called
                server.accept()
        assert (record["c2pa"]["state"], record["failed"]) == ("remote", [])
        assert (signed["c2pa"]["state"], signed["failed"]) == ("Valid", [])

    def test_what_is_no_picture_is_refused(self, tmp_path):
        (tmp_path / "a.jpg").write_text("a letter")
        with pytest.raises(ImageError, match=r"a\.jpg: not a photo"):
            check_file(tmp_path / "a.jpg")


class TestCommand:
    def test_says_what_was_found_and_that_no_mark_proves_nothing(self, source):
        out = edit(source, source.with_name("out.png"))
        result = run(out, source)
        assert result.exit_code == 0
        text = result.stdout
        assert "a photo of which a trained network made a part; tool overpaint" in text
        assert read_image(source).sha256 in text
        assert "a" * 64 in text
        assert "b" * 64 in text
        assert text.count("receipt: none beside the file") == 1
        assert text.rstrip().endswith(CAVEAT)
        assert "the absence of a mark proves nothing" in text

    def test_json_is_one_object_a_line_and_a_bad_file_stops_nothing(self, source, tmp_path):
        good = edit(source, tmp_path / "good.png")
        changed = edit(source, tmp_path / "changed.jpg")
        with changed.open("ab") as file:
            file.write(b"!")
        result = run(tmp_path / "gone.png", changed, good, "--json")
        assert result.exit_code == 1
        missing, failed, fine = (json.loads(line) for line in result.stdout.splitlines())
        assert "no such file" in missing["error"]
        assert (failed["failed"] == [], fine["failed"] == []) == (False, True)
        assert fine["xmp"]["source_type"] == COMPOSITE
        assert "1 of 3 could not be read, in 1 a check failed" in result.stderr
        assert run(good).exit_code == 0
        assert run(changed).exit_code == 1

    def test_wrong_use_is_two(self, source):
        assert run().exit_code == 2
        assert run(source, "--trust", source.with_name("gone.pem")).exit_code == 2

    def test_marks_cannot_steer_the_terminal(self, source):
        out = edit(source, source.with_name("out.png"))
        receipt = out.with_name("out.png.receipt.json")
        said = json.loads(receipt.read_text()) | {"model": "\x1b[2Jgone"}
        receipt.write_text(json.dumps(said))
        assert "\x1b" not in run(out).stdout
        assert "\\x1b[2Jgone" in run(out).stdout


def test_a_picture_above_the_limit_is_called_too_large_and_not_damaged(tmp_path, monkeypatch):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setenv("OVERPAINT_MAX_PIXELS", "1000")
    with pytest.raises(TooLargeError, match="raise OVERPAINT_MAX_PIXELS"):
        check_file(tmp_path / "a.png")
