"""Every choice of every group goes with every choice of every other, or is refused for a reason that is listed here.

Rows of choices are composed that cover all pairs, machines among them, in about as many rows as the two largest groups
have pairs; a group may also be left to its default.
"""

import itertools
from collections.abc import Iterator

import pytest

from coopmap.config import ConfigError, conf_dir, load_config

GROUPS = (
    "machine",
    "strategy",
    "preset",
    "data",
    "model",
    "model/fusion",
    "task",
    "priors",
    "loss",
    "loss/start",
    "optim",
    "optim/train",
    "logger",
    "experiment",
    "debug",
)
Choice = tuple[str, str]
Row = dict[str, str]
FUSIONS = {
    "mean": "grouped",
    "concat": "warped",
    "conv3d": "warped",
    "conv_gru": "grouped",
    "cross_attention": "grouped",
}
CROSS_ATTENTION = ("cross_attention", "cross_attention_late", "cross_attention_pose_token")

REFUSED: dict[frozenset[Choice], str] = {
    # a panorama has no camera poses, and a rig is told to single cameras
    **{
        frozenset({("model/fusion", kind), ("priors", "rig")}): r"priors\.rig=true needs data\.layout=cameras"
        for kind in FUSIONS
    },
    frozenset({("experiment", "cyl_panorama_aware"), ("priors", "rig")}): "is for 360-degree panoramas",
    frozenset({("experiment", "cyl_panorama_aware"), ("data", "four_camera")}): "is for 360-degree panoramas",
    frozenset({("experiment", "cyl_panorama_aware"), ("data", "mosaic")}): "is for 360-degree panoramas",
    # where a mosaic's lines of sight start, which only a mosaic has, and only with rays
    **{
        frozenset({("experiment", "mosaic_posefix"), other}): r"model\.plucker=true is about the cameras of a mosaic"
        for other in (*(("model/fusion", kind) for kind in FUSIONS), ("priors", "rig"))
    },
    **{
        frozenset({("experiment", "mosaic_posefix"), ("task", task)}): r"expected false without model\.inputs\.rays"
        for task in ("images_only", "posed")
    },
    # what is filled in are pixels of a panorama
    **{
        frozenset({("data", "ablation_densified"), other}): r"densify_px=1: expected 0 with data\.layout"
        for other in (("experiment", "mosaic_posefix"), ("experiment", "four_camera_rig"), ("priors", "rig"))
    },
    # one pose per car, composed with single cameras
    **{
        frozenset({("model/fusion", kind), ("experiment", "four_camera_rig")}): "is about single cameras"
        for kind in FUSIONS
    },
}


def choices() -> dict[str, list[str]]:
    found = {group: sorted(path.stem for path in (conf_dir() / group).glob("*.yaml")) for group in GROUPS}
    for name in ("streets", "demo"):
        found["preset"].remove(name)  # of the main road: see test_presets
    assert all(found.values())
    return found


def needs_cameras(row: Row) -> bool:
    return row.get("priors") == "rig" or row.get("experiment") == "four_camera_rig"


def layout_of(row: Row) -> list[str]:
    """The layout that a fusion, a rig or a mosaic has to be given (docs/fusion.md, docs/inputs.md, docs/mosaic.md)."""
    if kind := FUSIONS.get(row.get("model/fusion", "")):
        return [f"data.layout={kind}"]
    unfused = row.get("model/fusion") == "none" and row.get("experiment", "").startswith("fusion_")
    if needs_cameras(row):
        unfused = row.get("experiment", "").startswith("fusion_")
        layout = ["model/fusion=none"] * ("model/fusion" not in row) + ["data.layout=cameras"]
    else:
        layout = ["data.layout=panorama"] * unfused
    if row.get("experiment") == "mosaic_posefix" and row.get("task") == "augmented":
        # what turns the frame needs rays that tell how, and this task does not always give them
        layout = [*layout, "data.augmentation.yaw_roll=false"]
    if row.get("experiment") == "four_camera" and row.get("data") == "ablation_densified":
        layout = [*layout, "data.panorama.densify_px=0"]  # single cameras have no panorama to fill
    return layout + ["model.fusion.injection=none"] * unfused


def needs_of(row: Row) -> list[str]:
    """Matches for priors that weigh them; for the model of 8-pixel patches, images of whole patches, and no joining
    of left and right of single cameras."""
    matches = ["model.matching.enabled=true"] * (row.get("priors") == "matched")
    if row.get("model") != "mapanything_matching":
        return matches
    sizes = {"panorama": (80, 320), "cameras": (48, 64), "mosaic": (48, 64)}
    if needs_cameras(row) or row.get("data") == "four_camera":
        matches.append("model.encoder.circular=false")
    return matches + [
        size for kind, (h, w) in sizes.items() for size in (f"data.{kind}.height={h}", f"data.{kind}.width={w}")
    ]


def is_refused(row: Row) -> bool:
    return any(refused <= set(row.items()) for refused in REFUSED)


def objective_of(row: Row) -> str | None:
    """The objective that was named, or that comes with the model where nothing else brings one."""
    brought = {"loss", "experiment"} & set(row) or row.get("preset") == "town"
    return row.get("loss") if brought or row.get("model") != "mapanything_v11" else "v11"


def pairs_of(row: Row) -> set[frozenset[Choice]]:
    return {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}


def rows() -> Iterator[Row]:
    """Greedy all-pairs cover: each row starts from an uncovered pair, and each group adds what covers most."""
    of = choices()
    left = {
        frozenset({(a, x), (b, y)}): None
        for a, b in itertools.combinations(GROUPS, 2)
        for x in of[a]
        for y in of[b]
        if frozenset({(a, x), (b, y)}) not in REFUSED
    }
    while left:
        row: Row = dict(sorted(next(iter(left))))
        for group in sorted((name for name in GROUPS if name not in row), key=lambda name: -len(of[name])):
            allowed = [choice for choice in of[group] if not is_refused(row | {group: choice})]
            gain = {x: sum(frozenset({(group, x), other}) in left for other in row.items()) for x in allowed}
            if gain and max(gain.values()) > 0:
                row[group] = max(allowed, key=lambda choice: gain[choice])
        for pair in pairs_of(row):
            left.pop(pair, None)
        yield row


ROWS = list(rows())
QUICK = 96
"""Rows that cover 19 pairs of 20. The others are about an objective and an experiment each, of which every one is in
several rows already."""


def test_rows_cover_all_pairs_that_are_not_refused() -> None:
    of = choices()
    covered, quickly = (set().union(*map(pairs_of, chosen)) for chosen in (ROWS, ROWS[:QUICK]))
    total = sum(len(of[a]) * len(of[b]) for a, b in itertools.combinations(GROUPS, 2))
    assert covered.isdisjoint(REFUSED)
    assert len(covered) + len(REFUSED) == total
    assert len(quickly) > 0.95 * len(covered)
    assert {(machine, name) for machine in of["machine"] for name in of["experiment"]} <= {
        (row.get("machine"), row.get("experiment")) for row in ROWS[:QUICK]
    }


@pytest.mark.parametrize(
    "row",
    [*ROWS[:QUICK], *(pytest.param(row, marks=pytest.mark.slow) for row in ROWS[QUICK:])],
    ids=lambda row: ",".join(row.values()),
)
def test_composes(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = load_config([*(f"{group}={choice}" for group, choice in row.items()), *layout_of(row), *needs_of(row)])
    found = {
        "machine": config.machine,
        "preset": config.preset,
        "model": config.model.name,
        "model/fusion": config.model.fusion.kind,
        "task": config.task.name,
        "optim/train": config.optim.train.name,
        "experiment": config.experiment,
        "logger": config.logger.mode,
    }
    if "debug" in row:
        del found["logger"]  # debugging keeps its figures to itself
    assert {group: found[group] for group in row if group in found} == {
        group: row[group] for group in row if group in found
    }
    if "data" in row:
        assert (config.data.town is not None) == (row["data"] in ("town", "streets", "market"))
    if "loss/start" in row:
        normal = {"v11": 0.3, "relative": 0.3, "matching": 0.0}.get(objective_of(row) or "", 3.0)
        values = {"scratch": (1.0, 0.0), "released": (0.5, normal)}
        assert (config.loss.robust_alpha, config.loss.weights.normal) == values[row["loss/start"]]


@pytest.mark.parametrize("pair", REFUSED, ids=lambda pair: ",".join("=".join(choice) for choice in sorted(pair)))
def test_is_refused(pair: frozenset[Choice]) -> None:
    row = dict(pair)
    layout = [text for text in layout_of(row) if text.startswith("data.layout")]
    with pytest.raises(ConfigError, match=REFUSED[pair]):
        load_config([*(f"{group}={choice}" for group, choice in row.items()), *layout])
