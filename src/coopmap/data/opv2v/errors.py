"""Errors of the reader: each names the file or folder, what is wrong with it, and what to do."""

from __future__ import annotations

from pathlib import Path


class DataError(Exception):
    """Something on disk is not as the reader needs it.

    Attributes:
        path: the culprit.
        reason: what is wrong with it.
        remedy: what the user can do.
    """

    def __init__(self, path: Path | str, reason: str, remedy: str = "") -> None:
        super().__init__(path, reason, remedy)  # the arguments, so that the error survives pickling between processes
        self.path = Path(path)
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.path}: {self.reason}" + (f". {self.remedy}" if self.remedy else "")
        return printable(text)


def printable(text: str) -> str:
    """Text that any terminal and log takes: names that are not UTF-8 and control characters are escaped."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1] for character in text
    )


class DatasetLayoutError(DataError):
    """A root, split or depth folder is absent, empty or laid out differently: nothing can be trained."""


class FrameError(DataError):
    """One frame of one agent is unusable: a training run may skip it and report it."""


class MissingFileError(FrameError):
    """A file of the frame does not exist."""


class CorruptFrameError(FrameError):
    """A file is truncated or cannot be decoded."""


class MetadataError(FrameError):
    """A YAML file lacks a key or contradicts itself."""


class ExtrinsicError(MetadataError):
    """An ``extrinsic`` contradicts ``cords`` and ``lidar_pose``."""


class SwappedCamerasError(MetadataError):
    """By calibration a camera looks where another's number belongs."""
