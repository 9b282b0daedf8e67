"""Export a generator for other programs: ONNX, LiteRT (TFLite), OpenVINO, TensorFlow SavedModel.

    python -m conversion.export_generator --model guitar --format onnx openvino

The new folder guitar_network/ then holds the network in each format, and tiles.json, which says how
a program makes the network's tiles and joins what it gives: see docs/export.md. (To put a trained
run among the shipped models is another matter: pretrained/export.py.)
"""

from common import cli  # isort: skip  # first, see its docstring
import contextlib
import importlib.util
import io
import os
import tempfile
from pathlib import Path

import data
from common import devices, kinds
from common.cli import UserError
from common.files import check_folder, write_json
from conversion import known_models
from conversion.convert import OVERLAP, TRAINING_LOUDNESS

FORMATS = {  # {Keras's name: (file, packages required besides TensorFlow)}
    "onnx": ("network.onnx", ("onnx", "tf2onnx")),
    "litert": ("network.tflite", ()),
    "openvino": ("network.xml", ("openvino",)),
    "tf_saved_model": ("saved_model", ()),
}


def export_generator(generator, folder, formats):
    """Write a generator in each format, and tiles.json.

    The graph accepts any number of tiles and has plain operations only: batch norm is folded into
    the convolutions, and dropout is removed.

    Args:
        generator: Keras model in float32, of the kind `kinds.PLAIN`, on TensorFlow.
        folder: path of an existing folder.
        formats: keys of `FORMATS`.

    Returns:
        Paths of the written files, in the order of ``formats``.
    """
    import keras

    from models import fold_norms

    folded = fold_norms(generator)
    shape = (None, *generator.input_shape[1:])
    tiles = [keras.InputSpec(shape=shape, dtype="float32", name="tiles")]
    paths = []
    for name in formats:
        path = Path(folder) / FORMATS[name][0]
        with cli.quiet_stderr(), contextlib.redirect_stdout(io.StringIO()):
            folded.export(str(path), format=name, input_signature=tiles, verbose=False)
        paths.append(path)
    write_json(Path(folder) / "tiles.json", describe_tiles(generator))
    return paths


def describe_tiles(generator):
    """Describe how to make and join a generator's tiles: a dict for tiles.json."""
    stride = round(data.TILE_FRAMES * (1 - OVERLAP))
    return {
        "network": {
            "input": [None, generator.bins, data.TILE_FRAMES, 1],
            "output": [None, generator.bins, data.TILE_FRAMES, 1],
            "axes": ["tile", "frequency, from 0 Hz up", "time", "one channel"],
            "type": "float32",
        },
        "sound": {
            "sample_rate": data.SAMPLE_RATE,
            "channels": 1,
            "loudness_lufs": TRAINING_LOUDNESS,
        },
        "spectrum": {
            "n_fft": data.N_FFT,
            "hop_length": data.HOP_LENGTH,
            "window": "0.5 - 0.5 cos(2 pi k / (n_fft - 1)), k = 0 ... n_fft - 1",
            "centre": "frame t is centred on sample t * hop_length; zeros around the sound",
            "bins": generator.bins,
            "scale": float(2 / data.WINDOW.sum()),
            "magnitude": "m = scale |FFT(window * samples)|: 1 for a sine of full scale",
        },
        "decibels": {
            "amin": data.AMIN,
            "to_network": "x = 2 ln(1 + m / amin) / ln(1 + 1 / amin) - 1, at most 1",
            "from_network": "m = amin (exp((x + 1) / 2 * ln(1 + 1 / amin)) - 1)",
        },
        "tiles": {
            "frames": data.TILE_FRAMES,
            "stride": stride,
            "padding": -1.0,
            "weight": "w(k) = min(k + 1, frames - k) for frame k of a tile",
            "join": "the mean, weighted by w, of the tiles that cover a frame",
            "silence": "a frame whose magnitudes are all 0 stays so",
        },
    }


def check_packages(formats):
    """Raise UserError if a package for a format is missing."""
    for name in formats:
        for package in FORMATS[name][1]:
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"--format {name}: package {package} is not installed here; "
                    f"pip install -r {cli.PROJECT / 'requirements-export.txt'}"
                )


def load_plain(path):
    """Load a generator in float32, on TensorFlow.

    Raises:
        UserError: it is not of the kind `kinds.PLAIN`, or Keras runs on another backend.
    """
    devices.setup_device("cpu")
    import keras

    from conversion.model_files import load_generator  # loads Keras

    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise UserError(
            f"KERAS_BACKEND={backend}: the export needs tensorflow; install it or set that name"
        )
    generator = load_generator(path, "float32")
    if generator.kind is not kinds.PLAIN:
        raise UserError(
            f"--model {path}: has more than one input or output picture; give another model"
        )
    return generator


def find_size(path):
    """Size of a file or folder in bytes, with the weights file of an OpenVINO network."""
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add(
        "--model",
        required=True,
        help="part of a name that fits only one (see predict.py --list), run folder or model file",
    )
    add(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=["onnx"],
        help="one or several formats; onnx and openvino need requirements-export.txt",
    )
    add("--output", help="new folder; default: named after the model, guitar_network")
    return parser


@cli.command
def main(argv=None):
    """Export a model."""
    args = build_parser().parse_args(argv)
    path = known_models.find_model(args.model, "--model")
    output = Path(args.output or f"{known_models.make_label(path)}_network")
    if os.path.lexists(output):
        raise UserError(f"--output {output}: already exists; give a new folder")
    check_folder(output.parent, "--output")
    formats = list(dict.fromkeys(args.format))
    check_packages(formats)
    generator = load_plain(path)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".") as folder:
        part = Path(folder) / "network"
        part.mkdir()
        written = export_generator(generator, part, formats)
        part.rename(output)
    for file in written:
        file = output / file.name
        print(f"{cli.one_line(file)}: {find_size(file) / 1e6:.1f} MB")
    print(f"{cli.one_line(output / 'tiles.json')}: how to make and join the tiles, docs/export.md")


if __name__ == "__main__":
    raise SystemExit(main())
