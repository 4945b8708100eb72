"""Shortcut probes: questions to which a model that matches what agents share has a known answer.

Three change what the model is given and ask again (:mod:`~coopmap.evaluation.probes.inputs`), two look at the cells
that its matches lie in (:mod:`~coopmap.evaluation.probes.cells`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from coopmap.config import Config, ConfigError
from coopmap.evaluation.probes.cells import BlindWedges, MovingVehicles
from coopmap.evaluation.probes.columns import Probe
from coopmap.evaluation.probes.inputs import Alone, OtherStreet, Seam
from coopmap.types import Observation, Prediction, Sample, SampleMeta

__all__ = [
    "Alone",
    "BlindWedges",
    "MovingVehicles",
    "OtherStreet",
    "Probe",
    "Seam",
    "build_probes",
    "require_sense",
    "why_nothing_asked",
]

ABOUT_MATCHES = ("other_street", "blind", "moving")
ABOUT_PANORAMAS = {
    "seam": "has no panorama that could be turned",
    "blind": "has no panorama with directions that no camera covers",
}
"""Probes, and why another layout has nothing to ask."""
NOTHING_TO_ASK = {
    "other_street": "there is no second scenario with as many agents to take images from",
    "moving": "no sample comes with boxes of vehicles and their speed",
}
"""Why a probe found nothing."""
NO_PAIRS = "no sample has two agents"


def require_sense(names: Sequence[str], config: Config, subject: str) -> None:
    """Refuse what cannot be asked of a model or of a layout.

    Args:
        names: of the probes.
        config: of the model and its data.
        subject: name of the model.

    Raises:
        ConfigError: a probe makes no sense.
    """
    matching, layout = config.model.matching, config.data.layout
    for name in names:
        if name in ABOUT_MATCHES and not matching.enabled:
            raise ConfigError(f"probe={name}: {subject} has no model.matching to ask for its confidence and matches")
        if name in ABOUT_PANORAMAS and layout in ("cameras", "mosaic"):
            raise ConfigError(
                f"probe={name}: data.layout={layout} {ABOUT_PANORAMAS[name]}; expected a model of "
                "data.layout=panorama, warped or grouped"
            )
        if name == "moving" and (config.model.pose_from != "alignment" or matching.prior):
            given = "model.matching.prior=true" if matching.prior else f"model.pose_from={config.model.pose_from}"
            raise ConfigError(
                f"probe=moving: with {given} poses are not made of matches alone; expected model.pose_from=alignment "
                "without model.matching.prior"
            )


def why_nothing_asked(names: Collection[str]) -> list[str]:
    """A line for each probe that found nothing to ask."""
    return [f"probe={name}: nothing to ask: {NOTHING_TO_ASK.get(name, NO_PAIRS)}" for name in sorted(names)]


def build_probes(
    names: Sequence[str],
    model: Callable[[Observation], Prediction],
    config: Config,
    elsewhere: Callable[[SampleMeta], Sample | None],
) -> dict[str, Probe]:
    """The probes of an evaluation, by name.

    Args:
        names: of the probes.
        model: to ask.
        config: of the model.
        elsewhere: a sample of another scenario than a given one, with at least as many agents.
    """
    make: dict[str, Callable[[], Probe]] = {
        "other_street": lambda: OtherStreet(model, elsewhere),
        "alone": lambda: Alone(model),
        "seam": lambda: Seam(model, config.model.encoder.patch_size),
        "blind": lambda: BlindWedges(config.model.encoder.patch_size),
        "moving": lambda: MovingVehicles(config.model),
    }
    return {name: make[name]() for name in names}
