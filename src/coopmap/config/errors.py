"""Turns what Hydra and OmegaConf raise into one message that names the key and the nearest right one."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from coopmap.config.checks import ConfigError
from coopmap.config.groups import group_choices
from coopmap.config.meanings import all_keys


def config_keys(schema: type) -> Iterator[str]:
    """Dotted names of all keys of a structured config, inner nodes included."""
    return (key.name for key in all_keys(schema))


def as_shown(error: Exception, keys: Iterable[str], groups: Iterable[str], overrides: Iterable[str]) -> Exception:
    """The error to show: one message (see :func:`explain`), or all of it with ``HYDRA_FULL_ERROR=1``."""
    return error if os.environ.get("HYDRA_FULL_ERROR") == "1" else explain(error, keys, groups, overrides)


def explain(error: BaseException, keys: Iterable[str], groups: Iterable[str], overrides: Iterable[str]) -> ConfigError:
    """Rephrase an error of composition.

    Args:
        error: what Hydra or OmegaConf raised, or a dataclass's own check.
        keys: all keys that a configuration may have, dotted.
        groups: names of the config groups.
        overrides: arguments of the command line.
    """
    from hydra.errors import MissingConfigException, OverrideParseException

    keys, groups = list(keys), list(groups)
    removed = [text[1:] for text in overrides if text.startswith("~") and text[1:] in keys and text[1:] not in groups]
    if removed:
        return ConfigError(f"~{removed[0]}: {removed[0]} cannot be removed, only changed")
    chain = list(_causes(error))
    text = "\n".join(str(link) for link in chain)
    for link in chain:
        if isinstance(link, ConfigError):
            return link
        if isinstance(link, OverrideParseException):
            return ConfigError(f"cannot read {link.override!r}: write key=value (quote values with spaces or commas)")
        if isinstance(link, MissingConfigException) and link.options and link.missing_cfg_file:
            return _missing_choice(link.missing_cfg_file, link.options, overrides)
    if twice := _search(r"(\S+) appears more than once in the final defaults list", text):
        return ConfigError(f"+{twice}=...: {twice} is there already; leave the + out")
    if isinstance(error, AssertionError | AttributeError) and "NoneType" in text:
        return _reaches_into_null(overrides)
    where = _origin(text)
    full_key = _search(r"full_key: (\S+)", text) or _search(r"Could not override '([^']+)'", text)
    below = next((key for key in keys if key.startswith(f"{full_key}.")), None)
    if below is not None and "Invalid type assigned" in text:
        return ConfigError(f"{full_key}{where}: stands for several keys, such as {below}; set one of these")
    if full_key and re.search(r"Key '[^']+' (is )?not in ", text):
        return _unknown_key(full_key, keys, groups, where)
    if full_key:
        reason = next(line for line in reversed(text.splitlines()) if line and not line.startswith("    "))
        for link in reversed(chain):
            if "full_key" in str(link):
                reason = str(link).splitlines()[0]
                break
        return ConfigError(f"{full_key}{where}: {reason}")
    return ConfigError(text)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _search(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found.group(1) if found else None


def _origin(text: str) -> str:
    """`` (in conf/x/y.yaml)`` when the error is in a file rather than on the command line."""
    source = _search(r"In '([^']+)'", text)
    return f" (in conf/{source}.yaml)" if source else ""


def _reaches_into_null(overrides: Iterable[str]) -> ConfigError:
    inner = [override for override in overrides if "." in override.partition("=")[0]]
    of_town = [override for override in inner if re.match(r"\+*data\.town(\.|=\{)", override)]
    if of_town:
        return ConfigError(
            f"{', '.join(of_town)}: data.town is null here: no synthetic data; expected data=town, data=streets or "
            "data=market beside it"
        )
    return ConfigError(f"an override reaches into a key that is null here (one of: {', '.join(inner)})")


def _missing_choice(missing: str, options: Sequence[str], overrides: Iterable[str]) -> ConfigError:
    """What there is instead; Hydra's options leave out those in folders, such as ``experiment=defects/crop``."""
    group, _, choice = missing.rpartition("/")
    parent, _, folder = group.rpartition("/")
    if f"{parent}={folder}/{choice}" in overrides:
        group, choice = parent, f"{folder}/{choice}"
        options = [f"{folder}/{name}" for name in group_choices(f"{parent}/{folder}")] or options
    near = difflib.get_close_matches(choice, options, n=1, cutoff=0.5)
    hint = f" Did you mean {group}={near[0]}?" if near else ""
    return ConfigError(f"{group}={choice}: no such choice; there are {', '.join(sorted(options))}.{hint}")


def _unknown_key(key: str, keys: list[str], groups: list[str], where: str) -> ConfigError:
    return ConfigError(f"{key}{where}: no such key.{did_you_mean(key, [*keys, *groups])}")


def did_you_mean(key: str, keys: Iterable[str]) -> str:
    """`` Did you mean X?`` if there is a similar key, else nothing."""
    near = nearest_key(key, keys)
    return f" Did you mean {near}?" if near else ""


def nearest_key(key: str, keys: Iterable[str]) -> str | None:
    """The key that was most likely meant: a sibling, else one with the same last word, else any similar one."""
    known = list(dict.fromkeys(keys))
    parent, _, leaf = key.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent}
    same_leaf = [name for name in known if name.rpartition(".")[2] == leaf]
    if close := difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.65):
        return siblings[close[0]]
    return next(iter(same_leaf or difflib.get_close_matches(key, known, n=1, cutoff=0.7)), None)
