"""The command ``audioldm-translator``: list, train, evaluate, show, install, import.

What belongs to a model (its spaces, its towers, where its translators are) comes from a Host, which ``audioldm`` gives:
this package imports nothing of it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import InputError, settings, zoo
from .settings import EIGHTEEN, Settings

if TYPE_CHECKING:
    from .evaluation.judge import Encoders
    from .evaluation.pictures import Picture
    from .shards.pairs import Batch, Pairs

EPILOG = """examples:
  audioldm-translator list
  audioldm-translator train all --data shards/audiocaps shards/wit -o translators
  audioldm-translator train wit_cos_512_noise ridge --data shards/wit
  audioldm-translator evaluate --images photos/ -o judged
  audioldm-translator show translators/wit_cos_512.safetensors
  audioldm-translator install translators/wit_cos_512.safetensors
"""

# of Settings, that train takes
FLAGS = (
    ("epochs", int, "at most"),
    ("lr", float, "of Adam"),
    ("hidden", int, "width of the layers, instead of the name's"),
    ("batch", int, "pairs"),
    ("dropout", float, "probability"),
    ("temperature", float, "of the contrastive loss"),
    ("noise", float, "greatest length of noise on the unit input"),
    ("patience", int, "epochs without gain before it stops; 0: never stops"),
    ("gain", float, "worth waiting for, as a share of the whole fall of the held-out loss"),
    ("held_out", float, "share of the pairs that is held out"),
    ("seed", int, "of everything that is drawn"),
)


class Host(Protocol):
    """A model of ``audioldm``: whose spaces are meant."""

    name: str
    spaces: tuple[str, str]  # fingerprints of CLIP and CLAP space
    roots: list[Path]  # where translators are looked for, first one first
    home: Path  # where they are installed: <home>/<clip space>-<clap space>/<name>.safetensors
    dim: int  # of both spaces
    default: str | None  # name of the model's default translator
    sounds: dict[str, str]  # sounds that the model knows -> the prompts that stand for them; may be empty
    encoders: Encoders  # read when they are first used

    def find(self, name: str) -> zoo.Entry:
        """The translator called ``name`` for these spaces, or the file there. Raises ValueError."""

    def imagehear(self) -> list[Picture]:
        """The field's test set, downloaded once."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands and their flags."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.description = "From CLIP's space to CLAP's: train, judge and install translators."
    whole_flags = partial(type(parser), allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=whole_flags)
    _model(commands.add_parser("list", help="the eighteen and others: installed or not, data, figures"))
    _add_train(commands.add_parser("train", help="train translators from embedding shards"))
    _add_evaluate(commands.add_parser("evaluate", help="judge translators on photographs and on held-out pairs"))
    show = commands.add_parser("show", help="what a file says of itself")
    show.add_argument("file", type=Path, metavar="FILE")
    install = commands.add_parser("install", help="make a translator known by its name")
    install.add_argument("file", type=Path, metavar="FILE", help="of .safetensors, or .pth as the thesis's")
    _model(install)
    bring = commands.add_parser("import", help="the thesis's text files -> an embedding shard")
    bring.add_argument("folder", type=Path, metavar="FOLDER")
    bring.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.parquet")
    bring.add_argument("--source", required=True, metavar="NAME", help="audiocaps, wit …")
    bring.add_argument("--kind", choices=("text", "image"), required=True, help="which tower of CLIP made the vectors")
    bring.add_argument("--spaces", nargs=2, metavar=("CLIP", "CLAP"), help="fingerprints, instead of a --model's")
    _model(bring)


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="whose spaces are meant: a model's name or folder [starter]")


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Names are <data>_<mse|cos|cl>_<hidden>, with _noise or _centred behind for those variants; all is the\n"
        "thesis's eighteen. procrustes and ridge are fitted in closed form; memory needs no training.\n"
        "Flags left out are the thesis's settings. Run again to go on with what was interrupted."
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="all, or names")
    parser.add_argument(
        "--data", nargs="+", required=True, type=Path, metavar="PATH", help="shards, or folders of them"
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("translators"), metavar="FOLDER", help="[./translators]")
    for flag, kind, about in FLAGS:
        default = Settings.__dataclass_fields__[flag].default if flag != "hidden" else "256 or 512"
        parser.add_argument(f"--{flag}", type=kind, metavar="X", help=f"{about} [{default}]")
    parser.add_argument("--weights", nargs="+", metavar="SOURCE=X", help="shares of mixed sources [equal]")
    parser.add_argument("--captions", type=int, default=2000, metavar="N", help="that a memory keeps [2000]")
    parser.add_argument("--half", action="store_true", help="16-bit numbers in the files")
    parser.add_argument("--device", default="cpu", help="cpu or cuda [cpu, which so small networks keep busy]")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="translators or files [all of the model]")
    parser.add_argument(
        "--images", metavar="PATH",
        help="a folder of <class>/<photo> or <class><number>.jpg, a CSV with file and label, or imagehear",
    )  # fmt: skip
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="where the CSV's files are [beside it]")
    parser.add_argument(
        "--prompts", metavar="FILE", help="words for the classes, and more classes to be told from: CSV or JSON; "
        '"known" is the sounds that the model knows [the class names]',
    )  # fmt: skip
    parser.add_argument(
        "--data", nargs="+", type=Path, metavar="PATH", help="shards, whose held-out pairs are tried too"
    )
    parser.add_argument("--held_out", type=float, default=0.05, metavar="X", help="their share, as in training [0.05]")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the intervals [0]")
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="a new folder for tables, JSON and pictures")
    _model(parser)


def run(args: argparse.Namespace, host: Callable[[str | None], Host]) -> int:
    """Do what was asked; returns the exit code. ``host`` gives the model of a name. Raises InputError."""
    work = {
        "list": _list,
        "train": _train,
        "evaluate": _evaluate,
        "show": _show,
        "install": _install,
        "import": _import,
    }
    work[args.command](args, host)
    return 0


def _list(args: argparse.Namespace, host: Callable[[str | None], Host]) -> None:
    model = host(args.model)
    print(f"{model.name}: CLIP space {model.spaces[0]}, CLAP space {model.spaces[1]} (* default)")
    found = _installed(model)
    names = [*EIGHTEEN, *sorted(set(found) - set(EIGHTEEN))]
    names += [settings.MEMORY] if settings.MEMORY not in found else []
    for name in names:
        star = "*" if name == model.default else " "
        if name in found:
            facts = zoo.facts(found[name])
            print(f"{star} {name:32}installed  {facts}")
        else:
            print(f"{star} {name:32}{'made when it is first used' if name == settings.MEMORY else 'not there'}")


def _installed(model: Host) -> dict[str, zoo.Entry]:
    """All translators for the model's spaces, by name."""
    entries = (entry for root in dict.fromkeys(model.roots) for entry in zoo.available(root))
    return _by_name(entry for entry in entries if entry.fits(*model.spaces))


def _by_name(entries: Iterable[zoo.Entry]) -> dict[str, zoo.Entry]:
    """Of two with one name, the first counts."""
    return {entry.name: entry for entry in reversed(list(entries))}


def _train(args: argparse.Namespace, host: Callable[[str | None], Host]) -> None:
    names = [name for given in args.names for name in (EIGHTEEN if given == "all" else [given])]
    fitted = [name for name in names if name in settings.CLOSED_FORM]
    from .shards.parquet import open_shards

    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"{args.out} is a file; --out names a folder")
    shards = open_shards(args.data)
    known = sorted({shard.source for shard in shards})
    wanted = [_settings(name, known, args) for name in dict.fromkeys(names) if name not in (*fitted, settings.MEMORY)]
    used = {source for one in wanted for source in one.sources}
    if len(wanted) < len(set(names)) or any(one.centred for one in wanted):
        used = set(known)
    sources = _pairs(shards, used, 0.05 if args.held_out is None else args.held_out)
    from .training import closed_form, memory, train

    if wanted:
        train.train(wanted, sources, args.out, device=_device(args.device), half=args.half, report=_say)
    for name in dict.fromkeys(fitted):
        _say(f"{name}: {closed_form.make(name, sources, args.out, half=args.half)}")
    if settings.MEMORY in names:
        _say(f"memory: {memory.keep(sources, args.out, size=args.captions, seed=args.seed or 0)}")


def _settings(name: str, known: Sequence[str], args: argparse.Namespace) -> Settings:
    """What a name and the flags say. Raises InputError."""
    try:
        chosen = settings.parse(name, known)
    except InputError:
        wanted = settings.parse(name).sources if settings.trainable(name) else ()
        if missing := [source for source in wanted if source not in known]:
            raise InputError(
                f"{name} learns from {' and '.join(wanted)}; there are no shards of {' or '.join(missing)} in --data"
            ) from None
        raise
    given = {flag: value for flag, *_ in FLAGS if (value := getattr(args, flag)) is not None}
    return replace(chosen, **given, weights=_weights(args.weights, chosen.sources)).checked()


def _weights(given: Sequence[str] | None, sources: Sequence[str]) -> tuple[float, ...]:
    if not given or len(sources) < 2:
        return ()
    try:
        pairs = dict(word.rsplit("=", 1) for word in given)
        return tuple(float(pairs[source]) for source in sources)
    except (ValueError, KeyError):
        raise InputError(f"--weights gives each source its share: {' '.join(f'{s}=1' for s in sources)}") from None


def _pairs(shards: Sequence[Any], wanted: set[str], held_out: float) -> dict[str, Pairs]:
    from .shards.pairs import Pairs

    if not 0 < held_out < 1:
        raise InputError("the held-out share must lie between 0 and 1")
    by_source: dict[str, list[Any]] = {}
    for shard in shards:
        by_source.setdefault(shard.source, []).append(shard)
    return {source: Pairs(own, held_out) for source, own in sorted(by_source.items()) if source in wanted}


def _device(name: str) -> str:
    import torch

    if name != "cpu" and not (name.startswith("cuda") and torch.cuda.is_available()):
        raise InputError(f'the device "{name}" is not there; --device cpu trains without a GPU')
    return name


def _evaluate(args: argparse.Namespace, host: Callable[[str | None], Host]) -> None:
    from .evaluation import judge, report
    from .evaluation.pictures import class_prompts, read_pictures, read_prompts
    from .model import load_translator

    if not args.images and not args.data:
        raise InputError("give photographs to judge by (--images) or shards (--data), or both")
    if args.out:
        report.check_new(args.out)
    if args.seed < 0:
        raise InputError("the seed must be a whole number from 0 on")
    model = host(args.model)
    held_out = _held_out(args, model) if args.data else None
    first = _by_name(map(model.find, args.names)) or _installed(model)
    translators = {name: load_translator(entry.path) for name, entry in first.items()}
    for name, entry in first.items():
        if args.data and float(entry.metadata.get("held_out", 1)) < args.held_out:
            raise InputError(
                f"{name} has learnt from pairs of which only {entry.metadata['held_out']} were held out; "
                "--held_out must be no more than that"
            )
    if not args.images:
        print(report.held_out_markdown(judge.judge_pairs(held_out, translators)))
        return
    pictures = model.imagehear() if args.images == "imagehear" else read_pictures(args.images, args.root)
    given = model.sounds if args.prompts == "known" else read_prompts(args.prompts) if args.prompts else None
    found = judge.evaluate_images(
        model.encoders, pictures, class_prompts(pictures, given), translators,
        default=model.default if model.default in translators else None, held_out=held_out, seed=args.seed,
    )  # fmt: skip
    print(report.markdown(found))
    if args.out:
        report.save(found, args.out)
        _say(f"tables, JSON and pictures: {args.out}")


def _held_out(args: argparse.Namespace, model: Host) -> Batch:
    """The held-out pairs of all shards."""
    import torch

    from .shards.pairs import Batch
    from .shards.parquet import open_shards

    shards = open_shards(args.data)
    if (shards[0].clip_space, next((s.clap_space for s in shards if s.clap_space), None)) != tuple(model.spaces):
        raise InputError(f"the shards are of other spaces than those of {model.name}")
    sources = _pairs(shards, {shard.source for shard in shards}, args.held_out)
    parts = [pairs.held_out_pairs() for pairs in sources.values() if pairs.held_out]
    if not parts:
        raise InputError("the data are too few to hold pairs out")
    return Batch(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _show(args: argparse.Namespace, host: Callable[[str | None], Host]) -> None:
    from .model import load_translator

    translator = load_translator(args.file)
    beside = _beside(args.file)
    kind = type(translator).__name__
    print(f"{args.file}: {kind}, {sum(t.numel() for t in translator.state_dict().values()):,} numbers")
    for name, tensor in translator.state_dict().items():
        print(f"  {name:12} {' x '.join(map(str, tensor.shape))}")
    for key, value in sorted(translator.metadata.items()):
        plain = "".join(sign if sign.isprintable() else "?" for sign in value)
        print(f"  {key}: {plain if len(plain) < 100 else plain[:97] + '…'}")
    if not translator.metadata:
        print("  it does not say which spaces it belongs to")
    if beside is not None:
        print(json.dumps(beside, indent=2))


def _beside(file: Path) -> Any:
    """What the JSON beside a translator says; None if there is none. Raises InputError."""
    path = file.with_suffix(".json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise InputError(f"{path} is not a JSON file that can be read") from None


def _install(args: argparse.Namespace, host: Callable[[str | None], Host]) -> None:
    from .model import load_translator, save_translator, write

    entry, model = zoo.read_entry(args.file), host(args.model)
    translator = load_translator(args.file)
    clip, clap = entry.spaces
    if clip is None or clap is None:
        if args.model is None:
            raise InputError(
                f"{args.file} does not say which spaces it belongs to; --model names a model of these"
            )
        if translator.dim != model.dim:
            raise InputError(
                f"{args.file} is for spaces of {translator.dim} dimensions, those of {model.name} have {model.dim}"
            )
        clip, clap = model.spaces
    elif args.model is not None and not entry.fits(*model.spaces):
        raise InputError(f"{args.file} belongs to the spaces {clip} and {clap}, not to those of {model.name}")
    target = model.home / f"{clip}-{clap}" / f"{entry.name}.safetensors"
    if target.exists():
        raise InputError(f"a translator called {entry.name} is installed already: {target}")
    if entry.spaces == (clip, clap):
        write(target, args.file.read_bytes())
    else:
        save_translator(target, translator, {**entry.metadata, "clip_space": clip, "clap_space": clap})
    if args.file.with_suffix(".json").is_file():
        shutil.copyfile(args.file.with_suffix(".json"), target.with_suffix(".json"))
    _say(f"installed: {target}")
    if (clip, clap) != tuple(model.spaces):
        _say(f"it is for the spaces {clip} and {clap}, not for {model.name}")


def _import(args: argparse.Namespace, host: Callable[[str | None], Host]) -> None:
    from .shards.text_files import import_folder

    spaces = tuple(args.spaces) if args.spaces else host(args.model).spaces if args.model else None
    if spaces is None:
        raise InputError("text files do not say which spaces they belong to: give --model, or --spaces CLIP CLAP")
    count = import_folder(args.folder, args.out, args.source, args.kind, *spaces)
    _say(f"{count} pairs in {args.out}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
