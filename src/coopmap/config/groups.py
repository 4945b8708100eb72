"""The files of ``conf/``: groups, their choices, and the files' own descriptions."""

from __future__ import annotations

from pathlib import Path

from coopmap.config.checks import ConfigError


def conf_dir() -> Path:
    """Folder of the YAML files: beside the sources in a checkout, inside the package when installed from a wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ConfigError(f"no conf/train.yaml beside {package}: the installation is incomplete")


def config_groups() -> list[str]:
    """Names of the config groups, nested ones as ``model/fusion``."""
    root = conf_dir()
    return sorted({path.parent.relative_to(root).as_posix() for path in root.glob("*/**/*.yaml")})


def group_choices(group: str) -> list[str]:
    """Names of a group's choices."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def choice_meaning(group: str, choice: str) -> str:
    """What a choice is for: the comment at the head of its file, without the command that it suggests."""
    text = (conf_dir() / group / f"{choice}.yaml").read_text(encoding="utf-8")
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment = line.lstrip("# ")
        if comment.startswith("@package") or (not lines and (not comment or _is_command(comment))):
            continue
        if not comment or _is_command(comment):
            break
        lines.append(comment)
    return " ".join(lines).replace("`", "")


def _is_command(comment: str) -> bool:
    return comment.startswith(("python -m", "coopmap "))
