"""NIX-Net: the contract of a detector, its size, its ablations and its order of work."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.detector_contract import DetectorContract, has_gradient, sample, warmed
from overpaint.detectors.base import pad_to
from overpaint.detectors.nixnet import Fusion, Head, NIXNet, NIXNetConfig, upsample
from overpaint.errors import ConfigError
from overpaint.registry import detectors

SMALL = (8, 12, 16)

ABLATIONS: dict[str, tuple[dict[str, bool], set[str]]] = {
    "no noise": ({"noise_stream": False}, {"noise_stream", "fusion_2"}),
    "no image": ({"image_stream": False}, {"image_stream", "fusion_1"}),
    "no fusion": (
        {"fusion_12": False, "fusion_3": False},
        {"fusion_1", "fusion_2", "fusion_3"},
    ),
    "no fusion 1 and 2": ({"fusion_12": False}, {"fusion_1", "fusion_2"}),
    "no fusion 3": ({"fusion_3": False}, {"fusion_3"}),
}


class TestNIXNet(DetectorContract):
    name, num_parameters = "nixnet", 29_493_377
    config = {"widths": (8, 12, 16)}  # noqa: RUF012


def count(modules: Iterable[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("widths", "parameters", "gflop"),
    [
        ((128, 256, 512), 29_493_377, 182.8),
        ((32, 64, 128), 1_846_817, 11.61),
        ((16, 32, 64), 462_865, 2.97),
    ],
)
def test_size_and_cost_of_a_256_pixel_photo(
    widths: tuple[int, int, int], parameters: int, gflop: float
) -> None:
    model = detectors.create("nixnet", widths=widths).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, 64, 64))  # the cost is proportional to the area
    assert model.num_parameters == parameters
    assert counter.get_total_flops() * 16 / 1e9 == pytest.approx(gflop, rel=2e-3)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_drops_its_parameters_and_still_trains(name: str) -> None:
    flags, dropped = ABLATIONS[name]
    full, model = NIXNet(NIXNetConfig(SMALL)), NIXNet(NIXNetConfig(SMALL, **flags))

    gone = {key.split(".")[0] for key in full.state_dict().keys() - model.state_dict().keys()}
    assert gone == dropped
    saved = count(getattr(full, part) for part in dropped)
    if "stream" in str(dropped):  # the first cross convolutions see one stream, not two
        saved += sum(9 * c * c for c in SMALL)
    assert full.num_parameters - model.num_parameters == saved

    logits = model(torch.rand(2, 3, 40, 24))
    assert logits.shape == (2, 1, 40, 24)
    logits.square().mean().backward()
    assert all(has_gradient(p.grad) for p in model.parameters())


def test_without_the_image_stream_only_the_noise_is_seen() -> None:
    image = sample()[0] * 0.5
    torch.manual_seed(0)
    noise_only = warmed(NIXNet(NIXNetConfig(SMALL, image_stream=False)))
    image_only = warmed(NIXNet(NIXNetConfig(SMALL, noise_stream=False)))
    with torch.no_grad():
        torch.testing.assert_close(noise_only(image), noise_only(image + 0.25), rtol=0, atol=1e-3)
        assert (image_only(image) - image_only(image + 0.25)).abs().max() > 1e-2


@pytest.mark.parametrize("factor", [2, 4])
def test_convolving_before_upsampling_is_the_same_as_after(factor: int) -> None:
    conv, x = nn.Conv2d(16, 8, kernel_size=1), torch.randn(2, 16, 7, 9)
    with torch.no_grad():
        torch.testing.assert_close(
            upsample(conv(x), factor), conv(upsample(x, factor)), rtol=0, atol=1e-5
        )


def test_fusion_sums_what_figure_5_shows() -> None:
    fusion = Fusion(SMALL).eval()
    fine, middle, coarse = maps = [torch.randn(1, c, 16 >> i, 24 >> i) for i, c in enumerate(SMALL)]
    with torch.no_grad():
        out = fusion(maps)
        expected = [
            fine
            + fusion.middle_to_fine(upsample(middle, 2))
            + fusion.coarse_to_fine(upsample(coarse, 4)),
            fusion.fine_to_middle(fine) + middle + fusion.coarse_to_middle(upsample(coarse, 2)),
            fusion.fine_to_coarse(fine) + fusion.middle_to_coarse(middle) + coarse,
        ]
    for found, wanted in zip(out, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_head_makes_the_logits_before_it_upsamples() -> None:
    head = Head(SMALL).eval()
    fine, middle, coarse = maps = [torch.randn(1, c, 16 >> i, 24 >> i) for i, c in enumerate(SMALL)]
    with torch.no_grad():
        joint = head.block(torch.cat([fine, upsample(middle, 2), upsample(coarse, 4)], dim=1))
        expected = head.logit(upsample(joint, 2))
        torch.testing.assert_close(head(maps), expected, rtol=0, atol=1e-5)


def test_padding_reflects_and_repeats_where_a_side_is_too_short() -> None:
    photo = torch.arange(30.0).view(1, 1, 10, 3)
    padded = pad_to(photo, 8)[0, 0]
    assert padded.shape == (16, 8)
    assert padded[0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert padded[:, 0].tolist() == [3 * row for row in (*range(10), 8, 7, 6, 5, 4, 3)]
    assert pad_to(photo, 1) is photo


@pytest.mark.parametrize("size", [(16, 16), (40, 24)])
def test_padding_at_the_right_and_bottom_leaves_the_grid_in_place(size: tuple[int, int]) -> None:
    model = warmed(NIXNet(NIXNetConfig(SMALL)))
    h, w = size
    photo = torch.rand(1, 3, h, w)
    shorter = photo[..., : h - 3, : w - 5]
    padded = torch.nn.functional.pad(shorter, (0, 5, 0, 3), mode="reflect")
    with torch.no_grad():
        assert torch.equal(model(shorter), model(padded)[..., : h - 3, : w - 5])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"widths": (8, 16)}, "three positive numbers"),
        ({"widths": (8, 0, 16)}, "three positive numbers"),
        ({"noise_stream": False, "image_stream": False}, "keep the noise stream"),
        ({"residual": "mean"}, "choose sum or colours"),
        ({"residual": "colours", "energies": True}, 'of the residual "sum"'),
    ],
)
def test_an_impossible_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NIXNetConfig(**config)


def test_widths_from_json_make_the_same_configuration() -> None:
    assert detectors.create("nixnet", widths=[8, 12, 16]).config == NIXNetConfig(SMALL)


class TestNIXNetByColour(DetectorContract):
    """Eq. 3 of each colour, as nine planes."""

    name, num_parameters = "nixnet", 29_493_377  # of the usual configuration
    config = {"widths": SMALL, "residual": "colours"}  # noqa: RUF012


def test_residuals_by_colour_sum_to_the_residual_of_the_sum() -> None:
    torch.manual_seed(0)
    by_colour = NIXNet(NIXNetConfig(widths=SMALL, residual="colours")).eval()
    summed = NIXNet(NIXNetConfig(widths=SMALL)).eval()
    image = torch.rand(1, 3, 16, 24)
    planes = by_colour._compute_noise(image).unflatten(1, (3, 3))  # colour, kernel
    torch.testing.assert_close(
        planes.sum(dim=1) / 3, summed._compute_noise(image), atol=1e-4, rtol=1e-4
    )
    # The first block sees six planes more, by a 3x3 and a 1x1 convolution.
    more = by_colour.num_parameters - summed.num_parameters
    assert more == 6 * SMALL[0] * (9 + 1)


def test_a_colour_cast_is_seen_by_colour_and_not_in_the_sum() -> None:
    noise = torch.randn(16, 24) * 0.02
    opposite = torch.stack([0.5 + noise, 0.5 - noise, torch.full_like(noise, 0.5)])[None]
    seen = {
        residual: NIXNet(NIXNetConfig(widths=SMALL, residual=residual))._compute_noise(opposite)
        for residual in ("sum", "colours")
    }
    assert seen["sum"].abs().max() < 1e-4
    assert seen["colours"].abs().max() > 0.1
