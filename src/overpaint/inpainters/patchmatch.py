"""PatchMatch: patches copied from the known part of the photo, from coarse to fine.

A hole is filled so that each patch in it is similar to some patch of the known part (Wexler,
Shechtman and Irani, "Space-Time Completion of Video", PAMI 29(3), 2007). Two steps alternate on
every level of a pyramid: find the most similar known patch of each patch that touches the hole
(Barnes et al., "PatchMatch", SIGGRAPH 2009), and set each pixel of the hole to the weighted mean
of the values that the patches over it propose. Patches are compared by colour and by strength of
texture (Newson et al., "Video Inpainting of Complex Scenes", SIAM Journal on Imaging Sciences 7(4),
2014). Written from the papers, no code taken; licence: Apache-2.0.

- A patch's position is its upper left pixel, and all patches lie inside the picture, so that its
  edge needs no special case. A *source* contains no hole; every other patch is a *target*.
- Patches are compared by descriptors: the 14 principal components of their colours, computed for
  each level from its sources, and their mean texture. All of a level's descriptors are one
  convolution, and a comparison reads 16 contiguous numbers instead of 75 from five rows.
- Texture is two more channels of the picture, the mean strength of horizontal and of vertical
  differences in a window. In the hole it is copied with the colours. Colours alone make large holes
  smooth: the mean of many proposals is smooth, and is then most similar to a smooth source.
- A match is always a source: a proposed position is moved to the nearest source.
- All targets are improved at once from the matches of the previous step, while Barnes et al. scan
  the picture row by row. Propagation then advances one pixel per round, which is enough because
  the coarser level provides matches from far away. A source is its own match, so that matches also
  propagate from the edge of the hole inwards.
- A pixel of a coarser level is the mean of the known pixels among its four, and hole only where all
  four are. Holes thus shrink from level to level, and none is left at the coarsest level, which
  gives the initial fill.
- Fills are means of known colours only. Randomness comes from a generator seeded by the
  configuration for each photo.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch.nn import functional as F

from overpaint.errors import ConfigError
from overpaint.inpainters.classical import Classical, Hole, Picture, import_optional
from overpaint.registry import inpainters

Colours = NDArray[np.float32]
"""Red, green and blue, and in `synthesise` the texture's two channels."""
Positions = NDArray[np.intp]
"""Rows and columns (2, ...) of patches, by their upper left pixels."""

NUM_COMPONENTS = 14  # with the texture one cache line of float32
NUM_EXAMPLES = 4000  # sources from which a level's components are found
SIDES = ((0, -1), (0, 1), (-1, 0), (1, 0))
# A patch's weight falls by this factor for each pixel into the hole. With 1.3, as in Wexler et al.,
# flat backgrounds got grey blotches, which spread from the inside of the hole.
GAMMA = 2.0
# The variance of the similarity, as a multiple of that in Wexler et al. (the third quartile of the
# squared distances).
SOFTNESS = 3.0
EXTRA_ROUNDS = 4  # for each coarser level, where a round costs a quarter
TEXTURE = 20.0  # weight of a squared difference of texture, against one of a pixel's colour
WINDOW = 16  # side of the window of the texture, pixels of the photo


@dataclass(frozen=True, slots=True)
class PatchMatchConfig:
    """Configuration of PatchMatch."""

    patch: int = 5
    """Side of a patch, pixels; smaller where the photo has too few known patches of this size."""
    num_rounds: int = 3
    """Rounds of search and vote at full resolution."""
    seed: int = 0
    """Seed of the search."""

    def __post_init__(self) -> None:
        if self.patch < 2 or self.num_rounds < 1 or self.seed < 0:
            raise ConfigError(
                f"patchmatch: patch {self.patch}, num_rounds {self.num_rounds}, seed {self.seed}; "
                "give at least 2, 1 and 0"
            )


class Patches:
    """All patches of one level: their sources, comparison and blending."""

    def __init__(self, hole: Hole, side: int) -> None:
        """hole: (h, w) with side <= h, w and at least one patch without hole."""
        ndimage = import_optional("scipy.ndimage")
        touches = sliding_window_view(hole, (side, side)).any(axis=(2, 3))
        self.hole, self.shape = hole, touches.shape
        self.nearest: Positions = ndimage.distance_transform_edt(
            touches, return_distances=False, return_indices=True
        ).astype(np.intp)  # the nearest source of each position
        self.targets: Positions = np.stack(np.nonzero(touches))
        rows, columns = self.targets + side // 2
        depth = ndimage.distance_transform_edt(hole)[rows, columns]
        trust = GAMMA ** -np.minimum(depth, 100)  # bounded, so that no weight becomes 0
        self.trust = trust.astype(np.float32)
        width = hole.shape[1]
        self.side = side
        self.offsets = [row * width + column for row, column in np.ndindex(side, side)]

    def snap(self, positions: Positions) -> Positions:
        """The nearest source of each position; positions may lie outside the picture."""
        rows, columns = self._clip(positions)
        return self.nearest[:, rows, columns]

    def propose_matches_around(self, field: Positions, step: Positions) -> Positions:
        """The match that each target's neighbour at `step` (2, 1) proposes for it."""
        rows, columns = self._clip(self.targets + step)
        return self.snap(field[:, rows, columns] - step)

    def _clip(self, positions: Positions) -> Positions:
        return np.clip(positions, 0, np.array(self.shape)[:, None] - 1)

    def _index_pixels(self, positions: Positions) -> Positions:
        """Index of the upper left pixels in the flattened picture."""
        return positions[0] * self.hole.shape[1] + positions[1]

    def select_targets(self, field: Positions) -> Positions:
        """The targets' part of a field (2, rows, columns): (2, num_targets)."""
        rows, columns = self.targets
        return field[:, rows, columns]

    def compute_components(self, picture: Colours, rng: np.random.Generator) -> Colours:
        """Principal components (k, 3, side, side) of the sources' patches, of length 1."""
        known = np.ones(self.shape, bool)
        known[self.targets[0], self.targets[1]] = False
        rows, columns = np.nonzero(known)
        chosen = rng.choice(len(rows), min(NUM_EXAMPLES, len(rows)), replace=False)
        pixels = self._index_pixels(np.stack([rows[chosen], columns[chosen]]))
        colours = np.ascontiguousarray(picture[..., :3]).reshape(-1, 3)
        patches = np.stack([colours.take(pixels + offset, axis=0) for offset in self.offsets], 2)
        flat = patches.reshape(len(pixels), -1).astype(np.float64)  # (n, 3 side side)
        around = flat - flat.mean(axis=0)
        _, vectors = np.linalg.eigh(around.T @ around)  # by growing variance
        largest = vectors[:, ::-1][:, :NUM_COMPONENTS].T
        return largest.reshape(-1, 3, self.side, self.side).astype(np.float32)

    def compute_descriptors(self, picture: Colours, components: Colours) -> Colours:
        """Components and weighted mean texture of all patches (rows * columns, k + 2)."""
        image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
        colours = F.conv2d(image[:, :3], torch.from_numpy(components))[0]
        texture = F.avg_pool2d(image[:, 3:], self.side, stride=1)[0]
        found = torch.cat([colours, self.side * TEXTURE**0.5 * texture])
        return found.flatten(1).T.contiguous().numpy()

    def compute_costs(self, descriptors: Colours, matches: Positions) -> Colours:
        """Squared distance of each target to its match (2, num_targets): (num_targets,)."""
        width = self.hole.shape[1] - self.side + 1  # patches in a row
        here, there = (p[0] * width + p[1] for p in (self.targets, matches))
        difference = descriptors.take(here, axis=0)
        difference -= descriptors.take(there, axis=0)
        return np.einsum("nk,nk->n", difference, difference)

    def vote(self, picture: Colours, field: Positions, costs: Colours) -> Colours:
        """The picture with each pixel of the hole as the mean of its patches' proposals.

        Weights as in Wexler et al.: similarity, and nearness to the known part.
        """
        variance = SOFTNESS * np.percentile(costs, 75) + 1e-6
        weights = self.trust * np.maximum(np.exp(-costs / (2 * variance)), 1e-6)
        here, there = (
            self._index_pixels(self.targets),
            self._index_pixels(self.select_targets(field)),
        )
        num = picture.shape[2]
        colours = np.ones((picture.size // num, num + 1), np.float32)  # the last counts the weights
        colours[:, :num] = picture.reshape(-1, num)
        sums = np.zeros(colours.shape, np.float32)
        for offset in self.offsets:  # for one offset, no pixel occurs twice in `here`
            sums[here + offset] += weights[:, None] * colours.take(there + offset, axis=0)
        means = (sums[:, :num] / np.maximum(sums[:, num:], 1e-30)).reshape(picture.shape)
        return np.where(self.hole[..., None], means, picture).astype(np.float32)


def propose_matches(
    patches: Patches, field: Positions, rng: np.random.Generator
) -> Iterator[Positions]:
    """Candidates (2, num_targets) from `field`, which the caller improves after each of them."""
    for side in SIDES:
        yield patches.propose_matches_around(field, np.array(side)[:, None])
    last = np.array(patches.shape)[:, None] - 1
    radius = max(patches.shape)
    while radius:
        own = patches.select_targets(field)
        low, high = np.maximum(own - radius, 0), np.minimum(own + radius, last)
        yield patches.snap(rng.integers(low, high, endpoint=True))
        radius //= 2


def search(
    patches: Patches, descriptors: Colours, field: Positions, rng: np.random.Generator
) -> Colours:
    """Improve `field` (2, rows, columns), the matches of all patches; return the targets' costs."""
    rows, columns = patches.targets
    costs = patches.compute_costs(descriptors, patches.select_targets(field))
    for candidates in propose_matches(patches, field, rng):
        found = patches.compute_costs(descriptors, candidates)
        better = found < costs
        costs[better] = found[better]
        field[:, rows[better], columns[better]] = candidates[:, better]
    return costs


def halve(picture: Colours, hole: Hole) -> tuple[Colours, Hole]:
    """The next coarser level: means of the known pixels of 2 x 2, hole where there are none."""
    height, width = hole.shape
    pads = ((0, height % 2), (0, width % 2))
    known = np.pad(~hole, pads)[..., None].astype(np.float32)
    sums = np.pad(picture, (*pads, (0, 0))) * known
    blocks = ((height + 1) // 2, 2, (width + 1) // 2, 2, -1)
    num_known = known.reshape(blocks).sum(axis=(1, 3))
    means = sums.reshape(blocks).sum(axis=(1, 3)) / np.maximum(num_known, 1)
    return means, num_known[..., 0] == 0


def double(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """`values` (h, w, ...) with each row and column repeated, cut to the given size."""
    return values.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]


def match_nearest(patches: Patches) -> Positions:
    """Each patch's nearest source as its match."""
    own = np.indices(patches.shape)
    return patches.snap(own.reshape(2, -1)).reshape(own.shape)


def refine_field(patches: Patches, coarser: Positions) -> Positions:
    """The matches of the coarser level, scaled to this one."""
    own = np.indices(patches.shape)
    last = np.array(coarser.shape[1:])[:, None, None] - 1
    rows, columns = np.minimum(own // 2, last)
    guess = 2 * coarser[:, rows, columns] + own % 2
    return patches.snap(guess.reshape(2, -1)).reshape(own.shape)


def has_sources(hole: Hole, side: int) -> bool:
    """Whether at least side x side patches have no hole in them."""
    if min(hole.shape) < side:
        return False
    touches = sliding_window_view(hole, (side, side)).any(axis=(2, 3))
    return int(np.count_nonzero(~touches)) >= side**2


def measure_texture(photo: Colours, hole: Hole) -> Colours:
    """Mean strength of a grey photo's vertical and horizontal differences (h, w, 2).

    Over the pairs of known pixels in a window of `WINDOW` pixels around each pixel.
    """
    ndimage = import_optional("scipy.ndimage")
    grey, maps = photo.mean(axis=2), []
    for axis in (0, 1):
        last = [(0, int(axis == i)) for i in (0, 1)]  # the last row or column has no next one
        strength = np.pad(np.abs(np.diff(grey, axis=axis)), last)
        next_hole = np.delete(hole, 0, axis=axis)
        pairs = np.pad(~(np.delete(hole, -1, axis=axis) | next_hole), last).astype(np.float32)
        sums, num = (ndimage.uniform_filter(x, WINDOW) for x in (strength * pairs, pairs))
        maps.append(sums / np.maximum(num, 1e-3))  # below one pair: none, up to rounding
    return np.stack(maps, axis=2)


def synthesise(photo: Colours, hole: Hole, config: PatchMatchConfig) -> Colours:
    """Fill the hole (h, w) of photo (h, w, 3), of which at least one pixel is known."""
    rng = np.random.default_rng(config.seed)
    side = next(n for n in range(config.patch, 0, -1) if n == 1 or has_sources(hole, n))
    levels = [(np.concatenate([photo, measure_texture(photo, hole)], axis=2), hole)]
    while levels[-1][1].any():
        levels.append(halve(*levels[-1]))
    picture, field = levels.pop()[0], None
    while levels:
        known, hole = levels.pop()
        picture = np.where(hole[..., None], double(picture, *hole.shape), known)
        if levels and not has_sources(hole, side):
            continue
        patches = Patches(hole, side)
        components = patches.compute_components(picture, rng)
        if field is None:
            field = match_nearest(patches)
        else:
            field = refine_field(patches, field)
            found = patches.compute_descriptors(picture, components)
            costs = patches.compute_costs(found, patches.select_targets(field))
            picture = patches.vote(picture, field, costs)
        for _ in range(config.num_rounds + EXTRA_ROUNDS * len(levels)):
            found = patches.compute_descriptors(picture, components)
            picture = patches.vote(picture, field, search(patches, found, field, rng))
    return picture[..., :3]


class PatchMatch(Classical):
    """Patches copied from the known part; see the module's header.

    A hole of 300 x 300 pixels in a photo of any size takes 3 seconds of one core.
    """

    requires = ("scipy",)

    def __init__(self, config: PatchMatchConfig | None = None) -> None:
        super().__init__()
        self.config = config or PatchMatchConfig()

    def _paint(self, photo: Picture, hole: Hole) -> Colours:
        return synthesise(photo.astype(np.float32), hole, self.config)


def patchmatch(**config: Any) -> PatchMatch:
    """PatchMatch; fields of PatchMatchConfig as keyword arguments."""
    return PatchMatch(PatchMatchConfig(**config))


inpainters.register(
    "patchmatch",
    patchmatch,
    paper="PatchMatch, SIGGRAPH 2009, and Space-Time Completion of Video, PAMI 29(3) 2007",
    licence="Apache-2.0",
    summary="texture, copied from the known part",
    trainable=False,
)
