"""Arrays read last: kept by their bytes, not by their number."""

import numpy as np
import pytest

from overpaint.data import crops
from overpaint.data.crops import PhotoCrops
from overpaint.data.recent import RecentArrays


class Photos:
    """Stands for a `PhotoSource` of photos of 3,000 bytes."""

    def __init__(self) -> None:
        self.read_numbers: list[int] = []

    def __len__(self) -> int:
        return 20

    def read(self, index: int) -> np.ndarray:
        self.read_numbers.append(index)
        return np.full((25, 40, 3), index, np.uint8)


def test_what_was_asked_for_last_is_kept_up_to_the_limit() -> None:
    recent: RecentArrays[tuple[np.ndarray]] = RecentArrays(100)
    read = []

    def get(name: str, num: int) -> int:
        def make() -> tuple[np.ndarray]:
            read.append(name)
            return (np.zeros(num, np.uint8),)

        return recent.get(name, make)[0].size

    assert [get("a", 40), get("b", 40), get("a", 40), get("c", 40)] == [40] * 4
    assert read == ["a", "b", "c"]
    get("a", 40)  # used later than b, which made room
    get("b", 40)
    assert read == ["a", "b", "c", "b"]
    get("large", 101)
    get("large", 101)
    assert read[4:] == ["large", "large"]


def test_crops_keep_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    recent: RecentArrays[tuple[np.ndarray]] = RecentArrays(10_000)
    monkeypatch.setattr(crops, "_recent", recent)
    photos = Photos()
    samples = PhotoCrops(photos, 8, 0)  # type: ignore[arg-type]
    first = [samples[i]["image"] for i in range(60)]
    assert sum(a.nbytes for (a,) in recent._kept.values()) == 9_000
    assert len(photos.read_numbers) > 20
    assert all((samples[i]["image"] == first[i]).all() for i in range(60))
