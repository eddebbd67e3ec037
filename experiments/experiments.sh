#!/usr/bin/env bash
# The experiments of docs/experiments.md, one factor changed at a time, with one budget: NIX-Net 16/32/64
# from random weights on 16,000 crops of 128 pixels (recipes/ablation.yaml). About six minutes of one core
# each, and two for the measurement. Then the stages of nixnet-s, by recipes/run.sh.
#
#   experiments/experiments.sh DATA [NAME ...]      all, or those named
#
# DATA is as for recipes/run.sh. Every step resumes where it was stopped; rows of the same name are
# measured again. With RESULTS=FOLDER they are written there instead of to results/experiments, so that
# several experiments can be measured at the same time.
set -euo pipefail
DATA=${1:?usage: experiments/experiments.sh DATA [NAME ...]}
shift
WANTED=" $* "
RESULTS=${RESULTS:-results/experiments}
CACHE=cache/nixnet-s
FORGED=runs/forged
FORGED_TEST=$FORGED/test

wanted() { [ "$WANTED" = "  " ] || [[ "$WANTED" == *" $1 "* ]]; }

recipes/forged.sh "$DATA"  # for measurements

# NAME, WEIGHTS, then options: rows. FORGED_TEST: folder of the inpainters to measure on.
measure() {
  local name=$1 weights=$2
  shift 2
  wanted "$name" || return 0
  overpaint evaluate --data "$DATA" --only robustness --forged "$FORGED_TEST" --limit 20 \
    --conditions "as is,JPEG 85" --out "$RESULTS" --weights "$name=$weights" "$@"
}

# RECIPE, NAME, then the differences from the recipe.
train() {
  local recipe=$1 name=$2
  shift 2
  overpaint train detector --config "recipes/$recipe.yaml" --photos "$DATA/photos" \
    --photos "$DATA/faces" --exclude 286092.jpg --assets "$DATA" --set "name=$name" "$@" \
    --out "runs/experiments/$name" --cache "$CACHE"
}
experiment() {
  wanted "$2" || return 0
  train "$@"
  mkdir -p "$RESULTS/records"  # of the weights: configuration hash, options, steps, commit
  cp "runs/experiments/$2/$2.json" "$RESULTS/records/"
  measure "$2" "runs/experiments/$2/$2.safetensors"
}

# NAME, then the differences from the control.
try() { experiment ablation "$@"; }

# The option for fills by the given inpainters.
folders() {
  local filler list=()
  for filler in "$@"; do list+=("'$FORGED/train/$filler': 1"); done
  (IFS=,; echo "forged.folders={${list[*]}}")
}

# NAME, then inpainters, whose fills of other photos are among the samples.
try_forged() {
  local name=$1
  shift
  wanted "$name" || return 0
  recipes/forged.sh "$DATA" train 300 1 all "$@"
  try "$name" --set forged.share=0.3 --set "$(folders "$@")"
}

# NAME, WEIGHTS, then the inpainters with which the weights were trained: the last stages of nixnet-s with
# only these inpainters, measured on the others.
unseen() {
  local name=$1 weights=$2 colour=runs/nixnet-s-2-colour/nixnet-s-2-colour.safetensors
  local out=runs/experiments/$1 set
  shift 2
  wanted "$name" || return 0
  overpaint weights average "$out/start.safetensors" "0.2=$colour" "0.8=$weights"
  train nixnet-s-5-last "$name-last" --set "start_from=$out/start.safetensors" \
    --set "$(folders "$@")"
  overpaint weights average "$out/$name.safetensors" "0.5=$colour" \
    "0.5=runs/experiments/$name-last/$name-last.safetensors"
  FORGED_TEST=$FORGED/$name
  mkdir -p "$FORGED_TEST"
  for set in "$FORGED"/test/*; do
    [[ " $* " == *" ${set##*/} "* ]] || ln -sfn "../test/${set##*/}" "$FORGED_TEST"
  done
  measure "$name" "$out/$name.safetensors"
  FORGED_TEST=$FORGED/test
}

try control
try control-seed-1 --set loop.seed=1 --set cache.seed=0  # variation between seeds

# Breadth of the bank.
NO_TRACES=(--set data.traces={})
try one-autoencoder "${NO_TRACES[@]}" --set "data.bank={ae-nearest: 1}"
try two-autoencoders "${NO_TRACES[@]}" --set "data.bank={ae-nearest: 1, ae-transposed: 1}"
try four-autoencoders "${NO_TRACES[@]}" \
  --set "data.bank={ae-nearest: 1, ae-transposed: 1, ae-shuffle: 1, ae-colour: 1}"
try no-traces "${NO_TRACES[@]}"
# The share of TAEF2, which is well trained.
try taef2-none --set "data.bank={ae-nearest: 1, ae-transposed: 1, ae-shuffle: 1, ae-colour: 1}"
try taef2-alone --set "data.bank={'taef2:weights': 1}"

# Content.
try not-moved --set data.moved=0
try moved-half --set data.moved=0.5
try_forged forged-classical telea navier-stokes patchmatch
try_forged forged-safepaint safepaint-s
try_forged forged-networks glcic-s deepfill_v1-s lama-s

# Context.
try context-statistics --set model.context=statistics
try crops-of-144 --set data.size=144 --set loop.batch_size=12  # the largest that the cache allows

# Negatives.
try negatives --set data.negatives.share=0.5

# Capacity and length.
try width-32 --set "model.widths=[32,64,128]"
try twice-as-long --set loop.steps=2000
try no-ema --set loop.ema_decay=0

# History and scale, each with its own reconstructions.
SHORT=(--set cache.num=800)
CACHE=cache/of-800 try cache-of-800 "${SHORT[@]}"
CACHE=cache/no-history try no-history "${SHORT[@]}" --set data.history.probability=0
CACHE=cache/native-scale try native-scale "${SHORT[@]}" --set data.history.resize=0
CACHE=cache/downsized try downsized "${SHORT[@]}" --set "data.history.scale=[0.25,0.7]" \
  --set data.history.resize=1

# Differences between photo and fill, and features for them: each alone, and together.
FILE=(--set data.apart.file=0.6)
COLOURED=(--set data.apart.coloured=0.5)
APART=("${FILE[@]}" "${COLOURED[@]}")
COLOUR=(--set model.colour=true)
ENERGIES=(--set model.energies=true)
try file-apart "${FILE[@]}"
try coloured-fill "${COLOURED[@]}"
try apart "${APART[@]}"
try colour "${COLOUR[@]}"
try energies "${ENERGIES[@]}"
try colour-and-apart "${COLOUR[@]}" "${APART[@]}"
try energies-and-apart "${ENERGIES[@]}" "${APART[@]}"
try all-together "${COLOUR[@]}" "${ENERGIES[@]}" "${APART[@]}" --set model.context=statistics

# The stages of nixnet-s, by recipes/run.sh; the last ones without half of the inpainters, so that each
# inpainter is measured with a network that was not trained on it; and one stage that is not shipped.
measure first-stage runs/nixnet-s-1-base/nixnet-s-1-base.safetensors
measure colour-stage runs/nixnet-s-2-colour/nixnet-s-2-colour.safetensors
measure mean-of-stages runs/nixnet-s-4-mean/nixnet-s-4-mean.safetensors
measure last-stage runs/nixnet-s-5-last/nixnet-s-5-last.safetensors
measure shipped nixnet-s
unseen unseen-one runs/nixnet-s-3-forged-other/nixnet-s-3-forged-other.safetensors \
  navier-stokes deepfill_v1-s deepfill_v2-s lama-s fcf-s ctsdg-s
unseen unseen-other runs/nixnet-s-3-forged-one/nixnet-s-3-forged-one.safetensors \
  telea glcic-s edgeconnect-s aotgan-s madf-s safepaint-s
CACHE=cache/nixnet-s-lossless
experiment nixnet-s-lossless lossless-stage

python -m overpaint.evaluation.tables docs/experiments.md --results results/experiments
