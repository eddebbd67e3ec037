"""Losses against values worked out by hand, and their gradients against finite differences."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from overpaint.training import losses

LOG_3 = math.log(3)  # a logit of log 3 is a probability of 3/4


def pixels(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class TestFocalLoss:
    def test_one_pixel_by_hand(self) -> None:
        # p of the truth: 3/4 for an inpainted pixel, 1/4 for an untouched one.
        assert losses.focal_loss(pixels(LOG_3), pixels(1)).item() == pytest.approx(
            (1 / 4) ** 2 * math.log(4 / 3)
        )
        assert losses.focal_loss(pixels(LOG_3), pixels(0)).item() == pytest.approx(
            (3 / 4) ** 2 * math.log(4)
        )

    def test_mean_over_pixels_and_the_exponent(self) -> None:
        loss = losses.focal_loss(pixels(LOG_3, 0, 0), pixels(1, 1, 0), gamma=1)
        expected = (1 / 4 * math.log(4 / 3) + 2 * 1 / 2 * math.log(2)) / 3
        assert loss.item() == pytest.approx(expected)

    def test_the_weight_of_inpainted_pixels(self) -> None:
        loss = losses.focal_loss(pixels(0, 0, 0), pixels(1, 0, 0), gamma=1, positive_weight=3)
        assert loss.item() == pytest.approx((3 + 1 + 1) / 3 * math.log(2) / 2)

    def test_gamma_0_is_binary_cross_entropy(self, random: torch.Generator) -> None:
        logits = torch.randn(2, 1, 5, 7, generator=random) * 4
        mask = (torch.rand(2, 1, 5, 7, generator=random) > 0.5).float()
        expected = F.binary_cross_entropy_with_logits(logits, mask)
        torch.testing.assert_close(losses.focal_loss(logits, mask, gamma=0), expected)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    def test_finite_with_finite_gradients_for_extreme_logits(self, gamma: float) -> None:
        logits = torch.tensor([-200.0, 200.0, -200.0, 200.0, 0.0]).reshape(1, 1, 1, -1)
        logits.requires_grad_()
        mask = torch.tensor([0.0, 1, 1, 0, 1]).reshape(1, 1, 1, -1)
        loss = losses.focal_loss(logits, mask, gamma)
        loss.backward()
        assert loss.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


class TestCrossEntropies:
    def test_weights_by_hand(self) -> None:
        logits, mask = pixels(LOG_3, LOG_3), pixels(1, 0)
        expected = (4 * math.log(4 / 3) + math.log(4)) / 5
        loss = losses.weighted_cross_entropy(logits, mask, 4)
        assert loss.item() == pytest.approx(expected)

    def test_classes_that_count_alike_by_hand(self) -> None:
        logits, mask = pixels(LOG_3, LOG_3, 0, 0), pixels(1, 0, 0, 0)
        expected = (math.log(4 / 3) + (math.log(4) + 2 * math.log(2)) / 3) / 2
        assert losses.balanced_cross_entropy(logits, mask).item() == pytest.approx(expected)

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_one_class_alone_gives_the_plain_mean(self, value: float) -> None:
        logits = pixels(LOG_3, 0, -2).requires_grad_()
        mask = torch.full_like(logits, value)
        loss = losses.balanced_cross_entropy(logits, mask)
        torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, mask))
        loss.backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


class TestDiceLoss:
    def test_two_pictures_by_hand(self) -> None:
        # Probabilities 3/4 and 1/2 on mask 1, 0, and 1/2, 1/2 on an untouched picture.
        logits = torch.cat([pixels(LOG_3, 0), pixels(0, 0)])
        mask = torch.cat([pixels(1, 0), pixels(0, 0)])
        first = 1 - (2 * 3 / 4 + 1) / (9 / 16 + 1 / 4 + 1 + 1)
        second = 1 - 1 / (1 / 4 + 1 / 4 + 1)
        assert losses.dice_loss(logits, mask).item() == pytest.approx((first + second) / 2)

    def test_nothing_found_where_nothing_is(self) -> None:
        assert losses.dice_loss(pixels(-99, -99), pixels(0, 0)).item() == pytest.approx(0)
        assert losses.dice_loss(pixels(99, -99), pixels(1, 0)).item() == pytest.approx(0)


class TestSoftIouLoss:
    def test_two_pictures_by_hand(self) -> None:
        # Probabilities 3/4 and 1/2 on mask 1, 0: 3/4 over 1 + 1/2. Then 1/2, 1/2 on 1, 1: 1 over 2.
        logits = torch.cat([pixels(LOG_3, 0), pixels(0, 0)])
        mask = torch.cat([pixels(1, 0), pixels(1, 1)])
        assert losses.soft_iou_loss(logits, mask).item() == pytest.approx((1 / 2 + 1 / 2) / 2)

    def test_untouched_pictures_are_left_out(self) -> None:
        logits = torch.cat([pixels(LOG_3, 0), pixels(9, 9)])
        mask = torch.cat([pixels(1, 0), pixels(0, 0)])
        assert losses.soft_iou_loss(logits, mask).item() == pytest.approx(1 / 2)
        assert losses.soft_iou_loss(logits[1:], mask[1:]).item() == 0

    def test_takes_in_doubtful_pixels_while_they_raise_the_iou(self) -> None:
        # Four sure pixels and four doubtful ones. With one of those inpainted, the IoU is 4/5
        # without them and 5/8 with them; with three, 4/7 and 7/8.
        logits = torch.cat([torch.full((1, 1, 1, 4), 20.0), torch.zeros(1, 1, 1, 4)], dim=3)
        for share, inwards in ((1, False), (3, True)):
            mask = torch.cat([torch.ones(4), torch.zeros(4)]).reshape(1, 1, 1, -1)
            mask[..., 4 : 4 + share] = 1
            doubtful = logits.clone().requires_grad_()
            losses.soft_iou_loss(doubtful, mask).backward()
            assert doubtful.grad is not None
            assert bool(doubtful.grad[..., 4:].sum() < 0) == inwards

    def test_gradient_against_finite_differences(self, random: torch.Generator) -> None:
        logits = torch.randn(2, 1, 3, 4, generator=random, dtype=torch.float64)
        mask = (torch.rand(2, 1, 3, 4, generator=random) > 0.5).double()
        assert torch.autograd.gradcheck(losses.soft_iou_loss, (logits.requires_grad_(), mask))


class TestAdversarial:
    def test_discriminator_by_hand(self) -> None:
        # -log D(real) - log(1 - D(fake)), with D = 3/4 and 1/4.
        loss = losses.discriminator_loss(pixels(LOG_3), pixels(-LOG_3))
        assert loss.item() == pytest.approx(2 * math.log(4 / 3))

    def test_each_term_is_averaged_over_its_patches(self) -> None:
        loss = losses.discriminator_loss(pixels(0, LOG_3), pixels(LOG_3, LOG_3, LOG_3))
        expected = (math.log(2) + math.log(4 / 3)) / 2 + math.log(4)
        assert loss.item() == pytest.approx(expected)

    def test_generator_by_hand(self) -> None:
        assert losses.generator_loss(pixels(-LOG_3)).item() == pytest.approx(math.log(4))

    def test_the_generator_learns_most_where_it_is_found_out(self) -> None:
        logits = pixels(-10, 10).requires_grad_()
        losses.generator_loss(logits).backward()
        assert logits.grad is not None
        found_out, believed = logits.grad.flatten().abs().tolist()
        assert found_out == pytest.approx(0.5, abs=1e-4)
        assert believed < 1e-4


class TestReconstruction:
    def test_euclidean_by_hand(self) -> None:
        image = torch.zeros(2, 1, 1, 2)
        reconstruction = torch.tensor([[3.0, 4.0], [0.0, 1.0]]).reshape(2, 1, 1, 2)
        assert losses.euclidean(reconstruction, image).item() == pytest.approx((5 + 1) / 2)

    def test_absolute_by_hand(self) -> None:
        image = torch.zeros(1, 1, 2, 2)
        reconstruction = torch.tensor([1.0, -2.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
        assert losses.absolute(reconstruction, image).item() == pytest.approx(4 / 4 * 2)

    def test_both_are_on_one_scale(self) -> None:
        image, reconstruction = torch.zeros(3, 3, 8, 8), torch.full((3, 3, 8, 8), 0.1)
        expected = 0.1 * math.sqrt(3 * 8 * 8)
        assert losses.euclidean(reconstruction, image).item() == pytest.approx(expected)
        assert losses.absolute(reconstruction, image).item() == pytest.approx(expected)

    def test_7_at_30_db_and_128_px(self, random: torch.Generator) -> None:
        # What the docstring says of the balance with the adversarial term.
        noise = torch.randn(4, 3, 128, 128, generator=random) * 10 ** (-30 / 20)
        assert losses.euclidean(noise, torch.zeros_like(noise)).item() == pytest.approx(7, abs=0.1)

    def test_a_perfect_reconstruction_has_a_finite_gradient(self) -> None:
        image = torch.rand(2, 3, 4, 4)
        same = image.clone().requires_grad_()
        losses.euclidean(same, image).backward()
        assert same.grad is not None
        assert same.grad.isfinite().all()


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (lambda x: losses.focal_loss(x, (x.detach() > 0.3).double()), [(2, 1, 3, 4)]),
        (lambda x: losses.focal_loss(x, (x.detach() > 0.3).double(), 0.5), [(2, 1, 3, 4)]),
        (losses.discriminator_loss, [(2, 1, 3, 3), (2, 1, 2, 2)]),
        (losses.generator_loss, [(2, 1, 3, 3)]),
        (losses.euclidean, [(2, 3, 4, 4), (2, 3, 4, 4)]),
        (losses.absolute, [(2, 3, 4, 4), (2, 3, 4, 4)]),
    ],
    ids=["focal", "focal 0.5", "discriminator", "generator", "euclidean", "absolute"],
)
def test_gradients(
    loss: Callable[..., Tensor], shapes: list[tuple[int, ...]], random: torch.Generator
) -> None:
    inputs = [
        torch.randn(shape, dtype=torch.float64, generator=random, requires_grad=True)
        for shape in shapes
    ]
    assert torch.autograd.gradcheck(loss, inputs)


class TestOtherTerms:
    def test_hinge_by_hand(self) -> None:
        real, fake = pixels(2, 0.5), pixels(-3, 1)
        assert losses.hinge_discriminator_loss(real, fake).item() == pytest.approx(0.25 + 1)
        assert losses.hinge_generator_loss(fake).item() == pytest.approx(1)

    def test_gradient_square_by_hand_and_differentiable(self) -> None:
        image = torch.tensor([[1.0, 2], [3, 0]]).reshape(2, 1, 1, 2).requires_grad_()
        factor = torch.tensor(2.0, requires_grad=True)
        square = losses.gradient_square(factor * image.square() / 2, image)  # gradient: 2 x
        assert square.tolist() == [4 * (1 + 4), 4 * 9]
        square.sum().backward()
        assert factor.grad is not None
        assert factor.grad.item() == pytest.approx(2 * 2 * (1 + 4 + 9))

    def test_total_variation_by_hand(self) -> None:
        image = torch.tensor([[0.0, 1], [4, 1]])[None, None]
        assert losses.total_variation(image).item() == pytest.approx((1 + 3) / 2 + (4 + 0) / 2)
