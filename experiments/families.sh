#!/usr/bin/env bash
# Leave-one-family-out: four trainings, each without one group of related generator families, so that
# every family of real fills is measured with weights that were trained on no family of its group.
#
#   experiments/families.sh DATA NAME [STEPS] [--set ...]      default: 600 steps
#
# A short budget is enough to compare experiments; the figure of a final recipe needs its number of
# steps. DATA is as for recipes/run.sh, with fills/. Run recipes/esrgan.sh first. Rows, of each training
# and of all together, are written to results/experiments/families.csv, records beside them. Every step
# resumes where it was stopped.
set -euo pipefail
DATA=${1:?usage: experiments/families.sh DATA NAME [STEPS] [--set ...]}
NAME=${2:?usage: experiments/families.sh DATA NAME [STEPS] [--set ...]}
STEPS=${3:-600}
shift $(($# < 3 ? $# : 3))
RESULTS=${RESULTS:-results/experiments}

# Related: of one kind, or with fills in the same holes of the same photos, as lama has with cmgan.
declare -A LEFT_OUT=(
  [latent]="asymmetric-vqgan,latent-diffusion,sd2"
  [large-holes]="cmgan,comodgan,lama,profill"
  [convolutional]="lbam,rfr"
  [others]="lanpaint,repaint,shiftnet"
)
WEIGHTS=()
mkdir -p experiments/records "$RESULTS"
for group in convolutional large-holes latent others; do
  run="$NAME-without-$group"
  overpaint train detector --config recipes/real-fills.yaml --photos "$DATA/photos" \
    --photos "$DATA/faces" --exclude 286092.jpg --assets "$DATA" --set "name=$run" \
    --set "loop.steps=$STEPS" --set "loop.validate_every=$STEPS" \
    --set "fills.leave_out=[${LEFT_OUT[$group]}]" "$@" --out "runs/families/$run" --cache runs/cache
  cp "runs/families/$run/$run.json" experiments/records/
  WEIGHTS+=(--weights "$run=runs/families/$run/$run.safetensors")
done
overpaint evaluate --data "$DATA" --only families --out "$RESULTS" "${WEIGHTS[@]}"
