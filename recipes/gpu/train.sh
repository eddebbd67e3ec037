#!/usr/bin/env bash
# The detector on real fills, wide, on a GPU that is lent for minutes; what it needs: pack.sh.
#
#   recipes/gpu/train.sh WIDTH SECONDS OUT [DEVICE] [--set ...]      WIDTH 64 or 128; DEVICE: cuda
#
# Trains for so many seconds, from the checkpoint in runs/gpu/out if there is one, and writes the
# averaged weights to OUT with their record: in parts of 15 MiB where they are larger, to be joined by
# `cat NAME.safetensors.part-* > NAME.safetensors`. On another machine a run goes on from them, with a
# fresh optimiser: --set start_from=NAME.safetensors.
set -euo pipefail
WIDTH=${1:?usage: recipes/gpu/train.sh WIDTH SECONDS OUT [DEVICE] [--set ...]}
SECONDS_OF_TRAINING=${2:?seconds}
OUT=${3:?folder}
DEVICE=${4:-cuda}
shift $(($# < 4 ? $# : 4))
PACK=runs/gpu

export PYTHONPATH=$PWD/src:$PACK/site OMP_NUM_THREADS=4 PYTHONUNBUFFERED=1
python3 -c "import pydantic" 2> /dev/null || python3 -m pip install --quiet --no-index --no-deps \
  --target "$PACK/site" "$PACK"/wheels/*.whl

# Without the largest GAN and the masks of segments, which are left out of the pack.
BANK="{'taef2:weights': 0.4, ae-nearest: 0.08, ae-transposed: 0.08, ae-shuffle: 0.08, ae-colour: 0.08, \
'esrgan:runs/esrgan/slim/x2': 0.08, 'esrgan:runs/esrgan/slim/x3': 0.05, \
'esrgan:runs/esrgan/medium/x2': 0.1, 'esrgan:runs/esrgan/medium/x4': 0.05}"
MASKS="{free-form: 0.3, brush: 0.2, lama-thick: 0.15, boxes: 0.15, 'objects:masks/person': 0.1, \
'keep:masks/repaint_keep': 0.1}"
COMMAND=(
  python3 -m overpaint train detector --config recipes/real-fills.yaml --device "$DEVICE"
  --photos "$PACK/data/photos" --assets "$PACK/data" --out "$PACK/out" --cache "$PACK/cache"
  --set "name=nixnet-real-$WIDTH" --set "model.widths=[$WIDTH, $((2 * WIDTH)), $((4 * WIDTH))]"
  --set "data.bank=$BANK" --set "data.masks=$MASKS" --set loop.batch_size=64
  --set loop.workers=14 --set loop.validate_every=500 "$@"
)
# SIGTERM saves a checkpoint and ends with an error, which is no failure here.
timeout --signal=TERM "$SECONDS_OF_TRAINING" "${COMMAND[@]}" || true
"${COMMAND[@]}" --export "$OUT" --export-only
cd "$OUT"
for file in *.safetensors; do
  if [ "$(stat -c %s "$file")" -gt $((15 << 20)) ]; then
    split -b 15M "$file" "$file.part-"
    rm "$file"
  fi
done
