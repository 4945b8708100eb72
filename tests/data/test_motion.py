"""Pixels of moving vehicles and of the own body, against the town's ray caster."""

import dataclasses

import numpy as np
import pytest
import torch
import yaml

from coopmap.data import SampleRequest, build_split
from coopmap.data.opv2v import VehicleBoxes, read_agent
from coopmap.data.vehicles import vehicle_masks, vehicles_around
from coopmap.geometry import pose_from_carla
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT
from coopmap.synthetic import read_config, sensors
from coopmap.synthetic.raycast import Caster
from coopmap.synthetic.scenario import scenario_index
from coopmap.synthetic.surface import merge
from coopmap.synthetic.town import town_of
from coopmap.synthetic.worlds import plan_drive


def shows_other_driver(town, dataset, sample, view):
    """Panorama pixels whose camera ray first hits a driving car, the view's own left out, as in rendering."""
    config, agent = read_config(town.root), sample.meta.agents[view]
    drive = plan_drive(config, "validate", scenario_index(sample.meta.scenario))
    cars = drive.cars[drive.frames.index(sample.meta.frame)]
    static = town_of(config).surface
    caster = Caster(merge([static, *(car.surface() for car in cars if car.id != int(agent))]).triangles)
    path = dataset.index.root / "validate" / sample.meta.scenario / agent / f"{sample.meta.frame}.yaml"
    content = yaml.safe_load(path.read_text())
    rays = sensors.camera_rays(config.image_scale).reshape(-1, 3)
    hits = []
    for camera in OPV2V_CAMERA_OF_SLOT:
        pose = pose_from_carla(content[f"camera{camera}"]["cords"])
        hits.append(caster.first_hits(pose[:3, 3], rays @ pose[:3, :3].T).triangle >= len(static.triangles))
    warp = dataset.ready.views.warps.get(read_agent(path).rig).warp
    return np.stack(hits)[warp.winner, warp.source] & warp.covered


def test_moving_pixels_are_those_that_the_ray_caster_finds_on_driving_cars(config_of, town):
    dataset = build_split(config_of({"height": 252, "width": 1008}), "val")
    found = expected = both = 0
    for i in range(len(dataset)):
        sample = dataset[i]
        assert not sample.target.own_body.any()  # no car of the town sees itself
        assert not (sample.target.moving & ~sample.target.valid).any()
        for view in range(len(sample.meta.agents)):
            truth = shows_other_driver(town, dataset, sample, view) & sample.target.valid[view].numpy()
            moving = sample.target.moving[view].numpy()
            found, expected, both = found + moving.sum(), expected + truth.sum(), both + (moving & truth).sum()
    assert expected > 500
    assert both / expected > 0.97  # but for the lowest five centimeters
    assert both / found > 0.98


def test_training_reads_boxes_when_asked_and_turns_masks_with_the_panorama(config_of):
    plain = build_split(config_of(), "train")
    request = SampleRequest(int(plain.frames[0]), 2, seed=5)
    assert plain[request].target.moving is None
    assert plain[request].target.own_body is None
    rolled = build_split(config_of(vehicle_masks=True), "train")
    still_config = config_of(vehicle_masks=True)
    still_config.augmentation.yaw_roll = False
    turned, still = rolled[request].target, build_split(still_config, "train")[request].target
    assert still.moving.any()
    for view in range(2):
        columns = (turned.depth[view, 60] - still.depth[view, 60]).abs()
        assert columns.max() > 0  # it was turned
        shifts = [
            shift
            for shift in range(336)
            if torch.allclose(torch.roll(still.depth[view], -shift, 1), turned.depth[view], rtol=1e-5, atol=0)
        ]
        assert len(shifts) == 1
        differs = torch.roll(still.moving[view], -shifts[0], 1) != turned.moving[view]
        assert differs.sum() <= 2  # of points within rounding of a box's side


@pytest.fixture
def agent(config_of):
    """Metadata of an agent of the town, with the boxes around it replaced by given ones."""
    dataset = build_split(config_of(), "val")
    ref = dataset.index.frame(0)
    metadata = read_agent(dataset.index.yaml_path(ref, ref.agents[0]))

    def make(is_rsu=False, **boxes):
        around = VehicleBoxes(
            ids=np.array(list(boxes.pop("ids", []))),
            pose=metadata.pose @ np.array(boxes.pop("offsets", np.zeros((0, 4, 4)))),
            half_extents=np.array(boxes.pop("half_extents", np.zeros((0, 3)))),
            speed=np.array(boxes.pop("speed", [])),
        )
        return dataclasses.replace(metadata, is_rsu=is_rsu, vehicles=around)

    return make


def at(x, y, z):
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


def masks(metadata, points, agent_id="7"):
    points = np.array(points, dtype=np.float32)[None]
    moving, own = vehicle_masks(
        points, np.ones(points.shape[:2], dtype=bool), agent_id, metadata, vehicles_around({agent_id: metadata})
    )
    return moving[0].tolist(), own[0].tolist()


def test_vehicles_move_from_half_a_kilometer_per_hour_on(agent):
    metadata = agent(
        ids=[1, 2, 3],
        offsets=[at(0, 1, 10), at(0, 1, 20), at(0, 1, 30)],
        half_extents=[[1, 0.75, 2]] * 3,
        speed=[5.0, 0.4 / 3.6, -0.6 / 3.6],
    )
    moving, own = masks(metadata, [[0, 1, 10], [0, 1, 20], [0, 1, 30], [0, 1, 13], [1.05, 1, 10], [0, 1.74, 10]])
    assert moving == [True, False, True, False, True, False]
    assert own == [False] * 6


def test_own_body_is_the_box_that_others_list_and_it_does_not_move(agent):
    metadata = agent(ids=[7], offsets=[at(0, 1, 3)], half_extents=[[1, 0.75, 2]], speed=[9.0])
    moving, own = masks(metadata, [[0, 1, 3], [0, 1, 0.5]])
    assert moving == [False, False]
    assert own == [True, False]


def test_own_body_without_a_box_is_an_ordinary_car_and_nothing_for_a_road_side_unit(agent):
    ground = agent().rig.ground_height_m
    points = [[0, ground - 0.8, 2.9], [0, ground - 0.8, 3.2], [0, ground - 0.8, -1.9], [0, ground - 1.8, 0.0]]
    assert masks(agent(), points)[1] == [True, False, True, False]
    assert masks(agent(is_rsu=True), points, "-1")[1] == [False] * 4


def test_a_vehicle_that_one_agent_does_not_list_is_taken_from_another(agent):
    near = agent(ids=[1, 2], offsets=[at(0, 0, 9), at(0, 0, 5)], half_extents=[[1, 1, 1]] * 2, speed=[1.0, 2.0])
    far = agent(ids=[2, 4], offsets=[at(0, 0, 5), at(0, 0, 7)], half_extents=[[1, 1, 1]] * 2, speed=[2.0, 4.0])
    union = vehicles_around({"8": near, "9": far})
    assert union.ids.tolist() == [1, 2, 4]
    assert union.speed.tolist() == [1.0, 2.0, 4.0]
    assert vehicles_around({"8": near, "9": dataclasses.replace(far, vehicles=None)}) is None
