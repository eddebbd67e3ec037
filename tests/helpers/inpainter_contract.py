"""What every inpainter must do. A new inpainter inherits all tests by naming itself:

    class TestNewPaint(TrainableContract):
        name, num_parameters = "newpaint", 1_234_567

`config` makes the tested copy small where the registered size would be slow. A method without
parameters (a classical fill) inherits `InpainterContract`.
"""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers.states import differing
from overpaint import weights
from overpaint.errors import InputError
from overpaint.inpainters import Inpainter
from overpaint.registry import build_on_meta, inpainters

HOLE = torch.zeros(1, 1, 16, 16)

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

BAD_MASKS = {
    "no channel": (torch.zeros(1, 16, 16), r"mask\[None, None\]"),
    "colour": (torch.zeros(1, 3, 16, 16), "keep one channel"),
    "another size": (torch.zeros(1, 1, 16, 17), "resize the mask"),
    "another batch": (torch.zeros(2, 1, 16, 16), "one mask for each image"),
    "soft": (HOLE + 0.5, "threshold a soft one"),
    "0 to 255": (HOLE + 255, "divide an 8-bit mask by 255"),
    "NaN": (HOLE + torch.nan, "other values than 0"),
}


class InpainterContract:
    """Inherited tests; `name` is the registered name."""

    name: ClassVar[str]
    config: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def seed(self) -> None:
        torch.manual_seed(0)

    def make(self) -> Inpainter:
        return inpainters.create(self.name, **self.config)

    def filled(self, model: Inpainter, image: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            return model.eval()(image, mask)

    @pytest.mark.parametrize("size", [(1, 1), (3, 90), (37, 53), (65, 70)])
    def test_known_pixels_are_bit_equal_at_any_size(self, size: tuple[int, int]) -> None:
        image, mask = torch.rand(2, 3, *size), (torch.rand(2, 1, *size) < 0.4).float()
        out = self.filled(self.make(), image, mask)
        known = (mask == 0).expand_as(image)
        assert out.shape == image.shape
        assert torch.equal(out[known], image[known])
        assert out.isfinite().all()
        assert 0 <= out.min() <= out.max() <= 1

    def test_an_empty_mask_changes_nothing(self) -> None:
        image = torch.rand(1, 3, 66, 70)
        assert torch.equal(self.filled(self.make(), image, torch.zeros(1, 1, 66, 70)), image)

    def test_a_full_mask_gives_a_finite_picture(self) -> None:
        out = self.filled(self.make(), torch.rand(1, 3, 66, 70), torch.ones(1, 1, 66, 70))
        assert out.isfinite().all()
        assert 0 <= out.min() <= out.max() <= 1

    def test_the_hole_is_where_the_mask_is_1_and_what_it_shows_is_ignored(self) -> None:
        model, (image, mask) = self.make(), sample()
        out = self.filled(model, image, mask)
        inside = (mask == 1).expand_as(image)
        assert (out != image)[inside].float().mean() > 0.9
        for content in (0.0, 7.0, torch.nan):
            assert torch.equal(
                self.filled(model, torch.where(mask == 1, content, image), mask), out
            )

    @pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float64])
    def test_masks_of_any_type_are_taken(self, kind: torch.dtype) -> None:
        model, (image, mask) = self.make(), sample()
        assert torch.equal(
            self.filled(model, image, mask.to(kind)), self.filled(model, image, mask)
        )

    def test_a_batch_of_two_equals_two_batches_of_one(self) -> None:
        model, (image, mask) = self.make(), sample()
        image = torch.cat([image, image.flip(3)])
        mask = torch.cat([mask, mask.flip(2)])
        together = self.filled(model, image, mask)
        alone = [self.filled(model, image[i : i + 1], mask[i : i + 1]) for i in range(2)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("case", BAD_IMAGES)
    def test_a_bad_image_is_refused_with_the_remedy(self, case: str) -> None:
        image, remedy = BAD_IMAGES[case]
        mask = torch.zeros(1, 1, *image.shape[-2:])
        with pytest.raises(InputError, match=remedy):
            self.make().eval()(image, mask)

    @pytest.mark.parametrize("case", BAD_MASKS)
    def test_a_bad_mask_is_refused_with_the_remedy(self, case: str) -> None:
        mask, remedy = BAD_MASKS[case]
        with pytest.raises(InputError, match=remedy):
            self.make().eval()(torch.rand(1, 3, 16, 16), mask)


class TrainableContract(InpainterContract):
    """The tests of an inpainter with parameters."""

    num_parameters: ClassVar[int]
    overfit_rate: ClassVar[float] = 5e-3
    """Learning rate with which one sample is overfitted."""
    overfit_steps: ClassVar[int] = 120
    """The most steps that it may take; about three times what it takes."""

    def test_number_of_parameters_is_that_of_the_fact_sheet(self) -> None:
        with build_on_meta():
            assert inpainters.create(self.name).num_parameters == self.num_parameters

    def test_every_parameter_gets_a_finite_nonzero_gradient(self) -> None:
        model, (image, mask) = self.make().train(), sample()
        image, mask = torch.cat([image, image.flip(3)]), torch.cat([mask, mask.flip(2)])
        (model(image, mask) - image).square().mean().backward()
        wrong = [name for name, p in model.named_parameters() if not has_gradient(p.grad)]
        assert not wrong

    def test_gradient_passes_through_the_hole_only(self) -> None:
        model, (image, mask) = self.make().train(), sample()
        image.requires_grad_(True)
        (model(image, mask) * (1 - mask)).sum().backward()
        assert image.grad is not None
        assert torch.equal(image.grad, (1 - mask).expand_as(image))
        assert not any(p.grad is not None and p.grad.any() for p in model.parameters())

        image.grad = None
        (model(image, mask) * mask).square().sum().backward()
        assert image.grad is not None
        assert not (image.grad * mask).any()
        assert (image.grad * (1 - mask)).any()

    def test_one_sample_can_be_overfitted(self) -> None:
        model, (image, mask) = self.make().train(), sample()
        optimiser = torch.optim.Adam(model.parameters(), lr=self.overfit_rate)
        errors: list[float] = []
        # Until it is done: how many steps that takes hangs on the processor's rounding.
        while len(errors) < self.overfit_steps and (not errors or errors[-1] >= 0.2 * errors[0]):
            optimiser.zero_grad()
            loss = (model(image, mask) - image).square().sum() / mask.sum()
            loss.backward()
            optimiser.step()
            errors.append(loss.item())
        assert min(errors) < 0.2 * errors[0], (
            f"after {len(errors)} steps the best error in the hole is {min(errors):.4f}; "
            f"expected below a fifth of the first, {errors[0]:.4f}"
        )

    def test_save_and_load_are_bit_equal(self, tmp_path: Path) -> None:
        model, (image, mask) = self.make(), sample()
        model.train()(image, mask)  # so that running statistics are not the initial ones
        record = weights.save_weights(
            tmp_path,
            model,
            name="copy",
            kind="inpainter",
            architecture=self.name,
            config=self.config,
            data="none",
            recipe="none",
            commit="none",
            licence="Apache-2.0",
            dtype=torch.float32,
        )
        copy = weights.build(record)
        assert isinstance(copy, Inpainter)
        assert differing(copy.state_dict(), model.state_dict()) == []
        assert torch.equal(self.filled(copy, image, mask), self.filled(model, image, mask))

    def test_bfloat16_autocast_and_channels_last_stay_close(self) -> None:
        model, (image, mask) = self.make(), sample()
        exact = self.filled(model, image, mask)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.autocast("cpu", torch.bfloat16):
            rounded = self.filled(model, image.contiguous(memory_format=torch.channels_last), mask)
        assert rounded.dtype == torch.float32
        assert torch.equal(rounded * (1 - mask), exact * (1 - mask))
        assert (rounded - exact).abs().sum() / mask.sum() / 3 < 0.05


def has_gradient(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.isfinite().all() and gradient.any())


def sample() -> tuple[Tensor, Tensor]:
    """A smooth photo with noise (1, 3, 64, 64), and a mask with one box as its hole."""
    image = F.interpolate(torch.rand(1, 3, 6, 6), (64, 64), mode="bicubic")
    image = (image + 0.02 * torch.randn(1, 3, 64, 64)).clamp(0, 1)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 18:46, 10:40] = 1
    return image, mask
