#!/usr/bin/env bash
# From photos to the shipped detector and its published numbers, about three hours on two cores. The
# inpainters are those of recipes/inpainters.sh.
#
#   recipes/shipped.sh DATA
#
# DATA holds photos/, faces/, masks/, triplets/ and weights/ (TAEF2). Photo 286092.jpg is left out
# because its edited twin is one of the test pictures. Every step resumes where it was stopped.
set -euo pipefail
DATA=${1:?usage: recipes/shipped.sh DATA}
PRETRAINED=src/overpaint/pretrained
PHOTOS=(--photos "$DATA/photos" --photos "$DATA/faces" --exclude 286092.jpg)

for name in ae-nearest ae-transposed ae-shuffle ae-colour ae-heldout; do
  overpaint train autoencoder --config "recipes/autoencoders/$name.yaml" "${PHOTOS[@]}" \
    --out "runs/$name" --export $PRETRAINED
done

overpaint train detector --config recipes/nixnet-s.yaml "${PHOTOS[@]}" --assets "$DATA" \
  --out runs/nixnet-s --cache cache/nixnet-s
overpaint train detector --config recipes/nixnet-s-colour.yaml "${PHOTOS[@]}" --assets "$DATA" \
  --out runs/nixnet-s-colour --cache cache/nixnet-s --export $PRETRAINED
overpaint calibrate nixnet-s --photos "$DATA/photos" --photos "$DATA/faces"

# What the universal data buys: one network and budget, four mixtures.
ablation() {
  local name=$1
  shift
  overpaint train detector --config recipes/ablation.yaml "${PHOTOS[@]}" --assets "$DATA" \
    --set "name=ablation-$name" "$@" --out "runs/ablation-$name" --cache cache/nixnet-s
  ALSO+=(--also "$name=runs/ablation-$name/ablation-$name.safetensors")
}
ALSO=()
PLAIN=(--set data.traces={} --set data.moved=0)
OWN="{ae-nearest: 1, ae-transposed: 1, ae-shuffle: 1, ae-colour: 1}"
ablation single "${PLAIN[@]}" --set "data.bank={ae-nearest: 1}"
ablation bank "${PLAIN[@]}" --set "data.bank=$OWN"
ablation taef2 "${PLAIN[@]}" --set "data.bank={'taef2:weights': 1}"
ablation full
python recipes/measure.py --data "$DATA" "${ALSO[@]}"

# On every inpainter of the zoo, and after JPEG, WebP and resizing; look at the sheets.
recipes/forged.sh "$DATA"
overpaint evaluate --data "$DATA" --only robustness --forged runs/forged/test --limit 20 \
  --sheets runs/sheets
python -m overpaint.evaluation.tables README.md
