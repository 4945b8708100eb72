"""What a page says of a sample is what the sample holds."""

import base64
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from coopmap.data import build_dataset, build_split
from coopmap.data.opv2v import read_agent
from coopmap.data.sampling import SampleRequest
from coopmap.geometry.rig import SLOTS
from coopmap.previews.frame import read_frame
from coopmap.report.pages import render
from coopmap.report.tables import Row, Section, Table, names
from coopmap.viz.panels import ShownView
from coopmap.viz.preview_page import Preview, write_preview

LAYOUTS = {
    "panorama": "experiment=cyl_posefix",
    "cameras": "experiment=four_camera",
    "grouped": "experiment=fusion_mean",
    "warped": "experiment=fusion_concat",
}
EVIL = """</script><script>alert(1)</script><img src=x onerror="alert('2')">"""


def dataset_of(config, split="train"):
    return build_split(replace(config.data, vehicle_masks=True), split, config.seed)


def all_agents(dataset, position=0):
    frame = int(dataset.frames[position])
    return dataset[SampleRequest(frame, int(dataset.group_sizes[frame]))]


def rig_of(dataset, agent):
    ref = dataset.index.frame(int(dataset.frames[0]))
    return read_agent(dataset.index.yaml_path(ref, agent)).rig


def angles(rays):
    x, y, z = np.moveaxis(rays.astype(np.float64), -1, 0)
    return np.rad2deg(np.arctan2(x, z)), np.rad2deg(np.arctan2(-y, np.hypot(x, z)))


def assert_directions(view, rays):
    """Numbers of a view against unit vectors, to half a step and what float32 rounds."""
    azimuth, elevation = angles(rays)
    turn = view["azimuth"] * view["angle_step"] - 180 - azimuth
    assert np.abs((turn + 180) % 360 - 180).max() <= view["angle_step"] / 2 + 1e-4
    assert np.abs(view["elevation"] * view["angle_step"] - 90 - elevation).max() <= view["angle_step"] / 2 + 1e-4


def pictures(page):
    """Sizes of the embedded pictures of the panels, decoded."""
    for tag, attributes in page.elements.found:
        if tag == "img" and "picture" in (attributes.get("class") or ""):
            yield cv2.imdecode(np.frombuffer(base64.b64decode(attributes["src"].split(",")[1]), np.uint8), -1).shape


def test_a_page_shows_every_agent_and_fetches_nothing(written, config_of):
    page = written
    sample = all_agents(dataset_of(config_of()))
    assert len(sample.meta.agents) >= 2
    for number, agent in enumerate(sample.meta.agents):
        assert f"{number}: agent {agent}" in page.text
    assert f"<dd>{sample.meta.scenario}</dd>" in page.text
    assert f"<dd>{sample.meta.frame}</dd>" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert all(address.startswith("data:image/") for address in page.elements.addresses())
    assert len(list(pictures(page))) == (4 + 3) * len(sample.meta.agents)  # panels, and seams on all but one
    assert set(pictures(page)) == {(56, 224, 4)}


@pytest.mark.parametrize("depth", ["dense", "lidar"])
def test_numbers_are_those_of_the_target(preview, config_of, depth):
    overrides = () if depth == "dense" else ("data.depth_root=null", "data.depth.source=lidar")
    page, dataset = preview(*overrides), dataset_of(config_of(*overrides))
    sample = all_agents(dataset)
    for number, agent in enumerate(sample.meta.agents):
        view = page.view(agent)
        true = sample.target.depth[number].double().numpy()
        assert view["range_step"] == 0.004
        assert ((view["range"] > 0) == (true > 0)).all()
        assert np.abs(view["range"] * view["range_step"] - true).max() <= 0.002 + 1e-9
        assert_directions(view, sample.target.rays[number].numpy())
        assert (view["covered"] == sample.target.non_ambiguous[number].numpy()).all()
        frame = int(dataset.frames[0])
        record = dataset.ready.read(frame, dataset.index.frame(frame), (agent,))[agent]
        assert (view["camera"] - 1 == dataset.ready.views.warps.get(record.metadata.rig).warp.winner).all()
    assert {view["reach"] for view in page.views} == ({0} if depth == "dense" else {1})
    assert "2 mm" in page.text


def test_the_header_says_where_the_agents_are(written, config_of):
    page, dataset = written, dataset_of(config_of())
    sample = all_agents(dataset)
    reference, other = sample.target.pose[0].double(), sample.target.pose[1].double()
    relative = torch.linalg.inv(reference) @ other
    assert f">{relative[:3, 3].norm():.1f}</td>" in page.text
    bearing = float(torch.rad2deg(torch.atan2(relative[0, 3], relative[2, 3])))
    heading = float(torch.rad2deg(torch.atan2(relative[0, 2], relative[2, 2])))
    for angle in (bearing, heading):
        assert f">{round(angle):+d}</td>".replace("-", "\u2212") in page.text
    assert f">{sample.target.non_ambiguous[1].float().mean():.1%}</td>" in page.text
    assert f">{sample.target.valid[1].float().mean():.1%}</td>" in page.text
    assert "bowl, 30 m; targets: content" in page.text
    assert "z-depth, converted to range" in page.text


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["experiment=four_camera"], {"30 m": False, "off nominal rays": True}),
        (["experiment=mosaic_posefix", "data.mosaic.height=28"], {"30 m": False, "off nominal rays": False}),
        (["experiment=fusion_mean"], {"30 m": True, "off nominal rays": True}),
    ],
)
def test_what_plays_no_part_in_a_layout_is_not_said(preview, overrides, says):
    text = preview(*overrides).text
    assert {word: word in text for word in says} == says


@pytest.mark.parametrize("layout", ["cameras", "grouped", "warped"])
def test_other_layouts_show_the_images_that_the_model_gets(preview, config_of, layout):
    page, config = preview(LAYOUTS[layout]), config_of(LAYOUTS[layout])
    assert config.data.layout == layout
    sample = all_agents(dataset_of(config))
    agents = list(dict.fromkeys(sample.meta.agents))
    cameras = config.data.cameras
    for slot, name in enumerate(SLOTS):
        view = page.view(agents[1], name)
        size = (56, 224) if layout == "warped" else (cameras.height, cameras.width)
        assert (view["height"], view["width"]) == size
        assert set(np.unique(view["camera"])) <= {0, slot + 1}
        ahead = view["azimuth"][size[0] // 2, size[1] // 2] * view["angle_step"] - 180
        if layout != "warped":
            assert abs((ahead - (0, -100, 180, 100)[slot] + 180) % 360 - 180) < 75 / size[1]  # half a pixel
            assert view["covered"].all()
        picture = cv2.imread(str(page.file.with_suffix("") / f"1_{agents[1]}_{name}_image.png"), -1)
        assert picture.shape == (*size, 4)
    assert len(page.views) == len(agents) * (4 if layout == "cameras" else 5)
    if layout == "cameras":
        number = 4 + SLOTS.index("left")
        view = page.view(agents[1], "left")
        true = sample.target.depth[number].double().numpy()
        assert np.abs(view["range"] * view["range_step"] - true).max() <= 0.002 + 1e-9
        in_agent = sample.target.rays[number] @ sample.target.rig_pose[number, :3, :3].T
        assert_directions(view, in_agent.numpy())
    else:
        assert (page.view(agents[1])["range"] > 0).any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_are_as_bright_and_colorful_as_what_the_cameras_took(preview, config_of, layout):
    page, dataset = preview(LAYOUTS[layout]), dataset_of(config_of(LAYOUTS[layout]))
    ref = dataset.index.frame(int(dataset.frames[0]))
    agent = all_agents(dataset).meta.agents[0]
    taken, shown = [], []
    for camera in range(len(SLOTS)):
        file = dataset.index.image_path(ref, agent, camera)
        taken.append(cv2.resize(cv2.imread(str(file)), (56, 42), interpolation=cv2.INTER_AREA).reshape(-1, 3))
    for file in sorted(page.file.with_suffix("").glob(f"0_{agent}_*image.png")):
        picture = cv2.imread(str(file), -1).reshape(-1, 4)
        shown.append(picture[picture[:, 3] > 0, :3])
    taken, shown = np.concatenate(taken), np.concatenate(shown)
    assert len(shown) > 1000
    np.testing.assert_allclose(shown.mean(axis=0), taken.mean(axis=0), atol=4)
    np.testing.assert_allclose(shown.std(axis=0), taken.std(axis=0), rtol=0.1)


@pytest.mark.parametrize("tilt", [0, 10])
def test_augmented_pages_show_the_training_sample(preview, config_of, tilt):
    overrides = ("data.augmentation.yaw_roll=true", f"data.augmentation.tilt_deg={tilt}")
    page, dataset = preview(*overrides, augment=True), dataset_of(config_of(*overrides))
    sample = dataset[0]
    for number, agent in enumerate(sample.meta.agents):
        view = page.view(agent)
        covered = sample.target.non_ambiguous[number].numpy()
        true = sample.target.depth[number].double().numpy()
        assert np.abs(view["range"] * view["range_step"] - true).max() <= 0.002 + 1e-9
        assert (view["covered"] == covered).all()
        # of tilted panoramas the sampling pattern is found anew from a float32 pose: pixels on its border may differ
        agreeing = ((view["camera"] > 0) == covered).mean()
        assert agreeing == 1 if tilt == 0 else agreeing > 0.995
        row = dataset.index.frame(int(dataset.frames[0])).agents.index(agent)
        world = sample.target.points_world[number].double().numpy()
        pose = dataset.poses.poses(int(dataset.frames[0]))[row]
        rig = rig_of(dataset, agent)
        for slot, from_camera in enumerate(rig.agent_from_camera):
            shown = (view["camera"] == slot + 1) & (true > 0)
            in_camera = (world[shown] - (pose @ from_camera)[:3, 3]) @ (pose @ from_camera)[:3, :3]
            assert shown.any()
            assert (in_camera[:, 2] > 0).all()
            pixel = (in_camera @ rig.intrinsics[slot].T)[:, :2] / in_camera[:, 2:]
            height, width = rig.image_size
            inside = (pixel > -0.01).all(1) & (pixel[:, 0] < width + 0.01) & (pixel[:, 1] < height + 0.01)
            assert inside.mean() > 0.995


def test_names_from_data_do_not_become_markup(tmp_path):
    table = Table("", [names(EVIL)], [Section([Row([EVIL])])])
    view = ShownView(0, EVIL, np.tile(np.float32([0, 0, 1]), (2, 3, 1)), np.zeros((2, 3, 3), np.uint8))
    shown = Preview(EVIL, {EVIL: EVIL}, ["1"], table, [view], [EVIL])
    (picture,) = write_preview(tmp_path / "a.html", replace(shown, views=[replace(view, name="front")]))
    assert picture == tmp_path / "a" / "0_1_front_image.png"
    page = (tmp_path / "a.html").read_text()
    sheet = render("contact_sheet.html", title=EVIL, name=EVIL, entries=[], unreadable=[EVIL])
    for text in (page, sheet):
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "&lt;script&gt;alert(1)" in text


def test_samples_are_those_of_training_where_agents_must_share_enough(config_of):
    shared = dataset_of(config_of("data.sampling.min_covisibility=0.01")).pairs.covisibility_of(0)
    most = shared[~np.eye(len(shared), dtype=bool)].max()
    config = config_of(f"data.sampling.min_covisibility={most}", "data.min_agents=2", "data.max_agents=2")
    for seed in range(4):
        config = replace(config, seed=seed)
        trained, shown = build_dataset(config, "train")[0], read_frame(dataset_of(config), 0, augment=True)
        assert shown.sample.meta == trained.meta
        assert torch.equal(shown.sample.target.pose, trained.target.pose)
    everyone = read_frame(dataset_of(config), 0, augment=False)
    assert set(everyone.agents) == set(everyone.ref.agents)
