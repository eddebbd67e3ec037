"""Training of CTSDG: its losses against values worked out by hand, and the end of its schedule."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from helpers.inpainting_task_contract import InpaintingTaskContract
from overpaint.data.sources import PhotoSource
from overpaint.errors import ConfigError
from overpaint.inpainters.ctsdg import CTSDG
from overpaint.inpainters.edgeconnect import find_canny_edges, to_grey
from overpaint.layers.perceptual import Backbone
from overpaint.training.distributed import Processes
from overpaint.training.inpainting.base import InpainterRun, make_inpainting_task
from overpaint.training.inpainting.ctsdg import CTSDGLoss, CTSDGTask


class Constant(nn.Module):
    """A discriminator of constant verdicts, higher by 1 where real edges are shown."""

    def __init__(self, verdict: float, detected: float) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor([verdict, detected]))

    def forward(
        self, image: Tensor, grey: Tensor, edges: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        ones = torch.ones_like(grey)
        verdict = self.values[0] + (0 if edges is None else 1)
        return verdict * ones, self.values[1] * ones


class Itself(Backbone):
    """The picture is its only feature."""

    perceptual_layers = ("picture",)
    style_layers = ("picture",)

    def forward(self, image: Tensor, layers: object) -> dict[str, Tensor]:
        return {"picture": image}


def cross_entropy(logit: Tensor | float, label: Tensor | float) -> float:
    """By its definition, in float64."""
    p = torch.as_tensor(logit, dtype=torch.float64).sigmoid()
    label = torch.as_tensor(label, dtype=torch.float64)
    return -(label * p.log() + (1 - label) * (1 - p).log()).mean().item()


def apart(picture: Tensor, image: Tensor) -> float:
    """L1 on the scale of [-1, 1]."""
    return ((2 * picture - 1) - (2 * image - 1)).abs().mean().item()


class TestCTSDGTask(InpaintingTaskContract):
    inpainter = "ctsdg"
    model: ClassVar = {"width": 4}
    loss: ClassVar = {"perceptual_weight": 0, "style_weight": 0, "discriminator_width": 4}

    def task(self, photos: PhotoSource, size: int = 128, **loss: Any) -> CTSDGTask:
        torch.manual_seed(0)
        run = InpainterRun.model_validate(
            {
                "name": "test",
                "inpainter": self.inpainter,
                "model": self.model,
                "backbone": "none",
                "data": {"size": size},
                "loop": {"steps": 9, "batch_size": 2, "bf16": False, "workers": 0},
                "loss": self.loss | loss,
                "validation_photos": 2,
            }
        )
        task = make_inpainting_task(run, photos, photos)
        assert isinstance(task, CTSDGTask)
        return task

    def test_the_defaults_are_as_published(self) -> None:
        loss = CTSDGLoss()
        assert (loss.hole_weight, loss.valid_weight) == (60, 10)
        assert (loss.perceptual_weight, loss.style_weight) == (0.1, 250)
        assert (loss.adversarial_weight, loss.intermediate_weight) == (0.1, 1)
        assert loss.frozen_from == 300_000

    def test_losses_by_hand(self, photos: PhotoSource) -> None:
        task = self.task(photos)
        task.modules["discriminator"] = Constant(0.5, -2.0)
        batch = self.batch(task)
        image, mask = batch["image"], batch["mask"]
        (_, generator), (_, discriminator) = task.compute_losses(batch, 0)
        stages = task.model.run_stages(image, mask)
        hole = apart(torch.where(mask == 1, stages.fill, image), image)
        valid = apart(torch.where(mask == 1, image, stages.fill), image)
        edges = find_canny_edges(to_grey(image), sigma=2)  # of the whole photo
        assert (edges * mask).any()
        intermediate = cross_entropy(stages.edge_logits, edges) + apart(stages.texture, image)
        detected = cross_entropy(-2, edges)
        adversarial = cross_entropy(0.5, 1) + detected
        wanted = 60 * hole + 10 * valid + intermediate + 0.1 * adversarial
        assert generator.item() == pytest.approx(wanted, rel=1e-5)
        wanted = cross_entropy(1.5, 1) + cross_entropy(0.5, 0) + 2 * detected
        assert discriminator.item() == pytest.approx(wanted, rel=1e-5)

    def test_features_of_the_fill_and_of_the_composed_picture_count(
        self, photos: PhotoSource
    ) -> None:
        task = self.task(
            photos,
            **dict.fromkeys(["hole_weight", "valid_weight", "intermediate_weight"], 0),
            adversarial_weight=0,
        )
        task.backbone = Itself()
        task.terms = task.terms.model_copy(update={"perceptual_weight": 0.1, "style_weight": 250})
        batch = self.batch(task)
        image, mask = batch["image"], batch["mask"]
        ((_, loss),) = task.compute_losses(batch, 0)
        fill = task.model.run_stages(image, mask).fill
        wanted = 0.0
        for picture in (fill, torch.where(mask == 1, fill, image)):
            of_picture, of_image = (
                torch.einsum("bchw,bdhw->bcd", x, x) / x[0].numel() for x in (picture, image)
            )
            style = (of_picture - of_image).abs().mean().item()
            wanted += 0.1 * (picture - image).abs().mean().item() + 250 * style
        assert loss.item() == pytest.approx(wanted, rel=1e-5)

    def test_the_adversarial_loss_reaches_the_generator(self, photos: PhotoSource) -> None:
        others = ["hole_weight", "valid_weight", "intermediate_weight"]
        task = self.task(photos, **dict.fromkeys(others, 0))
        next(task.compute_losses(self.batch(task), 0))[1].backward()
        gradient = task.model.last.weight.grad
        assert gradient is not None
        assert gradient.any()

    def test_norms_keep_their_statistics_at_the_end(self, photos: PhotoSource) -> None:
        run = self._run(photos)
        run.task.terms = run.task.terms.model_copy(update={"frozen_from": 1})  # type: ignore[attr-defined]
        model = run.modules["model"]
        assert isinstance(model, CTSDG)

        def statistics() -> dict[str, Tensor]:
            return {k: v.clone() for k, v in model.named_buffers() if "running" in k}

        states = [statistics()]
        with Processes("cpu") as processes:
            for _ in range(2):
                before = model.last.weight.detach().clone()
                run.train_step(self.batch(run.task), processes)  # type: ignore[arg-type]
                assert not torch.equal(model.last.weight, before)
                states.append(statistics())
        assert not any(torch.equal(states[0][k], states[1][k]) for k in states[0])
        assert all(torch.equal(states[1][k], states[2][k]) for k in states[0])
        rates = {name: o.param_groups[0]["lr"] for name, o in run.optimizers.items()}
        assert rates["discriminator"] == pytest.approx(rates["model"] / 10)

    def test_a_size_that_the_network_does_not_take_is_refused(self, photos: PhotoSource) -> None:
        with pytest.raises(ConfigError, match=r"data.size 192.*multiples of 128"):
            self.task(photos, size=192)
