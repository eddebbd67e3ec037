"""Photo sets of the inpainting papers by name, in the folders that they are published in.

    places2:ROOT  celeba:ROOT  celeba-hq:ROOT  paris:ROOT  ffhq:ROOT  or a plain folder

- ROOT is the folder into which the set's archives were unpacked. A folder of another layout is an
  error that shows the layout expected. `LAYOUTS` is the one place that knows the names.
- Splits. "seed" draws 50,000 photos for training, 10,000 for validation and 10,000 for tests, in
  the order of SHA-256 of the seed and the photo's last two path components; a smaller set is
  divided 5 : 1 : 1. "official" is the set's own, where it has one. A plain folder is divided as
  trainings divide it (`sources.split`), so that no test photo was trained on.
- Photos are brought to a size by a `Fit`. Sets that are smaller than the size (CelebA's faces are
  178 x 218) are not left out: they are enlarged, or used at their own size, as the fit says.

Sources of the layouts: the documentation of each set, as `datasets.yaml` lists it; CelebA-HQ's
mapping, switchablenorms/CelebAMask-HQ; the division by numbers, NIX-Net (IJCAI 2021), section 5.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from overpaint.data.crops import crop_middle
from overpaint.data.finding import expand_home, list_below, read_lines, refuse_unreadable
from overpaint.data.sources import Part, PhotoSource, Place, leave_out, shorten_name
from overpaint.errors import ConfigError, ImageError
from overpaint.images import Photo, image_suffixes

Split = Literal["seed", "official"]
COUNTS: Mapping[Part, int] = {"train": 50_000, "validation": 10_000, "test": 10_000}
CELEBA_ENDS = (162_770, 182_637)
"""Last numbers of CelebA's parts train and validation (list_eval_partition.txt)."""
FFHQ_TRAINING = 60_000
_GRID = 8  # pixels; JPEG's blocks


@dataclass(frozen=True, slots=True)
class Fit:
    """How a photo comes to a size."""

    size: int = 256
    """Pixels; of both sides of the square."""
    how: Literal["resize", "crop"] = "resize"
    """resize: the shorter side to `size` (Lanczos), then the centre square. crop: a square at the
    photo's own resolution, its place drawn by seed and name, on the grid of JPEG's blocks."""
    small: Literal["enlarge", "keep"] = "enlarge"
    """Photos with a side below `size`. enlarge: the shorter side to `size` (Lanczos). keep: at
    their own resolution, cut to at most `size` a side."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.how not in ("resize", "crop"):
            raise ConfigError("fit: give a positive size, and resize or crop")
        if self.small not in ("enlarge", "keep"):
            raise ConfigError(f"fit: small photos are enlarged or kept, not {self.small!r}")

    def __call__(self, pixels: np.ndarray, key: str = "") -> np.ndarray:
        """uint8 (h, w, 3) at the size. key: what the place of a crop is drawn by."""
        shorter = min(pixels.shape[:2])
        if shorter < self.size:
            return self._enlarge_small(pixels, shorter, key)
        if self.how == "resize":
            return crop_middle(_scale(pixels, self.size / shorter), self.size)
        return self._crop(pixels, key)

    def _enlarge_small(self, pixels: np.ndarray, shorter: int, key: str) -> np.ndarray:
        if self.small == "enlarge":
            pixels = _scale(pixels, self.size / shorter)
        return crop_middle(pixels, self.size) if self.how == "resize" else self._crop(pixels, key)

    def _crop(self, pixels: np.ndarray, key: str) -> np.ndarray:
        rng = np.random.default_rng(list(hashlib.sha256(key.encode("utf-8", "replace")).digest()))
        spans = []
        for side in pixels.shape[:2]:
            room = max(side - self.size, 0)
            start = _GRID * int(rng.integers(room // _GRID + 1))
            spans.append(slice(start, start + min(side, self.size)))
        return np.ascontiguousarray(pixels[spans[0], spans[1]])

    @property
    def words(self) -> str:
        """For the protocol of a table."""
        how = {
            "resize": f"shorter side resized to {self.size} px and centre-cropped",
            "crop": f"crops of {self.size} px at native resolution",
        }
        small = {"enlarge": "smaller photos enlarged", "keep": "smaller photos at their own size"}
        return f"{how[self.how]}, {small[self.small]}"


class PhotoSet:
    """Photos of one part of a set, each brought to a size when it is read."""

    def __init__(self, source: PhotoSource, fit: Fit | None, seed: int, words: str) -> None:
        self._source, self.fit, self._seed = source, fit, seed
        self.words = words
        """Set, part and split, for the protocol of a table."""

    def __len__(self) -> int:
        return len(self._source)

    @property
    def names(self) -> list[str]:
        return self._source.names

    @property
    def source(self) -> PhotoSource:
        """The photos as their files have them."""
        return self._source

    @property
    def problems(self) -> tuple[str, ...]:
        """What was asked for and could not be found, one message each."""
        return self._source.problems

    def read_photo(self, index: int) -> Photo:
        """The photo as its file has it; raises `ImageError`."""
        return self._source.read_photo(index)

    def read(self, index: int) -> np.ndarray:
        """The photo at the size: uint8 (h, w, 3); raises `ImageError`."""
        pixels = self._source.read(index)
        if self.fit is None:
            return pixels
        return self.fit(pixels, f"{self._seed}/{shorten_name(self.names[index])}")


def open_photos(
    spec: str | Path,
    part: Part | None = None,
    seed: int = 0,
    size: int | None = 256,
    *,
    how: Literal["resize", "crop"] = "resize",
    small: Literal["enlarge", "keep"] = "enlarge",
    split: Split = "seed",
) -> PhotoSet:
    """The photos of one part of a set.

    spec: "NAME:ROOT" with a name in `LAYOUTS`, or a folder, list, archive or address. part: None
    for all photos. size, how, small: see `Fit`; size None leaves photos as they are. split: see the
    header. Raises ConfigError for an impossible part, split or size, and ImageError for a folder
    that is not there, of another layout, or without a photo in this part, and for a folder or list
    of the set that cannot be read.
    """
    if part is not None and part not in COUNTS:
        raise ConfigError(f"part {part!r}: choose one of {', '.join(COUNTS)}")
    fit = None if size is None else Fit(size, how, small)
    name, root = _parse_spec(spec)
    if name is None:
        if split == "official":
            raise ConfigError(
                f"{spec}: a folder has no official split; name the set, as in celeba:{spec}"
            )
        source = PhotoSource.from_paths([spec], part, seed=seed)
        words = f"{Path(spec).name}, {part or 'all'} (by hash, seed {seed})"
        return PhotoSet(source, fit, seed, words)
    layout = LAYOUTS[name]
    found = layout.find(root)
    photos = _select_part(layout, found, part, split, seed, root)
    source = PhotoSource([Place(str(path), "", str(path)) for path in photos])
    how_split = "official split" if split == "official" else f"split by seed {seed}"
    words = f"{layout.title}, {part or 'all'} ({how_split}), {len(photos)} photos"
    return PhotoSet(source, fit, seed, words)


def collect_photos(
    paths: Iterable[str | Path],
    part: Part | None = None,
    exclude: Iterable[str | Path] = (),
    seed: int = 0,
) -> PhotoSource:
    """As `PhotoSource.from_paths`, but a path may also be a set by name, divided by seed.

    Raises ImageError as `open_photos` and `PhotoSource.from_paths`.
    """
    unwanted = list(exclude)
    plain: list[str | Path] = []
    sources: list[PhotoSource] = []
    for path in paths:
        name, _, folder = str(path).partition(":")
        if name not in LAYOUTS:
            plain.append(path)
            continue
        root = expand_home(folder)
        photos = _select_part(LAYOUTS[name], LAYOUTS[name].find(root), part, "seed", seed, root)
        kept = leave_out(photos, unwanted)
        if not kept:
            raise ImageError(f"{path}: all {len(photos)} photos are excluded; exclude fewer names")
        sources.append(PhotoSource([Place(str(p), "", str(p)) for p in kept]))
    if plain or not sources:
        sources.insert(0, PhotoSource.from_paths(plain, part, unwanted, seed))
    return sources[0] if len(sources) == 1 else PhotoSource.join(sources)


def find_parts(paths: Iterable[str | Path], seed: int = 0) -> dict[str, Part]:
    """The part of each photo of the sets by name among `paths`, by the photo's name.

    Photos of folders are missing, as their part depends on their own names alone (`sources.split`).
    Raises ImageError as `open_photos`.
    """
    parts: dict[str, Part] = {}
    for path in paths:
        name, _, folder = str(path).partition(":")
        if name in LAYOUTS:
            layout, root = LAYOUTS[name], expand_home(folder)
            found = layout.find(root)
            for part in COUNTS:
                photos = _select_part(layout, found, part, "seed", seed, root)
                parts.update((str(photo), part) for photo in photos)
    return parts


def _parse_spec(spec: str | Path) -> tuple[str | None, Path]:
    name, colon, root = str(spec).partition(":")
    if colon and name in LAYOUTS:
        return name, expand_home(root)
    # A drive letter or an address is no name; a word before the colon that nobody knows is one.
    is_name = colon and len(name) > 1 and not root.startswith("//") and not Path(spec).exists()
    if is_name and re.fullmatch(r"[a-z0-9-]+", name):
        raise ConfigError(
            f"{spec}: no photo set is called {name!r}; there are {', '.join(LAYOUTS)}, "
            "and folders without a name before them"
        )
    return None, Path(spec)


# Splits


def _select_part(
    layout: "Layout",
    found: "Found",
    part: Part | None,
    split: Split,
    seed: int,
    root: Path,
) -> list[Path]:
    if part is None:
        return sorted({path for photos in found.parts.values() for path in photos})
    if split == "official":
        if found.official is None:
            raise ConfigError(f"{root}: {layout.no_official or 'this copy has no official split'}")
        photos = found.official().get(part, [])
        if not photos:
            raise ImageError(f"{root}: no photo of the official part {part}; {layout.expected}")
        return photos
    everything = sorted({path for photos in found.parts.values() for path in photos})
    return draw_part(everything, part, seed)


def draw_part(photos: Sequence[Path], part: Part, seed: int = 0) -> list[Path]:
    """One part of the split by seed: `COUNTS` photos, of a smaller set in the same proportion."""

    def hash_name(path: Path) -> bytes:
        return hashlib.sha256(
            f"{seed}/{shorten_name(str(path))}".encode("utf-8", "replace")
        ).digest()

    ordered = sorted(photos, key=lambda path: (hash_name(path), str(path)))
    share = min(1.0, len(ordered) / sum(COUNTS.values()))
    start = 0
    for name, count in COUNTS.items():
        last = name == "test" and share < 1
        end = len(ordered) if last else start + int(count * share)
        if name == part:
            if start == end:
                raise ImageError(f"{len(ordered)} photos are too few for a part {part}; give more")
            return ordered[start:end]
        start = end
    raise ConfigError(f"part {part!r}: choose one of {', '.join(COUNTS)}")


# Layouts


@dataclass(frozen=True, slots=True)
class Found:
    """The photos below a root."""

    parts: Mapping[str, list[Path]]
    """By the folders of the layout."""
    official: Callable[[], Mapping[Part, list[Path]]] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """How a set lies on the disk."""

    title: str
    expected: str
    """For errors: the folders, in words."""
    search: Callable[[Path], Found | None]
    """Of a root; None where it has another layout."""
    no_official: str = ""

    def find(self, root: Path) -> Found:
        """Raises ImageError for a root that is not there, or of another layout, and for a folder
        that cannot be read."""
        with refuse_unreadable(root):
            if not root.is_dir():
                raise ImageError(f"{root}: no such folder; {self.expected}")
            found = self.search(root)
            if found is None or not any(found.parts.values()):
                here = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
                raise ImageError(
                    f"{root}: not the layout of {self.title}: holds {here}; {self.expected}"
                )
        return found


def _list_photos(folder: Path, pattern: str = r".*") -> list[Path]:
    """Photos below a folder by path, whose whole file name fits the pattern."""
    if not folder.is_dir():
        return []
    named = (p for p in list_below(folder) if re.fullmatch(pattern, p.name))
    return sorted(p for p in named if p.suffix.lower() in image_suffixes and p.is_file())


def _list_first(root: Path, folders: Sequence[str], pattern: str = r".*") -> list[Path]:
    """Of the first of these folders that has any."""
    return next((found for f in folders if (found := _list_photos(root / f, pattern))), [])


_PLACES: Mapping[Part, tuple[str, ...]] = {
    "train": (
        *("data_256", "data_256_standard", "data_large", "data_large_standard"),
        "places365_standard/train",
    ),
    "validation": ("val_256", "val_large", "places365_standard/val"),
    "test": ("test_256", "test_large"),
}


def _find_places2(root: Path) -> Found | None:
    parts: dict[Part, list[Path]] = {
        part: photos for part, folders in _PLACES.items() if (photos := _list_first(root, folders))
    }
    return Found({**parts}, lambda: parts) if parts else None


def _find_celeba(root: Path) -> Found | None:
    folders = ["img_align_celeba", "Img/img_align_celeba"]
    folders += ["img_align_celeba_png", "Img/img_align_celeba_png"]
    photos = _list_first(root, folders, r"\d{6}\.\w+")
    if not photos:
        return None
    lists = [root / "list_eval_partition.txt", root / "Eval" / "list_eval_partition.txt"]
    partition = next((path for path in lists if path.is_file()), None)
    if partition is None:
        return Found({"photos": photos})
    return Found({"photos": photos}, lambda: _split_by_list(photos, partition))


def _split_by_list(photos: Sequence[Path], partition: Path) -> dict[Part, list[Path]]:
    """CelebA's list: a line "000001.jpg 0" for each photo; 0 train, 1 validation, 2 test."""
    codes: dict[str, Part] = {"0": "train", "1": "validation", "2": "test"}
    part_of: dict[str, Part] = {}
    for number, line in enumerate(read_lines(partition), 1):
        words = line.split()
        if len(words) != 2 or words[1] not in codes:
            raise ImageError(f"{partition}: line {number} is not FILE and 0, 1 or 2: {line[:60]!r}")
        part_of[Path(words[0]).stem] = codes[words[1]]
    unknown = [p.name for p in photos if p.stem not in part_of]
    if unknown:
        raise ImageError(
            f"{partition}: does not name {len(unknown)} of {len(photos)} photos, as {unknown[0]}; "
            "take the list of the same release"
        )
    return _group(photos, lambda path: part_of[path.stem])


def _find_celeba_hq(root: Path) -> Found | None:
    for place in (root, root / "CelebAMask-HQ"):
        photos = _list_photos(place / "CelebA-HQ-img", r"\d+\.\w+")
        mapping = place / "CelebA-HQ-to-CelebA-mapping.txt"
        if photos and mapping.is_file():
            return Found({"photos": photos}, lambda p=photos, m=mapping: _split_by_mapping(p, m))
        if photos:
            return Found({"photos": photos})
    photos = _list_first(root, ["data1024x1024", "data256x256"], r"\d+\.\w+")
    return Found({"photos": photos}) if photos else None


def _split_by_mapping(photos: Sequence[Path], mapping: Path) -> dict[Part, list[Path]]:
    """CelebA's parts of the photos that those of CelebA-HQ were made from.

    mapping: a header, then lines "0 119613 119614.jpg": number here, number in CelebA from 0, file.
    """
    original: dict[int, int] = {}
    for number, line in enumerate(read_lines(mapping), 1):
        words = line.split()
        if number == 1 or not words:
            continue
        if len(words) != 3 or not words[0].isdecimal() or not Path(words[2]).stem.isdecimal():
            raise ImageError(f"{mapping}: line {number} is not NUMBER NUMBER FILE: {line[:60]!r}")
        original[int(words[0])] = int(Path(words[2]).stem)

    def find_part(path: Path) -> Part:
        if int(path.stem) not in original:
            raise ImageError(f"{mapping}: does not name {path.name}; take that of the same release")
        train, validation = CELEBA_ENDS
        number = original[int(path.stem)]
        return "train" if number <= train else "validation" if number <= validation else "test"

    return _group(photos, find_part)


def _find_paris(root: Path) -> Found | None:
    train = _list_first(root, ["paris_train_original", "paris_train"])
    test = _list_first(root, ["paris_eval_gt", "paris_eval/paris_eval_gt"])
    if not train and not test:
        return None
    return Found({"train": train, "test": test}, lambda: {"train": train, "test": test})


def _find_ffhq(root: Path) -> Found | None:
    folders = ["images1024x1024", "in-the-wild-images", "thumbnails128x128"]
    photos = _list_first(root, folders, r"\d{5}\.\w+")
    if not photos and _list_photos(root, r"\d{5}\.\w+"):
        photos = _list_photos(root, r"\d{5}\.\w+")

    def split_officially() -> dict[Part, list[Path]]:
        return _group(photos, lambda p: "train" if int(p.stem) < FFHQ_TRAINING else "validation")

    return Found({"photos": photos}, split_officially) if photos else None


def _group(photos: Sequence[Path], part_of: Callable[[Path], Part]) -> dict[Part, list[Path]]:
    parts: dict[Part, list[Path]] = {}
    for path in photos:
        parts.setdefault(part_of(path), []).append(path)
    return parts


LAYOUTS: Mapping[str, Layout] = {
    "places2": Layout(
        "Places2 (Places365)",
        "expected data_256/ (or data_large/, places365_standard/train/) for training, val_256/ (or "
        "val_large/) and test_256/ (or test_large/), any of them; where both sizes are there, 256",
        _find_places2,
    ),
    "celeba": Layout(
        "CelebA",
        "expected img_align_celeba/000001.jpg ..., in it or in Img/, and for the official split "
        "list_eval_partition.txt, beside it or in Eval/",
        _find_celeba,
        no_official="list_eval_partition.txt is not there (beside img_align_celeba/ or in Eval/)",
    ),
    "celeba-hq": Layout(
        "CelebA-HQ",
        "expected CelebA-HQ-img/0.jpg ... of CelebAMask-HQ (and for the official split "
        "CelebA-HQ-to-CelebA-mapping.txt beside it), or data1024x1024/ or data256x256/",
        _find_celeba_hq,
        no_official="CelebA-HQ-to-CelebA-mapping.txt is not there, which the official split needs",
    ),
    "paris": Layout(
        "Paris StreetView",
        "expected paris_train_original/ and paris_eval_gt/ (or paris_eval/paris_eval_gt/)",
        _find_paris,
    ),
    "ffhq": Layout(
        "FFHQ",
        "expected images1024x1024/00000/00000.png ... (or without the folders of a thousand), or "
        "thumbnails128x128/ or in-the-wild-images/",
        _find_ffhq,
    ),
}


# Pixels


def _scale(pixels: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return pixels
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
