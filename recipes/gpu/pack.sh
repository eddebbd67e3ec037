#!/usr/bin/env bash
# What recipes/gpu/train.sh needs on a GPU machine that is lent for minutes and takes 64 MiB at most,
# the checkout included: real fills, some photos and masks, the networks that redraw, and the wheels
# that such a machine lacks (Python 3.12, x86-64, with torch, pillow, PyYAML, rich, typer, fsspec,
# safetensors and tensorboard).
#
#   recipes/gpu/pack.sh DATA [MEGABYTES of photos]      writes runs/gpu/; default: 10
#
# First: recipes/esrgan.sh. Send runs/gpu/ along with src/ and recipes/; leave benchmarks/, results/ and
# tests/ behind, and of src/overpaint/pretrained/ all but the autoencoders. thick/ is too large.
set -euo pipefail
DATA=${1:?usage: recipes/gpu/pack.sh DATA [MEGABYTES of photos]}
PHOTOS=${2:-10}
PACK=runs/gpu

mkdir -p "$PACK/data/masks" "$PACK/data/weights" "$PACK/wheels"
cp -r "$DATA"/masks/{person,repaint_keep} "$PACK/data/masks/"
cp "$DATA"/weights/taef2_*.pth "$PACK/data/weights/"
for part in slim/x2 slim/x3 medium/x2 medium/x4; do
  mkdir -p "$PACK/data/runs/esrgan/$part"
  cp -r "runs/esrgan/$part/." "$PACK/data/runs/esrgan/$part"
done
pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 -d "$PACK/wheels" \
  pydantic annotated-types typing-inspection
core=$(unzip -p "$PACK"/wheels/pydantic-*.whl '*/METADATA' | sed -n 's/^Requires-Dist: pydantic-core//p')
pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 -d "$PACK/wheels" \
  "pydantic-core$core"

python - "$DATA" "$PACK/data" "$PHOTOS" <<'PYTHON'
"""Copy the pool "train" of the real fills, two pictures of each family of "dev", and photos in turn
from every folder until there are enough megabytes."""

import csv
import shutil
import sys
from collections import Counter
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from overpaint.data.sources import PhotoSource

data, pack, megabytes = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
with (data / "fills" / "index.csv").open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
seen: Counter[str] = Counter()
kept = []
for row in rows:
    seen[row["family"]] += row["pool"] == "dev"
    if row["pool"] == "train" or seen[row["family"]] <= 2:
        kept.append(row)
for row in kept:
    known, fill = row["known"], row["id"]
    for name in (f"known/{known}.webp", f"mask/{known}.png", f"fill/{fill}.webp"):
        (pack / "fills" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / "fills" / name, pack / "fills" / name)
with (pack / "fills" / "index.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(kept)

order, folders, total = np.random.default_rng(0), [], 0.0
for folder in ("imagenet", "bsds500", "grip"):
    names = PhotoSource.from_paths([data / "photos" / folder], exclude=["286092.jpg"]).names
    folders.append([names[i] for i in order.permutation(len(names))])
for name in filter(None, chain.from_iterable(zip_longest(*folders))):
    path = Path(name)
    if path.stat().st_size > 3e5:
        continue  # one large picture would stand for ten
    total += path.stat().st_size / 1e6
    if total > megabytes:
        break
    target = pack / "photos" / path.parent.name
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target / path.name)
PYTHON
du -sh "$PACK"
