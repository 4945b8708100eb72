"""What folders and files of a dataset are called."""

from __future__ import annotations

import re

SPLIT_FOLDERS = {"train": "train", "val": "validate", "test": "test", "test_culvercity": "test_culvercity"}
"""Folder of each split."""

OTHER_FOLDERS = {"test_culvercity": ("test_culver_city",)}
"""Names in the dataset's archives that differ from its documentation."""

AGENT = re.compile(r"-?[0-9]+")
FRAME = re.compile(r"([0-9]+)\.yaml")
LAYOUT = "ROOT/{train,validate,test,test_culvercity}/SCENARIO/AGENT/FRAME.yaml"
