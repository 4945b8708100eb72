"""CITATION.cff is what the format (1.2.0) asks for, and agrees with the package."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def citation() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_required_fields_are_there_and_no_unknown_ones(citation: dict[str, Any]) -> None:
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    optional = {"type", "abstract", "version", "license", "keywords", "references"}
    assert citation.keys() <= {"cff-version", "message", "title", "authors"} | optional
    assert citation["cff-version"] == "1.2.0"
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= reference.keys()
        assert all({"name"} == author.keys() or "family-names" in author for author in reference["authors"])
        assert isinstance(reference["year"], int)


def test_it_agrees_with_the_package(citation: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    papers = {entry["value"] for reference in citation["references"] for entry in reference["identifiers"]}
    assert papers == {"arXiv:2509.13414", "arXiv:2109.07644"}
