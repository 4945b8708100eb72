"""Which files a preview writes, and what it says when it cannot."""

import re
import shutil
from pathlib import Path

import pytest

from coopmap.cli.main import main
from coopmap.config.checks import ConfigError
from coopmap.config.preview import PreviewConfig
from coopmap.evaluation.data import EvaluationData
from coopmap.previews.command import write_previews


def test_a_range_gives_a_sheet_with_a_page_each(config_of, tmp_path):
    file = write_previews(PreviewConfig(index="0:9:1", output=str(tmp_path)), config_of())
    assert file == tmp_path / "train_sheet.html"
    sheet = file.read_text()
    links = re.findall(r'<a href="([^"]+)">', sheet)
    assert links == ["train_0.html", "train_1.html"]
    assert all((tmp_path / link).is_file() for link in links)
    assert "://" not in sheet
    folders = Path(config_of().data.root, "train").glob("*/*")
    agents = sum(folder.is_dir() for folder in folders)
    pictures = re.findall(r'<img src="data:image/png;base64,', sheet)
    assert len(pictures) == 2 * 2 * agents  # samples, and image and range


def test_an_unreadable_sample_is_named_on_the_sheet_and_ends_a_single_preview(config_of, town, tmp_path, capsys):
    root = shutil.copytree(town.root, tmp_path / "copy")
    damaged = sorted(root.glob("train/*/*/*_camera2.png"))[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    config = config_of(f"data.root={root}")
    file = write_previews(PreviewConfig(index=":", output=str(tmp_path / "look")), config)
    text = file.read_text()
    assert "1 unreadable" in text
    assert str(damaged) in text
    assert re.findall(r'<a href="([^"]+)">', text) == ["train_1.html"]
    options = ["index=0", f"output={tmp_path / 'one'}", f"data.root={root}", f"data.depth_root={town.depth_root}"]
    with pytest.raises(SystemExit) as ended:
        main(["preview", "preset=town", "data.town=null", *options])
    assert ended.value.code == 2
    assert str(damaged) in capsys.readouterr().err


def test_a_car_that_is_never_read_is_left_out_as_rendering_leaves_it_out(config_of, town, tmp_path, caplog):
    root = shutil.copytree(town.root, tmp_path / "copy")
    car, *others = (path for path in sorted(root.glob("train/*/*")) if path.is_dir())
    for image in car.glob("*_camera2.png"):
        image.unlink()
    config = config_of(f"data.root={root}")
    rendered = EvaluationData(config, "train").dataset("train")
    caplog.clear()
    write_previews(PreviewConfig(index=":", output=str(tmp_path / "look")), config)
    assert f"car {car.name} of {car.parent.name} can never be read" in caplog.text
    pages = [page.read_text() for page in sorted((tmp_path / "look").glob("train_[0-9]*.html"))]
    assert len(pages) == len(rendered) > 0
    for page in pages:
        assert f"{car.name} (unreadable)" in page
        assert all(f"agent {other.name}" in page for other in others)


def test_the_command_says_what_it_wrote(town, tmp_path, capsys):
    roots = [f"data.root={town.root}", f"data.depth_root={town.depth_root}", "data.town=null"]
    main(["preview", "preset=town", *roots, "split=val", "index=-1", f"output={tmp_path}"])
    assert f"written to {tmp_path / 'val_1.html'}" in capsys.readouterr().out
    assert (tmp_path / "val_1.html").is_file()


@pytest.mark.parametrize("index", ["a", "1:2:0", "1:2:3:4", "", "1.5"])
def test_what_is_no_index_is_refused(index):
    with pytest.raises(ConfigError, match=r"expected a number, or START:STOP:STEP"):
        PreviewConfig(index=index, output="x")


INDICES = {"3": [3], "-1": [9], "2:8:3": [2, 5], ":2": [0, 1], "8:": [8, 9]}


@pytest.mark.parametrize(("index", "chosen"), INDICES.items())
def test_indices_count_as_in_python(index, chosen):
    assert PreviewConfig(index=index, output="x").positions(10) == chosen


@pytest.mark.parametrize("index", ["10", "-11", "10:20"])
def test_samples_that_do_not_exist_are_refused(index):
    with pytest.raises(ConfigError, match=rf"index={index}: split train has samples 0 to 9"):
        PreviewConfig(index=index, output="x").positions(10)


def test_an_output_is_needed():
    with pytest.raises(ConfigError, match="give output=FOLDER"):
        PreviewConfig()


def test_training_samples_are_shown_without_agents_of_other_scenarios(config_of, town, tmp_path):
    for kind, root in (("root", town.root), ("depth_root", town.depth_root)):
        shutil.copytree(root, tmp_path / kind)
        (scenario,) = (path for path in (tmp_path / kind / "train").iterdir() if path.is_dir())
        shutil.copytree(scenario, scenario.with_name("other"))
    roots = f"data.root={tmp_path / 'root'}", f"data.depth_root={tmp_path / 'depth_root'}"
    config = config_of(
        *roots, "data.sampling.foreign_prob=1", "model.matching.enabled=true", "data.augmentation.tilt_deg=0"
    )
    asked = PreviewConfig(index="0", augment=True, output=str(tmp_path / "look"))
    assert write_previews(asked, config).is_file()
