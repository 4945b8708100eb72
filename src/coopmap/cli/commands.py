"""The table of commands.

Everything about a command (parsing, help, completion, errors) follows from its entry here.
"""

from __future__ import annotations

from collections.abc import Sequence

from coopmap.cli.command import Command
from coopmap.config.checks import ConfigError

MODEL = "run=RUN | checkpoint=FILE | weights=ID"

COMMANDS = (
    Command(
        "train",
        "train and validate a model",
        "coopmap.train:train_command",
        takes_config=True,
        through_hydra=True,
        examples=(
            ("train experiment=cyl_posefix", "the main road"),
            ("train optim.lr=5e-5 seed=1", "other values"),
            ("train data.root=/data/opv2v machine=local3090", "your data, ten GPUs"),
            ("train resume=auto", "continue the newest unfinished run like this one"),
            ("train init_from=RUN", "a new run that begins with the weights of that one"),
            ("train -m experiment=cyl_posefix,four_camera seed=0,1,2", "a sweep"),
            ("train --cfg job", "show the composed configuration"),
        ),
    ),
    Command(
        "preflight",
        "try out a run: memory, data, weights, one step on the largest batch, when it will end",
        "coopmap.preflight:preflight_command",
        takes_config=True,
        through_hydra=True,
        examples=(
            ("preflight data.root=/data/opv2v machine=local3090", "what coopmap train would do first"),
            ("preflight resume=latest", "of a run that is to go on"),
        ),
        notes=(
            "Takes what coopmap train takes, which begins with the same unless preflight.enabled=false is set. Writes "
            "nothing. Exit status 2 when the run would not work; the message tells what to change. Details: "
            "docs/preflight.md."
        ),
    ),
    Command(
        "evaluate",
        "evaluate a model and write a report",
        "coopmap.evaluate:evaluate_command",
        "coopmap.config.evaluate:EvaluateConfig",
        takes_config=True,
        folders=("output",),
        needs=MODEL,
        examples=(
            ("evaluate run=latest", "best checkpoint of the newest run"),
            ("evaluate run=latest split=test refine=true", "another split, averaged poses"),
            ("evaluate weights=facebook/map-anything data.root=/data/opv2v", "weights only"),
        ),
        notes=(
            "Metrics per sample and per pair of agents, means, medians and bootstrap intervals, compared with the "
            "training set's mean pose, noisy GPS, GPS refined by registering the LiDAR sweeps, classical matching, and "
            "true matches through the model's own solver (baselines=). The model is given only images, however it was "
            "trained, unless task= or priors= is named. Details: docs/evaluation.md."
        ),
    ),
    Command(
        "infer",
        "points, depth and poses from a folder of images or a frame of a dataset",
        "coopmap.infer:infer_command",
        "coopmap.config.infer:InferConfig",
        takes_config=True,
        folders=("output",),
        needs=f"{MODEL} images=FOLDER | frame=PATH output=FOLDER",
        examples=(
            ("infer run=latest frame=data/town/test/SCENARIO/000069 output=out", "a frame"),
            ("infer weights=facebook/map-anything images=photos output=out", "photographs"),
        ),
        notes=(
            "The model is given images, and calibrated rays of a frame if it always had them in training; never depth "
            "or poses. Details, and how to call it from Python: docs/inference.md."
        ),
    ),
    Command(
        "export",
        "write a run's weights in the released format",
        "coopmap.export:export_command",
        "coopmap.config.export:ExportConfig",
        folders=("output",),
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
        folders=("output",),
        needs="RUNS...",
        examples=(
            ("compare runs/cyl_posefix 'runs/fusion_*'", "folders, patterns"),
            ("compare runs by=experiment", "all runs, one row per experiment"),
        ),
        notes=(
            "Groups runs that differ only in their seed, and writes comparison.html, .md and .csv: "
            "metrics before training, at the best and last checkpoint, at equal steps and equal wall time (mean and "
            "spread over seeds), what each variant costs, and curves over steps and wall time."
        ),
    ),
    Command(
        "check",
        "whether a data set is fit for a long run",
        "coopmap.check:check_command",
        "coopmap.config.check:CheckConfig",
        takes_config=True,
        folders=("output",),
        files=("fix_list",),
        needs="data.root=ROOT",
        examples=(
            ("check data.root=/data/opv2v data.depth_root=/data/depth", "everything"),
            ("check data.root=/data/opv2v samples=200", "all metadata, 200 frames per split whole"),
            ("check data.root=/data/opv2v fix_list=bad.txt", "then train with data.exclude=bad.txt"),
        ),
        notes=(
            "Exit status 1 when something is wrong. check.json in output= has it for scripts: ok, problems (kind, path "
            "and detail) and figures of each split. Kinds of problems and how they are found: docs/check.md."
        ),
    ),
    Command(
        "cache",
        "write views ready to train on",
        "coopmap.cache:cache_command",
        "coopmap.config.cache:CacheConfig",
        takes_config=True,
        folders=("cache_root",),
        needs="cache_root=FOLDER",
        examples=(
            ("cache data.root=/data/opv2v cache_root=/fast/cache", "all splits, a process per core"),
            ("cache data=four_camera data.root=/data/opv2v cache_root=/fast/cache4", "the cameras apart"),
            ("cache preset=streets cache_root=streets_cache keep_files=false", "render streets straight into it"),
        ),
        notes=(
            "Training uses it with data.cache_root=FOLDER: the same samples in a fraction of the time, with all "
            "augmentation but tilt on top. Start it again to continue after it was stopped or to renew what has "
            "changed; several may write to one folder at a time. Details: docs/cache.md."
        ),
    ),
    Command(
        "replay",
        "compute a skipped step again, and see where its numbers stop being finite",
        "coopmap.training.replay:replay_command",
        "coopmap.config.replay:ReplayConfig",
        places="files",
        needs="FILE",
        examples=(("replay runs/cyl_posefix/RUN/skipped/step_840_rank_0.pt", "the batch of one skipped step"),),
        notes=(
            "Training writes the first three steps that it skips (NaN, infinity, or a gradient over optim.spike times "
            "the usual one) with their weights and random numbers. Runs on the CPU."
        ),
    ),
    Command(
        "bench model",
        "time, FLOPs and memory of the model's parts against the device's roofline",
        "coopmap.benchmarks.model:main",
        "coopmap.benchmarks.options:ModelOptions",
        files=("output",),
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
        files=("output",),
        examples=(("bench loss loss=[overall,pose_dense] views=[2,4]", "two objectives"),),
        notes=(
            "Peak memory is what is allocated in addition to the inputs (prediction and target), including the "
            "gradients of the prediction. Operations are those that PyTorch dispatches, without views of tensors; on "
            "CUDA, kernels are counted as well, and waits: how often the host waited for the device. On the CPU, time "
            "is the sum over all threads, which other load on the machine hardly affects. Where upstream's package "
            "mapanything can be imported (PYTHONPATH=CHECKOUT, with einops), its objective is measured in the same "
            "rounds."
        ),
    ),
    Command(
        "bench train",
        "what a training step costs besides the model's matrix products",
        "coopmap.benchmarks.train:main",
        "coopmap.benchmarks.options:TrainOptions",
        takes_config=True,
        files=("output", "trace"),
        examples=(
            ("bench train preset=demo", "the small model on a town rendered for the purpose"),
            ("bench train data.root=/data/opv2v model=mapanything_v1 trace=step.json", "your data, with a trace"),
        ),
        notes=(
            "The floor is the time of matrix products, convolutions and attention, in steps of their own, in turn with "
            "the others. Without a GPU times are CPU times of this process, which other load on the machine hardly "
            "affects; what loader processes take is not among them (data.num_workers=0 has it all here)."
        ),
    ),
    Command(
        "bench data",
        "what samples cost beside decoding their files, and how many loader processes keep GPUs busy",
        "coopmap.benchmarks.data:main",
        "coopmap.benchmarks.options:DataOptions",
        takes_config=True,
        files=("output",),
        examples=(
            ("bench data", "a town rendered for the purpose, at full size"),
            ("bench data data.root=/data/opv2v step_s=0.8 batch=4", "your data, your training step"),
        ),
        notes=(
            "Every cost stands beside a floor that is measured in turn in the same run: CPU time of one thread, the "
            "fastest of all repetitions. Rates of loader processes are wall time, which other load disturbs."
        ),
    ),
    Command(
        "bench fusion",
        "training step of every kind of camera fusion, compared with 4n views",
        "coopmap.benchmarks.fusion:main",
        "coopmap.benchmarks.options:FusionOptions",
        takes_config=True,
        files=("output",),
        examples=(
            ("bench fusion", "tiny, at the sizes of the synthetic town"),
            ("bench fusion model=v1 model.checkpointing.heads=true", "V1 with one key changed in all variants"),
        ),
        notes=(
            "Variants are experiments (conf/experiment) with all their settings: sizes, model, objective, optimizer. "
            "Each takes steps on one sample of a small town that is rendered for this benchmark. Time on the CPU is "
            "the sum over all threads, which other load on the machine hardly affects. Peak memory includes weights, "
            "gradients, optimizer state, sample and activations: counted on fake tensors on the CPU, reported by the "
            "allocator on CUDA."
        ),
    ),
    Command(
        "bench priors",
        "pose error out over pose error in, by noise level of the pose priors",
        "coopmap.evaluation.noise_study:main",
        "coopmap.config.noise:NoiseStudyConfig",
        takes_config=True,
        places="runs",
        folders=("output",),
        needs="RUNS...",
        examples=(
            ("bench priors runs/four_camera by=experiment", "all seeds together"),
            ("bench priors latest levels=1/2,2/4 split=test", "two levels of noise"),
        ),
        notes=(
            "Evaluates the best checkpoint of each run at every noise level and once without pose priors, as evaluate "
            "with priors=noisy does. Noise is the same for all runs. Runs that differ only in their seed are grouped. "
            "Writes priors.csv (each row as soon as it is measured), priors.md and priors.html. Details: "
            "docs/evaluation.md."
        ),
    ),
    Command(
        "bench icp",
        "from how far off ICP on LiDAR sweeps finds back",
        "coopmap.evaluation.icp_study:main",
        "coopmap.config.icp:IcpStudyConfig",
        files=("output",),
        needs="tick=FOLDER",
        examples=(
            ("bench icp tick=shared/real/carla_five output=icp.md", "18 ways to be off"),
            ("bench icp tick=FOLDER levels=1/0,1/2 directions=8", "two of them, from more sides"),
        ),
        notes=(
            "Registers the sweeps of all pairs of agents as the baseline of coopmap evaluate does, from true poses "
            "that are off by exactly so many meters and degrees, in all directions. Details: docs/evaluation.md."
        ),
    ),
    Command(
        "preview",
        "look at samples: images, range, masks, cameras and seams of all agents",
        "coopmap.preview:preview_command",
        "coopmap.config.preview:PreviewConfig",
        takes_config=True,
        folders=("output",),
        needs="output=FOLDER",
        examples=(
            ("preview data.root=/data/opv2v output=look", "a page of the first training sample"),
            ("preview data.root=/data/opv2v split=val index=0:200:10 output=look", "a contact sheet, a page each"),
            ("preview data.root=/data/opv2v augment=true output=look", "what training sees"),
        ),
        notes="Pages need nothing else, network included; beside them lie their pictures (PNG). More: docs/preview.md.",
    ),
    Command(
        "dashboard",
        "runs at a glance: a static page, or a W&B workspace",
        "coopmap.dashboard:dashboard_command",
        "coopmap.config.dashboard:DashboardConfig",
        places="runs",
        folders=("output",),
        needs="run=RUN | RUNS... | wandb=ENTITY/PROJECT",
        examples=(
            ("dashboard run=latest", "a page in the run's folder"),
            ("dashboard 'runs/fusion_*'", "several runs on one page"),
            ("dashboard wandb=ENTITY/PROJECT", "the same panels at W&B, and a report on fusion"),
        ),
        notes=(
            "The page is made of the runs' metrics.csv, needs no server and asks for nothing; start the command again "
            "to renew it. wandb= needs pip install coopmap[dashboard]; with upload=false output=FOLDER it only writes "
            "the specifications. Details: docs/seeing.md."
        ),
    ),
    Command(
        "serve",
        "show the reports of a folder in a browser, also of another machine",
        "coopmap.serve:serve_command",
        "coopmap.config.serve:ServeConfig",
        places="folder",
        needs="FOLDER",
        examples=(
            ("serve runs", "all runs: http://127.0.0.1:8000/"),
            ("serve runs/cyl_posefix/RUN port=8080", "one run"),
        ),
        notes=(
            "Answers on 127.0.0.1 alone, and shows nothing outside FOLDER, links included, and no hidden file. The "
            "line that it prints makes the pages reachable through ssh. Details: docs/seeing.md."
        ),
    ),
    Command(
        "view",
        "browse predictions of a split in three dimensions, in a browser",
        "coopmap.view:view_command",
        "coopmap.config.view:ViewConfig",
        takes_config=True,
        needs=MODEL,
        examples=(
            ("view run=latest", "validation frames: http://127.0.0.1:8080/"),
            ("view run=latest split=test index=12 port=9000", "begin at another frame"),
        ),
        notes=(
            "Needs pip install coopmap[view]. Each frame is predicted when it is asked for, given what coopmap "
            "evaluate gives. Answers on 127.0.0.1 alone, like coopmap serve. Details: docs/seeing.md."
        ),
    ),
    Command(
        "render",
        "see a prediction: its points in three dimensions, beside the truth, with what to suspect",
        "coopmap.render:render_command",
        "coopmap.config.render:RenderConfig",
        takes_config=True,
        folders=("output",),
        needs=MODEL,
        examples=(
            ("render run=latest", "the first validation frame, best checkpoint"),
            ("render run=latest split=test index=12 pose_source=gt output=look", "another one, true poses first"),
            ("render weights=facebook/map-anything data.root=/data/opv2v", "weights alone"),
        ),
        notes=(
            "Writes pointcloud.html, which needs nothing else, network included; pictures and arrays of every agent "
            "(views/), cloud.ply and cloud.glb for other viewers, and summary.json. The model is given what coopmap "
            "evaluate gives it. Details: docs/rendering.md."
        ),
    ),
    Command(
        "plan",
        "memory and time of a run before it runs: does it fit, how long, what would save how much",
        "coopmap.plan:plan_command",
        "coopmap.config.plan:PlanConfig",
        takes_config=True,
        files=("output",),
        examples=(
            ("plan machine=local3090 model=mapanything_v1 strategy=ddp", "needs neither GPU nor data"),
            ("plan machine=local3090 gpu_gib=24 held_gib=14", "beside a neighbor's job"),
            ("plan data.root=/data/opv2v step_s=1.4 output=plan.json", "with your data and a measured step"),
        ),
        notes=(
            "Parameters, gradients and optimizer state are exact, activations are counted on tensors without content, "
            "the rest is assumed and named. Takes a few minutes. Details: docs/plan.md."
        ),
    ),
    Command(
        "synth",
        "render synthetic streets, or a town and drives through it, in the layout of OPV2V or into a cache",
        "coopmap.synth:synth_command",
        "coopmap.config.synth:SynthConfig",
        takes_config=True,
        folders=("cache_root",),
        examples=(
            ("synth root=data/town depth_root=data/town_depth", "the town of preset=town"),
            ("synth scenarios.train=100 image_scale=0.5 seed=3", "larger, another town"),
            ("synth towns=per_scenario root=streets depth_root=depth", "a street per scenario"),
            ("synth towns=per_scenario root=streets cache_root=views preset=demo", "into a cache, for preset=demo"),
        ),
        notes=(
            "With cache_root= the groups and keys of coopmap train say what views are like, and training takes "
            "data.root=ROOT data.cache_root=FOLDER beside them. Started again, it renders what is missing. Details: "
            "docs/synthetic.md, docs/cache.md."
        ),
    ),
)
"""All commands, in the order of help."""

FAMILIES = {"bench": "measure speed, memory, or the gain from pose priors"}
"""First words that several commands share, with a summary of the group."""

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
