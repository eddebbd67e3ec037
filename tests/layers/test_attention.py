"""Contextual attention: against loops over places and patches, its mask, and what it copies."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from overpaint.layers.attention import ContextualAttention


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def patch(x: Tensor, row: int, column: int, side: int) -> Tensor:
    """side x side places of x (c, h, w), the first one above and left; zero beyond the border."""
    out = torch.zeros(x.shape[0], side, side)
    for i, j in product(range(side), range(side)):
        r, c = row - 1 + i, column - 1 + j
        if 0 <= r < x.shape[1] and 0 <= c < x.shape[2]:
            out[:, i, j] = x[:, r, c]
    return out


def diagonal_sum(scores: dict[tuple[int, int], float], n: int) -> dict[tuple[int, int], float]:
    return {
        (a, b): sum(scores.get((a + d, b + d), 0.0) for d in (-1, 0, 1))
        for a, b in product(range(n), range(n))
    }


EQUAL = [0, 2, 4, 6], [0, 2, 4, 6, 8, 10], [0, 8, 16, 24], [0, 8, 16, 24, 32, 40]
"""Rows and columns of the features (8, 12) that are matched, and of the mask (32, 48)."""
ALIGNED = [0, 2, 5, 7], [0, 2, 4, 7, 9, 11], [0, 9, 22, 31], [0, 9, 17, 30, 38, 47]
"""From the first to the last: steps of 7/3 and 11/5; in the mask of 31/7 and 47/11 before."""


def slow(
    x: Tensor,
    mask: Tensor,
    fuse: bool = True,
    norm_offset: float = 0.0,
    taken: tuple[list[int], ...] = EQUAL,
) -> Tensor:
    """The layer for one picture x (c, 8, 12) and its mask (32, 48), place by place."""
    small, hole = x[:, taken[0]][..., taken[1]], mask[taken[2]][None, :, taken[3]]
    height, width = small.shape[1:]
    places = list(product(range(height), range(width)))
    n = len(places)
    patches = [patch(small, r, c, 3) for r, c in places]
    scores = {}
    for (a, known), (b, wanted) in product(enumerate(patches), enumerate(patches)):
        norm = max(math.sqrt(float((known.square() + norm_offset).sum())), 1e-4)
        scores[a, b] = float((known * wanted).sum()) / norm
    if fuse:
        scores = diagonal_sum(scores, n)
        turned = [c * height + r for r, c in places]  # numbers in the order of columns
        by_columns = {(turned[a], turned[b]): value for (a, b), value in scores.items()}
        by_columns = diagonal_sum(by_columns, n)
        scores = {(a, b): by_columns[turned[a], turned[b]] for a, b in scores}
    is_known = [not patch(hole, r, c, 3).any() for r, c in places]
    raw = [patch(x, 2 * r, 2 * c, 4) for r, c in places]
    out = torch.zeros_like(x)
    for b, (i, j) in enumerate(places):
        powers = [math.exp(10 * scores[a, b] * is_known[a]) for a in range(n)]
        mean = sum(powers[a] / sum(powers) * raw[a] for a in range(n) if is_known[a])
        for u, v in product(range(4), range(4)):
            row, column = 2 * i - 1 + u, 2 * j - 1 + v
            if 0 <= row < 8 and 0 <= column < 12:
                out[:, row, column] += mean[:, u, v] / 4  # type: ignore[index]
    return out


def sample() -> tuple[Tensor, Tensor]:
    mask = torch.zeros(2, 1, 32, 48)
    mask[0, :, 14:24, 7:20] = 1
    mask[1, :, :9, 40:] = 1
    return torch.randn(2, 3, 8, 12).relu(), mask


@pytest.mark.parametrize(("fuse", "offset"), [(True, 0.0), (False, 0.0), (True, 1e-2)])
def test_output_is_that_of_loops_over_all_places(fuse: bool, offset: float) -> None:
    x, mask = sample()
    out = ContextualAttention(fuse=fuse, norm_offset=offset)(x, mask)
    expected = [slow(a, m[0], fuse, offset) for a, m in zip(x, mask, strict=True)]
    torch.testing.assert_close(out, torch.stack(expected), rtol=0, atol=1e-5)


def test_aligned_sampling_is_that_of_loops_over_tensorflows_places() -> None:
    x, mask = sample()
    out = ContextualAttention(aligned=True)(x[:1], mask[:1])
    expected = slow(x[0], mask[0, 0], taken=ALIGNED)
    torch.testing.assert_close(out[0], expected, rtol=0, atol=1e-5)


def test_options_matter() -> None:
    x, mask = sample()
    plain = ContextualAttention()(x, mask)
    others = ({"fuse": False}, {"aligned": True}, {"norm_offset": 1e-2})
    outs = [plain, *(ContextualAttention(**option)(x, mask) for option in others)]  # type: ignore[arg-type]
    for a, b in product(range(4), range(4)):
        assert a == b or (outs[a] - outs[b]).abs().max() > 1e-3


def test_nothing_of_the_hole_is_copied() -> None:
    x, mask = sample()
    hole = mask[:, :, ::4, ::4] == 1
    out = ContextualAttention(fuse=False)(torch.where(hole, 1e3, x), mask)
    assert out.max() <= x.max()
    assert ContextualAttention(fuse=False)(torch.where(hole, 1e3, x), 0 * mask).max() > 100


def test_a_repeated_texture_is_continued_through_the_hole() -> None:
    """Stripes of period 8: the attention, which knows the hole's own features, restores them."""
    period = torch.randn(4, 1, 8)
    x = period.repeat(1, 32, 4)[None] * 3
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 48:80, 48:80] = 1
    out = ContextualAttention()(x, mask)
    inside = (slice(None), slice(None), slice(14, 18), slice(14, 18))
    torch.testing.assert_close(out[inside], x[inside], rtol=0, atol=0.05)


def test_without_any_known_patch_the_output_is_zero() -> None:
    x, mask = sample()
    assert not ContextualAttention()(x, torch.ones_like(mask)).any()


def test_features_that_are_all_zero_have_finite_gradients() -> None:
    x, mask = torch.zeros(1, 2, 8, 8, requires_grad=True), torch.zeros(1, 1, 32, 32)
    ContextualAttention()(x, mask).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_scores_stay_in_float32_under_autocast() -> None:
    x, mask = sample()
    exact = ContextualAttention()(x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ContextualAttention()(x, mask), exact)
        assert ContextualAttention()(x.bfloat16(), mask).dtype == torch.bfloat16
