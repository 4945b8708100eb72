"""What an entry of the table of commands says.

A command is a function, and a dataclass whose docstring says what its keys mean. Functions are imported when they are
called, so that help needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Command:
    """An entry of the table.

    Attributes:
        name: as typed, subcommands with a space: ``bench model``.
        summary: one line, without a full stop.
        function: ``module:function`` to call: with its own options, then (with ``takes_config``) a list of overrides.
        options: ``module:dataclass`` of its own keys.
        takes_config: it also takes groups and keys of the training configuration.
        places: key (a list) that arguments without ``key=`` belong to.
        folders, files: keys of what it writes: checked before it is called.
        needs: required arguments, for the usage line; without it the command runs without arguments.
        examples: command lines without ``coopmap``, each with a comment.
        notes: paragraphs that help ends with.
        through_hydra: it takes the flags of Hydra; called with the composed configuration and a list of overrides.
    """

    name: str
    summary: str
    function: str
    options: str | None = None
    takes_config: bool = False
    places: str | None = None
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    needs: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    notes: str = ""
    through_hydra: bool = False

    @property
    def schema(self) -> type | None:
        """The dataclass of its own keys."""
        return _load(self.options) if self.options else None

    def load(self) -> Callable[..., Any]:
        """The function."""
        return _load(self.function)

    @property
    def usage(self) -> str:
        """What to type."""
        parts = [f"coopmap {self.name}", self.needs, "[group=choice ...]" if self.takes_config else ""]
        return " ".join(filter(None, [*parts, "[key=value ...]"]))


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
