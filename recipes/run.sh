#!/usr/bin/env bash
# All shipped and published weights and their numbers, from photos.
#
#   recipes/run.sh DATA [STEP ...]      all steps in this order, or those named
#
#   autoencoders   the bank that makes the universal data
#   inpainters     safepaint-s (an hour and a half on two cores) and the nine of the benchmark (ten
#                  minutes each)
#   forgeries      fills by twelve inpainters, for training
#   stages         nixnet-s: its stages, means and calibration (four hours with the autoencoders)
#   real           nixnet-real: training from nixnet-s with real fills (fills/, recipes/esrgan.sh), the
#                  mean with nixnet-s, and calibration (four hours)
#   detectors      the six detectors of the comparison (8 to 40 minutes each)
#   ablations      single mixtures of universal data, and SafePaint without parts, at short budgets
#   measure        results/*.csv and the tables
#
# DATA contains photos/, faces/, masks/, triplets/ and weights/ (TAEF2 and the distilled VGG), see
# docs/data.md. Photo 286092.jpg is left out because its edited copy is one of the test pictures.
# Every step resumes where it was stopped. Weights of a training: runs/NAME/NAME.safetensors.
set -euo pipefail
STEPS=(autoencoders inpainters forgeries stages real detectors ablations measure)
DATA=${1:?usage: recipes/run.sh DATA [STEP ...], with the steps ${STEPS[*]}}
shift
PRETRAINED=src/overpaint/pretrained
BENCHMARKED=benchmarks/weights
PHOTOS=(--photos "$DATA/photos" --photos "$DATA/faces")

# KIND, RECIPE, NAME, then options.
train() {
  local kind=$1 recipe=$2 name=$3 also=()
  shift 3
  if [ "$kind" != autoencoder ]; then also=(--assets "$DATA"); fi
  # The detectors share their reconstructions.
  if [ "$kind" = detector ]; then also+=(--cache cache/nixnet-s); fi
  overpaint train "$kind" --config "recipes/$recipe.yaml" "${PHOTOS[@]}" --exclude 286092.jpg \
    --out "runs/$name" "${also[@]}" "$@"
}

autoencoders() {
  local name
  for name in ae-nearest ae-transposed ae-shuffle ae-colour ae-heldout; do
    train autoencoder "autoencoders/$name" $name --export $PRETRAINED
  done
}

inpainters() {
  local name
  train inpainter safepaint-s safepaint-s --export $PRETRAINED
  for name in glcic deepfill_v1 deepfill_v2 edgeconnect madf ctsdg aotgan lama fcf; do
    train inpainter "inpainters/$name-s" "$name-s" --export $BENCHMARKED
  done
}

forgeries() {
  recipes/forged.sh "$DATA" train 300 1 all telea glcic-s edgeconnect-s aotgan-s madf-s safepaint-s \
    navier-stokes deepfill_v1-s deepfill_v2-s lama-s fcf-s ctsdg-s
}

# NAME: weights of a training or mean.
weights() { echo "runs/$1/$1.safetensors"; }

stages() {
  local name
  for name in 1-base 2-colour 3-forged-one 3-forged-other; do
    train detector nixnet-s-$name nixnet-s-$name
  done
  overpaint weights average --overwrite "$(weights nixnet-s-4-mean)" "0.2=$(weights nixnet-s-2-colour)" \
    "0.4=$(weights nixnet-s-3-forged-one)" "0.4=$(weights nixnet-s-3-forged-other)"
  train detector nixnet-s-5-last nixnet-s-5-last
  overpaint weights average --overwrite $PRETRAINED/nixnet-s.safetensors \
    "0.5=$(weights nixnet-s-2-colour)" "0.5=$(weights nixnet-s-5-last)"
  overpaint calibrate nixnet-s "${PHOTOS[@]}" --overwrite-shipped
}

# The second training was stopped after 1,192 of its 2,600 steps, and exported (--export-only).
real() {
  train detector real-fills-wide nixnet-real-2 --set name=nixnet-real-2 --cache cache/real-200 \
    --export $BENCHMARKED
  train detector real-fills-long nixnet-real-3 --set name=nixnet-real-3 --cache cache/real-400 \
    --export $BENCHMARKED
  overpaint weights average --overwrite $PRETRAINED/nixnet-real.safetensors \
    0.35=$PRETRAINED/nixnet-s.safetensors 0.65=$BENCHMARKED/nixnet-real-3.safetensors
  overpaint calibrate nixnet-real "${PHOTOS[@]}" --variants 2 --edits 80 --overwrite-shipped
}

detectors() {
  local name
  for name in nixnet-s-equal ldicn-s mantranet-s psccnet-s iidnet-s; do
    train detector detectors/$name $name --export $BENCHMARKED
  done
  # First the localisation, then its confidence and the score of the whole photo.
  train detector detectors/trufor-s trufor-where --set name=trufor-where
  train detector detectors/trufor-s trufor-s --set "start_from=$(weights trufor-where)" \
    --set loss.phase=confidence --set loop.steps=300 --export $BENCHMARKED
  for name in nixnet-s-equal ldicn-s mantranet-s psccnet-s iidnet-s trufor-s; do
    overpaint calibrate $BENCHMARKED/$name.safetensors "${PHOTOS[@]}" --variants 1
  done
}

# Four mixtures of universal data for one network and budget; SafePaint without extractor and attention.
ablations() {
  local own="{ae-nearest: 1, ae-transposed: 1, ae-shuffle: 1, ae-colour: 1}"
  local plain=(--set data.traces={} --set data.moved=0)
  local short=(--set loop.steps=400 --set loss.adversarial_from=300 --set loop.validate_every=400)
  ablation() { train detector ablation "ablation-$1" --set "name=ablation-$1" "${@:2}"; }
  ablation single "${plain[@]}" --set "data.bank={ae-nearest: 1}"
  ablation bank "${plain[@]}" --set "data.bank=$own"
  ablation taef2 "${plain[@]}" --set "data.bank={'taef2:weights': 1}"
  ablation full
  train inpainter safepaint-s safepaint-400 "${short[@]}" --set name=safepaint-400
  train inpainter safepaint-s backbone-400 "${short[@]}" --set name=backbone-400 \
    --set model.rwsa=false --set model.domain_vector=false
}

measure() {
  local name also=()
  for name in single bank taef2 full; do
    also+=(--also "$name=$(weights ablation-$name)")
  done
  python benchmarks/measure.py --data "$DATA" "${also[@]}"
  python benchmarks/measure_inpainting.py --data "$DATA"
  python benchmarks/measure_inpainting.py --data "$DATA" --checked 0 \
    --inpainter "$(weights safepaint-400)" --inpainter "$(weights backbone-400)"
  python benchmarks/measure_speed.py --data "$DATA"
  python benchmarks/contact_sheet.py --data "$DATA" --out runs/contact-sheet.png
  # Fills by GL, CA and GC, as in NIX-Net's table 1.
  for name in glcic deepfill_v1 deepfill_v2; do
    overpaint forge "$DATA/photos" --inpainter $BENCHMARKED/$name-s.safetensors \
      --masks brush --masks free-form --masks boxes --part test --num 60 \
      --out runs/forged/table-1/$name
  done
  for name in nixnet-s-equal ldicn-s mantranet-s psccnet-s iidnet-s trufor-s; do
    overpaint evaluate --data "$DATA" --weights $BENCHMARKED/$name.safetensors \
      --only universal,triplets,speed,forged --forged runs/forged/table-1 --lossless
  done
  overpaint evaluate --data "$DATA" --only forged --forged runs/forged/table-1  # the shipped one
  # All inpainters, lossless and after JPEG, WebP and resizing; inspect the sheets.
  recipes/forged.sh "$DATA"
  overpaint evaluate --data "$DATA" --only robustness --forged runs/forged/test --limit 20 \
    --sheets runs/sheets
  python -m overpaint.evaluation.tables README.md docs/benchmarks*.md
}

if [ $# -eq 0 ]; then set -- "${STEPS[@]}"; fi
for step in "$@"; do
  if [[ " ${STEPS[*]} " != *" $step "* ]]; then
    echo "recipes/run.sh: no step $step; there are: ${STEPS[*]}" >&2
    exit 2
  fi
done
for step in "$@"; do "$step"; done
