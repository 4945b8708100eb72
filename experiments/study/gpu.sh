#!/usr/bin/env bash
# The deciding arms at full size on a GPU: released weights, regression against alignment, on streets at 800 x 600 and,
# if COOPMAP_DATA_ROOT is set (and COOPMAP_DEPTH_ROOT, if there is dense depth), on OPV2V.
#
#     experiments/study/gpu.sh                     all arms; start it again after an interruption, and it goes on
#     STEPS=20000 STREETS=4096 OUT=runs/study experiments/study/gpu.sh
#     MODELS="small=model=mapanything_matching model.weights=null" TRAIN="..." experiments/study/gpu.sh
#
# MODELS are lines "NAME=OVERRIDES"; TRAIN are overrides of every training (another machine, fewer steps an epoch).
# Every arm is a run of its own below OUT, resumed where it was; what is evaluated already is not evaluated again. The
# table of PROTOCOL.md is printed and written at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${PYTHON:=python3}" "${STEPS:=20000}" "${STREETS:=4096}" "${VAL_STREETS:=100}" "${TEST_STREETS:=200}" "${SEEDS:=0 1 2}"
: "${OUT:=runs/study}" "${STREETS_ROOT:=data/streets_full}" "${SCALE:=1.0}" "${TRAIN:=}" "${MODELS:=}"

$PYTHON -m coopmap synth towns=per_scenario root="$STREETS_ROOT" depth_root="${STREETS_ROOT}_depth" image_scale="$SCALE" \
    agents_min=3 agents_max=4 scenarios.train="$STREETS" scenarios.validate="$VAL_STREETS" scenarios.test="$TEST_STREETS"

places=("streets=data.root=$STREETS_ROOT data.depth_root=${STREETS_ROOT}_depth")
if [[ -n "${COOPMAP_DATA_ROOT:-}" ]]; then
    places+=("opv2v=data.root=$COOPMAP_DATA_ROOT ${COOPMAP_DEPTH_ROOT:+data.depth_root=$COOPMAP_DEPTH_ROOT}")
fi
models=(
    "v1=model=mapanything_v1 model.weights=facebook/map-anything"
    "v11=model=mapanything_v11 model.weights=facebook/map-anything-v1"
)
[[ -n "$MODELS" ]] && mapfile -t models <<< "$MODELS"
arms=(
    "alignment=model.matching.enabled=true model.pose_from=alignment loss=pose_matching"
    "regression=model.matching.enabled=false model.pose_from=head loss=pose"
    "relative=model.matching.enabled=false model.pose_from=head loss=relative"
)

epochs=$(((STEPS + 4999) / 5000))
for place in "${places[@]}"; do
    for model in "${models[@]}"; do
        evaluated=()
        for seed in $SEEDS; do
            for arm in "${arms[@]}"; do
                name="${place%%=*}_${model%%=*}_${arm%%=*}_seed$seed"
                run="$OUT/$name"
                # shellcheck disable=SC2086  # several overrides each
                if [[ ! -e "$run/evaluation_test/summary.json" ]]; then
                    resume=()
                    [[ -e "$run/checkpoints/last.ckpt" ]] && resume=("resume=$run")
                    $PYTHON -m coopmap train experiment=cyl_posefix preset=none run_dir="$run" seed="$seed" \
                        trainer.max_epochs="$epochs" ${place#*=} ${model#*=} ${arm#*=} $TRAIN "${resume[@]}"
                    $PYTHON -m coopmap evaluate run="$run" split=test ${place#*=}
                fi
                evaluated+=("${arm%%=*} $seed=$run/evaluation_test")
            done
        done
        $PYTHON experiments/study/table.py "${evaluated[@]}" | tee "$OUT/${place%%=*}_${model%%=*}.md"
    done
done
