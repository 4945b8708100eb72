"""Images install what continuous integration installs, and run without rights that they do not need."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()
APPTAINER = (ROOT / "docker/coopmap.def").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def code(text: str) -> str:
    """Without comments."""
    return re.sub(r"(^|\s)#.*", "", text)


@pytest.fixture
def recorded(tmp_path: Path):
    """Calls of a Python that only notes its arguments."""
    python, notes = tmp_path / "python", tmp_path / "notes"
    python.write_text(f'#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done >> {notes}\necho >> {notes}\n')
    python.chmod(0o755)

    def run(*what: str, **environment: str) -> list[list[str]]:
        notes.unlink(missing_ok=True)
        path = {"PATH": "/usr/bin:/bin"}
        subprocess.run([ROOT / ".ci/install", str(python), *what], cwd=tmp_path, env=path | environment, check=True)
        return [call.splitlines() for call in notes.read_text().split("\n\n") if call]

    return run


def test_everything_installs_through_the_one_script() -> None:
    for text in (DOCKERFILE, APPTAINER, MAKEFILE):
        assert len(re.findall(r"\.ci/install (?:\$\(abspath \S+\)/)?python ", code(text))) == 1
        assert "pip install" not in code(text)
    assert "make test" in (ROOT / ".ci/run").read_text()
    assert re.search(r"^test: \$\(READY\)", MAKEFILE, re.MULTILINE)


def test_the_script_installs_at_the_constraints(recorded) -> None:
    (call,) = recorded("--editable", ".[dev]")
    assert call[:3] == ["-m", "pip", "install"]
    assert call[call.index("--constraint") + 1] == "constraints.txt"
    assert call[-2:] == ["--editable", ".[dev]"]


def test_torch_comes_from_the_index_of_its_cuda_builds_at_the_same_version(recorded) -> None:
    index = re.search(r"ARG TORCH_INDEX=(\S+)", DOCKERFILE)
    assert index is not None
    assert index[1] in APPTAINER
    torch, rest = recorded(".", TORCH_INDEX=index[1])
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert torch[-3:] == ["--extra-index-url", index[1], f"torch=={pinned[1]}+{index[1].rpartition('/')[2]}"]
    assert rest[-1] == "."
    assert rest[:-1] == torch[:-3]


def test_images_hold_what_they_install_from() -> None:
    """Every file that they copy is there, and is let into the build."""
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()]
    files = APPTAINER.partition("%files\n")[2].partition("\n\n")[0]
    assert sorted(copied) == sorted(line.split()[0] for line in files.splitlines())
    let_in = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(let_in) == sorted(copied)
    assert all((ROOT / name).exists() for name in copied)
    built = (ROOT / "pyproject.toml").read_text()
    assert '"conf" = "coopmap/conf"' in built


def test_the_image_runs_the_program_without_root() -> None:
    stages = [line.split()[0] for line in DOCKERFILE.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert "USER coopmap" in DOCKERFILE
    assert stages.index("USER") < stages.index("ENTRYPOINT")
    assert "RUN" not in stages[stages.index("USER") :]
    assert 'ENTRYPOINT ["coopmap"]' in DOCKERFILE
    assert "exec coopmap" in APPTAINER


def test_compose_mounts_data_read_only_and_gives_shared_memory() -> None:
    service = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]["coopmap"]
    mounts = {mount["target"]: mount for mount in service["volumes"]}
    assert mounts["/data"]["read_only"] is True
    assert service["environment"]["COOPMAP_DATA_ROOT"] == "/data"
    assert service["working_dir"] in mounts
    assert int(service["shm_size"].removesuffix("gb")) >= 8
    assert service["user"].endswith("1000:1000}")
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert (ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_commands_of_the_comments_can_be_composed() -> None:
    from coopmap import load_config

    text = "\n".join([DOCKERFILE, APPTAINER, (ROOT / "docker/compose.yaml").read_text()])
    commands = re.findall(r"(?:run --rm coopmap|coopmap\.sif) (train|preflight) (.*)$", text, re.MULTILINE)
    assert len(commands) == 3
    for _, overrides in commands:
        load_config([*shlex.split(overrides), "data.root=/data"])
