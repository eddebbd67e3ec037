"""What every detector must do. A new detector inherits all tests by naming itself:

    class TestNewNet(DetectorContract):
        name, num_parameters = "newnet", 1_234_567

`config` makes the tested copy small where the registered size would be slow.
"""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.states import differing
from overpaint import weights
from overpaint.detectors import Detector
from overpaint.errors import InputError
from overpaint.registry import build_on_meta, detectors

BAD_IMAGES = {
    "one channel": (torch.rand(1, 1, 16, 16), r"expand\(-1, 3, -1, -1\)"),
    "alpha": (torch.rand(1, 4, 16, 16), "drop an alpha channel"),
    "no batch": (torch.rand(3, 16, 16), "add a batch dimension"),
    "empty": (torch.rand(1, 3, 0, 16), "at least one photo"),
    "NaN": (torch.full((1, 3, 16, 16), torch.nan), "nan_to_num"),
    "infinite": (torch.full((1, 3, 16, 16), torch.inf), "not within"),
    "0 to 255": (torch.rand(1, 3, 16, 16) * 255, "divide 8-bit values by 255"),
    "normalised": (torch.randn(1, 3, 16, 16), "undo any mean"),
    "uint8": (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "convert it to float"),
}


class DetectorContract:
    """Inherited tests; `name` is the registered name."""

    name: ClassVar[str]
    num_parameters: ClassVar[int]
    config: ClassVar[dict[str, Any]] = {}
    overfit_steps: ClassVar[int] = 120
    """The most steps that overfitting one sample may take; about three times what it takes."""

    @pytest.fixture(autouse=True)
    def seed(self) -> None:
        torch.manual_seed(0)

    def make(self) -> Detector:
        return detectors.create(self.name, **self.config)

    def test_number_of_parameters_is_that_of_the_fact_sheet(self) -> None:
        with build_on_meta():
            assert detectors.create(self.name).num_parameters == self.num_parameters

    @pytest.mark.parametrize("size", [(1, 1), (3, 200), (37, 53), (64, 64)])
    def test_logits_are_finite_and_of_the_inputs_size(self, size: tuple[int, int]) -> None:
        with torch.no_grad():
            logits = self.make().eval()(torch.rand(2, 3, *size))
        assert logits.shape == (2, 1, *size)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()

    def test_a_batch_of_two_equals_two_batches_of_one(self) -> None:
        model, image = warmed(self.make()), torch.rand(2, 3, 40, 48)
        with torch.no_grad():
            together = model(image)
            alone = torch.cat([model(image[:1]), model(image[1:])])
        assert together.std() > 0
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)

    def test_every_parameter_gets_a_finite_nonzero_gradient(self) -> None:
        model = self.make().train()
        target = torch.rand(2, 1, 64, 64).round()
        F.binary_cross_entropy_with_logits(model(torch.rand(2, 3, 64, 64)), target).backward()
        wrong = [name for name, p in model.named_parameters() if not has_gradient(p.grad)]
        assert not wrong

    def test_one_sample_can_be_overfitted(self) -> None:
        image, mask = sample()
        model = self.make().train()
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
        found: list[float] = []
        # Until it is done: how many steps that takes hangs on the processor's rounding.
        while len(found) <= self.overfit_steps and (not found or found[-1] <= 0.95):
            logits = model(image)
            found.append(iou(logits, mask))
            optimiser.zero_grad()
            F.binary_cross_entropy_with_logits(logits, mask).backward()
            optimiser.step()
        assert found[0] < 0.6, f"the untrained network's IoU is {found[0]:.3f}; expected below 0.6"
        assert max(found) > 0.95, (
            f"after {len(found) - 1} steps the best IoU is {max(found):.3f}; expected above 0.95"
        )

    def test_save_and_load_are_bit_equal(self, tmp_path: Path) -> None:
        model, image = warmed(self.make()), torch.rand(1, 3, 24, 24)
        record = weights.save_weights(
            tmp_path,
            model,
            name="copy",
            kind="detector",
            architecture=self.name,
            config=self.config,
            data="none",
            recipe="none",
            commit="none",
            licence="Apache-2.0",
            dtype=torch.float32,
        )
        copy = weights.build(record)
        assert differing(copy.state_dict(), model.state_dict()) == []
        with torch.no_grad():
            assert torch.equal(copy(image), model(image))

    @pytest.mark.parametrize("case", BAD_IMAGES)
    def test_a_bad_image_is_refused_with_the_remedy(self, case: str) -> None:
        image, remedy = BAD_IMAGES[case]
        with pytest.raises(InputError, match=remedy):
            self.make().eval()(image)

    def test_bfloat16_autocast_and_channels_last_stay_close(self) -> None:
        model, image = warmed(self.make()), torch.rand(1, 3, 40, 48)
        with torch.no_grad():
            exact = model(image)
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            with torch.autocast("cpu", torch.bfloat16):
                rounded = model(image.contiguous(memory_format=torch.channels_last))
        assert rounded.dtype == torch.float32
        assert (rounded - exact).abs().mean() < 0.1 * exact.std() + 1e-3


def warmed(model: Detector) -> Detector:
    """The model in eval mode with batch statistics of its own, as after training."""
    for layer in model.train().modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.5  # three batches go as far as 20 would with 0.1
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(2, 3, 48, 48))
    return model.eval()


def has_gradient(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.isfinite().all() and gradient.any())


def sample() -> tuple[Tensor, Tensor]:
    """A noisy photo (1, 3, 64, 64) with a smooth square, and the square's mask."""
    image = 0.5 + 0.1 * torch.randn(1, 3, 64, 64).clamp(-3, 3)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:40] = 1
    return torch.where(mask > 0, F.avg_pool2d(image, 5, 1, 2), image).clamp(0, 1), mask


def iou(logits: Tensor, mask: Tensor) -> float:
    found, real = logits > 0, mask > 0
    return ((found & real).sum() / (found | real).sum().clamp(min=1)).item()
