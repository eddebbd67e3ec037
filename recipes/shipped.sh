#!/usr/bin/env bash
# From photos to the shipped detector and its published numbers, about four hours on two cores. The
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

# RECIPE, NAME, then options.
detector() {
  local recipe=$1 name=$2
  shift 2
  overpaint train detector --config "recipes/$recipe.yaml" "${PHOTOS[@]}" --assets "$DATA" \
    --out "runs/$name" --cache cache/nixnet-s "$@"
}
# NAME, then inpainters: what these filled in is among the samples.
forged() {
  local name=$1 filler list=()
  shift
  for filler in "$@"; do list+=("'runs/forged/train/$filler': 1"); done
  detector nixnet-s-forged "$name" --set "name=$name" \
    --set "forged.folders={$(IFS=,; echo "${list[*]}")}"
}

detector nixnet-s nixnet-s
detector nixnet-s-colour nixnet-s-colour
ONE="telea glcic-s edgeconnect-s aotgan-s madf-s safepaint-s"
OTHER="navier-stokes deepfill_v1-s deepfill_v2-s lama-s fcf-s ctsdg-s"
recipes/forged.sh "$DATA" train 300 1 all $ONE $OTHER
forged forged-one $ONE
forged forged-other $OTHER
python recipes/average.py runs/nixnet-s-average/nixnet-s-average.safetensors \
  0.2=runs/nixnet-s-colour/nixnet-s.safetensors \
  0.4=runs/forged-one/forged-one.safetensors 0.4=runs/forged-other/forged-other.safetensors
detector nixnet-s-last nixnet-s-last
python recipes/average.py $PRETRAINED/nixnet-s.safetensors \
  0.5=runs/nixnet-s-colour/nixnet-s.safetensors 0.5=runs/nixnet-s-last/nixnet-s.safetensors
overpaint calibrate nixnet-s --photos "$DATA/photos" --photos "$DATA/faces"

# What the universal data buys: one network and budget, four mixtures.
ablation() {
  local name=$1
  shift
  detector ablation "ablation-$name" --set "name=ablation-$name" "$@"
  ALSO+=(--also "$name=runs/ablation-$name/ablation-$name.safetensors")
}
ALSO=()
PLAIN=(--set data.traces={} --set data.moved=0)
OWN="{ae-nearest: 1, ae-transposed: 1, ae-shuffle: 1, ae-colour: 1}"
ablation single "${PLAIN[@]}" --set "data.bank={ae-nearest: 1}"
ablation bank "${PLAIN[@]}" --set "data.bank=$OWN"
ablation taef2 "${PLAIN[@]}" --set "data.bank={'taef2:weights': 1}"
ablation full
python benchmarks/measure.py --data "$DATA" "${ALSO[@]}"

# On every inpainter of the zoo, and after JPEG, WebP and resizing; look at the sheets.
recipes/forged.sh "$DATA"
overpaint evaluate --data "$DATA" --only robustness --forged runs/forged/test --limit 20 \
  --sheets runs/sheets
python -m overpaint.evaluation.tables README.md docs/benchmarks*.md
