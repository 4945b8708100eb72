#!/usr/bin/env bash
# The arms of PROTOCOL.md at the size of a CPU: 600 steps of two frames of four agents on streets of bright houses, from
# random weights, 10 to 15 minutes of one core each, and 200 unseen streets, 2 minutes.
#
#     experiments/study/arms.sh                        all arms, one after the other
#     experiments/study/arms.sh '^(panorama|mosaic)_'  those whose names match
#
# Start it as often as there are cores: each arm is taken by one of them (a folder OUT/NAME.taken; remove it to run an
# arm again that was interrupted). With MACHINE=gpu TRAIN=trainer.devices=1 they share a GPU. An arm that is evaluated is
# not run again. `table.py` compares OUT/NAME/evaluation_test.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${PYTHON:=python3}" "${STEPS:=600}" "${STREETS:=2400}" "${OUT:=runs/arms}" "${ROOT:=data/arms}" "${TRAIN:=}" "${MACHINE:=laptop}"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
mkdir -p "$OUT" "$(dirname "$ROOT")"

looks=(grid suburb industrial oldtown highway)  # beside bright houses (market)

exec 9> "$OUT/streets.lock"
flock 9  # the first renders, the others wait
streets="towns=per_scenario image_scale=0.2 traffic=uniform farthest_m=30 agents_min=4 agents_max=4"

# render ROOT OVERRIDE...: streets, and their depth beside them.
render() {
    # shellcheck disable=SC2086  # several overrides
    $PYTHON -m coopmap synth $streets root="$1" depth_root="${1}_depth" "${@:2}"
}
render "$ROOT" style=market scenarios.train="$STREETS" scenarios.validate=60 scenarios.test=200
for number in 1 16 256; do  # the first streets, with all of the other splits
    if [[ ! -e "${ROOT}_$number" ]]; then
        mkdir -p "${ROOT}_$number.part/train"
        cp -al "$ROOT/town.yaml" "$ROOT/validate" "$ROOT/test" "${ROOT}_$number.part"
        for street in $(cd "$ROOT/train" && printf '%s\n' * | head -n "$number"); do
            cp -al "$ROOT/train/$street" "${ROOT}_$number.part/train"
        done
        mv "${ROOT}_$number.part" "${ROOT}_$number"
    fi
done
# Cars that carry their sensors at heights of their own: with a single rig the ground's range says nothing of a street.
render "${ROOT}_bright" style=market rigs=drawn scenarios.train=600 scenarios.validate=20 scenarios.test=0
render "${ROOT}_looks" "style=[$(IFS=,; echo "${looks[*]}")]" rigs=drawn scenarios.train=750 scenarios.validate=20 \
    scenarios.test=200
for look in "${looks[@]}"; do
    if [[ ! -e "${ROOT}_without_$look" ]]; then
        $PYTHON experiments/study/join_streets.py "${ROOT}_without_$look.part=$look" "${ROOT}_bright" "${ROOT}_looks"
        mv "${ROOT}_without_$look.part_depth" "${ROOT}_without_${look}_depth"
        mv "${ROOT}_without_$look.part" "${ROOT}_without_$look"
    fi
done
flock -u 9

all="data.root=$ROOT data.depth_root=${ROOT}_depth"
matching="model=mapanything_matching optim=matching loss=matching"
rays="$matching task=calibrated"
tiles="data.mosaic.height=72 data.mosaic.width=88"       # 396 tokens an agent, as a panorama has 400
cameras="data.cameras.height=72 data.cameras.width=88"
regression="optim=scratch loss=pose model.matching.enabled=false model.pose_from=head"
relative="optim=scratch loss=relative model.matching.enabled=false model.pose_from=head model.info_sharing.mark_reference=false"
panorama="experiment=cyl_posefix" mosaic="experiment=mosaic_posefix $rays $tiles"
rig="experiment=four_camera_rig $rays $cameras" single="experiment=four_camera $matching $cameras"
arms=()
for number in 1 16 256; do
    few="data.root=${ROOT}_$number data.depth_root=${ROOT}_depth"
    arms+=("streets${number}_0=$panorama $few" "regression_streets${number}_0=$panorama $regression $few")
done
for look in "${looks[@]}"; do  # each look left out in turn, with and without the ground's range as an input
    rest="data.root=${ROOT}_without_$look data.depth_root=${ROOT}_without_${look}_depth"
    arms+=("without_${look}_0=$panorama $rest" "no_ground_without_${look}_0=$panorama $rest model.ground_range=false")
done
for rate in 5e-4 2e-3; do
    arms+=("rate${rate}_0=$panorama $all optim.lr=$rate")
done
arms+=("mosaic_rate2e-3_0=$mosaic $all optim.lr=2e-3")
arms+=("panorama_tall_0=$panorama $all data.panorama.v_fov_deg=80" "mosaic_unturned_0=$mosaic $all data.augmentation.yaw_roll=false")
arms+=("regression_fast_0=$panorama $regression $all optim=matching")  # at the rates of matching
sweeps="$panorama $all data.depth.source=lidar"  # supervision as OPV2V has it
arms+=("lidar_0=$sweeps" "lidar_densified_0=$sweeps data.panorama.densify_px=1")
for kind in mean cross_attention concat conv3d conv_gru; do
    arms+=("fusion_${kind}_0=experiment=fusion_$kind $rays $cameras $all")
done
arms+=("fusion_cross_attention_radius1_0=experiment=fusion_cross_attention model.fusion.radius=1 $rays $cameras $all")
arms+=("foreign_0=$panorama $all data.sampling.foreign_prob=0.25")
for seed in 0 1; do
    arms+=("no_ground_$seed=$panorama $all seed=$seed model.ground_range=false")
done
# How ranges are taught: more, by no aligned pose, and beside the published terms.
arms+=("ranges_heavy_0=$panorama $all loss.weights.range=8" "ranges_unaligned_0=$panorama $all loss.weights.alignment=0")
arms+=("ranges_published_0=$panorama $all loss=pose_matching")
for seed in 0 3 4; do  # places within cells by the dense head's features too
    arms+=("dense_$seed=$panorama $all seed=$seed model.matching.dense=true")
done
for seed in 3 4; do
    arms+=("panorama_$seed=$panorama $all seed=$seed" "mosaic_$seed=$mosaic $all seed=$seed")
done
cross="experiment=fusion_cross_attention $rays $cameras"
arms+=(  # poses regressed from the other inputs; without a mark of the reference, cameras have none of their place either
    "relative_mosaic_0=$mosaic $relative $all"
    "relative_cameras_0=$single $relative $all"
    "relative_cameras_rig_0=$rig $relative model.view_embedding=false $all"
    "relative_fusion_cross_attention_0=$cross $relative $all"
    "regression_cameras_0=$single $regression $all"
    "regression_fusion_cross_attention_0=$cross $regression $all"
)
for seed in 1 2; do  # the best of the fusions
    arms+=("fusion_concat_$seed=experiment=fusion_concat $rays $cameras $all seed=$seed")
done
for seed in 0 1 2; do
    arms+=(
        "panorama_$seed=$panorama $all seed=$seed"
        "mosaic_$seed=$mosaic $all seed=$seed"
        "cameras_rig_$seed=$rig $all seed=$seed"
        "cameras_$seed=$single $all seed=$seed"
        "regression_panorama_$seed=$panorama $regression $all seed=$seed"
        "regression_mosaic_$seed=$mosaic $regression $all seed=$seed"
        "regression_cameras_rig_$seed=$rig $regression $all seed=$seed"
        "relative_panorama_$seed=$panorama $relative $all seed=$seed"
    )
done

for arm in "${arms[@]}"; do
    name="${arm%%=*}" run="$OUT/${arm%%=*}"
    [[ "$name" =~ ${1:-.} ]] || continue
    [[ -e "$run/evaluation_test/summary.json" ]] && continue
    mkdir "$run.taken" 2> /dev/null || continue
    # shellcheck disable=SC2086  # several overrides each
    $PYTHON -m coopmap train preset=demo machine="$MACHINE" run_dir="$run" ${arm#*=} \
        data.max_views_per_gpu=8 data.min_agents=4 data.max_agents=4 data.max_val_frames=24 data.num_workers=0 \
        data.steps_per_epoch="$STEPS" trainer.max_epochs=1 callbacks.validate_at_start=false callbacks.live_frames=0 \
        logger=csv resume=auto $TRAIN
    $PYTHON -m coopmap evaluate run="$run" split=test data.depth.source=auto 'baselines=[mean,bound]' data.num_workers=0 \
        output="$run/evaluation_test"  # also where a task is in the folder's name otherwise
done
