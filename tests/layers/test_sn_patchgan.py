"""SN-PatchGAN: its size, what a verdict sees, and the bound that its norm sets."""

import pytest
import torch
from torch import nn

from overpaint.layers.sn_patchgan import SNPatchDiscriminator


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_number_of_parameters_is_that_of_the_fact_sheet() -> None:
    count = sum(p.numel() for p in SNPatchDiscriminator().parameters())
    assert count == 5_946_816
    assert count == pytest.approx(5.95e6, rel=1e-3)


def test_256_pixels_become_4_by_4_places_with_four_times_the_width() -> None:
    assert SNPatchDiscriminator(width=2)(torch.rand(2, 4, 256, 256)).shape == (2, 4 * 2, 4, 4)


def test_verdicts_are_leaky_too_and_layers_are_bounded() -> None:
    model, x = SNPatchDiscriminator(width=2), torch.rand(2, 4, 64, 64)
    for _ in range(30):  # power iterations
        model.train()(x)
    convs = [layer for layer in model.layers if isinstance(layer, nn.Conv2d)]
    assert len(convs) == 6
    for conv in convs:
        norm = torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item()
        assert norm == pytest.approx(1, abs=0.05)
    last: list[torch.Tensor] = []
    convs[-1].register_forward_hook(lambda *args: last.append(args[2].clone()))
    out = model.eval()(x)
    torch.testing.assert_close(out, torch.where(last[0] > 0, last[0], 0.2 * last[0]))


def test_it_learns_to_tell_masks_apart() -> None:
    model = SNPatchDiscriminator(width=2)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    image = torch.rand(2, 3, 64, 64)
    real, fake = (torch.cat([image, torch.full((2, 1, 64, 64), m)], dim=1) for m in (0.0, 1.0))
    losses: list[float] = []
    while len(losses) < 100 and (not losses or losses[-1] >= 0.7 * losses[0]):
        loss = (1 - model(real)).relu().mean() + (1 + model(fake)).relu().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses) < 0.7 * losses[0]
