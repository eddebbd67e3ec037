#!/usr/bin/env bash
# From photos to the inpainters' weights and their published numbers, on two cores: safepaint-s in
# about an hour and a half, the nine of the benchmark in about ten minutes each.
#
#   recipes/inpainters.sh DATA
#
# DATA holds photos/, faces/, masks/ and weights/ (the distilled VGG). Photo 286092.jpg is left out
# because its edited twin is one of the test pictures. Every step resumes where it was stopped.
set -euo pipefail
DATA=${1:?usage: recipes/inpainters.sh DATA}

train() {
  local recipe=$1 out=$2
  shift 2
  overpaint train inpainter --config "recipes/$recipe.yaml" --photos "$DATA/photos" \
    --photos "$DATA/faces" --exclude 286092.jpg --assets "$DATA" --out "runs/$out" "$@"
}

train safepaint-s safepaint-s --export src/overpaint/pretrained
for name in glcic deepfill_v1 deepfill_v2 edgeconnect madf ctsdg aotgan lama fcf; do
  train "inpainters/$name-s" "$name-s" --export benchmarks/weights
done
python benchmarks/measure_inpainting.py --data "$DATA"
python benchmarks/contact_sheet.py --data "$DATA" --out runs/contact-sheet.png

# What the extractor and the attention buy (table 5), at one short budget.
SHORT=(--set loop.steps=400 --set loss.adversarial_from=300 --set loop.validate_every=400)
train safepaint-s safepaint-400 "${SHORT[@]}" --set name=safepaint-400
train safepaint-s backbone-400 "${SHORT[@]}" --set name=backbone-400 \
  --set model.rwsa=false --set model.domain_vector=false
python benchmarks/measure_inpainting.py --data "$DATA" --checked 0 \
  --inpainter runs/safepaint-400/safepaint-400.safetensors \
  --inpainter runs/backbone-400/backbone-400.safetensors
python benchmarks/measure_speed.py --data "$DATA"
