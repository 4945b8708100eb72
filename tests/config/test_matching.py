"""Matching follows the objective: what it teaches is built, and poses come from it."""

import pytest

from coopmap import load_config
from coopmap.config import ConfigError

FULL_SIZE = ("machine=gpu", "data.root=/data/opv2v")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (FULL_SIZE, (1.0, True, "alignment")),
        ((*FULL_SIZE, "experiment=cyl_posefix", "model=mapanything_v11"), (1.0, True, "alignment")),
        ((*FULL_SIZE, "model=mapanything_v11"), (0.0, False, "head")),  # goes on as it was released
        ((*FULL_SIZE, "experiment=cyl_baseline"), (0.0, False, "head")),
        ((*FULL_SIZE, "loss=pose"), (0.0, False, "head")),
        ((*FULL_SIZE, "model.matching.enabled=false"), (1.0, False, "head")),
        ((*FULL_SIZE, "model.pose_from=head"), (1.0, True, "head")),
        ((*FULL_SIZE, "loss=pose", "model.matching.enabled=true"), (0.0, True, "head")),
        ((*FULL_SIZE, "priors=gps"), (1.0, False, "head")),  # moves poses that are regressed
        ((*FULL_SIZE, "priors=matched"), (1.0, True, "alignment")),
        ((*FULL_SIZE, "data.neighbor_ticks=1"), (1.0, False, "head")),
        (("machine=laptop",), (1.0, True, "alignment")),
        (("machine=laptop", "preset=demo", "loss=pose"), (0.0, False, "head")),
        (("machine=laptop", "preset=town"), (0.0, False, "head")),
        (("machine=laptop", "experiment=cyl_matching", "preset=streets"), (1.0, True, "alignment")),
        (("machine=laptop", "experiment=defects/crop", "preset=demo"), (1.0, True, "alignment")),
    ],
)
def test_what_is_taught_is_built_and_asked(overrides, expected):
    config = load_config(overrides)
    assert (config.loss.weights.matching, config.model.matching.enabled, config.model.pose_from) == expected


LAYOUTS = [
    "cyl_posefix",
    "cyl_panorama_aware",
    "mosaic_posefix",
    "four_camera",
    "four_camera_rig",
    "fusion_mean",
    "fusion_concat",
    "fusion_conv3d",
    "fusion_conv_gru",
    "fusion_cross_attention",
    "fusion_cross_attention_late",
]


def test_layouts_are_compared_under_one_objective():
    configs = [load_config([*FULL_SIZE, f"experiment={name}"]) for name in LAYOUTS]
    assert all(config.loss == configs[0].loss for config in configs)
    assert {config.model.pose_from for config in configs} == {"alignment"}


def test_poses_cannot_come_from_matches_that_are_not_there():
    with pytest.raises(ConfigError, match=r"model.pose_from=alignment: expected head without model.matching.enabled"):
        load_config([*FULL_SIZE, "loss=pose", "model.pose_from=alignment"])


def test_frames_that_are_tilted_are_not_taken_for_level():
    tilted = (*FULL_SIZE, "experiment=cyl_panorama_aware")
    config = load_config(["machine=laptop", "preset=demo", "experiment=cyl_panorama_aware"])
    assert (config.model.ground_range, config.model.matching.tilt_sigma_deg) == (False, 5.0)
    for override, message in (
        ("model.ground_range=true", r"tilt_deg=5.*model\.ground_range=false"),
        ("model.matching.tilt_sigma_deg=3", r"tilt_sigma_deg=3 .*at least 5, or null"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config([*tilted, override])
        load_config([*tilted, override, "data.augmentation.tilt_deg=0"])
    load_config([*tilted, "model.matching.tilt_sigma_deg=1", "model.matching.gravity=true"])
