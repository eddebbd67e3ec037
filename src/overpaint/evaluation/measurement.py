"""Code that the parts of the benchmark share: the measurement, its photos, a picture's numbers.

Photos are those of the test split of photos/ and faces/; universal samples are made from them. The
protocol is in `evaluation.benchmark`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from overpaint.data.bank import HELD_OUT, load_bank
from overpaint.data.real_fills import Pool
from overpaint.data.sources import PhotoSource
from overpaint.data.universal import Sample, make_test_set
from overpaint.detection.calibration import AREA, Judgement
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import ImageError, WeightsError
from overpaint.evaluation.rows import Picture, Row, Source, average_by_photo, list_values, make_row
from overpaint.metrics import count, overlap, pixel_auc
from overpaint.run_identity import find_commit, hash_config
from overpaint.weights import WeightsRecord, list_records

MEASURED = ("auc", "iou@0.5", "f1@0.5", "iou@default", "f1@default")

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured; every row has its hash."""

    size: int = 256
    """Side of universal samples and of the autoencoders' crops, pixels."""
    qualities: tuple[int, ...] = (90, 75)
    """JPEG qualities of the universal samples, besides lossless."""
    recompressed: tuple[int, ...] = (95, 85, 60)
    """JPEG qualities of the untouched photos, besides as they are."""
    seed: int = 0
    split_seed: int = 0
    limit: int | None = None
    """For a quick run: number of pictures of a kind at most."""


@dataclass(frozen=True, slots=True)
class RobustnessSettings:
    """Settings of the parts "robustness" and "families" alone, as those in `Settings` change the
    hash of all parts."""

    forged: tuple[Path, ...] = ()
    """Folders that `overpaint forge` wrote, or folders of such folders."""
    conditions: tuple[str, ...] = ()
    """Names in `robustness.CONDITIONS` or `families.FAMILY_CONDITIONS`; all when empty."""
    sheets: Path | None = None
    """Folder of the contact sheets; None for none."""
    families: tuple[str, ...] = ()
    """Generator families to measure; all when empty."""
    pools: tuple[Pool, ...] = ()
    """Of the real fills to measure; all when empty."""

    @property
    def chooses_families(self) -> bool:
        """Whether some of the real fills are measured, which have no headline."""
        return bool(self.families or self.pools)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One part of the benchmark for one detector: the argument of the part's function."""

    data: Path
    """Folder with photos/, faces/ and triplets/."""
    bank: Path | None
    """Folder of the autoencoders' records; None for those that ship."""
    weights: str | Path
    name: str
    settings: Settings
    report: Report
    robustness: RobustnessSettings = RobustnessSettings()
    device: str = "cpu"

    def make_runner(self) -> DetectorRunner:
        """The detector, ready on the device."""
        return DetectorRunner(self.weights, device=self.device)

    def make_source(self, part: str, protocol: str, runner: DetectorRunner | None = None) -> Source:
        """Provenance of the rows of one part; runner: the detector measured, None without one."""
        return Source(
            set=part,
            weights=self.name,
            commit=find_commit(),
            config_hash=hash_config({"part": part, **asdict(self.settings)}),
            weights_sha256=(runner and runner.weights_sha256) or "",
            protocol=protocol if self.device == "cpu" else f"{protocol}; on {self.device}",
            calibration_sha256=(runner and runner.calibration_sha256) or "",
        )

    def find_photos(self) -> PhotoSource:
        """The test split of photos and faces."""
        return find_test_photos(self.data, self.settings.split_seed)


def find_test_photos(data: Path, seed: int = 0) -> PhotoSource:
    """The test split of photos/ and faces/ in a data folder; raises ImageError without any."""
    folders = [data / "photos", data / "faces"]
    found = [f for f in folders if f.is_dir()] or folders
    photos = PhotoSource.from_paths(found, "test", seed=seed)
    if photos.problems:  # figures of fewer photos cannot be compared
        raise ImageError(photos.problems[0])
    return photos


Result = tuple[list[Row], list[Picture]]


def score_picture(
    runner: DetectorRunner, pixels: np.ndarray, quality: str, mask: np.ndarray | None = None
) -> dict[str, float]:
    """The numbers of one picture (`rows.NUMBERS`); those of pixels only where a mask is known.

    pixels: uint8 (h, w, 3). quality: its band. mask: (h, w), 1 = inpainted.
    """
    return score_judged(runner.judge(runner.logits(pixels), quality), mask)


def score_judged(judged: Judgement, mask: np.ndarray | None = None) -> dict[str, float]:
    """As `score_picture`, from the judgement of a picture."""
    numbers = {"q99": judged.statistic, "fraction": float(judged.mask.mean())}
    if mask is None:
        return numbers
    numbers["auc"] = pixel_auc(judged.logits, mask)
    for at, predicted in (("0.5", judged.logits >= 0), ("default", judged.mask)):
        scores = overlap(count(predicted, mask))
        numbers.update({f"{name}@{at}": value for name, value in scores.items()})
    return numbers


def flag_pictures(pictures: Iterable[Picture]) -> list[float]:
    """1 for each picture with more than 1 % of its area in the default mask, otherwise 0."""
    return [float(value > AREA) for value in list_values(pictures, "fraction")]


def make_rows_by_method(
    source: Source, pictures: Iterable[Picture], photos: Mapping[str, str] | None = None
) -> list[Row]:
    """Means of AUC, IoU and F1, and the share of flagged pictures, for each method.

    Each photo has the same weight; n counts photos. photos: see `average_by_photo`. Untouched
    pictures, which have no mask, give the share alone.
    """
    photos = photos or {}
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        groups[picture.method].append(picture)
    rows = []
    for method, group in groups.items():
        for number in MEASURED:
            metric = f"m{number}" if number.startswith("iou") else number
            if values := average_by_photo(group, photos, number):
                rows.append(make_row(source, method, metric, values.values()))
        flagged = [replace(p, numbers={"flagged": f}) for p in group for f in flag_pictures([p])]
        values = average_by_photo(flagged, photos, "flagged")
        rows.append(make_row(source, method, "flagged@default", values.values()))
    return rows


def list_autoencoders(folder: Path | None = None) -> list[WeightsRecord]:
    """The records of autoencoders in a folder; raises WeightsError where none is for training."""
    found = [r for r in list_records(folder) if r.kind == "autoencoder"]
    if all(r.name == HELD_OUT for r in found):
        raise WeightsError(f"{folder or 'pretrained'}: holds no autoencoder; name another folder")
    return found


def load_banks(folder: Path | None) -> dict[str, dict[str, nn.Module]]:
    """The autoencoders: "bank" for training detectors, "held-out" for tests only."""
    found: dict[str, dict[str, nn.Module]] = {"bank": {}, "held-out": {}}
    for record in list_autoencoders(folder):
        (module,) = load_bank([str(record.path)]).values()
        found["held-out" if record.name == HELD_OUT else "bank"][record.name] = module
    return {kind: bank for kind, bank in found.items() if bank}


def draw_universal_samples(job: Measurement) -> Iterator[tuple[str, str, Sample]]:
    """("bank" or "held-out", name, sample): one of each photo, so that they are independent."""
    photos = job.find_photos()
    num = min(len(photos), job.settings.limit or len(photos))
    how = {"size": job.settings.size, "num": num, "seed": job.settings.seed}
    for kind, bank in load_banks(job.bank).items():
        job.report(f"universal: {num} samples, {kind} of {', '.join(bank)}")
        for i, sample in enumerate(make_test_set(photos, bank, **how)):
            yield kind, f"{i}/{Path(sample.source).name}/{sample.redrawn_by}", sample
