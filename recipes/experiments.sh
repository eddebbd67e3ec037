#!/usr/bin/env bash
# The experiments of docs/experiments.md, one factor changed at a time, at one of two budgets: from
# nothing (recipes/ablation.yaml: NIX-Net 16/32/64, 16,000 crops of 128 pixels), and going on from the
# first stage of the shipped detector (recipes/nixnet-s-colour.yaml, 6,400 crops). About six minutes
# of one core each, and two to measure it.
#
#   recipes/experiments.sh DATA [NAME ...]      all, or those named
#
# DATA is as for recipes/shipped.sh. Every step resumes where it was stopped; rows of the same name are
# measured anew.
set -euo pipefail
DATA=${1:?usage: recipes/experiments.sh DATA [NAME ...]}
shift
WANTED=" $* "
CACHE=cache/nixnet-s
FORGED=runs/forged
FORGED_TEST=$FORGED/test
ZOO="safepaint-s glcic-s deepfill_v1-s deepfill_v2-s edgeconnect-s madf-s ctsdg-s aotgan-s lama-s fcf-s"

wanted() { [ "$WANTED" = "  " ] || [[ "$WANTED" == *" $1 "* ]]; }

recipes/forged.sh "$DATA"  # to measure on

# NAME, WEIGHTS: rows in results/experiments. FORGED_TEST: folder of the inpainters to measure on.
measure() {
  wanted "$1" || return 0
  overpaint evaluate --data "$DATA" --only robustness --forged "$FORGED_TEST" --limit 20 \
    --conditions "as is,JPEG 85" --out results/experiments --weights "$1=$2"
}

# RECIPE, NAME, then what differs from the recipe.
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
  measure "$2" "runs/experiments/$2/$2.safetensors"
}

# NAME, then what differs from the control.
try() { experiment ablation "$@"; }
go_on() {
  experiment nixnet-s-colour "$@" --set loop.steps=400 --set loop.validate_every=400 \
    --set loop.ema_decay=0.99
}

# Of inpainters, what they filled in, as an option.
folders() {
  local filler list=()
  for filler in "$@"; do list+=("'$FORGED/train/$filler': 1"); done
  (IFS=,; echo "forged.folders={${list[*]}}")
}

# NAME, then inpainters: what these filled in, in other photos, among the samples.
try_forged() {
  local name=$1
  shift
  wanted "$name" || return 0
  recipes/forged.sh "$DATA" train 300 1 all "$@"
  try "$name" --set forged.share=0.3 --set "$(folders "$@")"
}

# NAME, WEIGHTS that were trained with some inpainters, then these: the last stages of the shipped
# detector with no others, measured on the others.
unseen() {
  local name=$1 weights=$2 colour=runs/nixnet-s-colour/nixnet-s.safetensors
  local out=runs/experiments/$1 set
  shift 2
  wanted "$name" || return 0
  python recipes/average.py "$out/start.safetensors" "0.2=$colour" "0.8=$weights"
  train nixnet-s-last "$name-last" --set "start_from=$out/start.safetensors" \
    --set "$(folders "$@")"
  python recipes/average.py "$out/$name.safetensors" "0.5=$colour" \
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
try control-seed-1 --set loop.seed=1 --set cache.seed=0  # how much is chance

# Breadth of the bank.
NO_TRACES=(--set data.traces={})
try one-autoencoder "${NO_TRACES[@]}" --set "data.bank={ae-nearest: 1}"
try two-autoencoders "${NO_TRACES[@]}" --set "data.bank={ae-nearest: 1, ae-transposed: 1}"
try four-autoencoders "${NO_TRACES[@]}" \
  --set "data.bank={ae-nearest: 1, ae-transposed: 1, ae-shuffle: 1, ae-colour: 1}"
try no-traces "${NO_TRACES[@]}"
# The share of the well-trained one.
try taef2-none --set "data.bank={ae-nearest: 1, ae-transposed: 1, ae-shuffle: 1, ae-colour: 1}"
try taef2-alone --set "data.bank={'taef2:weights': 1}"

# Content.
try not-moved --set data.moved=0
try moved-half --set data.moved=0.5
try_forged forged-classical telea navier-stokes patchmatch
try_forged forged-safepaint safepaint-s
try_forged forged-zoo $ZOO

# Context.
try context-statistics --set model.context=statistics
try context-wide --set model.context=wide
try crops-of-144 --set data.size=144 --set loop.batch_size=12  # the largest that the cache allows

# Negatives.
try negatives --set data.negatives.share=0.5

# Capacity and length.
try width-32 --set "model.widths=[32,64,128]"
try three-times-as-long --set loop.steps=3000

# History and scale, each with reconstructions of its own.
SHORT=(--set cache.num=800)
try cache-of-800 "${SHORT[@]}"
CACHE=cache/no-history try no-history "${SHORT[@]}" --set data.history.probability=0
CACHE=cache/native-scale try native-scale "${SHORT[@]}" --set data.history.resize=0
CACHE=cache/downsized try downsized "${SHORT[@]}" --set "data.history.scale=[0.25,0.7]" \
  --set data.history.resize=1

# What sets photo and fill apart, and the eyes for it: each alone, and together.
NO_NEGATIVES=(--set data.negatives.share=0)
NO_FILE=(--set data.apart.file=0)
NO_COLOURS=(--set data.apart.coloured=0)
BLIND=(--set model.colour=false)
NEAR=(--set model.context=none)
UNWEIGHED=(--set model.energies=false)
PLAIN=("${NO_NEGATIVES[@]}" "${BLIND[@]}" "${NEAR[@]}" "${UNWEIGHED[@]}")
go_on going-on "${PLAIN[@]}" "${NO_FILE[@]}" "${NO_COLOURS[@]}"
go_on file-apart "${PLAIN[@]}" "${NO_COLOURS[@]}"
go_on coloured-fill "${PLAIN[@]}" "${NO_FILE[@]}"
go_on apart "${PLAIN[@]}"
go_on colour "${NO_NEGATIVES[@]}" "${NEAR[@]}" "${UNWEIGHED[@]}" "${NO_FILE[@]}" "${NO_COLOURS[@]}"
go_on context "${NO_NEGATIVES[@]}" "${BLIND[@]}" "${UNWEIGHED[@]}" "${NO_FILE[@]}" "${NO_COLOURS[@]}"
go_on colour-and-apart "${NO_NEGATIVES[@]}" "${NEAR[@]}" "${UNWEIGHED[@]}"
go_on energies-and-apart "${NO_NEGATIVES[@]}" "${NEAR[@]}" "${BLIND[@]}"
go_on without-energies "${NO_NEGATIVES[@]}" "${UNWEIGHED[@]}"
go_on all-four "${NO_NEGATIVES[@]}"
go_on all-with-negatives

# The stages of the shipped detector, by recipes/shipped.sh; the last ones without half of the zoo,
# so that each inpainter is measured by a network that has not seen it; and one that is not shipped.
measure first-stage runs/nixnet-s/nixnet-s.safetensors
measure colour-stage runs/nixnet-s-colour/nixnet-s.safetensors
measure mean-of-stages runs/nixnet-s-average/nixnet-s-average.safetensors
measure last-stage runs/nixnet-s-last/nixnet-s.safetensors
measure shipped nixnet-s
unseen unseen-one runs/forged-other/forged-other.safetensors \
  navier-stokes deepfill_v1-s deepfill_v2-s lama-s fcf-s ctsdg-s
unseen unseen-other runs/forged-one/forged-one.safetensors \
  telea glcic-s edgeconnect-s aotgan-s madf-s safepaint-s
CACHE=cache/nixnet-s-lossless
experiment nixnet-s-lossless lossless-stage

python -m overpaint.evaluation.tables docs/experiments.md --results results/experiments
