"""Training of an autoencoder G for the universal data, as a GAN's generator.

Source: NIX-Net (IJCAI 2021), eq. 1: adversarial term + 0.1 * ||G(I) - I||_2. Readings, not in
the paper: a 70x70 PatchGAN with spectral norm as D; the adversarial term joins when the
reconstruction has settled (`adversarial_from`); G uses its non-saturating form.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from overpaint.data.autoencoder import reconstruct
from overpaint.data.crops import PhotoCrops, crop_middle
from overpaint.data.sources import PhotoSource
from overpaint.errors import ConfigError
from overpaint.layers.patchgan import PatchDiscriminator
from overpaint.metrics import psnr, squared_error
from overpaint.registry import autoencoders
from overpaint.training import losses
from overpaint.training.config import AdversarialLoss, LoopConfig, Section, create_model
from overpaint.training.loop import Batch

ARCHITECTURE = "conv-autoencoder"
SMALLEST_FOR_GAN = 24
"""Side in pixels of the smallest crop of which the discriminator makes a value."""


class EquationOne(AdversarialLoss):
    """The terms of eq. 1 and how this member of the bank weighs them."""

    reconstruction: Literal["l2", "l1"] = "l2"
    reconstruction_weight: float = Field(default=0.1, gt=0, description="lambda")
    adversarial_weight: float = Field(default=1.0, ge=0, description="0: reconstruction alone")


class AutoencoderRun(Section):
    """A recipe for one autoencoder."""

    name: str = Field(description="of the weights that the run exports")
    loop: LoopConfig
    loss: EquationOne = EquationOne()
    model: dict[str, Any] = Field(default={}, description="fields of AutoencoderConfig")
    crop: int = Field(default=128, ge=16, description="side of the training crops, pixels")
    validation_crop: int = Field(default=256, ge=16)
    validation_photos: int = Field(default=32, ge=1)


class AutoencoderTask:
    """What the loop needs; see `training.loop.Task`.

    Raises ConfigError for a model that cannot be built or a crop that does not fit it.
    """

    rates: Mapping[str, float] = {}
    loss_terms: Mapping[str, Tensor] = {}

    def __init__(self, run: AutoencoderRun, photos: PhotoSource, validation: PhotoSource) -> None:
        self.run, self.photos = run, photos
        model = create_model(autoencoders, ARCHITECTURE, run.model)
        self.modules: dict[str, nn.Module] = {"model": model}
        if run.crop % model.stride:
            raise ConfigError(f"crop: {run.crop} is not a multiple of the stride {model.stride}")
        if run.loss.adversarial_weight:
            if run.crop < SMALLEST_FOR_GAN:
                raise ConfigError(f"crop: the discriminator needs {SMALLEST_FOR_GAN} or more")
            width = run.loss.discriminator_width
            self.modules["discriminator"] = PatchDiscriminator(width=width)
        number = min(run.validation_photos, len(validation))
        # Spread over the list, which is sorted by folder.
        chosen = np.linspace(0, len(validation) - 1, number).round().astype(int)
        self.validation = [
            crop_middle(validation.read(int(i)), run.validation_crop) for i in chosen
        ]

    def make_dataset(self) -> PhotoCrops:
        return PhotoCrops(self.photos, self.run.crop, self.run.loop.seed)

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        terms, image = self.run.loss, batch["image"]
        reconstruction = self.modules["model"](image).float()
        distance = losses.euclidean if terms.reconstruction == "l2" else losses.absolute
        loss = terms.reconstruction_weight * distance(reconstruction, image)
        adversarial = "discriminator" in self.modules and step >= terms.adversarial_from
        if adversarial:
            discriminator = self.modules["discriminator"].requires_grad_(False)
            fake = discriminator(reconstruction).float()
            loss = loss + terms.adversarial_weight * losses.generator_loss(fake)
        yield "model", loss
        if adversarial:
            discriminator = self.modules["discriminator"].requires_grad_(True)
            real, fake = discriminator(image), discriminator(reconstruction.detach())
            yield "discriminator", losses.discriminator_loss(real.float(), fake.float())

    def validate(self, model: nn.Module) -> dict[str, float]:
        values = [
            psnr(squared_error(reconstruct(model, photo), photo)) for photo in self.validation
        ]
        return {"figure": float(np.mean(values)), "psnr": float(np.mean(values))}

    def draw_pictures(self, model: nn.Module) -> dict[str, Tensor]:
        photo = self.validation[0]
        pair = np.concatenate([photo, reconstruct(model, photo)], axis=1)
        return {"photo and reconstruction": torch.from_numpy(pair / 255).permute(2, 0, 1)}
