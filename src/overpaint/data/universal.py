"""Universal training data: photos with regions redrawn, and the masks that say where.

Source: NIX-Net (IJCAI 2021), section 3.2, eq. 2: X = (1 - m) * I + m * G(I), with m = 1 where
inpainted (the paper's M is 1 - m). Beyond the paper, each an option of `UniversalConfig`:

- a *bank* of autoencoders and simpler *traces* instead of one G;
- a random *history* of the photo (resize, JPEG) before the blend: the known pixels of published
  photos have such traces, and the pixels of an inpainter do not;
- *degradations* after the blend, because the picture is saved and shared afterwards;
- *moved* content: an inpainter invents what an autoencoder repeats (`data.moved_content`);
- *alike* colours: a JPEG file has them at half of the resolution, and a fill in it does not; where
  both have, this cannot be what is read;
- *untouched* photos, which went through the same history and degradations;
- *negatives* among these, edited by something else than inpainting (`data.negatives`).

Where the mask is 0, a sample equals the photo bit for bit until it is degraded: the blend is
done on 8-bit values after G(I) was rounded; a negative is edited before. Sample i is a pure
function of (seed, i). Negatives are drawn by a separate generator, so that the other samples are
the same with and without them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.utils.data import Dataset

from overpaint.data import masks
from overpaint.data.autoencoder import reconstruct
from overpaint.data.classical_redraws import TRACES
from overpaint.data.crops import random_crop, random_flip
from overpaint.data.degrade import Degrade, History, Step, replay
from overpaint.data.masks import MaskFn
from overpaint.data.moved_content import move_content
from overpaint.data.negatives import NEGATIVES, REGIONAL, Negative
from overpaint.data.ordinary_edits import KEEP_SIZE, to_negative
from overpaint.data.photo_fill_gap import Apart
from overpaint.data.sources import PhotoSource
from overpaint.images import to_tensor

Weights = dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]

NEGATIVE, APART, ALIKE = 3, 4, 6
"""Third entries of the seeds of negatives, of `Apart` and of like colours; others are in
`training.detection.forged` and `data.real_fills`."""


KINDS: Mapping[str, Negative] = {name: to_negative(name) for name in KEEP_SIZE} | NEGATIVES
"""Of negatives, by name; "frame" is that of `negatives`."""


class Negatives(BaseModel):
    """Share of hard negatives among the untouched samples, and their kinds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(default=0.0, ge=0, le=1, description="of the untouched samples")
    kinds: Weights = Field(
        default=dict.fromkeys(NEGATIVES, 1.0),
        description="names in `negatives.NEGATIVES` or `ordinary_edits.KEEP_SIZE`; their weights",
    )
    whole: float = Field(
        default=0.3, ge=0, le=1, description="how often a regional kind edits the whole photo"
    )

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if unknown := sorted(set(self.kinds) - set(KINDS)):
            raise ValueError(f"kinds: no {', '.join(unknown)}; there are {', '.join(KINDS)}")
        if self.share and not any(self.kinds.values()):
            raise ValueError("kinds: give at least one a weight above 0, or share 0")
        return self

    def __call__(
        self, photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> tuple[str, np.ndarray]:
        """What was done instead of inpainting, and the photo after it; "" and the photo itself
        where it stays untouched. mask: the region that would have been redrawn."""
        if rng.random() >= self.share:
            return "", photo
        kind = draw_weighted(self.kinds, rng)
        is_whole = rng.random() < self.whole
        # What edits the surroundings of a region would leave a photo without any as it is.
        region = np.ones_like(mask) if is_whole and kind in REGIONAL else mask
        return f"not inpainted: {kind}", KINDS[kind](photo, region, rng)


class UniversalConfig(BaseModel):
    """How a universal sample is drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(default=128, ge=16, description="side of a sample, pixels")
    masks: Weights = Field(
        default={"brush": 1.0},
        description="kinds of masks, objects:FOLDER or keep:FOLDER, and their weights",
    )
    bank: Weights = Field(
        description="autoencoders and their weights: names of records, or taef2:FOLDER"
    )
    traces: Weights = Field(default={}, description="names in `traces.TRACES` and their weights")
    moved: float = Field(default=0.0, ge=0, le=1, description="share with moved content")
    untouched: float = Field(
        default=0.2, ge=0, le=1, description="share of samples with an empty mask"
    )
    negatives: Negatives = Negatives()
    apart: Apart = Apart()
    alike: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share in which photo and fill alike have colours at half of the resolution",
    )
    history: History = History()
    degrade: Degrade = Degrade()

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if not any(self.bank.values()):
            raise ValueError("bank: give at least one autoencoder a weight above 0")
        if unknown := sorted(set(self.traces) - set(TRACES)):
            raise ValueError(f"traces: no {', '.join(unknown)}; there are {', '.join(TRACES)}")
        return self


@dataclass(frozen=True)
class Sample:
    """One universal sample, with all that is needed to explain it."""

    pixels: np.ndarray
    """uint8 (h, w, 3)."""
    mask: np.ndarray
    """uint8 (h, w), 1 = redrawn; all 0 for an untouched photo and a negative."""
    source: str
    """Name of the photo."""
    redrawn_by: str
    """The autoencoder or trace, "+moved" with moved content; "" for an untouched photo, and
    "not inpainted: KIND" for a negative."""
    history: tuple[Step, ...] = ()
    """What happened to the photo before the blend; unknown (empty) when it came from a cache."""
    degradations: tuple[Step, ...] = ()
    """What happened to the blended picture, the cut to size included."""


def blend(photo: np.ndarray, reconstruction: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Eq. 2 on 8-bit values: the photo, and inside the mask its reconstruction.

    photo, reconstruction: uint8 (h, w, 3); mask: (h, w), nonzero = redrawn. -> uint8 (h, w, 3),
    equal to `photo` bit for bit wherever the mask is 0.
    """
    return np.where(mask[..., None] != 0, reconstruction, photo)


def finish_sample(
    config: UniversalConfig,
    blended: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    seed: Sequence[int],
) -> tuple[np.ndarray, np.ndarray, list[Step]]:
    """What happens to every sample after the blend: -> pixels and mask of its size, and the steps.

    seed: (seed, index) of the sample, for what is drawn by a generator of its own.
    """
    own, first = np.random.default_rng([*seed, ALIKE]), []
    if own.random() < config.alike:
        first = [Step("halved_colours", {"phase": own.integers(2, size=2).tolist()})]
        blended, _ = replay(blended, None, first)
    pixels, mask, steps = config.degrade(blended, mask, rng, config.size)
    pixels, mask = random_flip(rng, pixels, mask)
    return pixels, mask, first + steps


class Pairs(Protocol):
    """Where photos (after their history) and their reconstructions come from."""

    def draw(self, rng: np.random.Generator) -> "Pair": ...


@dataclass(frozen=True)
class Pair:
    """A photo after its history and one reconstruction of it by a member of the bank."""

    photo: np.ndarray
    reconstruction: np.ndarray
    source: str
    member: str
    history: tuple[Step, ...] = ()


def draw_weighted(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    """A key of `weights`, drawn in proportion to the weights; their order has no influence."""
    names = sorted(weights)
    values = np.array([weights[name] for name in names], dtype=float)
    return names[int(rng.choice(len(names), p=values / values.sum()))]


def draw_photo(
    photos: PhotoSource, index: int, history: History, side: int, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[Step, ...]]:
    """A crop uint8 (side, side, 3) of photo `index` after a random history, and its steps."""
    # A history of the whole of a 12-megapixel photo would be wasted: crop first.
    pixels = random_crop(photos.read(index), max(history.find_margin(side), side), rng)
    pixels, steps = history(pixels, rng, side)
    return pixels, tuple(steps)


class LivePairs:
    """Pairs made on the fly: read a photo, give it a history, crop, reconstruct."""

    def __init__(
        self,
        photos: PhotoSource,
        bank: Mapping[str, nn.Module],
        weights: Mapping[str, float],
        history: History,
        crop: int,
    ) -> None:
        self.photos, self.bank, self.weights = photos, bank, weights
        self.history, self.crop = history, crop

    def draw(self, rng: np.random.Generator) -> Pair:
        index = int(rng.integers(len(self.photos)))
        photo, steps = self.draw_photo(index, rng)
        member = draw_weighted(self.weights, rng)
        reconstruction = reconstruct(self.bank[member], photo)
        return Pair(photo, reconstruction, self.photos.names[index], member, steps)

    def draw_photo(
        self, index: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, tuple[Step, ...]]:
        """Crop of photo `index` after a random history."""
        return draw_photo(self.photos, index, self.history, self.crop, rng)


class UniversalDataset(Dataset[dict[str, Tensor]]):
    """Universal samples by running number, for training.

    Item: {"image": (3, size, size) in [0, 1], "mask": (1, size, size) in {0, 1}}.
    """

    def __init__(self, config: UniversalConfig, pairs: Pairs, mask_fn: MaskFn, seed: int) -> None:
        self.config, self.pairs, self.mask_fn, self.seed = config, pairs, mask_fn, seed

    def sample(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        config = self.config
        pair = self.pairs.draw(rng)
        margin = config.degrade.find_margin(config.size)
        both = random_crop(np.dstack([pair.photo, pair.reconstruction]), margin, rng)
        photo, redrawn = both[..., :3], both[..., 3:]
        name = pair.member
        weights = {"": sum(config.bank.values()), **config.traces}
        if trace := draw_weighted(weights, rng):
            name, redrawn = trace, TRACES[trace](photo, rng)
        own = np.random.default_rng([self.seed, index, APART])
        photo, redrawn = config.apart(photo, redrawn, own)
        mask = self.mask_fn(margin, margin, rng)
        if rng.random() < config.moved:
            name, redrawn = f"{name}+moved", move_content(photo, redrawn, mask, rng)
        instead = ""
        if rng.random() < config.untouched:
            own = np.random.default_rng([self.seed, index, NEGATIVE])
            instead, photo = config.negatives(photo, mask, own)
            mask = np.zeros_like(mask)
        blended = blend(photo, redrawn, mask)
        pixels, mask, steps = finish_sample(config, blended, mask, rng, [self.seed, index])
        name = name if mask.any() else instead  # the cut to size may have missed the hole
        return Sample(pixels, mask, pair.source, name, pair.history, tuple(steps))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = self.sample(index)
        mask = torch.from_numpy(sample.mask.astype(np.float32))[None]
        return {"image": to_tensor(sample.pixels)[0], "mask": mask}


def make_test_set(
    photos: PhotoSource,
    autoencoders: Mapping[str, nn.Module],
    *,
    size: int = 256,
    num: int,
    seed: int,
) -> Iterator[Sample]:
    """The paper's protocol: free-form brush masks, lossless, no history, every photo inpainted.

    The members take turns, so each has the same number of samples; photo and mask of sample i are
    the same for any bank.
    """
    members = sorted(autoencoders)
    for i in range(num):
        rng = np.random.default_rng([seed, i])
        index = i % len(photos)
        photo = random_crop(photos.read(index), size, rng)
        mask = masks.brush(size, size, rng)
        member = members[i % len(members)]
        pixels = blend(photo, reconstruct(autoencoders[member], photo), mask)
        yield Sample(pixels, mask, photos.names[index], member)


def make_mask_mixture(weights: Mapping[str, float], assets: Path = Path()) -> MaskFn:
    """The mask kinds of a config, with shapes from the mask files in folders below `assets`.

    "objects:FOLDER" redraws what is white in the files, "keep:FOLDER" what is black.
    """
    inverted = {"objects": False, "keep": True}
    shapes: dict[str, MaskFn] = {}
    for name in weights:
        kind, colon, folder = name.partition(":")
        if colon and kind in inverted:
            shapes[name] = masks.ObjectMasks(assets / folder, invert=inverted[kind])
    return masks.make_mixture(weights, shapes)
