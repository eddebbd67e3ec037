"""TensorFlow's padding and sampling: against what its documentation says, worked out by hand."""

import pytest
import torch

from overpaint.layers.tensorflow import conv2d, sample_nearest


def places_seen(side: int, kernel: int, stride: int, dilation: int, same: bool) -> list[list[int]]:
    """For each place of the output, which places of a line it sees."""
    conv = conv2d(1, 1, kernel, stride, dilation, same=same)
    torch.nn.init.ones_(conv.weight)
    line = torch.zeros(1, 1, side, side, requires_grad=True)
    out = conv(line)[0, 0, 0]
    seen = []
    for value in out:
        grad = torch.autograd.grad(value, line, retain_graph=True)[0][0, 0].any(dim=0)
        seen.append(grad.nonzero().flatten().tolist())
    return seen


class TestSamePadding:
    def test_an_even_side_is_padded_at_the_end_only(self) -> None:
        assert places_seen(6, 3, 2, 1, same=True) == [[0, 1, 2], [2, 3, 4], [4, 5]]
        assert places_seen(6, 3, 2, 1, same=False) == [[0, 1], [1, 2, 3], [3, 4, 5]]

    def test_an_odd_side_is_padded_at_both_ends(self) -> None:
        expected = [[0, 1], [1, 2, 3], [3, 4]]
        assert places_seen(5, 3, 2, 1, same=True) == expected
        assert places_seen(5, 3, 2, 1, same=False) == expected

    @pytest.mark.parametrize(("kernel", "dilation"), [(5, 1), (3, 2), (3, 4)])
    def test_at_stride_1_it_is_the_usual_padding(self, kernel: int, dilation: int) -> None:
        same = places_seen(7, kernel, 1, dilation, same=True)
        assert same == places_seen(7, kernel, 1, dilation, same=False)
        assert len(same) == 7

    def test_sides_of_a_picture_are_padded_each_by_its_own(self) -> None:
        conv = conv2d(1, 1, 3, 2, same=True)
        torch.nn.init.ones_(conv.weight)
        torch.nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        out = conv(torch.ones(1, 1, 4, 5))  # two rows, three columns
        assert out[0, 0].tolist() == [[6, 9, 6], [4, 6, 4]]


class TestSampling:
    def test_plain_steps_are_equal(self) -> None:
        line = torch.arange(16.0).expand(1, 1, 8, 16)
        assert sample_nearest(line, (1, 4))[0, 0].tolist() == [[0, 4, 8, 12]]

    def test_aligned_steps_go_from_the_first_to_the_last(self) -> None:
        line = torch.arange(16.0).expand(1, 1, 16, 16)
        # 15 / 7 = 2.142...: 0, 2.1, 4.3, 6.4, 8.6, 10.7, 12.9, 15
        expected = [0, 2, 4, 6, 9, 11, 13, 15]
        assert sample_nearest(line, (1, 8), aligned=True)[0, 0].tolist() == [expected]
        rows = sample_nearest(line.mT, (8, 1), aligned=True)
        assert rows[0, 0, :, 0].tolist() == expected

    def test_halves_are_rounded_up(self) -> None:
        line = torch.arange(6.0).expand(1, 1, 6, 6)
        assert sample_nearest(line, (1, 3), aligned=True)[0, 0].tolist() == [[0, 3, 5]]
