"""Which agents come together in training samples."""

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from coopmap import load_config
from coopmap.config import ConfigError
from coopmap.config.compose import from_yaml, to_yaml
from coopmap.config.data import DataConfig
from coopmap.config.sampling import CurriculumConfig, SamplingConfig
from coopmap.config.schema import RunLength
from coopmap.data import FrameDataset, OPV2VDataModule, SampleRequest, build_split
from coopmap.data.covisibility import frame_covisibility
from coopmap.data.order import STAGES, Curriculum, GlobalOrder, Pool, build_pool, curriculum_steps
from coopmap.data.pairs import PairLimits, PairTable
from coopmap.data.pose_table import PoseTable
from coopmap.geometry.se3_numpy import transform_points
from coopmap.metrics.covisibility import covisibility
from coopmap.runs.resume import differences


def random_poses(seed: int) -> PoseTable:
    """30 frames of one to five agents within 100 m, one of them unreadable."""
    rng = np.random.default_rng(seed)
    start = np.concatenate([[0], np.cumsum(rng.integers(1, 6, size=30))])
    cords = np.zeros((start[-1], 6))
    cords[:, :2] = rng.uniform(0, 100, (len(cords), 2))
    cords[3] = np.nan
    return PoseTable(cords, start)


def random_table(seed: int) -> PairTable:
    """Every pair has some co-visibility."""
    poses = random_poses(seed)
    shares = np.random.default_rng(seed).random(int((np.diff(poses.start) ** 2).sum())).astype(np.float32)
    return PairTable(poses, 70.0, shares)


@pytest.mark.parametrize("seed", range(3))
def test_partners_are_those_that_hear_one_another(seed):
    poses = random_poses(seed)
    table = PairTable(poses, 70.0)
    sizes = table.group_sizes(PairLimits())
    for frame in range(30):
        hearing = poses.hearing(frame, 70.0)
        np.testing.assert_array_equal(table.partners(frame, PairLimits()), hearing)
        assert sizes[frame] == hearing.sum(axis=1).max()


@pytest.mark.parametrize("limits", [PairLimits(40.0), PairLimits(min_covisibility=0.5), PairLimits(50.0, 0.3)])
def test_group_sizes_count_the_partners(limits):
    table = random_table(0)
    sizes = table.group_sizes(limits)
    for frame in range(30):
        partners = table.partners(frame, limits)
        assert sizes[frame] == partners.sum(axis=1).max()
        distance = table.distance[table.start[frame] : table.start[frame + 1]].reshape(partners.shape)
        assert not partners[~(distance <= limits.max_distance_m)].any()
        assert not partners[table.covisibility_of(frame) < limits.min_covisibility].any()


def room(number: int) -> np.ndarray:
    """Points on a sphere of 10 m, float32."""
    points = np.random.default_rng(0).normal(size=(number, 3))
    return (10 * points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def test_agents_in_one_place_share_everything_and_far_ones_nothing():
    poses = np.stack([np.eye(4)] * 4)
    poses[1, :3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    poses[2, 2, 3] = 100.0
    turned = transform_points(poses[1].T, room(20000))
    shares = frame_covisibility([room(20000), turned, room(20000), room(0)], poses)
    np.testing.assert_allclose(np.diag(shares), 1)
    np.testing.assert_allclose(shares, shares.T)
    assert shares[0, 1] > 0.99
    assert shares[0, 2] == shares[1, 2] == 0
    assert np.isnan(shares[3, :3]).all()


@pytest.mark.parametrize("dense", [True, False])
def test_co_visibility_of_the_town_agrees_with_that_of_the_samples(config_of, town, tmp_path, dense):
    changes = {"sampling": SamplingConfig(reference="most_covisible"), "cache_dir": str(tmp_path)}
    config = config_of({"height": 252, "width": 1008}, depth_root=town.depth_root if dense else None, **changes)
    dataset = build_split(config, "train")
    differences = []
    for frame in dataset.frames.tolist():
        shares = dataset.pairs.covisibility_of(frame)
        rows = np.flatnonzero(dataset.pairs.partners(frame, PairLimits())[0])
        target = dataset.evaluation_sample(frame, rows).target.map(lambda tensor: tensor[None])
        first, second = np.triu_indices(len(rows), 1)
        differences += np.abs(shares[rows[first], rows[second]] - covisibility(target)[0].numpy()).tolist()
    assert len(differences) > 2
    assert np.mean(differences) < 0.06  # a panorama sees less than four cameras do, and the same otherwise


def measured(config: DataConfig) -> FrameDataset:
    return build_split(config, "train")


def test_co_visibility_is_measured_once(config_of, tmp_path, monkeypatch):
    config = config_of(sampling=SamplingConfig(min_covisibility=0.01), cache_dir=str(tmp_path))
    first = measured(config)
    assert len(list(tmp_path.glob("covisibility_train_*.npz"))) == 1
    monkeypatch.setattr("coopmap.data.covisibility._measure", lambda *_: pytest.fail("measured again"))
    np.testing.assert_array_equal(measured(config).pairs.covisibility, first.pairs.covisibility)


def requests(module: OPV2VDataModule) -> Iterator[SampleRequest]:
    return (request for batch in module.train_dataloader().batch_sampler for request in batch)


def median_share(dataset: FrameDataset) -> float:
    shares = dataset.pairs.covisibility
    return float(np.median(shares[np.isfinite(shares) & (shares < 1)]))


def test_no_sample_has_less_co_visibility_than_asked_for(config_of, tmp_path):
    settings = {"cache_dir": str(tmp_path), "steps_per_epoch": 40}
    least = median_share(measured(config_of(sampling=SamplingConfig(reference="most_covisible"), **settings)))
    module = OPV2VDataModule(config_of(sampling=SamplingConfig(min_covisibility=least), **settings))
    dataset = module.dataset("train")
    shares = []
    for request in requests(module):
        rows = dataset._choose_agents(request, request.frame, np.random.default_rng(request.seed))
        assert len(rows) == request.num_agents
        shares += dataset.pairs.covisibility_of(request.frame)[rows[0], rows[1:]].tolist()
    assert len(shares) >= 40
    assert min(shares) >= least
    plain = build_split(config_of(**settings), "train")
    assert dataset.pairs.group_sizes(dataset.limits).sum() < plain.group_sizes.sum()
    assert len(build_split(module.config, "val")) == len(build_split(config_of(**settings), "val"))


def test_the_reference_is_the_one_that_is_asked_for(config_of, tmp_path):
    for reference in ("first", "most_covisible"):
        dataset = measured(config_of(sampling=SamplingConfig(reference=reference), cache_dir=str(tmp_path)))
        for frame in dataset.frames.tolist():
            partners = dataset.pairs.partners(frame, PairLimits())
            enough = np.flatnonzero(partners.sum(axis=1) >= 2)
            drawn = {
                int(dataset._choose_agents(SampleRequest(frame, 2), frame, np.random.default_rng(seed))[0])
                for seed in range(10)
            }
            if reference == "first":
                assert drawn == {enough[0]}
                continue
            shares = dataset.pairs.covisibility_of(frame)
            mean = [np.mean([shares[i, j] for j in np.flatnonzero(partners[i]) if j != i]) for i in enough]
            assert drawn == {enough[np.argmax(mean)]}


def curriculum(table: PairTable, least: PairLimits, steps: int, group: int = 1, **config) -> Curriculum:
    pools = partial(build_pool, table, numbers=[2, 3])
    return Curriculum(CurriculumConfig(**config), least, steps, lambda micro_batch: micro_batch // group, pools)


def test_a_curriculum_goes_linearly_from_one_end_to_the_other():
    table = random_table(0)
    at = curriculum(table, PairLimits(), 200, distance_m=[30.0, 70.0], covisibility=[0.5, 0.1])
    for before in (0, -20):  # what would have been, had the run always gone on as it does now
        assert at(before).limits == PairLimits(30.0, 0.5)
    assert at(100).limits == PairLimits(50.0, pytest.approx(0.3))
    for step in (200, 201, 10**6):
        assert at(step).limits == PairLimits(70.0, pytest.approx(0.1))
    assert len({at(step).limits for step in range(200)}) == STAGES
    near_only = curriculum(table, PairLimits(min_covisibility=0.2), 10, distance_m=[30.0, 70.0])
    assert near_only(0).limits == PairLimits(30.0, 0.2)


def drawn_by_ranks(config: DataConfig, world_size: int, accumulate: int, state: dict | None = None) -> list:
    """Batches of all ranks together, one list for each optimizer step of a run of six epochs."""
    ranks = []
    for rank in range(world_size):
        module = OPV2VDataModule(config, length=RunLength(6 * config.steps_per_epoch, config.steps_per_epoch))
        module.trainer = SimpleNamespace(
            global_rank=rank, world_size=world_size, accumulate_grad_batches=accumulate, callbacks=[]
        )
        if state is not None:
            module.load_state_dict(state)
        ranks.append(module.train_dataloader().batch_sampler)
    drawn = []
    for epoch in range(ranks[0].epoch, 6):
        for rank in ranks:
            rank.set_epoch(epoch)
        drawn += zip(*map(list, ranks), strict=True)
    return [[batch for each in drawn[i : i + accumulate] for batch in each] for i in range(0, len(drawn), accumulate)]


def test_a_curriculum_follows_optimizer_steps_whatever_goes_on_with_a_run(config_of):
    narrowing = SamplingConfig(curriculum=CurriculumConfig(distance_m=[30.0, 70.0], over=0.5))
    config = config_of(sampling=narrowing, steps_per_epoch=8)
    whole = drawn_by_ranks(config, 4, 1)
    expected = [round(min(70.0, 30.0 + 0.4 * (100 * step // 24)), 3) for step in range(48)]
    state = {"seed": 0, "steps_per_epoch": 8, "group": 4}

    def limits(steps: list) -> list[set[float]]:
        return [{round(request.limits.max_distance_m, 3) for batch in step for request in batch} for step in steps]

    assert limits(whole) == [{limit} for limit in expected]
    at_11 = state | {"epoch": 1, "step": 3, "micro_batch": 44, "world_size": 4, "accumulate": 1}
    for world_size, accumulate in ((4, 1), (2, 2), (1, 4)):
        assert drawn_by_ranks(config, world_size, accumulate, at_11) == whole[11:]
    for world_size, accumulate in ((2, 1), (1, 2), (4, 2), (2, 4), (3, 1)):
        # a group spans up to two steps, or a step two groups: limits are those of the step in which a group begins
        reached = limits(drawn_by_ranks(config, world_size, accumulate, at_11))
        assert len(reached) == 37
        for step, seen in enumerate(reached, start=11):
            assert seen <= {expected[step], expected[step - 1]}
    # stopped again, it goes on with the very batches
    smaller = drawn_by_ranks(config, 2, 1, at_11)
    at_20 = state | {"epoch": 2, "step": 4, "micro_batch": 44 + 9 * 2, "world_size": 2, "accumulate": 1}
    assert drawn_by_ranks(config, 2, 1, at_20) == smaller[9:]


def test_samples_of_a_curriculum_keep_to_its_limits():
    table = random_table(0)
    everything = build_pool(table, PairLimits(), [2, 3])
    schedule = curriculum(table, PairLimits(), 20, group=2, distance_m=[25.0, 70.0])
    order = GlobalOrder(everything, 6, 20, seed=0, group=2, curriculum=schedule)
    for number, batch in zip(range(80), order.micro_batches(), strict=False):
        for request in batch:
            assert request.limits == schedule(number - number % 2).limits
            assert table.group_sizes(request.limits)[request.frame] >= request.num_agents
    late = {request.frame for batch, _ in zip(order.micro_batches(40), range(80), strict=False) for request in batch}
    assert late == set(everything.frames_with[2].tolist())
    # a number of agents that no frame has yet gives way to a smaller one
    assert Pool(PairLimits(), {2: np.arange(3), 3: np.arange(0)}).nearest(3) == 2


def test_how_long_a_curriculum_takes():
    assert curriculum_steps(CurriculumConfig(over=0.5), 1000) == 500
    assert curriculum_steps(CurriculumConfig(over=0.5, over_steps=30), None) == 30
    with pytest.raises(ConfigError, match=r"data\.sampling\.curriculum\.over=0\.5: is a share of a run without an end"):
        curriculum_steps(CurriculumConfig(), None)


def test_a_curriculum_that_leaves_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"data\.sampling\.curriculum: no frame has 2 agents within 0\.1 m"):
        curriculum(random_table(0), PairLimits(), 10, distance_m=[0.1, 70.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SamplingConfig(reference="last"), "data.sampling.reference=last: expected one of random"),
        (lambda: SamplingConfig(balance="frame"), r"data.sampling.balance=frame: .*did you mean frames"),
        (lambda: SamplingConfig(min_covisibility=1.0), "data.sampling.min_covisibility=1.0"),
        (lambda: SamplingConfig(agents={2: -1.0}), "data.sampling.agents"),
        (lambda: CurriculumConfig(distance_m=[20.0]), "data.sampling.curriculum.distance_m"),
        (lambda: CurriculumConfig(covisibility=[0.5, 1.5]), "data.sampling.curriculum.covisibility"),
        (lambda: CurriculumConfig(over=0.0), "data.sampling.curriculum.over=0.0"),
        (lambda: CurriculumConfig(over_steps=0), "data.sampling.curriculum.over_steps=0"),
        (
            lambda: SamplingConfig(min_covisibility=0.3, curriculum=CurriculumConfig(covisibility=[0.5, 0.1])),
            r"data.sampling.curriculum.covisibility=.*at least data.sampling.min_covisibility=0.3",
        ),
        (
            lambda: DataConfig(sampling=SamplingConfig(agents={5: 1.0})),
            "data.sampling.agents=.*from data.min_agents=2 to data.max_agents=4",
        ),
        (
            lambda: DataConfig(sampling=SamplingConfig(curriculum=CurriculumConfig(distance_m=[20.0, 90.0]))),
            "data.sampling.curriculum.distance_m=.*at most data.communication_range_m=70",
        ),
    ],
)
def test_errors_name_the_key(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_settings_come_from_the_command_line_and_back_from_a_stored_run():
    overrides = ["machine=laptop", "data.min_agents=2", "data.sampling.agents={2: 0.25, 3: 0.75}"]
    overrides = [*overrides, "data.sampling.curriculum.over_steps=5"]
    config = load_config([*overrides, "data.sampling.curriculum.distance_m=[20,60]"])
    assert config.data.sampling.agents == {2: 0.25, 3: 0.75}
    assert config.data.sampling.curriculum == CurriculumConfig(distance_m=[20.0, 60.0], over_steps=5)
    assert from_yaml(to_yaml(config)).data.sampling == config.data.sampling
    assert not differences(from_yaml(to_yaml(config)), config)


def test_a_minimum_that_no_pair_meets_names_its_key(config_of):
    with pytest.raises(ConfigError, match=r"data\.sampling\.min_covisibility=0\.99"):
        measured(config_of(sampling=SamplingConfig(min_covisibility=0.99)))
