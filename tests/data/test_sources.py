"""Finding photos, splitting them the same way everywhere, and reading them from anywhere."""

import hashlib
import io
import multiprocessing
import pickle
import tarfile
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from overpaint.data import sources
from overpaint.data.sources import PhotoSource, hash_data_list, split
from overpaint.errors import ConfigError, ImageError


def png(level):
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Four photos in two folders, and things that are none. Level = 10 times its place in order."""
    files = {"b.png": 10, "deep/er/c.JPG": 20, "deep/a.jpeg": 30, "z.tiff": 40}
    files |= {".hidden.png": 0, ".thumbs/t.png": 0, "notes.md": 0}
    for name, level in files.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(level) if level or name.startswith(".") else b"# Notes")
    (tmp_path / "photos" / "folder.png").mkdir()
    return tmp_path / "photos"


def relative(paths, folder):
    return [Path(path).relative_to(folder).as_posix() for path in paths]


def levels(source):
    return [int(source.read(i)[0, 0, 0]) for i in range(len(source))]


# split


NAMES = [f"/data/{folder}/{i:05d}.jpg" for folder in "ab" for i in range(2000)]


def test_parts_are_disjoint_complete_and_about_80_10_10():
    parts = [split(NAMES, part) for part in ("train", "validation", "test")]
    assert sorted(name for part in parts for name in part) == sorted(NAMES)
    for part, share in zip(parts, (0.8, 0.1, 0.1), strict=True):
        assert len(part) / len(NAMES) == pytest.approx(share, abs=0.02)  # 3 to 4 deviations


def test_split_is_pinned_and_the_same_under_another_root_or_in_a_subset():
    pinned = ["a/00001.jpg", "a/00004.jpg"]  # sha256sum of "0/a/00001.jpg" gives 9 mod 10
    test = split(NAMES, "test")
    assert [name.removeprefix("/data/") for name in test[:2]] == pinned
    elsewhere = [Path("D:/other/place") / name.removeprefix("/data/") for name in NAMES]
    assert relative(split(elsewhere, "test"), "D:/other/place") == relative(test, "/data")
    assert split(NAMES[1::3], "test") == [name for name in NAMES[1::3] if name in set(test)]


def test_split_depends_on_seed_folder_and_name():
    test = split(NAMES, "test")
    assert split(NAMES, "test", seed=1) != test
    in_a = [n[-9:] for n in test if "/a/" in n]
    assert in_a != [n[-9:] for n in test if "/b/" in n]


def test_split_of_a_bare_name_counts_its_folder(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    bare = [Path(name).name for name in NAMES[:300]]
    assert split(bare, "validation") == [Path(n).name for n in split(NAMES[:300], "validation")]


def test_unicode_spelling_does_not_change_the_part():
    for i in range(40):
        composed, decomposed = f"/d/caf\u00e9{i}.jpg", f"/d/cafe\u0301{i}.jpg"
        assert len(split([composed, decomposed], "train")) in (0, 2)


def test_unknown_part_is_refused():
    with pytest.raises(ConfigError, match="train, validation, test"):
        split(NAMES, "val")  # type: ignore[arg-type]


# PhotoSource


def test_source_reads_files(folder):
    source = PhotoSource.from_paths([folder])
    assert relative(source.names, folder) == ["b.png", "deep/a.jpeg", "deep/er/c.JPG", "z.tiff"]
    assert levels(source) == [10, 30, 20, 40]
    assert source.read(0).shape == (2, 3, 3)
    assert source.read_photo(0).sha256 == find_sha(folder / "b.png")


def find_sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_archive(folder, kind):
    path = folder.parent / f"set.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.rglob("*.*")):
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, "w") as archive:
            archive.add(folder, ".")
    return path


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_source_reads_archives(folder, kind):
    path = make_archive(folder, kind)
    source = PhotoSource.from_paths([path])
    members = ["b.png", "deep/a.jpeg", "deep/er/c.JPG", "z.tiff"]
    assert [n.removeprefix(f"{path}::").removeprefix("./") for n in source.names] == members
    assert levels(source) == [10, 30, 20, 40]
    assert source.read_photo(1).sha256 == find_sha(folder / "deep/a.jpeg")


def _hashes(source):
    return [source.read_photo(i).sha256 for i in range(len(source))]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_are_read_by_forked_workers_at_once(tmp_path, kind):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(30):  # larger than a read buffer, so that a shared file position would show
        noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{i}.png")
    source = PhotoSource.from_paths([make_archive(tmp_path / "photos", kind)])
    expected = _hashes(source)  # opens the archive before the fork
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_hashes, [source] * 8, chunksize=1) == [expected] * 8


def test_source_survives_pickling(folder):
    source = PhotoSource.from_paths([make_archive(folder, "zip"), folder])
    again = pickle.loads(pickle.dumps(source))
    assert again.names == source.names
    assert levels(again) == levels(source)


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    for name, level in {"x/1.png": 1, "x/2.png": 2, "y/3.png": 3, "y/.h.png": 9, "t.md": 9}.items():
        files.pipe(f"/bucket/{name}", png(level))
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


def test_source_reads_addresses_of_folders_globs_and_files(memory):
    assert levels(PhotoSource.from_paths([memory])) == [1, 2, 3]
    assert levels(PhotoSource.from_paths([f"{memory}/*/[23].png"])) == [2, 3]
    source = PhotoSource.from_paths([f"{memory}/y/3.png"])
    assert levels(source) == [3]
    assert source.names == ["memory:///bucket/y/3.png"]


def test_an_address_below_a_hidden_folder_is_no_hidden_photo(memory):
    fsspec.filesystem("memory").pipe("/bucket/.cache/set/1.png", png(5))
    assert levels(PhotoSource.from_paths([f"{memory}/.cache/set"])) == [5]


def test_list_file_may_hold_addresses_and_archives(folder, memory):
    make_archive(folder, "zip")
    listing = folder.parent / "all.txt"
    listing.write_text(f"{memory}/x\nset.zip\nphotos/b.png\n")
    assert levels(PhotoSource.from_paths([listing])) == [1, 2, 10, 30, 20, 40, 10]


def test_address_errors_name_the_address(memory):
    cases = {f"{memory}/empty": "holds no photo", "nosuch://a/b": "nosuch"}
    for address, reason in cases.items():
        with pytest.raises(ImageError, match=reason):
            PhotoSource.from_paths([address])
    source = PhotoSource.from_paths([f"{memory}/gone.png"])
    with pytest.raises(ImageError, match=r"gone\.png: cannot be read"):
        source.read(0)


def test_archive_errors_name_the_archive(tmp_path):
    for name in ("bad.zip", "bad.tar"):
        (tmp_path / name).write_bytes(b"no archive" * 99)
        with pytest.raises(ImageError, match=rf"{name}: cannot be listed"):
            PhotoSource.from_paths([tmp_path / name])
    with pytest.raises(ImageError, match=r"gone\.zip: cannot be listed"):
        PhotoSource.from_paths([tmp_path / "gone.zip"])
    with pytest.raises(ImageError, match="unpack it"):
        PhotoSource.from_paths([tmp_path / "set.tar.gz"])
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.md", "x")
    with pytest.raises(ImageError, match="holds no photo"):
        PhotoSource.from_paths([tmp_path / "none.zip"])


def test_bomb_in_an_archive_is_refused_unread(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", b"\0" * (2**26 + 1000))
    monkeypatch.setenv("OVERPAINT_MAX_PIXELS", "100")
    with pytest.raises(ImageError, match="bytes, too many"):
        PhotoSource.from_paths([tmp_path / "a.zip"]).read(0)


def test_part_and_exclude_leave_photos_out(tmp_path):
    for i in range(40):
        path = tmp_path / "set" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(i))
    everything = PhotoSource.from_paths([tmp_path / "set"])
    parts = [PhotoSource.from_paths([tmp_path / "set"], p) for p in ("train", "validation", "test")]
    assert sorted(n for part in parts for n in part.names) == sorted(everything.names)
    assert parts[2].names == split(everything.names, "test")
    out = ["/other/root/set/7.png", "3.png", "/other/folder/9.png"]
    kept = PhotoSource.from_paths([tmp_path / "set"], exclude=out)
    assert set(relative(everything.names, tmp_path)) - set(relative(kept.names, tmp_path)) == {
        "set/7.png",
        "set/3.png",
    }
    with pytest.raises(ImageError, match="none of the 1 photos is left"):
        PhotoSource.from_paths([tmp_path / "set/3.png"], exclude=["3.png"])


def test_a_photo_is_the_same_however_its_folder_is_named(tmp_path, monkeypatch):
    inner = tmp_path / "set" / "inner"
    inner.mkdir(parents=True)
    for i in range(40):
        (tmp_path / "set" / f"{i}.png").write_bytes(png(i))
    wanted = [
        Path(n).name for n in split(sorted(map(str, (tmp_path / "set").glob("*.png"))), "train")
    ]
    for here, given in ((tmp_path, "set"), (tmp_path / "set", "."), (inner, "..")):
        monkeypatch.chdir(here)
        found = PhotoSource.from_paths([given], "train")
        assert sorted(Path(n).name for n in found.names) == sorted(wanted)
        out = PhotoSource.from_paths([given], "train", exclude=[found.names[0]])
        assert out.names == found.names[1:]


def test_archive_splits_as_the_folder_it_was_made_from(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in NAMES[:60]:
            archive.writestr(name.removeprefix("/data/"), b"")
    source = PhotoSource.from_paths([tmp_path / "a.zip"], "validation")
    members = ["/data/" + name.split("::")[1] for name in source.names]
    assert members == split(NAMES[:60], "validation")


def test_damaged_photo_in_a_source_is_named(folder):
    (folder / "b.png").write_bytes(b"text")
    source = PhotoSource.from_paths([make_archive(folder, "zip")])
    with pytest.raises(ImageError, match=r"set\.zip::b\.png: not a photo"):
        source.read(0)


def test_names_with_a_backslash_or_dots_count_as_photos_by_their_last_part():
    assert sources._is_photo("a\\b.JPG")
    assert not sources._is_photo("a\\.b.JPG")


def test_one_bad_member_costs_itself_alone(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {"a.jpg": png(1), "photo": png(2), "bad": png(3), "t.md": b"x"}.items():
            archive.writestr(name, data)
    data = path.read_bytes()
    start = data.index(b"bad\x89PNG") - 30
    path.write_bytes(data[:start] + b"XX" + data[start + 2 :])  # its local header is gone
    source = PhotoSource.from_paths([path, tmp_path / "gone.zip"])
    assert levels(source) == [1, 2]
    assert "a.zip::bad: cannot be read" in source.problems[0]
    assert "gone.zip: cannot be listed" in source.problems[1]
    assert source.passed_over == "1 file passed over: 1 no picture (1 .md)"


def test_the_hash_of_a_list_of_photos_is_that_of_its_names_on_every_machine() -> None:
    wanted = hashlib.sha256(b"a/1.png\na/2.png\nb.zip/3.png").hexdigest()
    assert hash_data_list(["/x/a/2.png", "/y/b.zip::3.png", "/x/a/1.png"]) == wanted
    assert hash_data_list(["C:/z/a/1.png", "b.zip::3.png", "q/a/2.png"]) == wanted
    assert hash_data_list(["/x/a/2.png", "/x/a/1.png"]) != wanted
