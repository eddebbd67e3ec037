"""Loading of inpainters, and filling of photos of any size.

- A network works at `WORKING_SIZE` pixels, or at its class's `working_size`. A larger window is
  scaled down by area (a pixel is hole if any pixel in its area is), and its fill is scaled up again
  (bicubic). Nothing is scaled up before it is filled: a smaller hole gets more context instead, as
  far as the photo extends.
- A method without weights works at the photo's own resolution, in windows of up to `NATIVE_SIZE`
  pixels, which limits its time; a larger window is scaled as for a network.
- Windows (`overpaint.inpainting.holes`) are filled one after the other. Pixels filled earlier are
  known in the next window; pixels not yet filled are hole in every window. One that shows nothing
  known waits until a neighbour is filled, so that a hole over a whole side is filled inwards; where
  none has such a neighbour, as around a hole in a cut-out, its view is widened.
- Photos stay uint8. Only the inpainter's windows become float, so the memory for filling does not
  grow with the photo.
- Known pixels are compared with the photo's before a result is returned.
- Fully transparent pixels of the photo are hole for the inpainter, too: their colour was hidden and
  must not influence the fill.
"""

from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint import progress
from overpaint.devices import find_device, use_exact_float32
from overpaint.errors import InputError, OverpaintError, WeightsError
from overpaint.images import to_pixels, to_tensor
from overpaint.inpainting.holes import Window, find_windows, widen_view
from overpaint.weights.resolve import find, is_method, load

DEFAULT_MODEL = "safepaint-s"

WORKING_SIZE = 256
"""Longest side at which a network works, pixels, unless its class or the caller sets another."""

NATIVE_SIZE = 1024
"""Longest side that a method without weights takes unscaled, pixels."""

SIZES = range(64, 2049)
"""Values allowed for `size`, pixels."""


class InpainterRunner:
    """A loaded inpainter, which fills holes in photos of any size."""

    def __init__(
        self,
        model: str | Path | nn.Module = DEFAULT_MODEL,
        *,
        size: int | None = None,
        device: str = "cpu",
    ) -> None:
        """model: as for `load_inpainter`, or a module (image, mask) -> image given by the caller,
        which is put into eval mode. size: working size in pixels, 64..2048; None for the model's.
        device: cpu or cuda.

        Raises `WeightsError` and `InputError`.
        """
        if size is not None and size not in SIZES:
            raise InputError(f"size {size}: give {SIZES[0]} to {SIZES[-1]} pixels")
        self.device = find_device(device)
        if isinstance(model, nn.Module):
            module, record, self.name = model.eval(), None, type(model).__name__
        else:
            module, record = load(model, "inpainter")
            self.name = record.name if record else str(model)
        self.weights_sha256 = record.sha256 if record else None
        self.trained = trained = _has_parameters(module)
        """True for a network, False for a method without weights."""
        usual = getattr(module, "working_size", WORKING_SIZE if trained else NATIVE_SIZE)
        self.module = module.to(self.device)
        self.working_size: int = size or usual
        self._min_view = self.working_size if trained else 1

    def run(
        self, pixels: np.ndarray, mask: np.ndarray, hidden: np.ndarray | None = None
    ) -> tuple[np.ndarray, int]:
        """The filled photo, uint8 (h, w, 3), and the number of windows.

        pixels: uint8 (h, w, 3), RGB. mask: uint8 (h, w), 1 = hole, with at least one hole.
        hidden: bool (h, w), pixels that the inpainter does not get; they are not changed. Raises
        `WeightsError` for NaN or infinity from the network, `InputError` if nothing that it may see
        is left of a photo that has to be scaled, `OverpaintError` if a known pixel changed.
        """
        windows = find_windows(mask, self.working_size, min_view=self._min_view)
        filled = pixels.copy()
        unseen = mask.copy() if hidden is None else mask | hidden
        for number, (box, view) in enumerate(_order(windows, unseen), start=1):
            fill = self._fill(filled[view.part], unseen[view.part])
            inside = box.shifted(-view.top, -view.left)
            hole = mask[box.part] == 1
            filled[box.part][hole] = fill[inside.part][hole]
            unseen[box.part][hole] = 0
            progress.tell(number / len(windows))
        check_known(filled, pixels, mask)
        return filled, len(windows)

    def _fill(self, pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """One window at its own size: uint8 (h, w, 3), of which only the hole is used."""
        height, width = hole.shape
        image, mask = shrink(pixels, hole, self.working_size)
        if mask.all():
            raise InputError(
                "what is known around the hole is too thin to be seen at a working size of "
                f"{self.working_size} pixels; paint less, or give a smaller dilate or a larger size"
            )
        with torch.inference_mode(), use_exact_float32():
            fill = self.module(image.to(self.device), mask.to(self.device))
        if not fill.isfinite().all():
            raise WeightsError(f"{self.name}: the network gave NaN or infinity; get other weights")
        small = to_pixels(fill)
        if small.shape[:2] == hole.shape:
            return small
        return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def _order(windows: list[Window], unseen: np.ndarray) -> Iterator[Window]:
    """The windows, those that show something known first. unseen: (h, w), 0 = known; the caller
    sets the hole of each window to 0 before it takes the next."""
    todo, num_blind = deque(windows), 0
    while todo:
        window = todo.popleft()
        if not unseen[window.view.part].all():
            num_blind = 0
            yield window
        elif num_blind < len(todo):
            num_blind += 1
            todo.append(window)
        else:
            num_blind = 0
            yield widen_view(window, unseen)


def make_runner(
    model: str | Path | nn.Module, size: int | None = None, device: str = "cpu"
) -> InpainterRunner:
    """As `InpainterRunner`, but weights and methods stay in memory: the last four."""
    if isinstance(model, nn.Module):
        return InpainterRunner(model, size=size, device=device)
    sha256 = None if is_method(model, "inpainter") else find(model, "inpainter").sha256
    return _load_runner(str(model), sha256, size, device)


def load_inpainter(name: str | Path = DEFAULT_MODEL) -> nn.Module:
    """The bare inpainter in eval mode: (image (b, 3, h, w) in [0, 1], mask (b, 1, h, w), 1 = hole)
    to image, known pixels bit for bit.

    name: shipped or imported weights, the path of weights, or a registered method without weights.
    Raises `WeightsError`, which names usable models, and `UnknownNameError` for weights of an
    architecture that is not registered.
    """
    return load(name, "inpainter")[0]


def shrink(pixels: np.ndarray, hole: np.ndarray, longest: int) -> tuple[Tensor, Tensor]:
    """Image (1, 3, h, w) and mask (1, 1, h, w), float32, with sides of at most `longest`.

    pixels: uint8 (h, w, 3). hole: uint8 (h, w), 1 = hole. Each pixel of the result is the mean of
    its source area; its mask is 1 if any pixel of that area is hole. Unchanged if no side is longer
    than `longest`.
    """
    scale = max(hole.shape) / longest
    if scale <= 1:
        return to_tensor(pixels), _make_mask_tensor(hole)
    height, width = (max(1, round(side / scale)) for side in hole.shape)
    # Row by row, so that a large window is never converted to float at once.
    rows = [
        slice(i * len(hole) // height, -(-(i + 1) * len(hole) // height)) for i in range(height)
    ]
    image = [F.adaptive_avg_pool2d(to_tensor(pixels[row]), (1, width)) for row in rows]
    mask = [F.adaptive_max_pool2d(_make_mask_tensor(hole[row]), (1, width)) for row in rows]
    return torch.cat(image, dim=2), torch.cat(mask, dim=2)


def check_known(filled: np.ndarray, photo: np.ndarray, mask: np.ndarray) -> None:
    """Raise `OverpaintError` unless both arrays (h, w, c) agree where the mask (h, w) is 0."""
    differs = (filled != photo) & (mask == 0)[..., None]
    if differs.any():  # to count the pixels takes several times as long
        changed = np.count_nonzero(differs.any(axis=2))
        raise OverpaintError(
            f"{changed} known pixels were changed while filling, so nothing was written: this is a "
            "bug of overpaint or of the inpainter; report it with the photo's size and the model"
        )


@lru_cache(maxsize=4)
def _load_runner(model: str, sha256: str | None, size: int | None, device: str) -> InpainterRunner:
    """The hash is part of the cache key, so that replaced weights are loaded again."""
    return InpainterRunner(model, size=size, device=device)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _make_mask_tensor(hole: np.ndarray) -> Tensor:
    """uint8 (h, w) -> float32 (1, 1, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(hole))[None, None].float()
