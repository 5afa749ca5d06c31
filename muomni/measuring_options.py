"""``muomni evaluate``, ``bench``, ``plan`` and ``export``: their options. What they need is imported when they run."""

import argparse

from muomni.options import Parser, add_model_options, add_seed, add_voice, number


def add_evaluate(commands: "argparse._SubParsersAction[Parser]") -> None:
    """``muomni evaluate``: speech, codec, vocoder."""
    evaluate = commands.add_parser("evaluate", help="measure a trained model on sentences drawn by your seed")
    what = evaluate.add_subparsers(dest="what", metavar="WHAT", required=True)
    speech = what.add_parser(
        "speech",
        help="have sentences said, and judged by a recogniser that is not part of the model",
        description="Run in the root of the repository, where data/ is. Prints figures with their 95 % intervals, and "
        "writes a page with players and a JSON file with all transcripts.",
    )
    speech.add_argument(
        "--stages",
        metavar="FOLDER",
        help="judge what stage D made, from the stages' checkpoints in this folder, on the CPU",
    )
    add_voice(speech)
    add_drawing(speech)
    add_model_options(speech)
    codec = what.add_parser(
        "codec",
        help="have recordings judged as they are, through the vocoder, and through the codec",
        description="Run in the root of the repository, where data/ and params.yaml are.",
    )
    codec.add_argument(
        "--checkpoint", default="checkpoints/codec", metavar="FOLDER", help="of stage D (default: %(default)s)"
    )
    add_speaker(codec)
    add_drawing(codec)
    vocoder = what.add_parser(
        "vocoder",
        help="compare the vocoder that was trained with Griffin-Lim",
        description="Run in the root of the repository, where data/ and params.yaml are.",
    )
    vocoder.add_argument(
        "--checkpoint", default="checkpoints/vocoder", metavar="FOLDER", help="of stage D (default: %(default)s)"
    )
    vocoder.add_argument(
        "--codec", default="checkpoints/codec", metavar="FOLDER", help="likewise (default: %(default)s)"
    )
    add_speaker(vocoder)
    add_drawing(vocoder)


def add_speaker(parser: argparse.ArgumentParser) -> None:
    """Who reads the sentences."""
    parser.add_argument(
        "--speaker",
        action="append",
        metavar="NAME",
        help="who reads: hibari (default), or a voice of eSpeak NG such as espeak:en-us+f2 (may be repeated)",
    )


def add_drawing(parser: argparse.ArgumentParser) -> None:
    """Which sentences are drawn, and where what was found goes."""
    parser.add_argument(
        "--sentences",
        action="append",
        metavar="KIND",
        help="known: new ones of held-out combinations; open: ordinary English from outside the data; or a text file "
        "with a sentence a line (may be repeated; default: known and open)",
    )
    parser.add_argument(
        "--count", type=number(int, 1, 10_000), default=200, metavar="N", help="sentences of each (default: 200)"
    )
    parser.add_argument("--out", default="metrics/check", metavar="FOLDER", help="default: %(default)s")
    add_seed(parser)


def add_measuring(commands: "argparse._SubParsersAction[Parser]") -> None:
    """``muomni bench`` and ``muomni plan``."""
    bench = commands.add_parser(
        "bench",
        help="measure how fast this machine trains and runs the model, beside what the machine can do",
        description="Run in the root of the repository. Needs no data and no trained model. Prints a table.",
    )
    bench.add_argument("--json", metavar="FILE", help="also write all figures there")
    bench.add_argument(
        "--against", metavar="FOLDER", help="time the same shapes, in turn, with a checkout of the original micro-Omni"
    )
    bench.add_argument(
        "--only",
        action="append",
        metavar="PART",
        help="components, memory, stages, generation, speech, reading; or scaling, which takes minutes more",
    )
    bench.add_argument("--curves", metavar="FILE.png", help="draw the curves of scaling")
    bench.add_argument(
        "--seconds",
        type=number(float, 0.1, 600),
        default=3.0,
        metavar="S",
        help="for each figure (default: %(default)s)",
    )
    plan = commands.add_parser(
        "plan",
        help="whether this machine can train a profile, in what batches, how long that takes and what it costs",
        description="Run in the root of the repository. Tries a few steps of every stage on made-up data.",
    )
    plan.add_argument(
        "--memory",
        type=number(float, 0.5, 10_000),
        metavar="GB",
        help="budget (default: device.memory_gb, or what is there)",
    )
    plan.add_argument("--price", type=number(float, 0, 10_000), metavar="MONEY", help="of an hour of this machine")
    plan.add_argument("--stage", action="append", metavar="NAME", help="only this stage; may be repeated")
    plan.add_argument("--compare", action="store_true", help="compare the last plan with the trainings since")
    for parser in (bench, plan):
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--profile", metavar="NAME", help="of profiles/NAME.yaml")
        which.add_argument("--params", default="params.yaml", metavar="FILE", help="of a file (default: %(default)s)")


def add_export(commands: "argparse._SubParsersAction[Parser]") -> None:
    """``muomni export``."""
    export = commands.add_parser(
        "export",
        help="write a model as a folder for transformers and onnxruntime",
        description="The folder stands alone: it loads where muomni is not installed. Prints its name.",
    )
    export.add_argument("out", metavar="OUT", help="the folder to make; must not be there, or be empty")
    which = export.add_mutually_exclusive_group()
    which.add_argument(
        "--checkpoint", default="checkpoints/omni", metavar="FOLDER", help="the trained model (default: %(default)s)"
    )
    which.add_argument("--model", metavar="ADDRESS", help="a registered model, such as models:/muomni@champion")
    export.add_argument(
        "--format", default="hf,onnx", metavar="NAMES", help="hf for transformers, onnx (default: both, %(default)s)"
    )
    export.add_argument(
        "--weights", choices=("fp32", "int8"), default="fp32", help="of the Thinker in ONNX (default: %(default)s)"
    )
