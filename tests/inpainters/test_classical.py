"""Classical inpainters: the contract, what each method is known to restore, and their limits."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.inpainter_contract import InpainterContract, sample
from overpaint.errors import ConfigError, OverpaintError
from overpaint.inpainters import patchmatch
from overpaint.registry import inpainters

ALL = ("biharmonic", "mean", "navier-stokes", "patchmatch", "telea")
LEVEL = 1 / 255  # one grey level of an 8-bit photo
TELEA_STEP = 1.6 * LEVEL  # OpenCV's gradient term on a flat photo; see the class


class TestMean(InpainterContract):
    name = "mean"


class TestTelea(InpainterContract):
    name = "telea"


class TestNavierStokes(InpainterContract):
    name = "navier-stokes"


class TestBiharmonic(InpainterContract):
    name = "biharmonic"


class TestPatchMatch(InpainterContract):
    name = "patchmatch"
    config = {"num_rounds": 1}  # noqa: RUF012


QUICK: dict[str, dict[str, Any]] = {"patchmatch": {"num_rounds": 1}}


def filled(name: str, image: Tensor, mask: Tensor, **config: Any) -> Tensor:
    return inpainters.create(name, **{**QUICK.get(name, {}), **config}).eval()(image, mask)


def box(side: int, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    mask = torch.zeros(1, 1, side, side)
    mask[..., slice(*rows), slice(*columns)] = 1
    return mask


def error(out: Tensor, image: Tensor, mask: Tensor) -> float:
    """Mean squared error in the hole."""
    return ((out - image).square() * mask).sum().item() / (3 * mask.sum().item())


def stripes(side: int, period: int) -> Tensor:
    """Diagonal stripes of two colours: (1, 3, side, side)."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    dark = ((rows + columns) % period < period // 2).float()
    colours = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.2, 0.7]])
    return torch.where(dark[..., None] == 1, colours[1], colours[0]).permute(2, 0, 1)[None]


def checkerboard(side: int, square: int) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (((rows // square + columns // square) % 2) * 0.8 + 0.1).expand(1, 3, side, side)


class TestAllMethods:
    @pytest.mark.parametrize("name", ALL)
    @pytest.mark.parametrize(
        "hole", [((10, 30), (8, 28)), ((0, 12), (0, 40)), ((0, 1), (0, 1)), ((0, 39), (0, 40))]
    )
    def test_a_constant_photo_stays_constant_also_at_the_edge(
        self, name: str, hole: tuple[tuple[int, int], tuple[int, int]]
    ) -> None:
        image = torch.tensor([0.3, 0.7, 0.05])[None, :, None, None].repeat(1, 1, 40, 40)
        change = (filled(name, image, box(40, *hole)) - image).abs().max().item()
        assert change < (TELEA_STEP if name == "telea" else 1e-5)

    @pytest.mark.parametrize("name", ALL)
    def test_the_fill_stays_within_the_known_colours(self, name: str) -> None:
        image, mask = sample()
        image = 0.4 + 0.2 * image
        known = image[(mask == 0).expand_as(image)]
        out = filled(name, image, mask)
        margin = 2 * LEVEL if name == "telea" else 1e-6
        assert known.min() - margin <= out.min() <= out.max() <= known.max() + margin

    @pytest.mark.parametrize("name", ALL)
    def test_nothing_known_gives_mid_grey(self, name: str) -> None:
        out = filled(name, torch.rand(1, 3, 9, 11), torch.ones(1, 1, 9, 11))
        assert torch.equal(out, torch.full_like(out, 0.5))

    @pytest.mark.parametrize("name", ALL)
    def test_one_known_pixel_is_enough(self, name: str) -> None:
        image, mask = torch.full((1, 3, 12, 15), 0.25), torch.ones(1, 1, 12, 15)
        mask[..., 5, 7] = 0
        change = (filled(name, image, mask) - image).abs().max().item()
        assert change < (3 * LEVEL if name == "telea" else 1e-5)

    @pytest.mark.parametrize("name", ALL)
    def test_the_same_fill_every_time_and_whatever_the_global_seed(self, name: str) -> None:
        image, mask = sample()
        out = filled(name, image, mask)
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        expected = np.random.random()  # noqa: NPY002
        np.random.seed(5)  # noqa: NPY002
        assert torch.equal(filled(name, image, mask), out)
        assert np.random.random() == expected  # noqa: NPY002

    @pytest.mark.parametrize("name", ALL)
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_photos_of_other_types_are_filled_alike(self, name: str, dtype: torch.dtype) -> None:
        image, mask = sample()
        image = image.to(torch.bfloat16).to(torch.float32)  # exact in all of them
        out = filled(name, image.to(dtype), mask)
        assert out.dtype == dtype
        expected = filled(name, image, mask).to(dtype)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("name", ALL)
    def test_no_parameters_and_no_gradient_but_that_of_known_pixels(self, name: str) -> None:
        model, (image, mask) = inpainters.create(name), sample()
        assert model.num_parameters == 0
        assert not model.state_dict()
        model.train()(image.requires_grad_(True), mask).sum().backward()
        assert image.grad is not None
        assert torch.equal(image.grad, (1 - mask).expand_as(image))

    @pytest.mark.parametrize("name", ["biharmonic", "navier-stokes", "telea"])
    def test_two_separate_holes_at_once_equal_one_after_the_other(self, name: str) -> None:
        """True of local methods: a hole sees known pixels near it only."""
        image, _ = sample()
        first, second = box(64, (6, 24), (5, 20)), box(64, (34, 60), (38, 64))
        together = filled(name, image, first + second)
        apart = filled(name, filled(name, image, first), second)
        # OpenCV sees the mean of what is known in place of a hole at the edge.
        torch.testing.assert_close(together, apart, rtol=0, atol=2 * LEVEL)
        assert torch.equal(together * first, apart * first)


class TestMeanFill:
    def test_by_hand(self) -> None:
        image = torch.tensor([[0.2, 0.4], [0.9, 0.0]]).expand(1, 3, 2, 2)
        mask = torch.tensor([[0.0, 0, 0], [0, 0, 1]])[:, 1:][None, None]
        out = filled("mean", image, mask)
        assert out[0, :, 1, 1].tolist() == pytest.approx([0.5] * 3)


class TestDiffusion:
    def test_biharmonic_continues_a_ramp(self) -> None:
        ramp = torch.linspace(0.1, 0.9, 48).expand(1, 3, 48, 48)
        mask = box(48, (12, 34), (10, 36))
        assert (filled("biharmonic", ramp, mask) - ramp).abs().max() < 1e-3
        assert error(filled("telea", ramp, mask), ramp, mask) > 1e-3

    def test_biharmonic_agrees_with_the_dense_system_of_its_definition(self) -> None:
        """L^2 u = 0 in the hole, L the Laplacian with mirrored edges, solved without sparsity."""
        height, width = 9, 11
        rng = np.random.default_rng(1)
        photo, hole = rng.uniform(0.3, 0.7, (height, width, 3)), rng.random((height, width)) < 0.3
        hole[:3, :4] = True
        laplacian = np.zeros((height * width,) * 2)
        for row, column in np.ndindex(height, width):
            for down, right in ((0, 1), (1, 0)):
                if row + down < height and column + right < width:
                    a, b = row * width + column, (row + down) * width + column + right
                    laplacian[[a, b], [b, a]] += 1
                    laplacian[[a, b], [a, b]] -= 1
        square, inside = laplacian @ laplacian, hole.ravel()
        colours = photo.reshape(-1, 3)
        rhs = -square[inside][:, ~inside] @ colours[~inside]
        expected = np.linalg.solve(square[inside][:, inside], rhs)
        expected = expected.clip(colours[~inside].min(0), colours[~inside].max(0))
        image = torch.from_numpy(photo).permute(2, 0, 1)[None]
        out = filled("biharmonic", image, torch.from_numpy(hole)[None, None])
        np.testing.assert_allclose(
            out[0].permute(1, 2, 0).numpy()[hole], expected, rtol=0, atol=1e-9
        )

    @pytest.mark.parametrize(("name", "flag"), [("telea", 1), ("navier-stokes", 0)])
    @pytest.mark.parametrize("radius", [1, 8])
    def test_away_from_the_edge_it_is_opencvs_fill(self, name: str, flag: int, radius: int) -> None:
        import cv2

        image, mask = sample()
        channel = (255 * image[0, 1] * (1 - mask[0, 0])).numpy()
        expected = cv2.inpaint(channel, mask[0, 0].numpy().astype(np.uint8), radius, flag)
        out = filled(name, image, mask, radius=radius)
        np.testing.assert_allclose(255 * out[0, 1].numpy(), expected, rtol=0, atol=1e-2)

    def test_the_radius_changes_the_fill(self) -> None:
        image, mask = sample()
        for name in ("telea", "navier-stokes"):
            fills = [filled(name, image, mask, radius=radius) for radius in (2, 8)]
            assert not torch.equal(*fills)
            assert torch.equal(filled(name, image, mask), filled(name, image, mask, radius=3))

    def test_telea_does_not_brighten_a_large_hole(self) -> None:
        """What 8-bit photos suffer in OpenCV; grey 77 came out up to 14 levels too bright."""
        image, mask = torch.full((1, 3, 64, 64), 77 * LEVEL), box(64, (0, 63), (0, 64))
        assert abs((filled("telea", image, mask) - image).mean().item()) < 0.5 * LEVEL


def without_texture(picture: np.ndarray) -> np.ndarray:
    """Colours with the two channels of the texture, which are 0."""
    return np.pad(picture, ((0, 0), (0, 0), (0, 2)))


class TestPatches:
    @pytest.mark.parametrize(
        "texture",
        [stripes(64, 8), stripes(64, 12), checkerboard(64, 5), checkerboard(64, 3)],
        ids=["stripes 8", "stripes 12", "checkerboard 5", "checkerboard 3"],
    )
    def test_a_periodic_texture_goes_on_where_telea_smears(self, texture: Tensor) -> None:
        mask = box(64, (22, 42), (20, 42))
        copied = error(filled("patchmatch", texture, mask), texture, mask)
        smeared = error(filled("telea", texture, mask), texture, mask)
        assert copied < 0.02 * smeared

    def test_it_copies_colours_and_does_not_blend_them_where_they_fit(self) -> None:
        texture, mask = stripes(64, 8), box(64, (22, 42), (20, 42))
        out = filled("patchmatch", texture, mask)
        colours = texture[0, :, 0, :].T.unique(dim=0)
        assert len(colours) == 2
        distance = (out[0].permute(1, 2, 0)[..., None, :] - colours).abs().amax(-1).amin(-1)
        assert distance.max() < 1e-2

    def test_it_copies_texture_from_the_matching_side(self) -> None:
        """Left half stripes, right half plain: each side of the hole continues its own."""
        texture = stripes(64, 8)
        texture[..., 32:] = 0.5
        mask = box(64, (24, 40), (20, 44))
        out = filled("patchmatch", texture, mask, num_rounds=4)
        assert error(out, texture, mask) < 1e-3
        assert error(filled("telea", texture, mask), texture, mask) > 1e-2

    def test_the_seed_changes_the_search_on_a_photo_without_an_exact_answer(self) -> None:
        image, mask = sample()
        fills = [filled("patchmatch", image, mask, seed=seed) for seed in (0, 1)]
        assert not torch.equal(*fills)

    def test_the_search_finds_the_one_place_that_a_region_was_copied_from(self) -> None:
        """In noise, where nothing but the copy fits and no slope leads to it."""
        rng = np.random.default_rng(3)
        picture = rng.random((30, 40, 3)).astype(np.float32)
        hole = np.zeros((30, 40), bool)
        hole[8:13, 9:15] = True
        picture[4:17, 5:19] = picture[17:30, 24:38]  # all that patches over the hole cover
        picture = without_texture(picture)
        patches = patchmatch.Patches(hole, 5)
        assert patches.targets.shape == (2, 9 * 10)
        field = patchmatch.match_nearest(patches)
        costs = np.ones(1)
        found = patches.compute_descriptors(picture, patches.compute_components(picture, rng))
        for _ in range(20):
            costs = patchmatch.search(patches, found, field, rng)
        assert not costs.any()
        shift = np.array([[13], [19]])
        assert np.array_equal(patches.select_targets(field), patches.targets + shift)

    def test_descriptors_keep_the_distances_of_patches_that_have_few_components(self) -> None:
        """Patches of two waves in three colours span four directions."""
        rows, columns = np.mgrid[:40, :50]
        waves = [np.sin(rows / 3), np.cos(columns / 4)]
        picture = np.einsum("khw,kc->hwc", waves, [[0.2, 0.1, 0], [0, 0.1, 0.3]]).astype(np.float32)
        hole = np.zeros((40, 50), bool)
        hole[10:20, 12:25] = True
        patches, rng = patchmatch.Patches(hole, 5), np.random.default_rng(0)
        components = patches.compute_components(without_texture(picture), rng)
        found = patches.compute_descriptors(without_texture(picture), components)
        assert found.shape == (36 * 46, patchmatch.NUM_COMPONENTS + 2)
        whole = np.lib.stride_tricks.sliding_window_view(picture, (5, 5), axis=(0, 1))
        flat = whole.reshape(36 * 46, -1)
        first, second = rng.integers(len(flat), size=(2, 100))
        exact = np.square(flat[first] - flat[second]).sum(axis=1)
        near = np.square(found[first] - found[second]).sum(axis=1)
        np.testing.assert_allclose(near, exact, rtol=1e-3, atol=1e-5)

    def test_texture_is_the_mean_difference_of_neighbours_that_are_known(self) -> None:
        photo = np.zeros((40, 60, 3), np.float32)
        photo[:, ::2] = 8  # 8 from column to column, 0 from row to row
        hole = np.zeros((40, 60), bool)
        hole[10:30, 20:40] = True
        photo[hole] = 1000
        texture = patchmatch.measure_texture(photo, hole)
        far = patchmatch.WINDOW // 2 + 1  # from what is known, or from a border without a next one
        assert texture.shape == (40, 60, 2)
        assert np.abs(texture[..., 0]).max() < 1e-3
        np.testing.assert_allclose(texture[:, :20][..., 1], 8, rtol=1e-4)
        assert np.abs(texture[10 + far : 30 - far, 20 + far : 40 - far]).max() < 1e-3

    def test_a_large_hole_in_a_texture_does_not_become_smooth(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In noise, of which nothing in the hole is known, half of the photo being smooth."""
        rng = np.random.default_rng(0)
        photo = np.full((96, 96, 3), 120, np.float32)
        photo[:64] += rng.normal(0, 40, (64, 96, 1))
        hole = np.zeros((96, 96), bool)
        hole[8:56, 24:72] = True

        def measure_deviation() -> float:
            filled = patchmatch.synthesise(photo, hole, patchmatch.PatchMatchConfig())
            return float(filled[16:48, 32:64].std())

        with_texture = measure_deviation()
        monkeypatch.setattr(patchmatch, "TEXTURE", 0)
        assert with_texture > 1.5 * measure_deviation()

    def test_a_coarser_level_is_the_mean_of_known_pixels_only(self) -> None:
        picture = np.arange(15, dtype=np.float32).reshape(3, 5, 1).repeat(3, 2)
        hole = np.zeros((3, 5), bool)
        hole[0:2, 0:2] = True
        hole[0, 2] = hole[2, 4] = True
        means, missing = patchmatch.halve(picture, hole)
        assert missing.tolist() == [[True, False, False], [False, False, True]]
        assert means[..., 0].tolist() == [[0, pytest.approx(18 / 3), 6.5], [10.5, 12.5, 0]]

    def test_a_photo_without_a_whole_known_patch_is_filled_with_smaller_ones(self) -> None:
        image = 0.2 + 0.1 * torch.rand(1, 3, 30, 30)
        mask = torch.ones(1, 1, 30, 30)
        mask[..., ::3, ::3] = 0
        known, out = image[..., ::3, ::3], filled("patchmatch", image, mask)
        assert known.min() - 1e-6 <= out.min() <= out.max() <= known.max() + 1e-6


class TestConfiguration:
    @pytest.mark.parametrize(
        ("name", "config"),
        [
            ("telea", {"radius": 0}),
            ("navier-stokes", {"radius": 101}),
            ("patchmatch", {"patch": 1}),
            ("patchmatch", {"num_rounds": 0}),
            ("patchmatch", {"seed": -1}),
        ],
    )
    def test_an_impossible_value_is_refused(self, name: str, config: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=next(iter(config))):
            inpainters.create(name, **config)

    @pytest.mark.parametrize(
        ("name", "module"),
        [
            ("telea", "cv2"),
            ("navier-stokes", "cv2"),
            ("biharmonic", "skimage"),
            ("patchmatch", "scipy"),
        ],
    )
    def test_a_missing_module_is_reported_when_building(
        self, name: str, module: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(OverpaintError, match=rf"{module}.*overpaint\[classical\]"):
            inpainters.create(name)

    @pytest.mark.slow
    def test_listing_the_methods_imports_none_of_the_optional_modules(self) -> None:
        code = (
            "import sys, overpaint.inpainters; from overpaint.registry import inpainters as i;"
            f"assert set({ALL}) <= set(i.list_names()); i.create('mean');"
            "sys.exit(bool({'cv2', 'skimage', 'scipy'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
