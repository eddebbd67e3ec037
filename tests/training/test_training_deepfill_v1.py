"""Training of DeepFill v1: discounts, the penalty, the losses by hand, and the critics' turns."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from helpers.inpainting_task_contract import InpaintingTaskContract
from overpaint.data.sources import PhotoSource
from overpaint.inpainters.deepfill_v1 import Stages
from overpaint.training.inpainting.base import InpaintingTask
from overpaint.training.inpainting.deepfill_v1 import (
    DeepFillV1Loss,
    compute_distance_to_known,
    wasserstein_loss,
)


class Mean(nn.Module):
    """A critic that scores a picture by its mean, times its only parameter."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, image: Tensor) -> Tensor:
        return self.value * image.mean(dim=(1, 2, 3))[:, None]


class HalfSquare(nn.Module):
    """A critic whose gradient is the picture itself."""

    def forward(self, image: Tensor) -> Tensor:
        return image.square().sum(dim=(1, 2, 3))[:, None] / 2


def box(batch: int = 1, side: int = 64) -> Tensor:
    """Masks with a hole of 3x3 pixels."""
    mask = torch.zeros(batch, 1, side, side)
    mask[..., 1:4, 1:4] = 1
    return mask


class TestDeepFillV1Task(InpaintingTaskContract):
    inpainter = "deepfill_v1"
    model: ClassVar = {"width": 2}
    loss: ClassVar = {"discriminator_width": 2, "n_critic": 2}

    def test_the_defaults_are_as_published(self) -> None:
        loss = DeepFillV1Loss()
        l1 = (loss.hole_weight, loss.known_weight, loss.coarse_weight, loss.discount)
        assert l1 == (1.2, 1.2, 1.2, 0.9)
        assert (loss.adversarial_weight, loss.penalty_weight, loss.n_critic) == (0.001, 10, 5)
        assert (loss.adversarial_from, loss.discriminator_width) == (0, 64)

    def test_l1_by_hand(self, photos: PhotoSource, monkeypatch: pytest.MonkeyPatch) -> None:
        task = self.task(photos, adversarial_weight=0)
        image, mask = torch.full((2, 3, 64, 64), 0.5), box(2)
        stages = Stages(coarse=image + 0.1 * mask, output=image + 0.05 * (1 - mask))
        monkeypatch.setattr(task.model, "run_stages", lambda *_: stages)
        ((_, loss),) = task.compute_losses({"image": image, "mask": mask}, 0)
        # Eight pixels are one pixel from what is known and one is two; errors double in [-1, 1].
        hole = 0.2 * (8 * 0.9 + 0.9**2) / 9
        assert loss.item() == pytest.approx(1.2 * 1.2 * hole + 1.2 * 0.1)

    def constant(
        self, photos: PhotoSource, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[InpaintingTask[Any, Any], dict[str, Tensor]]:
        """A task whose networks paint the photo, which is grey: 1/2 in [-1, 1]."""
        task, image = self.task(photos), torch.full((2, 3, 64, 64), 0.75)
        monkeypatch.setattr(task.model, "run_stages", lambda *_: Stages(image, image))
        return task, {"image": image, "mask": box(2)}

    def test_adversarial_terms_by_hand(
        self, photos: PhotoSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task, batch = self.constant(photos, monkeypatch)
        critic = task.modules["critic"]
        critic.whole, critic.local = Mean(2.0), Mean(3.0)
        (_, first), _, (_, generator) = task.compute_losses(batch, 0)
        assert generator.item() == pytest.approx(-0.001 * (2 + 3) / 2)
        # Real and fake are the same. 27 values lie in the hole, of 12288 and, in the window, 3072.
        slopes = (2 * 27**0.5 / 12288, 3 * 27**0.5 / 3072)
        assert first.item() == pytest.approx(10 * sum((1 - s) ** 2 for s in slopes))

    def test_the_critics_loss_has_full_precision(
        self, photos: PhotoSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task, batch = self.constant(photos, monkeypatch)
        values = []
        for enabled in (False, True):
            torch.manual_seed(1)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                values.append(next(task.compute_losses(batch, 0))[1])
        assert values[1].dtype == torch.float32
        assert torch.equal(*values)

    def test_the_critics_take_their_turns_from_their_step_on(self, photos: PhotoSource) -> None:
        task = self.task(photos, adversarial_from=5, n_critic=3)
        names = [[name for name, _ in task.compute_losses(self.batch(task), i)] for i in (4, 5)]
        assert names == [["model"], ["critic"] * 3 + ["model"]]


def test_distances_in_a_box_are_its_rings() -> None:
    mask = torch.zeros(1, 1, 7, 7)
    mask[..., 1:6, 1:6] = 1
    rings = [0, 1, 2, 3, 2, 1, 0]
    expected = [[float(min(a, b)) for b in rings] for a in rings]
    assert compute_distance_to_known(mask)[0, 0].tolist() == expected


def test_distances_are_those_to_the_nearest_known_pixel() -> None:
    mask = (torch.rand(3, 1, 12, 9, generator=torch.Generator().manual_seed(0)) < 0.95).float()
    distance = compute_distance_to_known(mask)
    for one, found in zip(mask[:, 0], distance[:, 0], strict=True):
        known = (one == 0).nonzero()
        for y, x in one.nonzero().tolist():
            nearest = (known - torch.tensor([y, x])).abs().amax(dim=1).min()
            assert found[y, x] == nearest
    assert torch.equal(distance == 0, mask == 0)
    assert (compute_distance_to_known(torch.ones(1, 1, 4, 6)) == 6).all()


def test_wasserstein_loss_by_hand() -> None:
    mask = box(2, 8)
    real = torch.zeros(2, 3, 8, 8)
    fake = real + 4 * mask
    loss = wasserstein_loss(Mean(192.0), real, fake, mask, 10)
    # The critic adds the 192 values up: its slope is 1 for each of the 27 in the hole.
    assert loss.item() == pytest.approx(4 * 27 + 10 * (27**0.5 - 1) ** 2)


def test_the_penalty_is_taken_between_real_and_fake() -> None:
    mask = torch.zeros(4000, 1, 4, 4)
    mask[..., 0, 0] = 1
    real = torch.zeros(4000, 3, 4, 4)
    fake = real + 2 / 3**0.5 * mask  # of length 2
    torch.manual_seed(0)
    critic = HalfSquare()
    penalty = wasserstein_loss(critic, real, fake, mask, 1) - critic(fake).mean()
    # The mean of (2 u - 1)^2 for u between 0 and 1.
    assert penalty.item() == pytest.approx(1 / 3, abs=0.02)


def test_a_window_without_a_hole_has_a_finite_gradient() -> None:
    critic, image = Mean(1.0), torch.rand(2, 3, 8, 8)
    loss = wasserstein_loss(critic, image, image, torch.zeros(2, 1, 8, 8), 10)
    loss.backward()
    assert loss.item() == pytest.approx(10, rel=1e-4)
    assert critic.value.grad is not None
    assert critic.value.grad.isfinite()
