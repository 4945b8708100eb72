#!/usr/bin/env bash
# The deciding arms of PROTOCOL.md at full size on a GPU: from released weights, every layout by alignment, and panoramas
# regressed; on streets at 800 x 600 and, if COOPMAP_DATA_ROOT is set, on OPV2V (with dense depth: COOPMAP_DEPTH_ROOT).
#
#     experiments/study/gpu.sh                               all arms
#     experiments/study/gpu.sh '^streets_v1_.*_seed0$'       those whose names match: PLACE_MODEL_ARM_seedN
#     STEPS=20000 STREETS=4096 OUT=runs/study TRAIN="machine=local3090" experiments/study/gpu.sh
#     MODELS="tiny=model=mapanything_tiny model.weights=null optim=scratch" experiments/study/gpu.sh
#
# MODELS are lines "NAME=OVERRIDES", which win over those of the arms; TRAIN are overrides of every training.
# Start it again after an interruption: streets that are there are not rendered again, a training goes on from its last
# checkpoint in OUT/NAME, and what is evaluated is left alone. An arm that fails does not keep the others from running; the
# next start tries it again. Tables of what is evaluated are printed and written to OUT/PLACE_MODEL.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${PYTHON:=python3}" "${STEPS:=20000}" "${STREETS:=4096}" "${VAL_STREETS:=100}" "${TEST_STREETS:=200}" "${SEEDS:=0 1 2}"
: "${OUT:=runs/study}" "${STREETS_ROOT:=data/streets_full}" "${SCALE:=1.0}" "${TRAIN:=}" "${MODELS:=}"

$PYTHON -m coopmap synth towns=per_scenario root="$STREETS_ROOT" depth_root="${STREETS_ROOT}_depth" image_scale="$SCALE" \
    agents_min=3 agents_max=4 scenarios.train="$STREETS" scenarios.validate="$VAL_STREETS" scenarios.test="$TEST_STREETS"

places=("streets=data.root=$STREETS_ROOT data.depth_root=${STREETS_ROOT}_depth")
if [[ -n "${COOPMAP_DATA_ROOT:-}" ]]; then
    places+=("opv2v=data.root=$COOPMAP_DATA_ROOT data.depth_root=${COOPMAP_DEPTH_ROOT:-null}")
fi
models=(
    "v1=model=mapanything_v1 model.weights=facebook/map-anything-v1"
    "v11=model=mapanything_v11 model.weights=facebook/map-anything"
)
[[ -n "$MODELS" ]] && mapfile -t models <<< "$MODELS"

# Panoramas keep their 90 degrees of elevation: 40 helped a small model, whose rows are 1.1 degrees; these are 0.36.
alignment="model.matching.enabled=true model.matching.tilt_sigma_deg=1.0 model.pose_from=alignment loss=pose_matching"
regression="experiment=cyl_posefix model.matching.enabled=false model.pose_from=head"
cameras="data.cameras.height=210 data.cameras.width=280"  # 1,200 tokens an agent as in a mosaic; a panorama has 1,296
arms=(  # the first is what the others are compared with
    "panorama=experiment=cyl_posefix $alignment"
    "mosaic=experiment=mosaic_posefix $alignment"
    "cameras=experiment=four_camera $cameras $alignment"
    "cameras_rig=experiment=four_camera_rig task=calibrated $cameras $alignment"
    "fusion=experiment=fusion_cross_attention task=calibrated $cameras $alignment"
    "regression=$regression loss=pose"
    "relative=$regression loss=relative model.info_sharing.mark_reference=false"
)
published="regression_v11=$regression loss=v11"  # what V1.1 was released with

epochs=$(((STEPS + 4999) / 5000))
steps_per_epoch=$(((STEPS + epochs - 1) / epochs))
failed=()

# train_and_evaluate RUN OVERRIDE...
train_and_evaluate() {
    $PYTHON -m coopmap train preset=none run_dir="$1" resume=auto model.ground_range=true \
        data.steps_per_epoch="$steps_per_epoch" trainer.max_epochs="$epochs" "${@:2}" \
        && $PYTHON -m coopmap evaluate run="$1" split=test 'baselines=[mean,bound]' output="$1/evaluation_test"
}

for place in "${places[@]}"; do
for model in "${models[@]}"; do
    evaluated=() arms_of_model=("${arms[@]}")
    [[ "$model" == *model=mapanything_v11* ]] && arms_of_model+=("$published")
    for seed in $SEEDS; do
    for arm in "${arms_of_model[@]}"; do
        name="${place%%=*}_${model%%=*}_${arm%%=*}_seed$seed"
        run="$OUT/$name"
        if [[ ! -e "$run/evaluation_test/summary.json" && "$name" =~ ${1:-.} ]]; then
            # shellcheck disable=SC2086  # several overrides each
            train_and_evaluate "$run" seed="$seed" ${place#*=} ${arm#*=} ${model#*=} $TRAIN || {
                status=$?
                ((status > 128)) && exit "$status"  # a signal: stop here too
                failed+=("$name")
            }
        fi
        [[ -e "$run/evaluation_test/summary.json" ]] && evaluated+=("${arm%%=*} $seed=$run/evaluation_test")
    done
    done
    if ((${#evaluated[@]})); then
        $PYTHON experiments/study/table.py "${evaluated[@]}" | tee "$OUT/${place%%=*}_${model%%=*}.md"
    fi
done
done
if ((${#failed[@]})); then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
