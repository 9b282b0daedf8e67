"""Run one of our scripts with another picture of sound than the method's: for docs/ablations.md.

    python benchmarks/variant.py linear compute_features.py --audios audios --features features_linear --workers 1
    python benchmarks/variant.py linear train.py --dataset_path features_linear --runs_path runs/linear ...
    python benchmarks/variant.py linear evaluate.py --model runs/linear/... --audios_path audios

linear  magnitude itself, 0 ... 1, instead of the dB scale; train.py's "dB" are then 96.33 times a difference of magnitudes
full    all 512 bins up to 22 kHz instead of the lower half; a tile is 512 x 256

evaluate.py's measures stay those of the method: pictures are compared on the dB scale, in the lower half. Give
compute_features.py --workers 1, for its worker processes would know nothing of the change.
"""

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
import cli
import data
import metrics

SCRIPTS = ("compute_features.py", "train.py", "train_generator.py", "predict.py", "evaluate.py")


def linear():
    """Make pictures of the magnitude itself."""
    to_db, mae = data.amplitude_to_db, metrics.picture_mae
    data.amplitude_to_db = data.db_to_amplitude = lambda picture: np.asarray(picture, np.float32)
    metrics.picture_mae = lambda picture, reference: mae(to_db(picture), to_db(reference))


def full():
    """Keep all bins but the highest."""
    lower, mae = data.BINS, metrics.picture_mae
    data.BINS = data.FEATURE_PARAMETERS["bins"] = data.N_FFT // 2
    metrics.picture_mae = lambda picture, reference: mae(picture[:lower], reference[:lower])


VARIANTS = {"linear": linear, "full": full}


@cli.command
def main(argv=None):
    """Change data.py, then run the script, which reads it afterwards."""
    parser = cli.Parser(__doc__)
    parser.add_argument("variant", choices=VARIANTS, help="picture of sound")
    parser.add_argument("script", choices=SCRIPTS, help="script to run")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="its flags")
    args = parser.parse_args(argv)
    VARIANTS[args.variant]()
    data.FEATURE_PARAMETERS["variant"] = args.variant
    return importlib.import_module(Path(args.script).stem).main(args.flags)


if __name__ == "__main__":
    raise SystemExit(main())
