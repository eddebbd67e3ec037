"""Tiles: weights that sum to one, equality with a whole pass, bounded memory, errors."""

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from overpaint.detection.tiles import examine_in_tiles, place_tiles
from overpaint.detectors.base import Findings
from overpaint.detectors.nixnet import nixnet
from overpaint.errors import InputError
from overpaint.images import to_tensor

SIZES = [(1, 64, 16, 8), (64, 64, 16, 8), (65, 64, 16, 8), (777, 64, 32, 8), (4000, 1024, 128, 8)]


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tiled(fn: Callable[[Tensor], Tensor], image: np.ndarray | Tensor, **options: int) -> np.ndarray:
    """The logits of what gives nothing else."""
    return examine_in_tiles(lambda x: Findings(fn(x)), image, **options).logits  # type: ignore[arg-type]


@torch.inference_mode()
def whole(net: nn.Module, pixels: np.ndarray) -> np.ndarray:
    return net(to_tensor(pixels))[0, 0].numpy()


@pytest.mark.parametrize(("length", "tile", "overlap", "stride"), SIZES)
def test_windows_cover_the_axis_with_weights_that_sum_to_one(
    length: int, tile: int, overlap: int, stride: int
) -> None:
    total = np.zeros(length)
    for start, weights in place_tiles(length, tile, overlap, stride):
        assert start % stride == 0
        assert weights.size <= tile
        total[start : start + weights.size] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_no_tile_more_than_needed_and_none_larger() -> None:
    parts = place_tiles(4000, 1024, 128, 8)
    assert [start for start, _ in parts] == [0, 776, 1552, 2328, 3096]
    assert [weights.size for _, weights in parts] == [904] * 5


@pytest.mark.parametrize(("length", "tile", "overlap", "stride"), SIZES)
def test_all_tiles_have_one_size_once_padded_to_the_stride(
    length: int, tile: int, overlap: int, stride: int
) -> None:
    sizes = [weights.size for _, weights in place_tiles(length, tile, overlap, stride)]
    assert len({-(-size // stride) for size in sizes}) == 1


def test_tile_borders_carry_no_weight() -> None:
    (_, first), (_, second) = place_tiles(112, 64, 16, 8)
    np.testing.assert_array_equal(first[-4:], 0)
    np.testing.assert_array_equal(second[:4], 0)
    assert first[0] == second[-1] == 1  # the photo's own borders do


def test_tiled_equals_whole_for_a_small_receptive_field() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)
    ).eval()
    pixels = photo(150, 203)
    out = tiled(net, pixels, tile=64, overlap=16, stride=8)
    assert out.shape == (150, 203)
    assert out.dtype == np.float32
    # The receptive field reaches 3 pixels, the quarter of the overlap without weight 4.
    np.testing.assert_allclose(out, whole(net, pixels), atol=1e-5)


def test_tiled_equals_whole_for_nixnet() -> None:
    torch.manual_seed(0)
    net = nixnet(widths=(4, 4, 4)).eval()
    nn.init.normal_(net.head.logit.weight, std=0.05)
    pixels = photo(72, 801)
    expected = whole(net, pixels)
    assert expected.std() > 0.1  # or the tolerance would say nothing
    out = tiled(net, pixels, tile=768, overlap=384, stride=net.stride)
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_a_tensor_gives_what_its_pixels_give() -> None:
    net = nn.Conv2d(3, 1, 3, padding=1)
    pixels = photo(40, 90)
    out = tiled(net, to_tensor(pixels), tile=48, overlap=16)
    np.testing.assert_array_equal(out, tiled(net, pixels, tile=48, overlap=16))


@pytest.fixture
def four_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("four_threads")
def test_two_tiles_at_once_give_the_same_with_half_of_the_threads_each() -> None:
    seen, both = [], threading.Barrier(2)

    def look(x: Tensor) -> Tensor:
        both.wait(60)  # breaks if no second tile is in work
        seen.append((threading.current_thread(), torch.get_num_threads()))
        assert torch.is_inference_mode_enabled()
        return x.mean(dim=1, keepdim=True) * 3

    pixels, sizes = photo(100, 150), {"tile": 64, "overlap": 16}  # six tiles
    found = tiled(look, pixels, at_once=2, **sizes)
    expected = tiled(lambda x: x.mean(dim=1, keepdim=True) * 3, pixels, **sizes)
    np.testing.assert_array_equal(found, expected)
    assert len(seen) == 6
    assert len({thread for thread, _ in seen}) == 2
    assert {num for _, num in seen} == {2}
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_photos_in_several_threads_leave_each_thread_its_number() -> None:
    """Of torch's threads; it was lowered for good in threads that began meanwhile."""
    together, found = threading.Barrier(2), []

    def look(x: Tensor) -> Tensor:
        together.wait(60)
        began = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        began.start()
        began.join()
        return x.mean(dim=1, keepdim=True)

    def see() -> None:
        for _ in range(3):
            tiled(look, photo(64, 112), tile=64, overlap=16, at_once=2)
            found.append(torch.get_num_threads())

    seeing = [threading.Thread(target=see) for _ in range(3)]
    for thread in seeing:
        thread.start()
    for thread in seeing:
        thread.join()
    assert len(found) == 3 * 3 * 3
    assert set(found) == {4}


@pytest.mark.usefixtures("four_threads")
def test_an_error_in_one_of_two_tiles_ends_the_photo() -> None:
    done = []

    def fail(x: Tensor) -> Tensor:
        done.append(x)
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        tiled(fail, photo(64, 64 * 40), tile=64, overlap=16, at_once=2)
    assert len(done) < 10  # of more than fifty
    assert torch.get_num_threads() == 4


def test_the_network_never_sees_more_than_a_tile() -> None:
    seen: list[tuple[int, ...]] = []

    def fn(image: Tensor) -> Tensor:
        seen.append(tuple(image.shape))
        return image[:, :1]

    pixels = photo(300, 500)
    np.testing.assert_allclose(
        tiled(fn, pixels, tile=128, overlap=32), pixels[..., 0] / 255, atol=1e-6
    )
    assert len(seen) > 8
    assert max(max(shape[2:]) for shape in seen) <= 128


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 9)])
def test_tiny_and_thin_photos(size: tuple[int, int]) -> None:
    out = tiled(lambda x: x[:, :1] * 2, photo(*size), tile=64, overlap=16)
    np.testing.assert_allclose(out, photo(*size)[..., 0] / 127.5, atol=1e-6)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), {}, "uint8"),
        (np.zeros((4, 4), np.uint8), {}, r"\(h, w, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), {}, r"\(h, w, 3\)"),
        (torch.zeros(2, 3, 4, 4), {}, r"\(1, 3, h, w\)"),
        (np.zeros((4, 4, 3), np.uint8), {"tile": 60}, "stride"),
        (np.zeros((4, 4, 3), np.uint8), {"tile": 64, "overlap": 40}, "half"),
    ],
)
def test_wrong_arguments_name_the_remedy(
    image: np.ndarray | Tensor, options: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tiled(lambda x: x[:, :1], image, **options)
