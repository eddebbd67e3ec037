"""Contextual attention: the hole is filled with weighted patches of the known region.

Source: Yu et al. 2018, "Generative Image Inpainting with Contextual Attention" (arXiv 1801.07892),
section 4.1, and a fact sheet of the authors' TensorFlow code (CC BY-NC 4.0; facts only, no code
taken). With f_p the 3x3 patch around position p of the features, at half their size,

    s(l, p) = <f_l / |f_l|, f_p>,  fused along both diagonals,
    a(l, p) = softmax over l of 10 s(l, p) k(l), times k(l),

where k(l) is 1 if patch l has no hole. The output at p is the mean of the 4x4 patches of the full
features around all l, weighted by a.

- As published: a patch with hole stays in the softmax, with the score 0, so that the weights of the
  other patches sum to less than 1; borders are zero padded, count as known, and have fewer patches
  in their mean.
- Each picture has its own mask. The authors' code uses the first picture's mask for all.
- Scores are in float32 under autocast: bfloat16 is too coarse for 10 times a score in an exponent.
- Memory and time grow with (h w)^2: 1024 x 1024 scores for features of 64 x 64.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.layers.tensorflow import sample_nearest

RATE = 2  # features are matched at 1 / RATE of their size
SIZE = 3  # side of the patches that are matched
SCALE = 10.0  # sharpness of the softmax
SMALLEST_NORM = 1e-4


class ContextualAttention(nn.Module):
    """(b, c, h, w) and mask (b, 1, H, W), 1 = hole -> (b, c, h, w).

    h and w even, H and W at least h and w. The layer has no parameters.
    """

    def __init__(
        self, *, fuse: bool = True, aligned: bool = False, norm_offset: float = 0.0
    ) -> None:
        """fuse: add the scores of neighbouring matches. aligned: sample features and mask as
        TensorFlow does. norm_offset: added to each squared value under the root of |f_l|.
        """
        super().__init__()
        self.fuse, self.aligned, self.norm_offset = fuse, aligned, norm_offset

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self._attend(x.float(), mask.float()).to(x.dtype)

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        grid = (size[0] // RATE, size[1] // RATE)
        scores = self._compute_scores(sample_nearest(x, grid, self.aligned))  # (b, l, p)
        if self.fuse:
            scores = fuse_neighbours(scores, grid)
        hole = sample_nearest(sample_nearest(mask, size, self.aligned), grid, self.aligned)
        known = (F.max_pool2d(hole, SIZE, 1, SIZE // 2) == 0).to(x.dtype).flatten(2).mT  # (b, l, 1)
        weights = F.softmax(SCALE * scores * known, dim=1) * known
        window = {"kernel_size": 2 * RATE, "stride": RATE, "padding": RATE // 2}
        pasted = F.unfold(x, **window) @ weights  # (b, 16 c, p)
        return F.fold(pasted, size, **window) / 4  # a pixel is in four patches

    def _compute_scores(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, SIZE, padding=SIZE // 2)  # (b, 9 c, l)
        squares = (patches.square() + self.norm_offset).sum(dim=1, keepdim=True)
        # The floor is under the root, where an all-zero patch would have no finite gradient.
        norm = squares.clamp(min=SMALLEST_NORM**2).sqrt()
        return (patches / norm).mT @ patches


def fuse_neighbours(scores: Tensor, grid: tuple[int, int]) -> Tensor:
    """Scores (b, l, p) over a grid (rows, columns), plus those of the neighbouring pairs.

    The patch left of l is likely to match left of p, and the patch above l above p. So three scores
    along the diagonal are summed, first in row order and then in column order. The end of a row and
    the start of the next count as neighbours, as in the authors' code.
    """
    shape = scores.shape
    scores = _sum_diagonals(scores).reshape(-1, *grid, *grid)
    by_columns = scores.permute(0, 2, 1, 4, 3)
    summed = _sum_diagonals(by_columns.reshape(shape)).reshape(by_columns.shape)
    return summed.permute(0, 2, 1, 4, 3).reshape(shape)


def _sum_diagonals(scores: Tensor) -> Tensor:
    n = scores.shape[-1]
    padded = F.pad(scores, (1, 1, 1, 1))
    return padded[:, :n, :n] + scores + padded[:, 2:, 2:]
