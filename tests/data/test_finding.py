"""Every photo below a folder is found once, and all that is left out is counted or an error."""

import os
import socket
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from overpaint.data.finding import (
    MARK,
    Search,
    find_photos,
    is_picture,
    read_head,
    read_result_mark,
)
from overpaint.data.mask_sets import open_masks
from overpaint.data.pair_sets import read_pairs
from overpaint.data.photo_sets import collect_photos, open_photos
from overpaint.errors import ImageError

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files and names")


def put(path: Path, kind: str = "PNG", level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.new("RGB", (3, 2), (level, level, level)).save(file, kind)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photos in two folders, and things that are none."""
    top = tmp_path / "photos"
    for name in ("b.png", "deep/er/c.JPG", "deep/a.jpeg", "z.tiff", ".hidden.png", ".thumbs/t.png"):
        put(top / name)
    (top / "notes.md").write_text("# Notes")
    (top / "folder.png").mkdir()
    return top


def relative(search: Search, folder: Path) -> list[str]:
    assert not search.problems
    return [path.relative_to(folder).as_posix() for path in search.photos]


def reasons(search: Search) -> str:
    return "\n".join(str(error) for _, error in search.problems)


FOUR = ["b.png", "deep/a.jpeg", "deep/er/c.JPG", "z.tiff"]


def test_folder_is_searched_to_the_bottom_in_order(folder: Path) -> None:
    search = find_photos([folder])
    assert relative(search, folder) == FOUR
    assert search.words == "3 files passed over: 1 no picture (1 .md), 2 hidden"


def test_files_globs_and_folders_mix_and_a_photo_comes_once(folder: Path) -> None:
    search = find_photos([folder / "z.tiff", str(folder / "**" / "*.jp*g"), folder])
    assert relative(search, folder) == ["z.tiff", "deep/a.jpeg", "b.png", "deep/er/c.JPG"]
    assert relative(find_photos(folder), folder) == FOUR
    search = find_photos([folder / "*"])
    assert relative(search, folder) == ["b.png", "z.tiff"]
    assert search.passed_over == {"folders matched by a glob": 2}
    assert relative(find_photos([folder / "**"]), folder) == FOUR
    assert relative(find_photos([folder / "*" / "[a-c]*"]), folder) == ["deep/a.jpeg"]
    assert relative(find_photos([folder / ".thumbs" / "*"]), folder) == [".thumbs/t.png"]


def test_a_glob_may_be_relative(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert [str(p) for p in find_photos(["**/*.JPG", "./b*", "*/../z.*"]).photos] == [
        *("deep/er/c.JPG", "b.png", "deep/../z.tiff")
    ]


def test_a_file_named_itself_is_taken_whatever_it_is(folder: Path) -> None:
    assert find_photos([folder / "notes.md"]).photos == [folder / "notes.md"]
    odd = put(folder / "photo[1].png")
    assert find_photos([odd]).photos == [odd]


@pytest.mark.parametrize(
    ("head", "picture"),
    [
        (b"\xff\xd8\xff\xe0", True),
        (b"RIFF\1\2\3\4WEBPVP8 ", True),
        (b"RIFF\1\2\3\4WAVEfmt ", False),
        (b"II*\0\x08\0\0\0", True),
        (b"II+\0\x08\0\0\0", True),
        (b"\0\0\0\x1cftypavif", True),
        (b"\0\0\0\x18ftypheic", True),
        (b"\0\0\0\x18ftypcrx ", True),
        (b"\0\0\0\x20ftypisom", False),
        (b"\0\0\0\x0cjP  \r\n\x87\n", True),
        (b"\0\0\0\x0cJXL \r\n\x87\n", True),
        (b"8BPS\0\1", True),
        (b"P6\n3 2\n255\n", True),
        (b"P6 is a page", False),
        (b"BM" + struct.pack("<IIII", 70, 0, 54, 40), True),
        (b"BMW and other cars, all of them red", False),
        (b"%PDF-1.7", False),
        (b"PK\x03\x04", False),
        (b"", False),
    ],
)
def test_first_bytes_tell_a_picture(head: bytes, picture: bool) -> None:
    assert is_picture(head) is picture


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"])
def test_content_decides_where_the_suffix_does_not(kind: str, folder: Path) -> None:
    for name in ("photo", "photo.dat", "photo.jpg_large"):
        put(folder / name, kind)
    (folder / "j.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50))
    (folder / "text.jp2").write_bytes(b"no picture")
    (folder / "empty").touch()
    search = find_photos([folder])
    more = {"photo", "photo.dat", "photo.jpg_large", "j.jp2"}
    assert set(relative(search, folder)) == {*FOUR, *more}
    assert search.without_picture == Counter({".md": 1, ".jp2": 1, "": 1})
    assert str(search.words).startswith("5 files passed over: 3 no picture (1 ")


def test_a_picture_of_findings_is_known_by_its_mark_alone(folder: Path) -> None:
    text = PngInfo()
    text.add_text(MARK, "mask of the photo")
    Image.new("L", (3, 2)).save(folder / "marked", "PNG", pnginfo=text)
    Image.new("L", (3, 2)).save(folder / "renamed.png", pnginfo=text)
    put(folder / "x.mask.png")
    (folder / "x.json").write_text("{}")
    assert read_result_mark(read_head(folder / "renamed.png")) == "mask of the photo"
    assert read_result_mark(read_head(folder / "x.mask.png")) is None
    search = find_photos([folder])
    assert set(relative(search, folder)) == {*FOUR, "x.mask.png"}
    assert search.findings == [str(folder / "marked"), str(folder / "renamed.png")]
    assert "2 written by overpaint (marked, renamed.png)" in (search.words or "")
    assert "renamed.png" in relative(find_photos([folder], results=True), folder)
    assert find_photos([folder / "marked"]).photos == [folder / "marked"]  # named itself


@POSIX
def test_every_name_of_a_file_comes_where_that_is_asked_for(folder: Path, tmp_path: Path) -> None:
    (folder / "again.png").symlink_to("b.png")
    (folder / "far").symlink_to("deep")
    (folder / "deep" / "circle").symlink_to(folder)
    search = find_photos([folder, folder / "b.png"], every_name=True)
    below = [*("deep/a.jpeg", "deep/er/c.JPG"), *("far/a.jpeg", "far/er/c.JPG"), "z.tiff"]
    assert relative(search, folder) == ["again.png", "b.png", *below]
    assert search.passed_over["links to folders that were searched"] == 2


def test_links_are_followed_once_and_circles_end(folder: Path, tmp_path: Path) -> None:
    other = put(tmp_path / "other" / "o.png").parent
    (folder / "a-link").symlink_to(other)
    (folder / "circle").symlink_to(folder)
    (folder / "deep" / "up").symlink_to("..")
    (folder / "deep" / "up2").symlink_to("..")
    (folder / "alias").symlink_to("deep")
    (other / "back").symlink_to(folder)
    (folder / "self.png").symlink_to("self.png")
    (folder / "same.png").symlink_to("b.png")
    search = find_photos([folder])
    found = [path.relative_to(folder).as_posix() for path in search.photos]
    assert found == ["a-link/o.png", *FOUR[:3], "self.png", "z.tiff"]
    assert search.passed_over["links to folders that were searched"] == 5
    assert search.passed_over["photos named twice"] == 1
    started = time.perf_counter()
    search = find_photos([f"{folder}/**/*.jpeg"])
    assert [path.name for path in search.photos] == ["a.jpeg"]
    assert time.perf_counter() - started < 5  # Python's own glob takes 2 to the power of 40 steps


@POSIX
def test_pipes_and_sockets_are_never_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "list.txt")
    monkeypatch.chdir(folder)  # a socket's name has to be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
        search = find_photos([folder])
    assert relative(search, folder) == ["b.png", *FOUR[1:3], "pipe.png", "z.tiff"]
    assert search.passed_over["devices, pipes or sockets"] == 3
    assert find_photos(["/dev/zero"]).photos == [Path("/dev/zero")]  # refused by the reader
    assert "list.txt: the list cannot be read (this is no file)" in reasons(
        find_photos(["list.txt"])
    )


@POSIX
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="has no users")
def test_what_cannot_be_searched_or_read_is_a_problem(folder: Path) -> None:
    (folder / "deep").chmod(0)
    (folder / "notes.md").chmod(0)
    put(folder / "unread.jpg").chmod(0)
    pid = os.fork()
    if not pid:  # as a user whom rights concern
        try:
            for above in folder.parents:  # pytest's own folders are private
                if above == Path(tempfile.gettempdir()):
                    break
                above.chmod(0o755)
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            for asked in ([folder], [f"{folder}/**/*.png", f"{folder}/*.md"]):
                search = find_photos(asked)
                text = reasons(search)
                assert "deep: the folder cannot be searched (Permission denied)" in text, text
                assert "notes.md: cannot be read (Permission denied)" in text, text
                assert folder / "b.png" in search.photos
            assert folder / "unread.jpg" in find_photos([folder]).photos  # the reader says so
            text = reasons(find_photos([folder / "deep" / "a.jpeg"]))
            assert "a.jpeg: cannot be read (Permission denied)" in text, text
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    (folder / "deep").chmod(0o755)
    assert status == 0


def test_what_is_not_there_costs_itself_alone(folder: Path) -> None:
    (folder / "bare").mkdir()
    cases = {
        "gone.png": "no such file",
        "*.bmp": "no match",
        "bare": "holds no photo",
        "nul\0.png": "cannot be read",
        "n" * 256 + ".png": "cannot be read (File name too long)",
    }
    search = find_photos([*(f"{folder}/{name}" for name in cases), folder])
    assert len(search.photos) == 4
    assert [path for path, _ in search.problems] == [f"{folder}/{name}" for name in cases]
    for (path, error), reason in zip(search.problems, cases.values(), strict=True):
        assert reason in str(error)
        assert path in str(error)


@POSIX
def test_one_bad_line_costs_one_line(folder: Path) -> None:
    put(folder / os.fsdecode(b"gr\xf6\xdfe.png"))
    listing = folder.parent / "list.txt"
    lines = (
        *(b"photos/z.tiff", b"", b"photos/gone.png", "photos/größe.png".encode("latin-1")),
        *("photos/nöne.png".encode("latin-1"), b"photos/a\0b", b"  photos/deep\r", b"photos/*.bmp"),
        bytes(folder / "b.png"),
    )
    listing.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    search = find_photos([listing, folder.parent / "none.txt"])
    assert [path.name for path in search.photos] == [
        *("z.tiff", "gr\udcf6\udcdfe.png", "a.jpeg", "c.JPG", "b.png")
    ]
    text = [str(error) for _, error in search.problems]
    for error, line in zip(text, (3, 5, 6, 8), strict=False):
        assert f"({listing}, line {line}" in error
    assert "save the list as UTF-8" in text[1]
    assert "none.txt: the list cannot be read (No such file" in text[4]
    assert len(text) == 5


def test_list_file_is_relative_to_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = folder.parent / "list.txt"
    listing.write_text(
        f"photos/z.tiff\n\n  photos/deep\r\n{folder / 'b.png'}\n", encoding="utf-8-sig"
    )
    monkeypatch.chdir(folder)
    found = relative(find_photos([listing]), folder)
    assert found == ["z.tiff", "deep/a.jpeg", "deep/er/c.JPG", "b.png"]
    listing.write_text("photos/z.tiff", encoding="utf-16")
    assert "UTF-16" in reasons(find_photos([listing]))


def test_a_picture_that_is_called_a_list_is_a_picture(folder: Path) -> None:
    odd = put(folder / "photo.txt", "JPEG")
    assert find_photos([odd]).photos == [odd]


@POSIX
def test_the_same_photo_by_other_paths_comes_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    ways = [f"{folder}/b.png", f"{folder}/deep/../b.png", f"{tmp_path}/link/b.png"]
    search = find_photos([*ways, ways[0]])
    assert search.photos == [Path(ways[0])]
    assert search.words == "2 files passed over: 2 photos named twice"


@pytest.mark.parametrize(
    "read",
    [
        lambda root: open_masks(f"folder:{root}"),
        lambda root: read_pairs(f"casia:{root}"),
        lambda root: open_photos(f"places2:{root}"),
        lambda root: collect_photos([f"places2:{root}"]),
    ],
)
def test_a_home_folder_that_is_not_there(read: Callable[[str], object]) -> None:
    with pytest.raises(ImageError, match="~nobody-of-this-name/x: there is no such home folder"):
        read("~nobody-of-this-name/x")
