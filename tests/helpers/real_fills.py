"""A folder of real fills, made by code."""

from pathlib import Path

import numpy as np
from PIL import Image

from conftest import textured

SIDE = 64
HOLE = np.zeros((SIDE, SIDE), np.uint8)
HOLE[10:30, 20:50] = 1
WHITE = 250
"""What every fill is."""

Entry = tuple[str, str, str, str]
"""id, pool, family, source."""


def write_fills(folder: Path, *entries: Entry) -> Path:
    """One picture for each entry; the known pixels of a source are a textured photo."""
    for kind in ("known", "fill", "mask"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    lines = ["id,pool,family,method,source,known,x,y"]
    for name, pool, family, source in entries:
        Image.fromarray(known(source)).save(folder / "known" / f"{source}.webp", lossless=True)
        Image.fromarray(HOLE * 255).save(folder / "mask" / f"{source}.png")
        fill = np.full((20, 30, 3), WHITE, np.uint8)
        Image.fromarray(fill).save(folder / "fill" / f"{name}.webp", lossless=True)
        lines.append(f"{name},{pool},{family},tool,{source},{source},20,10")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


def known(source: str) -> np.ndarray:
    """The photo with its hole black."""
    pixels = np.minimum(textured(SIDE, SIDE, seed=len(source)), 200)
    return (pixels * (1 - HOLE)[..., None]).astype(np.uint8)
