"""What the training of every detector shares: the recipe, the data, validation and pictures.

A detector's own file defines its loss. Validation samples are drawn as those of the training,
from photos that are not trained on, once, and kept; NIX-Net (IJCAI 2021, section 5) stops early by
their mIoU at the threshold 0.5.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.data import Dataset

from overpaint.data.bank import load_bank
from overpaint.data.cache import CachedPairs, build_cache
from overpaint.data.masks import MaskFn
from overpaint.data.real_fills import RealFillDataset, RealFills, describe_fills
from overpaint.data.sources import Part, PhotoSource
from overpaint.data.universal import (
    LivePairs,
    Pairs,
    UniversalConfig,
    UniversalDataset,
    make_mask_mixture,
)
from overpaint.detectors.base import Detector, Findings
from overpaint.detectors.nixnet_context import Content
from overpaint.errors import ConfigError, WeightsError
from overpaint.layers.efficientnet import read_lite_features
from overpaint.metrics import image_scores, pixel_auc
from overpaint.registry import detectors
from overpaint.training.config import LoopConfig, Section, create_model, load_section
from overpaint.training.detection.forged import ForgedConfig, ForgedDataset, Mixed
from overpaint.training.detection.untouched import UntouchedConfig, UntouchedDataset
from overpaint.training.discovery import find_task
from overpaint.training.loop import Batch
from overpaint.weights import WeightsRecord, load_weights
from overpaint.weights.rename_keys import check_fits

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Of a term of a loss."""
Share = Annotated[float, Field(gt=0, lt=1)]

ModelT = TypeVar("ModelT", bound=Detector)
LossT = TypeVar("LossT", bound=Section)


class CacheConfig(Section):
    """Reconstructions computed once, see `data.cache`; `num` 0 makes them on the fly."""

    num: int = Field(default=0, ge=0, description="photos after a random history")
    side: int = Field(default=224, ge=32, description="side of the cached crops, pixels")
    seed: int | None = Field(
        default=None,
        ge=0,
        description="of the crops and their histories; null takes the run's own",
    )


class DetectorRun(Section):
    """A recipe for one detector."""

    name: str = Field(description="of the weights that the run exports")
    detector: str = Field(default="nixnet", description="name in the registry")
    model: dict[str, Any] = Field(default={}, description="the detector's configuration")
    start_from: str | None = Field(
        default=None, description="weights to go on from: a shipped name, or a path"
    )
    parts_from: tuple[str, ...] = Field(
        default=(),
        description="weights of parts that take the place of the network's own: imported names, "
        "or paths",
    )
    content_from: str | None = Field(
        default=None,
        description="file of EfficientNet-Lite0 for `model.content`, unless the weights to go on "
        "from have it",
    )
    loop: LoopConfig
    data: UniversalConfig
    forged: ForgedConfig = ForgedConfig()
    fills: RealFills = RealFills()
    untouched: UntouchedConfig = UntouchedConfig()
    cache: CacheConfig = CacheConfig()
    loss: dict[str, Any] = Field(
        default={}, description="settings of its loss: the `loss_config` of its task"
    )
    validation_samples: int = Field(default=128, ge=1)

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.forged.share + self.fills.share + self.untouched.share > 1:
            raise ValueError("the shares of forged, fills and untouched are above 1; lower one")
        return self


class DetectorTask(ABC, Generic[ModelT, LossT]):
    """What the loop needs; see `training.loop.Task`.

    A subclass names its network and its section of settings and implements `compute_loss`. Samples
    of a batch: "image" (b, 3, h, w) in [0, 1] and "mask" (b, 1, h, w), 1 = inpainted.

    model: the network that is trained. exclude: file names of photos whose forgeries are left out.
    photos: of training and validation, for `untouched`. Raises ConfigError for another network than
    this loss is for, for a wrong key of the loss, for folders without forgeries, for validation
    samples without a hole, and for `untouched` without photos.
    """

    architecture: ClassVar[type[Detector]]
    loss_config: ClassVar[type[Section]]
    side_multiple: ClassVar[int] = 1
    """Of which a sample's side has to be a multiple."""
    rates: Mapping[str, float] = {}
    loss_terms: Mapping[str, Tensor] = {}

    def __init__(
        self,
        run: DetectorRun,
        model: nn.Module,
        train: Pairs,
        validation: Pairs,
        assets: Path = Path(),
        exclude: Collection[str] = (),
        photos: tuple[PhotoSource, PhotoSource] | None = None,
    ) -> None:
        if run.data.size % self.side_multiple:
            raise ConfigError(
                f"data.size {run.data.size}: {self.architecture.__name__} needs a multiple of "
                f"{self.side_multiple}"
            )
        self.run = run
        self.terms: LossT = self.load_terms(run)  # type: ignore[assignment]
        if not isinstance(model, self.architecture):
            wanted = self.architecture.__name__
            raise ConfigError(f"detector {run.detector!r}: this loss trains a {wanted}")
        self.modules: dict[str, nn.Module] = {"model": model}
        for part in self.list_frozen():
            part.requires_grad_(False)
        mask_fn = make_mask_mixture(run.data.masks, assets)
        shown, others = photos or (None, None)
        last, seed = (assets, exclude, shown), run.loop.seed
        self.train = _make_samples(run, train, mask_fn, "train", seed, *last)
        # The largest seed of 32 bit belongs to validation, so that it never follows a run's own.
        seed = 2**32 - 1
        last = (assets, exclude, others)
        held_out = _make_samples(run, validation, mask_fn, "validation", seed, *last)
        self.validation = [held_out[i] for i in range(run.validation_samples)]
        if not any(sample["mask"].any() for sample in self.validation):
            raise ConfigError(
                f"none of the {run.validation_samples} validation samples is inpainted; raise "
                "validation_samples or lower data.untouched"
            )

    @classmethod
    def load_terms(cls, run: DetectorRun) -> Section:
        """The checked settings of the run's loss; raises ConfigError."""
        return load_section(cls.loss_config, run.loss, "loss")

    def list_frozen(self) -> list[nn.Module]:
        """The parts of the model that are not trained."""
        return []

    @property
    def model(self) -> ModelT:
        """The detector that is trained."""
        return self.modules["model"]  # type: ignore[return-value]

    def make_dataset(self) -> Dataset[dict[str, Tensor]]:
        return self.train

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        yield "model", self.compute_loss(batch["image"], batch["mask"])

    @abstractmethod
    def compute_loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """The loss of a batch, a float32 scalar."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """mIoU and AUC over the redrawn samples; flagged share of the untouched ones.

        Of a detector that judges whole photos, the AUC of its score as well, where samples of both
        kinds were drawn.
        """
        inpainted: list[dict[str, float]] = []
        flagged: list[float] = []
        scores: list[tuple[float, bool]] = []
        for sample in self.validation:
            found = self.examine(model, sample["image"])
            heatmap, mask = _to_heatmap(found), sample["mask"][0].numpy()
            if mask.any():
                inpainted.append(image_scores(heatmap, mask))
            else:
                flagged.append(float((heatmap > 0.5).mean()))
            if found.score is not None:
                scores.append((float(found.score), bool(mask.any())))
        miou, auc = (float(np.nanmean([s[k] for s in inpainted])) for k in ("iou", "auc"))
        figures = {"figure": miou, "miou": miou, "auc": auc}
        if flagged:
            figures["flagged_untouched"] = float(np.mean(flagged))
            if scores:
                figures["score_auc"] = pixel_auc(*map(np.array, zip(*scores, strict=True)))
        return figures

    def draw_pictures(self, model: nn.Module) -> dict[str, Tensor]:
        """Three validation samples side by side: image, mask, heatmap."""
        rows = []
        for sample in self.validation[:3]:
            heatmap = torch.from_numpy(_to_heatmap(self.examine(model, sample["image"])))[None]
            grey = [m.expand(3, -1, -1) for m in (sample["mask"], heatmap)]
            rows.append(torch.cat([sample["image"], *grey], dim=2))
        return {"image, mask and heatmap": torch.cat(rows, dim=1)}

    @torch.inference_mode()
    def examine(self, model: nn.Module, image: Tensor) -> Findings:
        """The detector's outputs for one picture (3, h, w)."""
        device = next(model.parameters()).device
        return cast(Detector, model).examine(image[None].to(device))


def is_inpainted(mask: Tensor) -> Tensor:
    """(b,): 1 for a picture with an inpainted pixel, 0 for an untouched one."""
    return mask.flatten(1).amax(dim=1)


def _to_heatmap(found: Findings) -> np.ndarray:
    return torch.sigmoid(found.logits)[0, 0].cpu().numpy()


def _make_samples(
    run: DetectorRun,
    pairs: Pairs,
    mask_fn: MaskFn,
    part: Part,
    seed: int,
    assets: Path,
    exclude: Collection[str],
    photos: PhotoSource | None,
) -> Dataset[dict[str, Tensor]]:
    """Universal samples, and forgeries, real fills and untouched photos as the recipe has them.

    Real fills of the pool "dev" validate.
    """
    universal = UniversalDataset(run.data, pairs, mask_fn, seed)
    others: list[tuple[Dataset[dict[str, Tensor]], float]] = []
    if run.forged.share:
        forged = ForgedDataset(run.data, run.forged, part, seed, assets, exclude)
        others.append((forged, run.forged.share))
    if run.fills.share:
        pool = "train" if part == "train" else "dev"
        fills = RealFillDataset(run.data, run.fills, pool, pairs, seed, assets)
        others.append((fills, run.fills.share))
    if run.untouched.share:
        if photos is None:
            raise ConfigError("untouched: this training is given no photos")
        # The photos that are drawn more often are named among those of the training.
        often = run.untouched.often if part == "train" else None
        drawn = run.untouched.model_copy(update={"often": often})
        untouched = UntouchedDataset(run.data, drawn, photos, mask_fn, seed, assets)
        others.append((untouched, run.untouched.share))
    return Mixed(universal, others, seed) if others else universal


@dataclass(frozen=True, slots=True)
class Start:
    """The network of a run as training finds it: built once, its weights loaded once."""

    model: nn.Module
    record: WeightsRecord | None = None
    """Of the weights that the run goes on from; None from nothing."""
    fresh: tuple[str, ...] = ()
    """The `Detector.residual_parts` that those weights lack, which start as the identity."""
    parts: tuple[WeightsRecord, ...] = ()
    """Of the parts that were put in."""


def start(run: DetectorRun) -> Start:
    """The detector of a run, with the weights that it goes on from, and then its parts'.

    Raises ConfigError for a model that cannot be built, WeightsError for weights that are missing
    or do not fit.
    """
    model = create_model(detectors, run.detector, run.model)
    if run.content_from is not None:
        content = getattr(model, "content", None)
        if not isinstance(content, Content):
            raise ConfigError("content_from: the model has no content; set model.content: true")
        content.features.load_state_dict(read_lite_features(run.content_from))
    if run.start_from is None:
        return Start(model, parts=_load_parts(run, model))
    record, state = load_weights(run.start_from, kind="detector")
    own = model.state_dict()
    parts = model.residual_parts if isinstance(model, Detector) else ()
    fresh = tuple(part for part in parts if _is_only_in(f"{part}.", own, state))
    state |= {key: own[key] for key in own if key.startswith(tuple(f"{p}." for p in fresh))}
    check_fits(model, state)
    model.load_state_dict(state)
    return Start(model, record, fresh, _load_parts(run, model))


def _load_parts(run: DetectorRun, model: nn.Module) -> tuple[WeightsRecord, ...]:
    """Put the weights of the run's parts into the model; -> their records."""
    records = []
    for name in run.parts_from:
        record, state = load_weights(name, kind="part")
        own = model.state_dict()
        wrong = [k for k, v in state.items() if k not in own or own[k].shape != v.shape]
        if wrong:
            raise WeightsError(
                f"{record.path}: the part {record.name} does not fit {run.detector}: the network "
                f"has no {wrong[0]} of shape {tuple(state[wrong[0]].shape)}; take the network that "
                "it was published for, at its published widths"
            )
        model.load_state_dict(own | state)
        records.append(record)
    return tuple(records)


def _is_only_in(prefix: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    def holds(state: Mapping[str, Any]) -> bool:
        return any(key.startswith(prefix) for key in state)

    return holds(own) and not holds(other)


def make_detection_task(
    run: DetectorRun,
    train: Pairs,
    validation: Pairs,
    assets: Path = Path(),
    exclude: Collection[str] = (),
    model: nn.Module | None = None,
    photos: tuple[PhotoSource, PhotoSource] | None = None,
) -> DetectorTask[Any, Any]:
    """The task of a run; model: its network, None to build it here. photos: of training and
    validation.

    Raises as `start` and `DetectorTask`, and ConfigError for a network without a loss.
    """
    network = start(run).model if model is None else model
    kind = find_task(network, DetectorTask)  # a subclass, and never the abstract class itself
    return kind(run, network, train, validation, assets, exclude, photos)  # type: ignore[abstract]


def check(run: DetectorRun, model: nn.Module, assets: Path, exclude: Collection[str] = ()) -> None:
    """Raise what `make_detection_task` would, as far as it can be told without reconstructions."""
    find_task(model, DetectorTask).load_terms(run)
    make_mask_mixture(run.data.masks, assets)
    if run.fills.share:
        describe_fills(run.fills, assets)
    if run.forged.share:
        parts: tuple[Part, ...] = ("train", "validation")
        for part in parts:
            ForgedDataset(run.data, run.forged, part, run.loop.seed, assets, exclude)


def make_pairs(
    run: DetectorRun,
    photos: PhotoSource,
    assets: Path,
    folder: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, num: None,
) -> Pairs:
    """The photos and reconstructions of a run: from a cache in `folder`, or on the fly.

    Raises ConfigError for a cache of crops too small for a sample.
    """
    data, cached = run.data, folder is not None and run.cache.num > 0
    crop = run.cache.side if cached else data.degrade.find_margin(data.size)
    live = LivePairs(photos, load_bank(data.bank, assets), data.bank, data.history, crop)
    if not cached or folder is None:
        return live
    if crop < data.degrade.find_margin(data.size):
        raise ConfigError(
            f"cache.side {crop} is too small: data.size and data.degrade need "
            f"{data.degrade.find_margin(data.size)}"
        )
    key = {"history": data.history.model_dump(mode="json"), "photos": len(photos)}
    seed = run.loop.seed if run.cache.seed is None else run.cache.seed
    build_cache(folder, live, num=run.cache.num, seed=seed, key=key, progress=progress)
    return CachedPairs(folder, data.bank)
