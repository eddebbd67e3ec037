"""Files of a job: kept without a name, and gone when they are given up."""

import io
import tempfile
from pathlib import Path

import pytest

from overpaint.app.files import JobFiles


def test_what_was_added_is_read_again() -> None:
    files = JobFiles()
    first, second = b"a" * 700_000, b"b" * 3
    files.add("one", io.BytesIO(first), "image/png", "shown.png")
    files.add("two", io.BytesIO(second))
    assert (files.read("one"), files.read("two")) == (first, second)
    assert files.entries["one"].media_type == "image/png"
    assert files.entries["one"].shown_name == "shown.png"
    assert files.entries["two"].shown_name == "two"
    assert files.size == 700_003
    with pytest.raises(KeyError):
        files.read("three")
    files.close()


def test_two_readers_do_not_disturb_each_other() -> None:
    files = JobFiles()
    one, two = bytes(600_000), b"\1" * 600_000
    files.add("one", io.BytesIO(one))
    files.add("two", io.BytesIO(two))
    first, second = files.read_chunks("one"), files.read_chunks("two")
    read = [next(first), next(second), next(first), next(second), *first, *second]
    assert b"".join(read).count(0) == 600_000
    files.close()


def test_what_is_being_read_is_kept_until_then() -> None:
    files = JobFiles()
    files.add("one", io.BytesIO(bytes(600_000)))
    chunks = files.read_chunks("one")
    found = len(next(chunks))
    files.close()
    assert files.entries == {}
    with pytest.raises(ValueError, match="closed"):
        files.read_chunks("one")
    assert found + sum(map(len, chunks)) == 600_000
    assert files._file.closed


def test_no_name_leads_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = JobFiles()
    files.add("one", io.BytesIO(b"a photo" * 100_000))
    assert list(tmp_path.iterdir()) == []
    files.close()
