"""SafePaint: the contract of an inpainter, its sizes, its ablations, and what each part does."""

from typing import Any

import pytest
import torch
from torch import nn

from helpers.inpainter_contract import TrainableContract, has_gradient, sample
from overpaint.errors import ConfigError
from overpaint.inpainters.base import compose
from overpaint.inpainters.safepaint import ABLATIONS, SafePaint, SafePaintConfig, fill_smoothly
from overpaint.registry import build_on_meta, inpainters

TINY: dict[str, Any] = {"width": 4, "num_blocks": 1, "vector_size": 5}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny(**config: Any) -> SafePaint:
    return SafePaint(SafePaintConfig(**{**TINY, **config}))


class TestSafePaint(TrainableContract):
    name, num_parameters = "safepaint", 28_850_282
    config = {**TINY, "width": 8}  # noqa: RUF012


class TestInstanceNorm(TrainableContract):
    """As the authors' code; only in the hole does V reach the picture, and its loss P."""

    name, num_parameters = "safepaint", 28_850_282
    config = {**TINY, "width": 8, "norm": "instance", "vector_region": "hole"}  # noqa: RUF012


class TestSpectralNormAlone(TrainableContract):
    name, num_parameters = "safepaint", 28_850_282
    config = {**TINY, "width": 8, "norm": "none"}  # noqa: RUF012
    overfit_rate = 1e-3


def count(module: nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0


def test_sizes_at_the_papers_width_are_those_of_the_fact_sheet() -> None:
    with build_on_meta():
        model = inpainters.create("safepaint")
    sizes = [count(m) for m in (model.completion, model.extractor, model.optimisation)]
    assert sizes == [10_779_331, 3_919_888, 14_151_063]
    assert sizes == [pytest.approx(millions * 1e6, rel=6e-3) for millions in (10.8, 3.9, 14.2)]


def test_the_small_one_fits_into_10_megabytes_as_float16() -> None:
    with build_on_meta():
        model = inpainters.create("safepaint", width=24)
    assert sum(v.numel() for v in model.state_dict().values()) * 2 < 10e6
    assert model.config.width == 24


@pytest.mark.parametrize("row", ABLATIONS)
def test_rows_of_table_5_drop_their_parts_and_still_train(row: str) -> None:
    flags = ABLATIONS[row]
    model, full = tiny(width=8, **flags), tiny(width=8)
    assert (model.extractor is not None) == flags["domain_vector"]
    assert (model.optimisation.attention is not None) == flags["rwsa"]

    saved = 0 if flags["rwsa"] else count(full.optimisation.attention)
    if not flags["domain_vector"]:  # P, and the vector's channels in G2's first convolution
        saved += count(full.extractor) + 5 * 8 * 49
    assert full.num_parameters - model.num_parameters == saved

    image, mask = sample()
    out = model(image, mask)
    (out - image).square().mean().backward()
    trained = [*model.completion.parameters(), *model.optimisation.parameters()]
    assert all(has_gradient(p.grad) for p in trained)


def test_phases_are_composed_as_in_equation_7() -> None:
    model, (image, mask) = tiny().eval(), sample()
    with torch.no_grad():
        stages = model.run_stages(image, mask)
        first = model.completion(torch.cat([image * (1 - mask) + mask, mask], dim=1), mask)
        vector = model.extractor(image, 1 - mask)  # type: ignore[misc]
        spread_out = vector[:, :, None, None].expand(-1, -1, 64, 64)
        second = model.optimisation(torch.cat([stages.coarse, mask, spread_out], dim=1), mask)
    assert torch.equal(stages.coarse, compose(image, first, mask))
    torch.testing.assert_close(stages.output, compose(image, second, mask), rtol=0, atol=1e-6)
    assert stages.vector is not None
    assert torch.equal(stages.vector, vector)
    assert not torch.equal(stages.coarse, stages.output)


def of_the_vector(norm: str, region: str) -> tuple[float, float]:
    """How far V reaches at the start, at width 16: in grey levels and as a share of a gradient.

    The first: mean change of a photo's hole when its V moves by its standard deviation over a
    batch of photos. The second: the norm of the gradient that L1 sends to P, over that to G2.
    """
    size = {"width": 16, "num_blocks": 2, "vector_size": 16}
    model = SafePaint(SafePaintConfig(**size, norm=norm, vector_region=region)).train()  # type: ignore[arg-type]
    image, mask = (torch.cat(x) for x in zip(*(sample() for _ in range(6)), strict=True))
    extractor, stages = model.extractor, model.run_stages(image, mask)
    assert extractor is not None
    assert stages.vector is not None
    loss = (stages.output - image).abs().mean()
    norms = [
        torch.stack([g.norm() for g in gradients]).norm()
        for gradients in (
            torch.autograd.grad(loss, list(part.parameters()), retain_graph=True)
            for part in (extractor, model.optimisation)
        )
    ]
    step = torch.zeros_like(stages.vector)
    step[0] = stages.vector.detach().std(dim=0)
    moved = extractor.register_forward_hook(lambda _, __, vector: vector + step)
    with torch.no_grad():
        change = (model.run_stages(image, mask).output - stages.output)[0].abs()
    moved.remove()
    levels = 255 * (change * mask[0]).sum() / (3 * mask[0].sum())
    return float(levels), float(norms[0] / norms[1])


@pytest.mark.parametrize(
    ("norm", "region"), [("batch", "all"), ("none", "all"), ("instance", "hole")]
)
def test_the_vector_reaches_the_picture_and_the_pictures_loss_the_extractor(
    norm: str, region: str
) -> None:
    levels, share = of_the_vector(norm, region)
    assert levels > 10
    assert share > 0.2


def test_instance_norm_cancels_a_vector_that_is_constant_over_the_picture() -> None:
    levels, share = of_the_vector("instance", "all")
    assert levels < 0.1
    assert share < 1e-5


def test_the_vector_sees_its_region_only() -> None:
    model, (image, mask) = tiny().eval(), sample()
    assert model.extractor is not None
    other = torch.where(mask == 1, torch.rand_like(image), image)
    with torch.no_grad():
        z_b, same = model.extractor(image, 1 - mask), model.extractor(other, 1 - mask)
        z_gt, changed = model.extractor(image, mask), model.extractor(other, mask)
        nothing = model.extractor(image, torch.zeros_like(mask))
    assert z_b.shape == (1, 5)
    assert torch.equal(z_b, same)
    assert not torch.equal(z_gt, changed)
    assert nothing.isfinite().all()


def test_pooling_over_all_places_shrinks_with_the_region_and_over_valid_ones_does_not() -> None:
    image, region = torch.rand(1, 3, 127, 127), torch.zeros(1, 1, 127, 127)
    region[..., :20, :20] = 1  # one corner: validity spreads by 63 pixels to the last map
    vectors = {}
    for pooling in ("valid", "all"):
        torch.manual_seed(0)
        extractor = tiny(pooling=pooling).eval().extractor
        assert extractor is not None
        with torch.no_grad():
            vectors[pooling] = extractor(image, region) - extractor.to_vector.bias
            valid = region
            for conv in extractor.convs:
                c = conv.conv.in_channels  # type: ignore[union-attr]
                valid = conv(torch.zeros(1, c, *valid.shape[2:]), valid)[1]
    share = float(valid.mean())  # of the 3 x 3 places of the last map
    assert 0 < share < 1
    torch.testing.assert_close(vectors["all"], share * vectors["valid"], rtol=1e-4, atol=1e-7)


def test_spectral_norm_bounds_the_generators_convolutions_but_the_last() -> None:
    model, plain = tiny(), tiny(spectral_norm=False)
    image, mask = sample()
    for _ in range(30):  # power iterations
        model.train()(image, mask)
    model.eval()
    for generator in (model.completion, model.optimisation):
        attention = generator.attention or nn.Identity()
        for part in (generator.encoder, generator.blocks, generator.upsample, attention):
            convs = [m for m in part.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
            assert convs or part is attention
            for conv in convs:
                dim = 1 if isinstance(conv, nn.ConvTranspose2d) else 0
                matrix = conv.weight.transpose(0, dim).flatten(1)
                assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=0.05)
        assert not hasattr(generator.last[1], "parametrizations")
    assert not [name for name in plain.state_dict() if "parametrizations" in name]
    only_rwsa = tiny(rwsa_spectral_norm=False).optimisation
    assert [name for name in only_rwsa.encoder.state_dict() if "parametrizations" in name]
    assert not [name for name in only_rwsa.state_dict() if "attention" in name and "param" in name]
    assert model.num_parameters == plain.num_parameters


def test_padding_leaves_the_picture_in_place() -> None:
    model, (image, mask) = tiny().eval(), sample()
    image, mask = (torch.cat([x, x.flip(3)], dim=3) for x in (image, mask))
    shorter, its_mask = image[..., :-2, :-3], mask[..., :-2, :-3]
    padded = [nn.functional.pad(x, (0, 3, 0, 2), mode="replicate") for x in (shorter, its_mask)]
    with torch.no_grad():
        assert torch.equal(model(shorter, its_mask), model(*padded)[..., :-2, :-3])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"width": 0}, "at least 1"),
        ({"vector_size": 0}, "at least 1"),
        ({"norm": "layer"}, "choose batch or instance or none"),
        ({"pooling": "mean"}, "choose valid or all"),
        ({"vector_region": "everywhere"}, "choose all or hole"),
    ],
)
def test_an_impossible_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SafePaintConfig(**config)


class TestSmoothStart:
    def test_a_hole_takes_the_mean_of_the_finest_scale_that_knows_anything(self) -> None:
        image = torch.tensor([[0.2, 0.4], [0.6, 9.0]]).expand(1, 3, 2, 2)
        mask = torch.tensor([[0.0, 0], [0, 1]])[None, None]
        filled = fill_smoothly(image, mask)
        torch.testing.assert_close(filled[0, 0], torch.tensor([[0.2, 0.4], [0.6, 0.4]]))

    @pytest.mark.parametrize("size", [(1, 1), (7, 12), (64, 33)])
    def test_a_flat_photo_stays_flat_whatever_its_hole(self, size: tuple[int, int]) -> None:
        mask = (torch.rand(2, 1, *size) < 0.7).float()
        mask[..., 0, 0] = 0
        image = torch.where(mask == 1, 5.0, 0.3).expand(2, 3, *size)
        torch.testing.assert_close(fill_smoothly(image, mask), torch.full((2, 3, *size), 0.3))

    def test_full_and_empty_masks(self) -> None:
        image = torch.rand(1, 3, 8, 8)
        assert torch.equal(fill_smoothly(image, torch.zeros(1, 1, 8, 8)), image)
        assert not fill_smoothly(image, torch.ones(1, 1, 8, 8)).any()

    def test_generators_begin_near_what_they_see(self) -> None:
        image, mask = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
        mask[..., 20:40, 20:40] = 1
        expected = fill_smoothly(image, mask)
        for start, near in (("smooth", True), ("white", False)):
            stages = tiny(start=start).train().run_stages(image, mask)
            for picture in (stages.coarse, stages.output):
                assert bool((picture - expected).abs().max() < 0.2) == near
