"""Files that appear whole or not at all, and their hashes."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from overpaint import atomic, hashes
from overpaint.data.cache import _write_json
from overpaint.detection.calibration import Calibration
from overpaint.errors import ImageError, OverpaintError, TrainingError, WeightsError
from overpaint.images import write_bytes
from overpaint.training.checkpoint import save_checkpoint
from overpaint.weights import save_weights

LONG = "ü" * 127 + "x"  # 255 bytes, which is what file systems take

WRITERS: dict[str, tuple[Callable[[Path], None], type[OverpaintError]]] = {
    "bytes": (lambda path: write_bytes(path, b"x"), ImageError),
    "calibration": (
        lambda path: Calibration(bands={}, window=1, max_pixels_tested=1, data="none").save(path),
        WeightsError,
    ),
    "checkpoint": (lambda path: save_checkpoint(path, {"step": 1}), TrainingError),
    "cache": (lambda path: _write_json(path, {"done": 1}), TrainingError),
}


def save_tiny_weights(folder: Path, name: str = "net") -> None:
    save_weights(
        folder, torch.nn.Linear(1, 1), name=name, kind="detector", architecture="none", config={},
        data="none", recipe="none", commit="none", licence="none",
    )  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS)
def test_a_name_as_long_as_the_file_system_takes(kind: str, tmp_path: Path) -> None:
    write, _ = WRITERS[kind]
    for _ in range(2):  # new, and in the place of an older one
        write(tmp_path / LONG)
        assert [p.name for p in tmp_path.iterdir()] == [LONG]
        assert (tmp_path / LONG).stat().st_size


@pytest.mark.parametrize("kind", WRITERS)
def test_what_cannot_be_written_is_named(kind: str, tmp_path: Path) -> None:
    write, error = WRITERS[kind]
    with pytest.raises(error, match=r"x: cannot be written \(File name too long\)"):
        write(tmp_path / f"{LONG}x")
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(error, match=r"taken: cannot be written \(.*director.*\)"):
        write(tmp_path / "taken")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_weights_of_a_long_name_and_where_a_folder_is_in_their_way(tmp_path: Path) -> None:
    name = "x" * (255 - len(".safetensors"))
    save_tiny_weights(tmp_path, name)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{name}.json", f"{name}.safetensors"]
    (tmp_path / "net.safetensors").mkdir()
    with pytest.raises(WeightsError, match=r"net.safetensors: cannot be written"):
        save_tiny_weights(tmp_path)
    assert not (tmp_path / "net.json").exists()


def test_the_older_file_stays_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"older")

    def fail() -> None:
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hashes.sha256(b"abc") == hashlib.sha256(b"abc").hexdigest()
    assert hashes.file_sha256(tmp_path / "a") == hashes.sha256(b"abc")


def test_whether_a_file_can_be_written_is_found_out_without_a_trace(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"mine")
    for path in (tmp_path / "new", there, tmp_path / LONG):
        atomic.check_writable(path, ImageError)
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
    assert there.read_bytes() == b"mine"
    places = [tmp_path / "gone" / "x", there / "x", tmp_path / f"{LONG}x", tmp_path / "a\0b"]
    for path in places:
        with pytest.raises(ImageError, match=r"cannot be written .*; the folder must exist"):
            atomic.check_writable(path, ImageError)
        with pytest.raises(ImageError, match=r"cannot be written .*; the folder must exist"):
            atomic.write(path, b"x", ImageError)
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_files_that_belong_together_are_replaced_together(tmp_path: Path) -> None:
    page, text = tmp_path / "r.html", tmp_path / "r.json"
    page.write_bytes(b"old page")
    text.write_bytes(b"old text")
    with pytest.raises(ImageError, match=r"gone.*cannot be written"):
        atomic.write_together([(page, b"1"), (text, b"2"), (tmp_path / "gone/x", b"")], ImageError)
    assert (page.read_bytes(), text.read_bytes()) == (b"old page", b"old text")
    atomic.write_together([(page, b"1"), (text, b"2")], ImageError)
    assert (page.read_bytes(), text.read_bytes()) == (b"1", b"2")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_to_nothing_takes_its_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nothing")
    assert atomic.is_taken(tmp_path / "link")
    assert not atomic.is_taken(tmp_path / "nothing")


def test_a_folder_that_cannot_be_written_into_is_found_out(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    atomic.make_folder(folder, ImageError, "choose another")
    assert list(folder.iterdir()) == []
    (tmp_path / "file").write_bytes(b"mine")
    # /proc takes no file of anybody, not even of root.
    closed = [Path("/proc/self")] if Path("/proc/self").is_dir() else []
    for place in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / "a\0b", *closed):
        with pytest.raises(ImageError, match=r"cannot be written into \(.*\); choose another"):
            atomic.make_folder(place, ImageError, "choose another")
