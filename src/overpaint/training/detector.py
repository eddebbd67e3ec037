"""Training of a detector on universal data.

Source: NIX-Net (IJCAI 2021), sections 3.2 to 5: focal loss with gamma 2 (eq. 4), Adam, early
stopping on the validation mIoU at the threshold 0.5. Validation samples are universal samples of
photos that are not trained on, drawn once and kept.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset

from overpaint.data.bank import load_bank
from overpaint.data.cache import CachedPairs, build_cache
from overpaint.data.sources import PhotoSource
from overpaint.data.universal import (
    LivePairs,
    Pairs,
    UniversalConfig,
    UniversalDataset,
    mask_mixture,
)
from overpaint.errors import ConfigError
from overpaint.evaluation.metrics import image_scores
from overpaint.registry import detectors
from overpaint.remap import check_fits
from overpaint.training import losses
from overpaint.training.config import LoopConfig, Section, create_model
from overpaint.training.loop import Batch
from overpaint.weights import load_weights


class CacheConfig(Section):
    """Reconstructions computed once, see `data.cache`; `num` 0 makes them on the fly."""

    num: int = Field(default=0, ge=0, description="photos after a random history")
    side: int = Field(default=224, ge=32, description="side of the cached crops, pixels")


class DetectorRun(Section):
    """A recipe for one detector."""

    name: str = Field(description="of the weights that the run exports")
    detector: str = Field(default="nixnet", description="name in the registry")
    model: dict[str, Any] = Field(default={}, description="the detector's configuration")
    start_from: str | None = Field(
        default=None, description="weights to go on from: a shipped name, or a path"
    )
    loop: LoopConfig
    data: UniversalConfig
    cache: CacheConfig = CacheConfig()
    focal_gamma: float = Field(default=2.0, ge=0)
    positive_weight: float = Field(
        default=1.0,
        gt=0,
        description="of inpainted pixels in the loss, against 1; a heatmap then passes 0.5 where "
        "the probability is 1 / (1 + it): for a high IoU, doubtful pixels belong to the region",
    )
    iou_weight: float = Field(
        default=0.0, ge=0, description="of the soft IoU loss beside the focal one; not in the paper"
    )
    validation_samples: int = Field(default=128, ge=1)


class DetectorTask:
    """What the loop needs; see `training.loop.Task`.

    Raises ConfigError for a model that cannot be built or validation samples without a hole,
    WeightsError for weights to start from that are missing or do not fit.
    """

    rates: Mapping[str, float] = {}

    def __init__(self, run: DetectorRun, train: Pairs, validation: Pairs, assets: Path) -> None:
        self.run = run
        self.modules: dict[str, nn.Module] = {"model": make_model(run)}
        mask_fn = mask_mixture(run.data.masks, assets)
        self.train = UniversalDataset(run.data, train, mask_fn, run.loop.seed)
        # The largest seed of 32 bit belongs to validation, so that it never follows a run's own.
        held_out = UniversalDataset(run.data, validation, mask_fn, 2**32 - 1)
        self.validation = [held_out[i] for i in range(run.validation_samples)]
        if not any(sample["mask"].any() for sample in self.validation):
            raise ConfigError(
                f"none of the {run.validation_samples} validation samples is inpainted; raise "
                "validation_samples or lower data.untouched"
            )

    def dataset(self) -> Dataset[dict[str, Tensor]]:
        return self.train

    def losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        logits, run = self.modules["model"](batch["image"]).float(), self.run
        loss = losses.focal_loss(logits, batch["mask"], run.focal_gamma, run.positive_weight)
        if run.iou_weight:
            loss = loss + run.iou_weight * losses.soft_iou_loss(logits, batch["mask"])
        yield "model", loss

    def validate(self, model: nn.Module) -> dict[str, float]:
        """mIoU and AUC over the redrawn samples; flagged share of the untouched ones."""
        inpainted: list[dict[str, float]] = []
        flagged: list[float] = []
        for sample in self.validation:
            heatmap = self._heatmap(model, sample["image"])
            mask = sample["mask"][0].numpy()
            if mask.any():
                inpainted.append(image_scores(heatmap, mask))
            else:
                flagged.append(float((heatmap > 0.5).mean()))
        miou, auc = (float(np.nanmean([s[k] for s in inpainted])) for k in ("iou", "auc"))
        figures = {"figure": miou, "miou": miou, "auc": auc}
        return {**figures, "flagged_untouched": float(np.mean(flagged))} if flagged else figures

    def pictures(self, model: nn.Module) -> dict[str, Tensor]:
        """Three validation samples side by side: image, mask, heatmap."""
        rows = []
        for sample in self.validation[:3]:
            heatmap = torch.from_numpy(self._heatmap(model, sample["image"]))[None]
            grey = [m.expand(3, -1, -1) for m in (sample["mask"], heatmap)]
            rows.append(torch.cat([sample["image"], *grey], dim=2))
        return {"image, mask and heatmap": torch.cat(rows, dim=1)}

    @torch.inference_mode()
    def _heatmap(self, model: nn.Module, image: Tensor) -> np.ndarray:
        device = next(model.parameters()).device
        return torch.sigmoid(model(image[None].to(device)))[0, 0].cpu().numpy()


def check(run: DetectorRun, assets: Path) -> None:
    """Raise what `DetectorTask` would, as far as it can be told without reconstructions."""
    make_model(run)
    mask_mixture(run.data.masks, assets)


def make_model(run: DetectorRun) -> nn.Module:
    """The detector of a run, with the weights that it starts from; errors as of `DetectorTask`."""
    model = create_model(detectors, run.detector, run.model)
    if run.start_from is not None:
        _, state = load_weights(run.start_from, kind="detector")
        check_fits(model, state)
        model.load_state_dict(state)
    return model


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
    crop = run.cache.side if cached else data.degrade.margin(data.size)
    live = LivePairs(photos, load_bank(data.bank, assets), data.bank, data.history, crop)
    if not cached or folder is None:
        return live
    if crop < data.degrade.margin(data.size):
        raise ConfigError(
            f"cache.side {crop} is too small: data.size and data.degrade need "
            f"{data.degrade.margin(data.size)}"
        )
    key = {"history": data.history.model_dump(mode="json"), "photos": len(photos)}
    build_cache(folder, live, num=run.cache.num, seed=run.loop.seed, key=key, progress=progress)
    return CachedPairs(folder, data.bank)
