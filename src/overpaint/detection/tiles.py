"""Photos of any size through a network: overlapping tiles, blended seams, bounded memory.

- Nothing is scaled. A photo no larger than a tile is processed whole.
- Tiles start at multiples of the network's stride, so that its sampling grid is that of a pass over
  the whole photo; the last tile ends where the photo ends. Away from tile borders the result is
  therefore equal to that of such a pass, up to rounding.
- At an inner border, a tile's weight is zero over the outermost quarter of the overlap, which the
  network's padding affects most, then rises linearly over the next half.
- The weights are products of one ramp along each axis and sum to one along each, so one
  accumulator the size of the photo is enough.
- A photo given as uint8 stays uint8; only the tiles in work, and one more, become float.
- Several threads may process a tile each. This takes less time than sharing the work on each tile
  among them (a seventh less with two threads), and the memory of as many tiles.
- A network processes each tile as a separate photo. What it computes over a whole photo is computed
  over one tile: the means and deviations of ManTra-Net, the correlations of PSCC-Net, the similar
  places of IID-Net, the attention and the score of TruFor, the statistics of NIX-Net with context.
  NIX-Net as published and LDICN use neighbourhoods only.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from overpaint import progress
from overpaint.detectors.base import Findings
from overpaint.devices import use_exact_float32
from overpaint.errors import InputError
from overpaint.images import to_tensor
from overpaint.process import release_memory

_Span = tuple[int, np.ndarray]
"""Where a tile begins along one axis, and the weights of its pixels along it."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A detector's outputs for a photo."""

    logits: np.ndarray = field(repr=False)
    """float32 (h, w)."""
    confidence: np.ndarray | None = field(default=None, repr=False)
    """Logits, float32 (h, w), of a detector that estimates the reliability of each pixel."""
    scores: tuple[float, ...] = ()
    """Logit of each tile, of a detector with a separate score for the whole photo."""


def examine_in_tiles(
    examine: Callable[[torch.Tensor], Findings],
    image: np.ndarray | torch.Tensor,
    *,
    tile: int = 1024,
    overlap: int = 64,
    stride: int = 8,
    device: torch.device | str = "cpu",
    at_once: int = 1,
) -> Seen:
    """A detector's outputs for a whole photo.

    `examine` takes a float tensor (1, 3, h, w) in [0, 1], channels last, as `Detector.examine`.
    `image` is uint8 (h, w, 3) or such a tensor. `tile` (the largest side) and `overlap` are pixels
    and multiples of `stride`; `overlap` is at most half a tile. `InputError` otherwise. `at_once`:
    the largest number of tiles that are processed at the same time, if torch has as many threads.
    """
    _check(image, tile, overlap, stride)
    size = image.shape[:2] if isinstance(image, np.ndarray) else tuple(image.shape[-2:])
    rows, columns = (place_tiles(n, tile, overlap, stride) for n in size)
    logits, confidence, scores = np.zeros(size, dtype=np.float32), None, []
    tiles = [(row, column) for row in rows for column in columns]
    pixels = (
        _cut(image, _find_part(spans)).to(device, memory_format=torch.channels_last)
        for spans in tiles
    )
    examine = torch.inference_mode()(examine)  # in its thread; the mode of another does not count
    with use_exact_float32():
        for i, found in enumerate(_map(examine, pixels, min(at_once, len(tiles)))):
            part, (down, along) = _find_part(tiles[i]), tiles[i]
            weight = np.outer(down[1], along[1])
            logits[part] += found.logits[0, 0].float().cpu().numpy() * weight
            if found.confidence is not None:
                if confidence is None:
                    confidence = np.zeros(size, dtype=np.float32)
                confidence[part] += found.confidence[0, 0].float().cpu().numpy() * weight
            if found.score is not None:
                scores.append(float(found.score))
            del found
            progress.tell((i + 1) / len(tiles))
    release_memory()
    return Seen(logits, confidence, tuple(scores))


def _map(
    examine: Callable[[torch.Tensor], Findings], tiles: Iterator[torch.Tensor], at_once: int
) -> Iterator[Findings]:
    """The findings of each tile; by several threads if torch has them."""
    if (num := min(at_once, torch.get_num_threads())) > 1:
        return _map_by_threads(examine, tiles, num)
    return map(examine, tiles)


def _map_by_threads(
    examine: Callable[[torch.Tensor], Findings], tiles: Iterator[torch.Tensor], num: int
) -> Iterator[Findings]:
    """As `map`, with at most one tile more than are in work; each has its share of the threads."""
    share = torch.get_num_threads() // num
    pool = ThreadPoolExecutor(num, initializer=_take_threads, initargs=(share,))
    waiting: deque[Future[Findings]] = deque()
    try:
        for tile in tiles:
            waiting.append(pool.submit(examine, tile))
            if len(waiting) > num:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _take_threads(num: int) -> None:
    """Of torch's threads, for this thread alone.

    `torch.set_num_threads` also sets the number with which later threads begin, among them those
    in which others process their photos.
    """
    torch.get_num_threads()  # torch sets a thread's number at its first use
    threadpool_limits(num, user_api="openmp")


def place_tiles(length: int, tile: int, overlap: int, stride: int) -> list[_Span]:
    """(start, weights float32) of each tile along one axis; the weights sum to one per pixel.

    The number of tiles is the smallest that `tile` allows, and their size the smallest for that
    number: 4000 px become five tiles of 904 px and not of 1024, which saves a quarter of the work
    on a photo of 12 megapixels. All have one size (the last one after padding to the stride), for
    which a graph can be compiled.
    """
    if length <= tile:
        return [(0, np.ones(length, dtype=np.float32))]
    count = -(-(length - overlap) // (tile - overlap))
    step = -(-(length - overlap) // (count * stride)) * stride
    size = step + overlap
    last = -(-(length - size) // stride) * stride
    ramps = []
    for start in (*range(0, (count - 1) * step, step), last):
        end = min(start + size, length)
        ramps.append((start, _make_ramp(end - start, overlap, rises=start > 0, falls=end < length)))
    total = np.zeros(length)
    for start, ramp in ramps:
        total[start : start + ramp.size] += ramp
    return [
        (start, (ramp / total[start : start + ramp.size]).astype(np.float32))
        for start, ramp in ramps
    ]


def _make_ramp(size: int, overlap: int, *, rises: bool, falls: bool) -> np.ndarray:
    """Weights of one tile: 0, then linear, then 1, at the ends that have a neighbour."""
    quarter = overlap // 4
    distance = np.arange(size) + 0.5
    ramp = np.ones(size)
    if rises:
        ramp *= np.clip((distance - quarter) / max(1, overlap - 2 * quarter), 0, 1)
    if falls:
        ramp *= np.clip((size - distance - quarter) / max(1, overlap - 2 * quarter), 0, 1)
    return ramp


def _find_part(tile: tuple[_Span, _Span]) -> tuple[slice, slice]:
    """The rows and columns of a tile."""
    (top, weight_y), (left, weight_x) = tile
    return slice(top, top + weight_y.size), slice(left, left + weight_x.size)


def _cut(image: np.ndarray | torch.Tensor, part: tuple[slice, slice]) -> torch.Tensor:
    if isinstance(image, np.ndarray):
        return to_tensor(np.ascontiguousarray(image[part]))
    return image[..., part[0], part[1]]


def _check(image: np.ndarray | torch.Tensor, tile: int, overlap: int, stride: int) -> None:
    shape = tuple(image.shape)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or shape[2] != 3 or 0 in shape:
            raise InputError(f"needs a uint8 array (h, w, 3), got {image.dtype} {shape}")
    elif image.ndim != 4 or shape[:2] != (1, 3) or 0 in shape:
        raise InputError(f"needs a float tensor (1, 3, h, w), got {tuple(shape)}")
    if stride < 1 or tile < stride or tile % stride or overlap % stride:
        raise InputError(f"tile {tile}, overlap {overlap}: need multiples of stride {stride}")
    if not 0 <= overlap <= tile // 2:
        raise InputError(f"overlap {overlap} must lie in 0..{tile // 2}, half of the tile {tile}")
