"""What the training of every inpainter shares: the recipe, the data, validation and pictures.

An inpainter's own file says which networks are trained beside it and what a step's losses are.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from overpaint.data.masks import limit_ratio
from overpaint.data.sources import PhotoSource
from overpaint.data.universal import make_mask_mixture
from overpaint.errors import ConfigError
from overpaint.inpainters.base import Inpainter
from overpaint.layers.perceptual import load_backbone
from overpaint.metrics import psnr, squared_error
from overpaint.registry import inpainters
from overpaint.training.config import (
    AdversarialLoss,
    LoopConfig,
    Section,
    create_model,
    load_section,
)
from overpaint.training.discovery import find_task
from overpaint.training.inpainting.data import InpaintingData, PhotosAndHoles
from overpaint.training.loop import Batch
from overpaint.weights import WeightsRecord, load_weights
from overpaint.weights.rename_keys import check_fits

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Of a term of a loss."""
OF_FEATURES = ("perceptual_weight", "style_weight")
"""Terms that need a backbone."""

ModelT = TypeVar("ModelT", bound=Inpainter)
LossT = TypeVar("LossT", bound=Section)


class InpainterRun(Section):
    """A recipe for one inpainter."""

    name: str = Field(description="of the weights that the run exports")
    inpainter: str = Field(default="safepaint", description="name in the registry")
    model: dict[str, Any] = Field(default={}, description="the inpainter's configuration")
    start_from: str | None = Field(
        default=None, description="weights to go on from: a shipped name, or a path"
    )
    loop: LoopConfig
    data: InpaintingData = InpaintingData()
    loss: dict[str, Any] = Field(
        default={}, description="weights of its losses: the `loss_config` of its task"
    )
    backbone: str = Field(
        default="vgg19:weights/vgg19-dcbb9e9d.pth",
        description="of the perceptual and style losses: KIND:FILE below --assets, or none; "
        "see perceptual.load_backbone",
    )
    validation_photos: int = Field(default=32, ge=1)


class InpaintingTask(ABC, Generic[ModelT, LossT]):
    """What the loop needs; see `training.loop.Task`.

    A subclass names its network and its section of losses, makes the discriminators that are
    trained beside it, and implements `compute_losses`. Samples of a batch: "image" (b, 3, h, w) in
    [0, 1] and "mask" (b, 1, h, w), 1 = hole.

    model: the network that is trained. Raises ConfigError for another network than these losses
    are for, for a wrong key of the losses, and for terms that need a backbone without one;
    WeightsError for a backbone that cannot be read.
    """

    architecture: ClassVar[type[Inpainter]]
    loss_config: ClassVar[type[Section]]
    rates: Mapping[str, float] = {}
    loss_terms: Mapping[str, Tensor] = {}

    def __init__(
        self,
        run: InpainterRun,
        model: nn.Module,
        photos: PhotoSource,
        validation: PhotoSource,
        assets: Path = Path(),
    ) -> None:
        if not isinstance(model, self.architecture):
            wanted = self.architecture.__name__
            raise ConfigError(f"inpainter {run.inpainter!r}: these losses train a {wanted}")
        self.run = run
        self.terms: LossT = load_section(self.loss_config, run.loss, "loss")  # type: ignore[assignment]
        self.modules: dict[str, nn.Module] = {"model": model}
        self.backbone = load_backbone(run.backbone, assets)
        if self.backbone is None and any(getattr(self.terms, name, 0) for name in OF_FEATURES):
            raise ConfigError(
                "backbone none: set loss.perceptual_weight and loss.style_weight to 0, "
                "or name a backbone"
            )
        low, high = run.data.ratio
        mask_fn = limit_ratio(make_mask_mixture(run.data.masks, assets), low, high, tries=1000)
        if run.data.early_samples % run.loop.batch_size:
            raise ConfigError(
                f"data.early_samples {run.data.early_samples}: make it a multiple of "
                f"loop.batch_size {run.loop.batch_size}, so that no batch has two sizes"
            )
        self.train = PhotosAndHoles(photos, run.data, mask_fn, run.loop.seed)
        # The largest seed of 32 bit belongs to validation, so that it never follows a run's own.
        at_full_size = run.data.model_copy(update={"early_samples": 0})
        held_out = PhotosAndHoles(validation, at_full_size, mask_fn, 2**32 - 1)
        self.validation = [held_out[i] for i in range(run.validation_photos)]
        self.modules |= self.make_discriminators()

    def make_discriminators(self) -> dict[str, nn.Module]:
        """The networks that are trained beside the model, by name."""
        return {}

    def is_adversarial(self, step: int) -> bool:
        """Whether there is a discriminator, and the step at which it joins has come."""
        first = self.terms.adversarial_from if isinstance(self.terms, AdversarialLoss) else 0
        return len(self.modules) > 1 and step >= first

    @property
    def model(self) -> ModelT:
        """The inpainter that is trained."""
        return self.modules["model"]  # type: ignore[return-value]

    def make_dataset(self) -> PhotosAndHoles:
        return self.train

    @abstractmethod
    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]: ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """PSNR of the whole picture at 8 bit."""
        values = [
            psnr(squared_error(to_levels(picture), to_levels(image)))
            for image, picture in (
                (s["image"][None], self._fill_sample(model, s)) for s in self.validation
            )
        ]
        return {"figure": float(np.mean(values)), "psnr": float(np.mean(values))}

    def draw_pictures(self, model: nn.Module) -> dict[str, Tensor]:
        """Three validation samples side by side: hole, filled photo, photo."""
        rows = []
        for sample in self.validation[:3]:
            image, mask = sample["image"], sample["mask"]
            filled = self._fill_sample(model, sample)[0].float().cpu()
            rows.append(torch.cat([torch.where(mask == 1, 1.0, image), filled, image], dim=2))
        return {"hole, filled and photo": torch.cat(rows, dim=1)}

    @torch.inference_mode()
    def _fill_sample(self, model: nn.Module, sample: Batch) -> Tensor:
        device = next(model.parameters()).device
        return model(*(sample[name][None].to(device) for name in ("image", "mask")))


def start(run: InpainterRun) -> tuple[nn.Module, WeightsRecord | None]:
    """The network of a run, with the weights that it goes on from, and their record.

    Raises ConfigError for a model that cannot be built, WeightsError for weights that are missing
    or do not fit.
    """
    model = create_model(inpainters, run.inpainter, run.model)
    if run.start_from is None:
        return model, None
    record, state = load_weights(run.start_from, kind="inpainter")
    check_fits(model, state)
    model.load_state_dict(state)
    return model, record


def make_inpainting_task(
    run: InpainterRun,
    photos: PhotoSource,
    validation: PhotoSource,
    assets: Path = Path(),
    model: nn.Module | None = None,
) -> InpaintingTask[Any, Any]:
    """The task that trains the run's network; model: None to build it here.

    Raises as `start` and `InpaintingTask`, and ConfigError for a network without losses.
    """
    model = start(run)[0] if model is None else model
    kind = find_task(model, InpaintingTask)  # a subclass, and never the abstract class itself
    return kind(run, model, photos, validation, assets)  # type: ignore[abstract]


def to_levels(picture: Tensor) -> np.ndarray:
    """A picture (1, 3, h, w) in [0, 1] on the scale of 8 bit, rounded."""
    return (picture.float() * 255).round().cpu().numpy()
