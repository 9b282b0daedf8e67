"""The flags of train.py and train_generator.py, and the run folder that they name.

This module imports nothing heavy, so that --help and errors in names are fast.
"""

import argparse
from pathlib import Path

from common import cli
from common.cli import UserError, number
from common.files import MEND, list_folders, read_json, undamaged
from common.names import family_of, target_name

# Flags that a resumed run does not inherit.
OF_ONE_START = ("fresh", "findlr", "findlr_steps", "gpu", "name", "resume", "runs_path", "weights")
ANOTHER_RUN = "give --name for another run"
# Flags that cannot change when a run is resumed. The weights of losses, "--..._weight", cannot
# change either.
FIXED_FLAGS = (
    "script",
    "origin",
    "target",
    "hold_out_origin",
    "learn",
    "filters",
    "seed",
    "validation_split",
    "test_split",
    "epoch_offset",
    "choose",
    "ema",
)
# Values of these flags in runs that are older than the flag; weights of losses were 0.
EARLIER = {
    "hold_out_origin": None,
    "learn": "magnitude",
    "test_split": 0.0,
    "epoch_offset": 0,
    "choose": "best",
    "ema": 0.0,
}


def parse(parser, argv, script, suffix=""):
    """Parse the flags of a training. An existing run supplies the flags that are not given.

    Args:
        parser: parser with all flags of the script.
        argv: list of text; None: the command line.
        script: the script's name in config.json, such as "train".
        suffix: suffix of the run folder's default name.

    Returns:
        (args, folder): the flags, and the `Path` of the run folder.

    Raises:
        UserError: --resume does not name a run of this script, or --name is not a valid name.
    """
    usual = {action.dest: action.default for action in parser._actions}
    begun = _find_resumed(argv)
    if begun.resume is not None:
        folder = Path(begun.resume)
        _take_over(parser, _read_resumed(begun, script), folder)
        args = parser.parse_args(argv)
        if args.name is not None:
            raise UserError(
                f"--name {args.name}: conflicts with --resume, which continues {folder}; leave it "
                f"out, or begin another run with this one's generator: --name {args.name} "
                f"--weights {folder}"
            )
        whole = folder.resolve()
        args.name, args.runs_path = whole.name, str(whole.parent)  # the run may have been moved
    else:
        args = parser.parse_args(argv)
        folder = name_folder(args, suffix)
        if goes_on(args, folder):
            _take_over(parser, read_flags(folder), folder)
            args = parser.parse_args(argv)
    args.origin = expand_origins(args)
    if goes_on(args, folder):
        check_fixed(folder, read_flags(folder), {**vars(args), "script": script})
    parser.set_defaults(**usual)  # for --help and the list of settings
    return args, folder


def expand_origins(args):
    """List the origins; "all" stands for every instrument but the target and those held out.

    Instruments without a preset number come first, because the first one is used for previews.
    """
    if args.origin != ["all"]:
        return args.origin
    folder = Path(args.dataset_path)
    names = [path.name for path in list_folders(folder) or ()]
    others = [args.target, *(args.hold_out_origin or ())]
    origins = [name for name in names if name not in others]
    if not origins:
        raise UserError(
            f"--origin all: {folder} has no instruments except {', '.join(others)}; add some"
        )
    return sorted(origins, key=lambda name: (family_of(name) != name, name))


def goes_on(args, folder):
    """Whether this start continues a run in ``folder``."""
    return not args.fresh and (folder / "last" / "state.json").is_file()


def _find_resumed(argv):
    """Read --resume and --runs_path first, because with --resume no other flag is required."""
    parser = cli.Parser("", add_help=False)
    parser.add_argument("--resume")
    parser.add_argument("--runs_path", default="runs")
    return parser.parse_known_args(argv)[0]


def _read_resumed(begun, script):
    """Read the flags of the run that --resume names. Raises UserError."""
    folder = Path(begun.resume)
    known = read_flags(folder)
    if not known:
        runs = sorted(path.parent for path in Path(begun.runs_path).glob("*/config.json"))
        there = ", ".join(str(run) for run in runs[:5]) or f"none in {begun.runs_path}"
        if len(runs) > 5:
            there += ", ..."
        raise UserError(
            f"--resume {folder}: is not a run folder (no config.json); give one; there are: {there}"
        )
    trained_by = known.get("script", script)
    if trained_by != script:
        raise UserError(
            f"--resume {folder}: was trained by {trained_by}.py; resume it with that script"
        )
    return known


def read_flags(folder):
    """Read the flags of a run's last start from config.json; {} without the file."""
    config = read_json(folder / "config.json", mend_or_begin_anew(folder), flags=dict)
    return config["flags"] if config else {}


def mend_or_begin_anew(folder):
    """Remedy for a damaged file of a run, without loss of trained weights."""
    return f"{MEND}; or {ANOTHER_RUN}, and --weights {folder} to begin with its generator"


def check_fixed(folder, before, flags):
    """Check that a resumed run keeps its fixed flags.

    Args:
        folder: run folder.
        before, flags: dicts of its earlier and present flags.

    Raises:
        UserError: one of FIXED_FLAGS differs; the text has both values.
    """
    if not before:  # a new run
        return
    before = _add_earlier(before, flags)
    for key in [*FIXED_FLAGS, *_list_weights(flags)]:
        if key in before and key in flags and cli.as_list(before[key]) != cli.as_list(flags[key]):
            known, now = format_flag(before[key]), format_flag(flags[key])
            raise UserError(
                f"{folder}: was trained with --{key} {known}, now {now}; "
                f"leave --{key} out to continue it, or {ANOTHER_RUN}"
            )


def _list_weights(flags):
    """List the flags that are the weight of a loss."""
    return [flag for flag in flags if flag.endswith("_weight")]


def _add_earlier(known, flags):
    """Add the values of ``flags`` that are newer than the run to the run's flags."""
    return {**EARLIER, **dict.fromkeys(_list_weights(flags), 0.0), **known}


def format_flag(value):
    """Format a flag's value as on the command line."""
    return " ".join(str(item) for item in cli.as_list(value)) or str(value)


def _take_over(parser, known, folder):
    """Make a run's flags, of its ``folder``, the defaults of ``parser``; none is required then.

    Raises UserError if a value is none that its flag takes.
    """
    known = _add_earlier(known, [action.dest for action in parser._actions])
    for action in parser._actions:
        flag = action.dest
        if flag not in known or flag in OF_ONE_START:
            continue
        value = known[flag]
        if action.nargs in ("+", "*") and value is not None:
            value = cli.as_list(value)  # older runs have a single name as text
        if flag == "target":
            value = _read_target(value, folder)
        with undamaged(folder / "config.json", mend_or_begin_anew(folder)):
            _check_value(action, value)
        action.default = value
        action.required = False


def _read_target(value, folder):
    """Return the run's target; older runs have it as a list. Raises UserError for several."""
    targets = cli.as_list(value)
    if len(targets) > 1:
        raise UserError(
            f"{folder}: was trained for several targets, which cannot be continued; {ANOTHER_RUN}, "
            "with one --target"
        )
    return targets[0] if targets else value


def _check_value(action, value):
    """Raise ValueError or TypeError if a flag, ``action`` of argparse, cannot have the value."""
    if value is None or value == action.default:
        return
    if isinstance(value, list) and action.nargs not in ("+", "*"):
        raise TypeError
    for item in cli.as_list(value):
        if action.nargs == 0:
            wanted = bool
        elif action.type is None:
            wanted = str
        else:
            wanted = (int, float)
            try:
                action.type(str(item))
            except argparse.ArgumentTypeError:
                raise ValueError from None
        if not isinstance(item, wanted):
            raise TypeError
        if action.choices and item not in action.choices:
            raise ValueError


def name_folder(args, suffix=""):
    """Name the run folder: <runs_path>/<name>, by default <origin>_2_<target><suffix>.

    Several origins become "many", with a short name of the target: many_2_guitar. A --learn other
    than the default is added at the end.

    Raises:
        UserError: --name is not a plain name.
    """
    if args.name is not None:
        if args.name == "..":  # pathlib counts it as a name
            raise UserError("--name ..: is the folder above; give a name, such as l1_only")
        if not args.name.strip():
            raise UserError(f"--name '{args.name}': is empty; give a name, or leave --name out")
        if Path(args.name).name != args.name:
            raise UserError(
                f"--name {args.name}: is a path; give a name here, and the folder with --runs_path"
            )
        return Path(args.runs_path) / args.name
    origin = args.origin[0]
    if len(args.origin) > 1 or origin == "all":
        origin = "many"
    if args.learn != "magnitude":
        suffix += f"_{args.learn}"
    folder = Path(args.runs_path) / f"{origin}_2_{args.target}{suffix}"
    if origin == "many" and not folder.exists():  # otherwise continue an older run
        folder = folder.with_name(f"{origin}_2_{target_name(args.target)}{suffix}")
    return folder


def check_dataset(args, folder):
    """Check the instruments, their tiles, and MAESTRO's table. Raises UserError.

    It runs before the backend loads, which takes seconds. A resumed run in ``folder`` has its split
    and needs no table.
    """
    from training import splits

    unheard = args.hold_out_origin or []
    splits.check_instruments(args.origin, args.target, unheard)
    splits.check_folders(args.dataset_path, [*args.origin, args.target, *unheard])
    if args.maestro_split and not goes_on(args, folder):
        splits.read_maestro(args.maestro_split)


def add_training_flags(parser):
    """Add all training flags to ``parser``."""
    data = parser.add_argument_group("data")
    add_data_flags(data)
    add_split_flags(data)
    add_network_flags(parser.add_argument_group("network"))
    schedule = parser.add_argument_group("schedule")
    add_schedule_flags(schedule)
    add_search_flags(schedule)
    folder = parser.add_argument_group("machine and run folder")
    add_machine_flags(folder)
    add_watching_flags(folder)


def add_data_flags(parser):
    """What is trained on, and under which conditions."""
    add = parser.add_argument
    add("--dataset_path", required=True, help="features folder of compute_features.py")
    add(
        "--origin",
        required=True,
        nargs="+",
        metavar="NAME",
        help="instrument to convert from, such as keyboard_acoustic; with several, each tile comes "
        "from a random one; all: every instrument except the target",
    )
    add(
        "--family_share",
        nargs="+",
        metavar="FAMILY=FRACTION",
        help="with several origins: fraction of the tiles that a family gets, such as "
        "keyboard_acoustic=0.33; the other families share the rest equally; default: all "
        "origins are equal",
    )
    add(
        "--target",
        required=True,
        metavar="NAME",
        help="instrument to convert to, such as guitar_acoustic",
    )
    add(
        "--hold_out_origin",
        nargs="+",
        metavar="NAME",
        help="origins to keep out of the training and report apart",
    )
    add(
        "--conditions",
        nargs="*",
        metavar="NAME",
        help="random recording conditions for the training, such as room and noise (see "
        "sound/augment.py); without names: all but detune and duet; default: none",
    )


def add_split_flags(parser):
    """Which pieces are held out."""
    add = parser.add_argument
    add(
        "--validation_split",
        type=number(float, 0, 0.9, low_open=True),
        default=0.1,
        help="fraction of pieces held out",
    )
    add(
        "--test_split",
        type=number(float, 0, 0.9),
        default=0.0,
        help="fraction of pieces kept for a final test by evaluate.py, outside training and "
        "validation",
    )
    add(
        "--split_of",
        metavar="MODEL",
        help="hold out the same pieces as this run or pretrained model; other pieces follow "
        "--validation_split",
    )
    add(
        "--maestro_split",
        metavar="FILE",
        help="split by MAESTRO's table, maestro-v3.0.0.csv: train, validation, test",
    )
    add(
        "--seed",
        type=number(int, 0, 2**31),
        default=0,
        help="seed of split, weights, shuffling and dropout",
    )


def add_network_flags(parser):
    """What the network is."""
    add = parser.add_argument
    add(
        "--filters",
        type=number(int, 1, 512),
        default=64,
        help="width of the networks: channels of the first layer",
    )
    add(
        "--dropout",
        type=number(float, 0, 0.9),
        default=0.5,
        help="dropout rate in the decoder's first three blocks",
    )
    add(
        "--weights",
        metavar="MODEL",
        help="start from this model, of the same width or narrower: run folder, file, or part of "
        "a pretrained model's name",
    )
    add(
        "--learn",
        choices=("magnitude", "phase", "both"),
        default="magnitude",
        help="output of the network: the target's magnitude, its phase (from both magnitudes), or"
        " both",
    )


def add_delta_flag(parser):
    """The loss on changes from frame to frame."""
    parser.add_argument(
        "--delta_weight",
        type=number(float, 0),
        default=0.0,
        help="weight of the error of the change from frame to frame, relative to L1; sharpens "
        "attacks; 2 works well; 0: off",
    )


def add_schedule_flags(parser):
    """How long, and in which steps."""
    add = parser.add_argument
    add(
        "--epochs",
        type=number(int, 1),
        default=100,
        help="total number of epochs, including finished ones",
    )
    add(
        "--epoch_offset",
        type=number(int, 0),
        default=0,
        help="number given to the epoch before the first",
    )
    add(
        "--epoch_tiles",
        type=number(int, 1),
        help="random tiles per epoch; default: all tiles",
    )
    add(
        "--decay_epochs",
        type=number(int, 0),
        default=0,
        help="learning rates fall linearly towards 0 over the last epochs",
    )
    add(
        "--minutes",
        type=number(float, 0, low_open=True),
        help="time limit, including earlier starts of this run; the rates fall linearly towards 0"
        " in the second half",
    )
    add("--batch_size", type=number(int, 1), default=8, help="tiles per step")


def add_search_flags(parser):
    """The search of learning rates."""
    add = parser.add_argument
    add(
        "--findlr",
        nargs="?",
        const=True,
        default=False,
        type=cli.boolean,
        help="search the learning rates instead of training",
    )
    add(
        "--findlr_steps",
        type=number(int, 10),
        help="steps of the search; default: one epoch, at least 400",
    )


def add_machine_flags(parser):
    """Where it runs, and where it writes."""
    add = parser.add_argument
    add("--runs_path", default="runs", help="where run folders go")
    add("--name", help="name of the run folder; default: <origin>_2_<target>")
    add(
        "--resume",
        metavar="RUN",
        help="continue this run folder; missing flags are read from it",
    )
    add("--fresh", action="store_true", help="delete this run's folder and start over")
    add(
        "--gpu",
        help="GPU number (0), several for data parallel training (0,1), or cpu; default: 0 if "
        "there is one",
    )
    add(
        "--precision",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="arithmetic of the layers; auto: bfloat16 on a GPU that has it, float32 elsewhere",
    )
    add(
        "--jit",
        nargs="?",
        const="on",
        default="auto",
        choices=("auto", "on", "off"),
        help="compile with XLA; auto: on a GPU",
    )
    add(
        "--cache", action="store_true", help="keep all tiles in memory (128 KiB a tile of 256 bins)"
    )
    add("--workers", type=number(int, 1), default=2, help="threads that read tiles")


def add_watching_flags(parser):
    """What one sees and keeps of it."""
    add = parser.add_argument
    add(
        "--preview_every",
        type=number(int, 0),
        default=1,
        help="epochs between previews of a held-out piece; 0: none",
    )
    add(
        "--preview_piece",
        metavar="PIECE",
        help="held-out piece of the previews, or a part of its name; default: the first",
    )
    add(
        "--keep_every",
        type=number(int, 0),
        default=0,
        metavar="EPOCHS",
        help="also keep every n-th epoch's generator, in epochs/; 0: none",
    )
    add(
        "--choose",
        choices=("best", "last"),
        default="best",
        help="epoch whose generator is kept: the one with the lowest error on held-out pieces, or"
        " the last",
    )
    add("--tensorboard", action="store_true", help="also write TensorBoard logs to the run folder")
