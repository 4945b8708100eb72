#!/usr/bin/env bash
# How far panoramas come on one CPU core: the arm panorama_0 of arms.sh goes on, each time with a schedule of its own
# (OUT/long_1 to long_3, nine thousand steps, about four hours), then on looks of which one is left out (OUT/long_looks),
# from there at OPV2V's distances (OUT/long_far), and on both near and far streets (OUT/long_all).
#
#     experiments/study/long.sh
#
# A run that was interrupted goes on where it was; what is evaluated is not run again.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${PYTHON:=python3}" "${OUT:=runs/arms}" "${ROOT:=data/arms}"
export PYTHON OUT ROOT OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

experiments/study/arms.sh '^panorama_0$'

# go_on NAME AFTER STREETS[:STREETS_OF_TEST] EPOCHS OVERRIDE...
go_on() {
    local run="$OUT/$1" before="$OUT/$2" streets="${3%:*}" tested="${3#*:}" epochs="$4"
    [[ -e "$run/evaluation_test/summary.json" ]] && return
    $PYTHON -m coopmap train experiment=cyl_posefix preset=demo machine=laptop run_dir="$run" \
        init_from="$before/checkpoints/last.ckpt" data.root="$streets" data.depth_root="${streets}_depth" \
        data.max_views_per_gpu=8 data.min_agents=4 data.max_agents=4 data.max_val_frames=24 data.num_workers=0 \
        data.steps_per_epoch=500 trainer.max_epochs="$epochs" callbacks.validate_at_start=false callbacks.live_frames=0 \
        logger=csv resume=auto "${@:5}"
    measure "$1" "$tested" test
}

# measure NAME STREETS OUTPUT
measure() {
    local run="$OUT/$1" output="$OUT/$1/evaluation_$3"
    [[ -e "$output/summary.json" ]] && return
    $PYTHON -m coopmap evaluate checkpoint="$run/checkpoints/last.ckpt" split=test data.depth.source=auto \
        data.root="$2" data.depth_root="${2}_depth" \
        'baselines=[mean,bound]' data.min_agents=2 data.max_agents=4 data.num_workers=0 output="$output"
}
go_on long_1 panorama_0 "$ROOT" 4 optim.lr=8e-4 seed=7
go_on long_2 long_1 "$ROOT" 9 optim.lr=8e-4 seed=11
go_on long_3 long_2 "$ROOT" 5 optim.lr=6e-4 seed=14
go_on long_looks long_2 "${ROOT}_without_oldtown" 3 optim.lr=8e-4 seed=13

# render ROOT OVERRIDE...: streets whose agents stand as far apart as OPV2V's, and their depth beside them.
render() {
    $PYTHON -m coopmap synth towns=per_scenario image_scale=0.2 traffic=opv2v root="$1" depth_root="${1}_depth" "${@:2}"
}
render "${ROOT}_far" 'style=[grid,suburb,industrial,highway,market]' seed=3 agents_min=4 agents_max=4 \
    scenarios.train=1600 scenarios.validate=24 scenarios.test=0
render "${ROOT}_opv2v" agents_min=3 agents_max=4 scenarios.train=0 scenarios.validate=0 scenarios.test=200  # old towns too
go_on long_far long_looks "${ROOT}_far:${ROOT}_opv2v" 6 optim.lr=8e-4 seed=15
measure long_far "${ROOT}_looks" looks

if [[ ! -e "${ROOT}_all" ]]; then
    $PYTHON experiments/study/join_streets.py "${ROOT}_all.part=oldtown" "${ROOT}_bright" "${ROOT}_looks" "${ROOT}_far"
    mv "${ROOT}_all.part_depth" "${ROOT}_all_depth"
    mv "${ROOT}_all.part" "${ROOT}_all"
fi
go_on long_all long_far "${ROOT}_all:${ROOT}_opv2v" 8 optim.lr=8e-4 seed=16
measure long_all "${ROOT}_looks" looks
measure long_all "$ROOT" bright
