import os
import pickle
from pathlib import Path

import pytest

from coopmap.data.opv2v import DatasetLayoutError, SplitIndex, read_agent


def advice_for(root: Path, split: str = "val") -> str:
    with pytest.raises(DatasetLayoutError) as caught:
        SplitIndex.build(root, split)
    return caught.value.remedy


def test_only_agents_with_a_yaml_of_the_frame_are_present(writer):
    writer.touch("b", "641", "000069", "000071")
    writer.touch("b", "1045", "000069")
    writer.touch("a", "7", "000002")
    index = SplitIndex.build(writer.root, "val")
    refs = [index.frame(i) for i in range(len(index))]
    assert [(ref.scenario, ref.frame, ref.agents) for ref in refs] == [
        ("a", "000002", ("7",)),
        ("b", "000069", ("641", "1045")),  # by number, not by name
        ("b", "000071", ("641",)),
    ]
    assert index.num_agents.tolist() == [1, 2, 1]
    assert index.frame(-1) == refs[-1]
    with pytest.raises(IndexError):
        index.frame(3)


def test_other_files_and_folders_are_ignored(writer):
    writer.touch("a", "7", "000002")
    (writer.root / "validate" / "a" / "data_protocol.yaml").touch()
    (writer.folder("a", "additional") / "000003.yaml").touch()
    for name in ("000004.pcd", "000004_camera0.png", "000004_view.yaml", "notes.yaml"):
        (writer.folder("a", "7") / name).touch()
    index = SplitIndex.build(writer.root, "val")
    assert [index.frame(i).frame for i in range(len(index))] == ["000002"]
    assert index.frame(0).agents == ("7",)


def test_roadside_units_are_off_by_default(writer):
    writer.touch("a", "-1", "000001", "000002")
    writer.touch("a", "88", "000001")
    assert [r.agents for r in map(SplitIndex.build(writer.root, "val").frame, range(1))] == [("88",)]
    with_rsu = SplitIndex.build(writer.root, "val", include_rsu=True)
    assert [with_rsu.frame(i).agents for i in range(2)] == [("88", "-1"), ("-1",)]


@pytest.mark.parametrize(("split", "folder"), [("train", "train"), ("val", "validate"), ("test", "test")])
def test_paths_use_the_folder_of_the_split(writer, split, folder):
    writer.touch("a", "7", "000002", split=folder)
    index = SplitIndex.build(writer.root, split)
    ref = index.frame(0)
    base = writer.root / folder / "a" / "7"
    assert index.yaml_path(ref, "7") == base / "000002.yaml"
    assert index.image_path(ref, "7", 3) == base / "000002_camera3.png"
    assert index.lidar_path(ref, "7") == base / "000002.pcd"


def test_index_is_small_when_pickled(writer):
    for scenario in ("a", "b"):
        for agent in ("641", "650", "659"):
            writer.touch(scenario, agent, *(f"{frame:06d}" for frame in range(150)))
    index = SplitIndex.build(writer.root, "val")
    copy = pickle.loads(pickle.dumps(index))
    assert copy.frame(299) == index.frame(299)
    assert copy.frame(299).agents == ("641", "650", "659")
    assert len(pickle.dumps(index)) < 12 * 900  # 900 YAML files; a Python object each would take ten times that


class TestErrors:
    def test_missing_root(self, tmp_path):
        with pytest.raises(DatasetLayoutError, match=r"nowhere: the dataset root does not exist.*SCENARIO/AGENT"):
            SplitIndex.build(tmp_path / "nowhere", "train")

    def test_missing_split_tells_which_are_there(self, writer):
        writer.touch("a", "7", "000002")
        writer.touch("a", "7", "000002", split="test")
        with pytest.raises(DatasetLayoutError, match=r"train: no folder .* Present are: validate, test\."):
            SplitIndex.build(writer.root, "train")

    def test_split_folder_given_as_root(self, writer):
        writer.touch("a", "7", "000002")
        with pytest.raises(DatasetLayoutError, match=f"itself a split folder; set it to {writer.root}$"):
            SplitIndex.build(writer.root / "validate", "val")

    def test_folder_of_something_else(self, writer):
        (writer.root / "notes").mkdir()
        start, end = advice_for(writer.root).split(f" is in {writer.root}; ")
        assert start == "None of train, validate, test, test_culvercity"
        assert end == "set data.root to the folder that has them"

    @pytest.mark.parametrize("below", ["validate/a", "validate/a/7"])
    def test_root_inside_a_split(self, writer, below):
        writer.touch("a", "7", "000002")
        expected = f"data.root is inside a split folder; set it to {writer.root}"
        assert advice_for(writer.root / below) == advice_for(writer.root / below, "train") == expected

    def test_root_inside_a_split_is_named_as_the_root_was(self, writer, monkeypatch):
        writer.touch("a", "7", "000002")
        monkeypatch.chdir(writer.root.parent)
        assert advice_for(Path("opv2v/validate/a")).endswith(" inside a split folder; set it to opv2v")
        monkeypatch.chdir(writer.root / "validate")
        assert advice_for(Path()).endswith(" itself a split folder; set it to ..")

    def test_root_above_the_data(self, writer):
        writer.touch("a", "7", "000002", split="town/train")
        writer.touch("a", "7", "000002", split="market/test/test")  # as an archive unpacks
        (writer.folder("a", "7", split="town_depth/train") / "000002_depth0.npy").touch()
        expected = f"set it to {writer.root / 'market'} or {writer.root / 'town'}"
        for split in ("train", "val"):
            assert advice_for(writer.root, split) == f"data.root is one level too high; {expected}"

    def test_folders_with_other_names_are_offered_if_they_hold_frames(self, writer):
        writer.touch("a", "7", "000002", split="maps/images")
        writer.touch("a", "7", "000002", split="vål")
        assert advice_for(writer.root).endswith(""", or say which folder it is: "data.splits.val='vål'\"""")
        writer.touch("a", "7", "000002", split="train")
        assert advice_for(writer.root).startswith("Present are: train. Unpack the missing part there, or say which ")

    def test_folders_that_are_named_are_splits_too(self, writer):
        writer.touch("a", "7", "000002", split="mine")
        with pytest.raises(DatasetLayoutError, match=f"inside a split folder; set it to {writer.root}$"):
            SplitIndex.build(writer.root / "mine" / "a", "val", folders={"val": "mine"})

    def test_empty_split(self, writer):
        writer.folder("a", "7")
        with pytest.raises(DatasetLayoutError, match="validate: the split is empty: 1 scenario folders, 1 agent"):
            SplitIndex.build(writer.root, "val")

    def test_unknown_split(self, writer):
        with pytest.raises(ValueError, match="unknown split 'validate'; choose one of train, val, test"):
            SplitIndex.build(writer.root, "validate")


class TestOtherNames:
    def test_the_last_split_under_either_name(self, writer):
        writer.touch("s", "1", "000001", split="test_culver_city")
        index = SplitIndex.build(writer.root, "test_culvercity")
        path = index.yaml_path(index.frame(0), "1")
        assert path == writer.root / "test_culver_city" / "s" / "1" / "000001.yaml"
        assert path.is_file()

    @pytest.mark.parametrize("name", ["test", "validate"])
    def test_archives_that_unpack_into_a_folder_of_their_own_name(self, writer, name):
        split = {"validate": "val"}.get(name, name)
        writer.touch("s", "1", "000001", split=f"{name}/{name}")
        index = SplitIndex.build(writer.root, split)
        assert index.yaml_path(index.frame(0), "1").is_file()

    def test_a_scenario_may_be_called_as_its_split(self, writer):
        writer.touch("test", "1", "000001", split="test")
        index = SplitIndex.build(writer.root, "test")
        assert index.frame(0).scenario == "test"

    def test_folders_that_are_named(self, writer):
        writer.touch("s", "1", "000001", "000002", split="mine/val")
        excluded = ["validate/s/1/000002"]
        index = SplitIndex.build(writer.root, "val", exclude=excluded, folders={"val": "mine/val"})
        assert len(index) == 1
        assert index.yaml_path(index.frame(0), "1").is_file()

    def test_what_is_left_out_is_named_with_any_name_of_its_split(self, writer, caplog):
        writer.touch("s", "1", "000001", "000002", "000003", "000004")
        excluded = ["val/s/1/000002", "validate/s/1/000003", "train/s/1/000004"]
        index = SplitIndex.build(writer.root, "val", exclude=excluded)
        assert [index.frame(number).frame for number in range(len(index))] == ["000001", "000004"]
        assert not caplog.records

    def test_names_that_are_no_text_or_no_number_are_left_out(self, writer, caplog):
        writer.touch("s", "1", "000001")
        writer.touch("s", "\u0661", "000001")  # a digit of another script
        writer.touch("s", "2", "\u0661")
        (writer.root / "validate" / "s" / "3").symlink_to("3")
        os.makedirs(os.fsencode(writer.root / "validate") + b"/\xff/1")
        index = SplitIndex.build(writer.root, "val")
        assert (len(index), index.frame(0).agents) == (1, ("1",))
        assert "not UTF-8" in caplog.text


def test_the_recorded_split_indexes_and_every_file_reads(pytestconfig):
    root = pytestconfig.rootpath.parent / "shared" / "real" / "opv2v_culver"
    if not root.is_dir():
        pytest.skip("the recorded split is not there")
    index = SplitIndex.build(root, "test_culvercity")
    agents = [(index.frame(i), agent) for i in range(len(index)) for agent in index.frame(i).agents]
    assert len(agents) == 63
    for ref, agent in agents:
        assert read_agent(index.yaml_path(ref, agent)).rig.image_size == (600, 800)
