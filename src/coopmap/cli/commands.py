"""The table of commands.

A command is a function, and a dataclass whose docstring says what its keys mean; all else (parsing, help, completion,
errors) follows from its entry here. Functions are imported when they are called, so that help needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from coopmap.config.checks import ConfigError


@dataclass(frozen=True)
class Command:
    """An entry of the table.

    Attributes:
        name: as typed, sub-commands with a space: ``bench model``.
        summary: one line, without a full stop.
        function: ``module:function`` to call: with its own options, then (with ``takes_config``) a list of overrides.
        options: ``module:dataclass`` of its own keys.
        takes_config: it also takes groups and keys of the training configuration.
        places: key (a list) that arguments without ``key=`` belong to.
        needs: what has to be given, for the usage line; without it the command runs with no arguments at all.
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


MODEL = "run=RUN | checkpoint=FILE | weights=ID"

COMMANDS = (
    Command(
        "train",
        "train a model, validate it, write it down",
        "coopmap.train:train_command",
        takes_config=True,
        through_hydra=True,
        examples=(
            ("train experiment=cyl_posefix", "the main road"),
            ("train optim.lr=5e-5 seed=1", "other values"),
            ("train data.root=/data/opv2v machine=local3090", "your data, ten GPUs"),
            ("train resume=auto", "continue the newest unfinished run like this one"),
            ("train -m experiment=cyl_posefix,four_camera seed=0,1,2", "a sweep"),
            ("train --cfg job", "show the composed configuration"),
        ),
    ),
    Command(
        "evaluate",
        "measure a model and write a report",
        "coopmap.evaluate:evaluate_command",
        "coopmap.config.evaluate:EvaluateConfig",
        takes_config=True,
        needs=MODEL,
        examples=(
            ("evaluate run=latest", "best checkpoint of the newest run"),
            ("evaluate run=latest split=test refine=true", "another split, averaged poses"),
            ("evaluate weights=facebook/map-anything data.root=/data/opv2v", "weights alone"),
        ),
        notes=(
            "Figures per sample and per pair of agents, means, medians and bootstrap intervals, beside the training "
            "set's mean pose, noisy GPS, and GPS refined by registering the LiDAR sweeps. The model is given images "
            "only, however it was trained, unless task= or priors= is named. Details: docs/evaluation.md."
        ),
    ),
    Command(
        "infer",
        "points, depth and poses of a folder of images or a frame of a data set",
        "coopmap.infer:infer_command",
        "coopmap.config.infer:InferConfig",
        takes_config=True,
        needs=f"{MODEL} images=FOLDER | frame=PATH output=FOLDER",
        examples=(
            ("infer run=latest frame=data/town/test/SCENARIO/000069 output=out", "a frame"),
            ("infer weights=facebook/map-anything images=photos output=out", "photographs"),
        ),
        notes="Details, and how to do it from Python: docs/inference.md.",
    ),
    Command(
        "export",
        "write a run's weights in the released format",
        "coopmap.export:export_command",
        "coopmap.config.export:ExportConfig",
        needs="run=RUN | checkpoint=FILE output=FOLDER",
        examples=(("export run=latest output=mine weights=facebook/map-anything", "a folder to publish"),),
        notes=(
            "The public MapAnything code reads the folder with MapAnything.from_pretrained(FOLDER, strict=True); it "
            "holds config.json, model.safetensors and a model card. model.weights=FOLDER reads it here."
        ),
    ),
    Command(
        "compare",
        "runs side by side",
        "coopmap.compare:compare_command",
        "coopmap.config.compare:CompareConfig",
        places="runs",
        needs="RUNS...",
        examples=(
            ("compare runs/cyl_posefix 'runs/fusion_*'", "folders, patterns"),
            ("compare runs by=experiment", "all runs, one row per experiment"),
        ),
        notes=(
            "Puts runs together that differ in nothing but their seed, and writes comparison.html, .md and .csv: "
            "figures before training, at the best and last checkpoint, at equal steps and equal wall time (mean and "
            "spread over seeds), what each variant costs, and curves over steps and wall time."
        ),
    ),
    Command(
        "cache",
        "write views ready to train on",
        "coopmap.cache:cache_command",
        "coopmap.config.cache:CacheConfig",
        takes_config=True,
        needs="cache_root=FOLDER",
        examples=(
            ("cache data.root=/data/opv2v cache_root=/fast/cache", "all splits, a process per core"),
            ("cache data=four_camera data.root=/data/opv2v cache_root=/fast/cache4", "the cameras apart"),
        ),
        notes=(
            "Training uses it with data.cache_root=FOLDER: the same samples in a fraction of the time, with all "
            "augmentation but tilt on top. Start it again to continue after it was stopped or to renew what has "
            "changed; several may write to one folder at a time. Details: docs/cache.md."
        ),
    ),
    Command(
        "bench model",
        "time, FLOPs and memory of the model's parts beside what the device can do",
        "coopmap.benchmarks.model:main",
        "coopmap.benchmarks.options:ModelOptions",
        examples=(
            ("bench model", "tiny and V1; on a GPU V1.1 as well"),
            ("bench model model=v1 views=2 whole=false", "transformer blocks only, in seconds"),
        ),
    ),
    Command(
        "bench loss",
        "time and memory of the objective, forward and backward",
        "coopmap.benchmarks.loss:main",
        "coopmap.benchmarks.options:LossOptions",
        examples=(("bench loss loss=[overall,pose_dense] views=[2,4]", "two objectives"),),
        notes=(
            "Peak memory is what lives beside the inputs (prediction and target), the gradients of the prediction "
            "included. Operations are those that PyTorch dispatches, views of tensors left out; on CUDA kernels are "
            "counted as well, and waits, the times the host waited for the device. On the CPU time is that of all "
            "threads together, which other load on the machine disturbs little, and freed memory is kept for the next "
            "allocation, as it is on CUDA."
        ),
    ),
    Command(
        "bench fusion",
        "training step with every way to fuse a car's cameras, beside 4n views",
        "coopmap.benchmarks.fusion:main",
        "coopmap.benchmarks.options:FusionOptions",
        takes_config=True,
        examples=(
            ("bench fusion", "tiny, at the sizes of the synthetic town"),
            ("bench fusion model=v1 model.checkpointing.heads=true", "V1 with one key changed in all variants"),
        ),
        notes=(
            "Variants are experiments (conf/experiment) with all that these configure: sizes, model, objective, "
            "optimizer. Each takes steps on one sample of a small town that is rendered for the purpose. Time on the "
            "CPU is that of all threads together, which other load on the machine disturbs little. Peak memory is that "
            "of weights, gradients, optimizer state, sample and activations: counted on tensors without content on the "
            "CPU, the allocator's on CUDA."
        ),
    ),
    Command(
        "bench priors",
        "pose error out over pose error in, by level of noise of rough poses",
        "coopmap.evaluation.noise_study:main",
        "coopmap.config.noise:NoiseStudyConfig",
        takes_config=True,
        places="runs",
        needs="RUNS...",
        examples=(
            ("bench priors runs/four_camera by=experiment", "all seeds together"),
            ("bench priors latest levels=1/2,2/4 split=test", "two levels of noise"),
        ),
        notes=(
            "The best checkpoint of each run answers once at every level and once without rough poses, as in evaluate "
            "with priors=noisy. Noise is the same for all runs. Runs that differ in their seed alone are put together. "
            "Written are priors.csv (a row per run and level, as soon as it is known), priors.md and priors.html. "
            "Details: docs/evaluation.md."
        ),
    ),
    Command(
        "synth",
        "render a synthetic town and drives through it, in the layout of OPV2V",
        "coopmap.synth:synth_command",
        "coopmap.config.synth:TownConfig",
        examples=(
            ("synth root=data/town depth_root=data/town_depth", "the town of the demo"),
            ("synth scenarios.train=100 image_scale=0.5 seed=3", "larger, another town"),
        ),
    ),
)
"""All commands, in the order of help."""

FAMILIES = {"bench": "measure speed, memory, or what rough poses bring"}
"""First words that several commands share, with what these have in common."""

OWN_COMMANDS = {
    "help": "what commands, groups and keys mean: coopmap help data.panorama",
    "completion": 'completion of words: eval "$(coopmap completion bash)" (or zsh, fish)',
}
"""Commands that the command line answers itself."""


def find_command(words: Sequence[str]) -> tuple[Command | None, int]:
    """The command that words start with, and how many words name it."""
    for command in COMMANDS:
        name = command.name.split()
        if list(words[: len(name)]) == name:
            return command, len(name)
    return None, 0


def family(name: str) -> list[Command]:
    """Commands that start with a word, such as ``bench``."""
    return [command for command in COMMANDS if command.name.split()[0] == name and " " in command.name]


def first_words() -> dict[str, str]:
    """What can be typed after ``coopmap``, with summaries."""
    words = {command.name.split()[0]: command.summary for command in COMMANDS}
    return words | FAMILIES


def unknown_command(word: str, known: Sequence[str], before: str = "coopmap") -> ConfigError:
    """The error for a word that is no command."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return ConfigError(f"{before} {word}: no such command; {hint}")
