"""Sets of (picture, mask) pairs that detectors are measured on, in the folders of their releases.

    casia:ROOT (version 1 or 2)  columbia:ROOT  coverage:ROOT  nist16:ROOT  imd2020:ROOT
    defacto:ROOT  autosplice:ROOT  opensdi:ROOT  sagi-d:ROOT  folder:ROOT  json:FILE

- A part of a set follows "#": nist16:ROOT#removal, defacto:ROOT#inpainting,
  autosplice:ROOT#Forged_JPEG90, opensdi:ROOT#sd15; without it, all parts (of NIST16, the
  reference "manipulation", which holds all kinds). `Pair.part` says which one a pair is of.
- Untouched pictures of a set are pairs without a mask; a picture that was wholly generated is one
  whose mask is everything.
- A folder of another layout is an error that shows the layout expected. A picture without its mask
  is left out and told of (`PairSet.problems`).
- Every set has its own way to paint a mask (`MaskRule`): some are inverted, one is coloured.
- A mask of another size than its picture is an error when it is read, as a guess would move the
  truth. Photos are read upright; where EXIF turns one by a quarter, the mask is turned with it if
  its size says so, and where its size cannot say it, the pair is refused.

Sources of the layouts: each set's documentation and the public lists of those who measure on it
(grip-unina/TruFor @ae54475, photoholmes @223762c, cainspencerm/image-manipulation-datasets
@c3ae6d8, iamwangyabin/OpenSDI @b1cf3c5, scu-zjz/IMDLBenCo @3efef9b); facts only. `datasets.yaml`
says which were not checked on the published files.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from overpaint.data.finding import expand_home, list_below, refuse_unreadable
from overpaint.errors import ConfigError, ImageError
from overpaint.images import Photo, decode_image, image_suffixes, read_image
from overpaint.images.decoding import read_orientation, turn_upright


@dataclass(frozen=True, slots=True)
class MaskRule:
    """Which pixels of a mask file are forged."""

    above: int = 127
    """Brightness, 0..255: forged is above it."""
    invert: bool = False
    """Forged is black."""
    green: bool = False
    """Forged is greener than red (Columbia)."""

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """uint8 (h, w), 1 = forged, of a mask file's pixels (h, w, 3)."""
        if self.green:
            return (rgb[..., 1].astype(np.int16) > rgb[..., 0]).astype(np.uint8)
        grey = np.asarray(Image.fromarray(rgb).convert("L"))
        return ((grey > self.above) != self.invert).astype(np.uint8)


WHITE, ANY, BLACK, GREEN = MaskRule(), MaskRule(0), MaskRule(invert=True), MaskRule(green=True)


@dataclass(frozen=True, slots=True)
class Pair:
    """One picture of a set and where its forged pixels are."""

    name: str
    """Unique in its set."""
    image: Path
    mask: Path | None = None
    """None for an untouched picture, and for a wholly generated one."""
    part: str = ""
    """Of the set."""
    rule: MaskRule = WHITE
    whole: bool = False
    """All of it is generated."""
    row: int | None = None
    """Of the table `image`, where the set is one of tables."""

    @property
    def forged(self) -> bool:
        return self.whole or self.mask is not None

    def read(self) -> tuple[Photo, np.ndarray]:
        """The picture, and the truth: uint8 (h, w), 1 = forged. Raises `ImageError`."""
        if self.row is not None:
            return _read_row(self)
        photo = read_image(self.image)
        if self.mask is None:
            return photo, self._make_even_mask(photo)
        pixels = read_image(self.mask).pixels
        return photo, _fit_truth(self.rule(pixels), photo, self)

    def _make_even_mask(self, photo: Photo) -> np.ndarray:
        return np.full((photo.height, photo.width), int(self.whole), np.uint8)


class PairSet(Sequence[Pair]):
    """The pairs of a set, by name, and what was left out."""

    def __init__(self, title: str, pairs: Sequence[Pair], problems: Sequence[str] = ()) -> None:
        self.title, self.problems = title, tuple(problems)
        self._pairs = sorted(pairs, key=lambda pair: pair.name)

    def __len__(self) -> int:
        return len(self._pairs)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        return self._pairs[index]


def read_pairs(spec: str) -> PairSet:
    """The pairs of a set; see the header.

    Raises ConfigError for an unknown set or part, ImageError for a folder that is not there, of
    another layout, or not to be read.
    """
    name, colon, rest = spec.partition(":")
    if not colon or name not in SETS:
        raise ConfigError(f"pairs {spec!r}: give NAME:ROOT with one of {', '.join(SETS)}")
    root, _, part = rest.partition("#")
    kind, place = SETS[name], expand_home(root)
    with refuse_unreadable(place):
        if not place.exists():
            raise ImageError(f"{place}: not there; {kind.expected}")
        pairs, problems = kind.search(place, part or None)
        names = sorted(p.name for p in place.iterdir()) if place.is_dir() else ["a file"]
    if not pairs:
        here = ", ".join(names[:8])
        reason = f"; {problems[0]}" if problems else ""
        raise ImageError(
            f"{place}: not the layout of {kind.title}: holds {here or 'nothing'}{reason}; "
            f"{kind.expected}"
        )
    if part:
        parts = sorted({pair.part for pair in pairs if pair.part})
        pairs = [pair for pair in pairs if pair.part in (part, "")]
        if not any(pair.part for pair in pairs):
            raise ConfigError(f"{spec}: no part {part!r}; there are {', '.join(parts) or 'none'}")
    return PairSet(kind.title, pairs, problems)


# Truth


def _fit_truth(truth: np.ndarray, photo: Photo, pair: Pair) -> np.ndarray:
    """The truth in the place of the upright photo's pixels."""
    orientation = _read_orientation(photo.path)
    size = (photo.height, photo.width)
    if orientation >= 5 and truth.shape == size[::-1] and size[0] != size[1]:
        return np.ascontiguousarray(turn_upright(truth, orientation))
    if truth.shape != size:
        raise ImageError(
            f"{pair.mask}: the mask has {truth.shape[1]} x {truth.shape[0]} pixels, its picture "
            f"{photo.width} x {photo.height}; leave the pair out, or take a corrected release"
        )
    if orientation in (2, 3, 4) or (orientation >= 5 and size[0] == size[1]):
        raise ImageError(
            f"{pair.image}: EXIF turns the picture, and nothing tells whether its mask is turned; "
            "leave the pair out, or remove the orientation from the file"
        )
    return truth


def _read_orientation(path: Path) -> int:
    with Image.open(path) as image:
        return read_orientation(image)


# Sets

_Found = tuple[list[Pair], list[str]]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a set lies on the disk."""

    title: str
    expected: str
    """For errors: the files, in words."""
    search: Callable[[Path, str | None], _Found]


def _list_pictures(folder: Path) -> list[Path]:
    """Pictures directly in a folder, by name; none where it is not there."""
    if not folder.is_dir():
        return []
    found = (p for p in folder.iterdir() if p.suffix.lower() in image_suffixes and p.is_file())
    return sorted(p for p in found if not p.name.startswith("."))


def _list_folders(root: Path, named: Callable[[Path], bool]) -> list[Path]:
    """Folders below a root, and itself, by path."""
    return sorted(p for p in (root, *list_below(root)) if p.is_dir() and named(p))


def _name_picture(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _match_masks(
    root: Path,
    pictures: Sequence[Path],
    mask_of: Callable[[Path], Path | None],
    part: str = "",
    rule: MaskRule = WHITE,
) -> _Found:
    """Pairs of forged pictures with their masks, and what has none."""
    pairs, problems = [], []
    for picture in pictures:
        mask = mask_of(picture)
        if mask is None or not mask.is_file():
            problems.append(f"{picture}: left out, as its mask is not there")
        else:
            pairs.append(Pair(_name_picture(root, picture), picture, mask, part, rule))
    return pairs, problems


def _make_untouched(root: Path, pictures: Sequence[Path]) -> list[Pair]:
    return [Pair(_name_picture(root, picture), picture) for picture in pictures]


def _join(*found: _Found) -> _Found:
    return [p for pairs, _ in found for p in pairs], [p for _, problems in found for p in problems]


def _find_casia(root: Path, part: str | None) -> _Found:
    truths = {
        mask.stem.removesuffix("_gt"): mask
        for folder in _list_folders(root, lambda p: _is_truth(root, p))
        for mask in _list_pictures(folder)
    }
    if not truths:
        return [], []
    shown = _list_folders(root, lambda p: not _is_truth(root, p))
    pictures = [picture for folder in shown for picture in _list_pictures(folder)]
    forged = [p for p in pictures if p.name.startswith(("Tp_", "Sp_"))]
    found = [
        _match_masks(
            root,
            [p for p in forged if _find_casia_part(p) == kind],
            _match_by_stem(truths),
            kind,
            ANY,
        )
        for kind in ("copy-move", "splicing")
    ]
    authentic = [p for p in pictures if p.name.startswith("Au_")]
    return _join(*found, (_make_untouched(root, authentic), []))


def _is_truth(root: Path, folder: Path) -> bool:
    words = folder.relative_to(root).parts or (folder.name,)
    return any("groundtruth" in word.lower().replace(" ", "") for word in words)


def _find_casia_part(path: Path) -> str:
    """By the second letter code of the file's name: S = same picture, D = different ones."""
    return "copy-move" if path.name[3:5] == "S_" else "splicing"


def _match_by_stem(masks: Mapping[str, Path]) -> Callable[[Path], Path | None]:
    return lambda picture: masks.get(picture.stem)


def _find_columbia(root: Path, part: str | None) -> _Found:
    spliced = root / "4cam_splc"
    masks = {p.stem.removesuffix("_edgemask"): p for p in _list_pictures(spliced / "edgemask")}
    if not masks:
        return [], []
    found = _match_masks(root, _list_pictures(spliced), _match_by_stem(masks), rule=GREEN)
    return _join(found, (_make_untouched(root, _list_pictures(root / "4cam_auth")), []))


def _find_coverage(root: Path, part: str | None) -> _Found:
    def find_mask(picture: Path) -> Path:
        return root / "mask" / f"{picture.stem.removesuffix('t')}forged{picture.suffix}"

    pictures = [p for p in _list_pictures(root / "image") if re.fullmatch(r"\d+t?", p.stem)]
    forged = [p for p in pictures if p.stem.endswith("t")]
    untouched = [p for p in pictures if not p.stem.endswith("t")]
    return _join(_match_masks(root, forged, find_mask), (_make_untouched(root, untouched), []))


_NIST_TASKS = ("manipulation", "removal", "splice")


def _find_nist16(root: Path, part: str | None) -> _Found:
    task = part or "manipulation"
    if task not in _NIST_TASKS:
        raise ConfigError(f"nist16: no part {task!r}; there are {', '.join(_NIST_TASKS)}")
    reference = root / "reference" / task / f"NC2016-{task}-ref.csv"
    if not reference.is_file():
        return [], [f"{reference} is not there"]
    pairs, problems = [], []
    for line in _read_table(reference, "|", ("ProbeFileName", "ProbeMaskFileName", "IsTarget")):
        picture = root / line["ProbeFileName"]
        if not picture.is_file():
            problems.append(f"{picture}: left out, as it is not there")
        elif line["IsTarget"] != "Y":
            pairs.append(Pair(_name_picture(root, picture), picture))
        elif not line["ProbeMaskFileName"] or not (root / line["ProbeMaskFileName"]).is_file():
            problems.append(f"{picture}: left out, as its mask is not there")
        else:
            mask = root / line["ProbeMaskFileName"]
            pairs.append(Pair(_name_picture(root, picture), picture, mask, task, BLACK))
    return list({pair.name: pair for pair in pairs}.values()), problems


def _read_table(path: Path, delimiter: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Lines of a CSV file; raises ImageError when it cannot be read or lacks a column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            lacking = [c for c in columns if c not in (reader.fieldnames or ())]
            if lacking:
                raise ImageError(f"{path}: has no column {', '.join(lacking)}; fetch it again")
            return [{c: line[c] or "" for c in columns} for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImageError(f"{path}: cannot be read ({error}); fetch it again") from error


def _find_imd2020(root: Path, part: str | None) -> _Found:
    found: list[_Found] = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        pictures = _list_pictures(folder)
        masks = {p.stem.removesuffix("_mask"): p for p in pictures if p.stem.endswith("_mask")}
        if not masks:
            continue
        originals = [p for p in pictures if p.stem.endswith("_orig")]
        forged = [p for p in pictures if not p.stem.endswith(("_mask", "_orig"))]
        found += [_match_masks(root, forged, _match_by_stem(masks), rule=ANY)]
        found += [(_make_untouched(root, originals), [])]
    return _join(*found)


def _find_defacto(root: Path, part: str | None) -> _Found:
    found = []
    for folder in _list_folders(root, lambda p: p.name == "img" and p.parent.name.endswith("_img")):
        kind = folder.parent.name.removesuffix("_img")  # inpainting, copymove, splicing_1, ...
        masks = folder.parent.with_name(f"{kind}_annotations") / "probe_mask"
        truths = {p.stem: p for p in _list_pictures(masks)}
        part_name = re.sub(r"_\d+$", "", kind)
        found.append(_match_masks(root, _list_pictures(folder), _match_by_stem(truths), part_name))
    return _join(*found)


def _find_autosplice(root: Path, part: str | None) -> _Found:
    masks = {p.stem.removesuffix("_mask"): p for p in _list_pictures(root / "Mask")}
    if not masks:
        return [], []
    found: list[_Found] = [
        _match_masks(
            root,
            _list_pictures(folder),
            lambda p: masks.get(p.stem.split("_")[0]),
            folder.name,
            ANY,
        )
        for folder in sorted(root.glob("Forged_JPEG*"))
    ]
    if not any(pairs for pairs, _ in found):
        return _join(*found)
    return _join(*found, (_make_untouched(root, _list_pictures(root / "Authentic")), []))


def _find_sagi_d(root: Path, part: str | None) -> _Found:
    results = sorted(p for p in list_below(root) if p.name == "results.csv")
    if results:
        return _join(*(_read_sagi_results(root, path) for path in results))
    found: list[_Found] = []
    for masks in _list_folders(root, lambda p: p.name in ("masks", "mask")):
        truths = {p.stem: p for p in _list_pictures(masks)}
        others = (p for p in masks.parent.iterdir() if p.is_dir() and p != masks)
        for folder in sorted(others):
            if folder.name == "original":
                found.append((_make_untouched(root, _list_pictures(folder)), []))
            else:
                found.append(
                    _match_masks(root, _list_pictures(folder), _match_by_stem(truths), folder.name)
                )
    return _join(*found)


def _read_sagi_results(root: Path, path: Path) -> _Found:
    """The table that the authors' program writes; its paths begin at ROOT or at the table."""

    def find_file(text: str) -> Path:
        beside = path.parent / text
        return beside if beside.is_file() else root / text

    pairs, problems = [], []
    for line in _read_table(path, ",", ("image_path", "mask_path", "output_path")):
        original, mask, filled = (find_file(text) for text in line.values())
        if not filled.is_file() or not mask.is_file():
            problems.append(f"{filled}: left out, as it or its mask is not there")
            continue
        pairs.append(Pair(line["output_path"], filled, mask, path.parent.name))
        if original.is_file():
            pairs.append(Pair(line["image_path"], original))
    return list({pair.name: pair for pair in pairs}.values()), problems


_IMAGES, _MASKS = ("inpainted", "images", "image", "Tp"), ("masks", "mask", "Gt")
_ORIGINALS = ("originals", "original", "Au")


def _find_in_folder(root: Path, part: str | None) -> _Found:
    def list_first(names: Sequence[str]) -> list[Path]:
        return next((found for n in names if (found := _list_pictures(root / n))), [])

    truths = {p.stem: p for p in list_first(_MASKS)}
    if not truths:
        return [], []
    found = _match_masks(root, list_first(_IMAGES), _match_by_stem(truths))
    return _join(found, (_make_untouched(root, list_first(_ORIGINALS)), [])) if found[0] else found


def _read_json(path: Path, part: str | None) -> _Found:
    """IMDL-BenCo's list: [[picture, mask or "Negative"], ...], paths as they are or beside it."""
    try:
        lines = json.loads(path.read_text(encoding="utf-8"))
        entries = [(str(picture), str(mask)) for picture, mask in lines]
    except (OSError, ValueError, TypeError) as error:
        return [], [f"cannot be read as a list of pairs ({error})"]
    pairs, problems = [], []
    for picture, mask in entries:
        image = path.parent / picture
        truth = None if mask == "Negative" else path.parent / mask
        if not image.is_file() or (truth is not None and not truth.is_file()):
            problems.append(f"{image}: left out, as it or its mask is not there")
        else:
            pairs.append(Pair(picture, image, truth))
    return pairs, problems


# OpenSDI: tables with the files' bytes


def _find_opensdi(root: Path, part: str | None) -> _Found:
    tables = sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")])
    pairs: list[Pair] = []
    for path in tables:
        kind = re.sub(r"-\d+-of-\d+$", "", path.stem)
        if part is None or kind == part:
            pairs += _read_rows(path, kind)
    if tables and not pairs:
        parts = sorted({re.sub(r"-\d+-of-\d+$", "", path.stem) for path in tables})
        raise ConfigError(f"opensdi: no part {part!r}; there are {', '.join(parts)}")
    return pairs, []


def _open_parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            f'{path}: a Parquet file, which needs pyarrow: pip install "overpaint[results]"'
        ) from error
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # of pyarrow, ArrowInvalid is a ValueError
        raise ImageError(f"{path}: not a Parquet file ({error}); fetch it again") from error


def _read_rows(path: Path, part: str) -> Iterator[Pair]:
    with _open_parquet(path) as file:
        try:
            table = file.read(columns=["key", "label", "mask.bytes"]).to_pylist()
        except (KeyError, ValueError, OSError) as error:
            raise ImageError(f"{path}: not a table of OpenSDI ({error}); fetch it again") from error
    for row, line in enumerate(table):
        if not {"key", "label"} <= line.keys():
            raise ImageError(f"{path}: not a table of OpenSDI: has no column key or label")
        masked = bool((line.get("mask") or {}).get("bytes"))
        fake = line["label"] == 1
        yield Pair(
            f"{path.stem}/{line['key']}/{row}",
            path,
            path if fake and masked else None,
            part,
            whole=fake and not masked,
            row=row,
        )


def _read_row(pair: Pair) -> tuple[Photo, np.ndarray]:
    assert pair.row is not None, "of a pair in a table"
    with _open_parquet(pair.image) as file:
        group, start = 0, 0
        while pair.row >= start + file.metadata.row_group(group).num_rows:
            start += file.metadata.row_group(group).num_rows
            group += 1
        rows = file.read_row_group(group, columns=["image", "mask"])
        line = rows.slice(pair.row - start, 1).to_pylist()[0]
    photo = decode_image(line["image"]["bytes"], pair.name)
    if pair.mask is None:
        return photo, pair._make_even_mask(photo)
    truth = pair.rule(decode_image(line["mask"]["bytes"], f"{pair.name} (mask)").pixels)
    with Image.open(io.BytesIO(line["image"]["bytes"])) as image:
        turned = read_orientation(image)
    if truth.shape != (photo.height, photo.width) or turned != 1:
        raise ImageError(
            f"{pair.name}: the mask has {truth.shape[1]} x {truth.shape[0]} pixels, its picture "
            f"{photo.width} x {photo.height}, or EXIF turns it; leave the pair out"
        )
    return photo, truth


SETS: Mapping[str, Kind] = {
    "casia": Kind(
        "CASIA",
        "expected pictures Tp_*, Sp_* and Au_* (in Tp/, Au/, ...), and their masks *_gt.png in a "
        "folder whose name holds 'groundtruth' or 'Groundtruth'",
        _find_casia,
    ),
    "columbia": Kind(
        "Columbia Uncompressed",
        "expected 4cam_splc/*.tif, 4cam_splc/edgemask/*_edgemask.jpg and 4cam_auth/*.tif",
        _find_columbia,
    ),
    "coverage": Kind(
        "COVERAGE",
        "expected image/1t.tif and image/1.tif ..., mask/1forged.tif ...",
        _find_coverage,
    ),
    "nist16": Kind(
        "NIST16 (NC2016_Test0613)",
        "expected probe/, and reference/manipulation/NC2016-manipulation-ref.csv with the masks "
        "that it names (likewise removal and splice)",
        _find_nist16,
    ),
    "imd2020": Kind(
        "IMD2020, real-life manipulations",
        "expected a folder for each original with *_orig.jpg, and pictures NAME with NAME_mask.png",
        _find_imd2020,
    ),
    "defacto": Kind(
        "DEFACTO",
        "expected inpainting_img/img/*.tif with inpainting_annotations/probe_mask/*.jpg, likewise "
        "copymove and splicing_1 to splicing_7",
        _find_defacto,
    ),
    "autosplice": Kind(
        "AutoSplice",
        "expected Forged_JPEG100/ (or 90, 75), Mask/*_mask.png and Authentic/",
        _find_autosplice,
    ),
    "opensdi": Kind(
        "OpenSDI (OpenSDID)",
        "expected data/*.parquet with the columns key, image, mask and label",
        _find_opensdi,
    ),
    "sagi-d": Kind(
        "SAGI-D",
        "expected results.csv with the columns image_path, mask_path and output_path, or folders "
        "original/ and one of each model beside a folder masks/ with a mask of each picture's name",
        _find_sagi_d,
    ),
    "folder": Kind(
        "a folder of pairs",
        "expected inpainted/ (or images/, Tp/) and masks/ (or Gt/) with the same names, and for "
        "untouched pictures originals/ (or Au/)",
        _find_in_folder,
    ),
    "json": Kind(
        "a list of pairs",
        'expected a JSON file [["PICTURE", "MASK"], ["PICTURE", "Negative"], ...]',
        _read_json,
    ),
}
