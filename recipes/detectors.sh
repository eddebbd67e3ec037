#!/usr/bin/env bash
# From photos to the six detectors of the comparison and their published numbers: the same universal
# data, 12,000 samples, widths of up to 3 MB and the loss of each paper; on one core between 8 and 40
# minutes each.
#
#   recipes/detectors.sh DATA
#
# DATA holds photos/, faces/, masks/, triplets/ and weights/ (TAEF2). Photo 286092.jpg is left out
# because its edited twin is one of the test pictures. Every step resumes where it was stopped.
set -euo pipefail
DATA=${1:?usage: recipes/detectors.sh DATA}
WEIGHTS=benchmarks/weights
PHOTOS=(--photos "$DATA/photos" --photos "$DATA/faces")

train() {
  local recipe=$1 out=$2
  shift 2
  overpaint train detector --config "recipes/detectors/$recipe.yaml" "${PHOTOS[@]}" \
    --exclude 286092.jpg --assets "$DATA" --out "runs/$out" --cache cache/nixnet-s "$@"
}

for name in nixnet ldicn mantranet psccnet iidnet; do
  out=$name-s
  if [ $name = nixnet ]; then out=nixnet-s-equal; fi  # not the shipped one
  train $name-s $out --export $WEIGHTS
done
# First where, then how far to trust it and whether at all.
train trufor-s trufor-where --set name=trufor-where
train trufor-s trufor-s --set start_from=runs/trufor-where/trufor-where.safetensors \
  --set loss.phase=confidence --set loop.steps=300 --export $WEIGHTS

# What GL, CA and GC filled in, as in NIX-Net's table 1.
MASKS=(--masks brush --masks free-form --masks boxes)
for name in glcic deepfill_v1 deepfill_v2; do
  overpaint forge "$DATA/photos" --inpainter $WEIGHTS/$name-s.safetensors "${MASKS[@]}" \
    --part test --num 60 --out runs/forged/table-1/$name
done
for name in nixnet-s-equal ldicn-s mantranet-s psccnet-s iidnet-s trufor-s; do
  overpaint calibrate $WEIGHTS/$name.safetensors "${PHOTOS[@]}" --variants 1
  overpaint evaluate --data "$DATA" --weights $WEIGHTS/$name.safetensors \
    --only universal,triplets,speed,forged --forged runs/forged/table-1 --lossless
done
overpaint evaluate --data "$DATA" --only forged --forged runs/forged/table-1  # the shipped one
python -m overpaint.evaluation.tables README.md docs/benchmarks*.md
