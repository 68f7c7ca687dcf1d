"""What the sub-commands of ``audioldm-translator`` do.

``audioldm`` provides a ``HostModel``, which has all that belongs to a model; nothing of ``audioldm`` is imported here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import InputError, zoo
from .files import printable
from .settings import EIGHTEEN, MEMORY, expand

if TYPE_CHECKING:
    from .evaluation.judge import Towers
    from .evaluation.pictures import Picture
    from .shards.pairs import Batch

SETTINGS: dict[str, tuple[Callable[[str], Any], str]] = {  # fields of Settings that are flags of train
    "epochs": (int, "maximum number of epochs"),
    "lr": (float, "learning rate of Adam"),
    "hidden": (int, "width of the hidden layers; overrides the name's"),
    "batch": (int, "pairs in a batch"),
    "dropout": (float, "dropout probability"),
    "temperature": (float, "temperature of the contrastive loss"),
    "noise": (float, "maximum length of the noise on the unit input"),
    "patience": (int, "epochs without improvement before training stops; 0: never stop"),
    "gain": (float, "smallest improvement, as a share of the held-out loss's whole decrease"),
    "held_out": (float, "share of held-out pairs"),
    "seed": (int, "random seed"),
}


class HostModel(Protocol):
    """A model of ``audioldm``, for whose spaces translators are trained, evaluated and installed."""

    name: str
    spaces: tuple[str, str]  # fingerprints of CLIP and CLAP space
    roots: list[Path]  # folders that are searched for translators, in order
    home: Path  # where they are installed: <home>/<clip space>-<clap space>/<name>.safetensors
    default: str | None  # name of the model's default translator

    @property
    def dim(self) -> int:
        """Dimensions of both spaces."""
        ...

    @property
    def sounds(self) -> dict[str, str]:
        """Sounds that the model knows -> their prompts; may be empty."""
        ...

    @property
    def encoders(self) -> Towers:
        """The model's towers, loaded at first use."""
        ...

    def find(self, name: str) -> zoo.Entry:
        """Find the translator called ``name``, or the file at that path. Raises InputError."""
        ...

    def imagehear(self) -> list[Picture]:
        """Return the test set ImageHear, downloaded once."""
        ...


Host = Callable[[str | None], HostModel]  # opens a model by its name; None: the default


def list_translators(args: argparse.Namespace, host: Host) -> None:
    """Print a table of all translators for a model."""
    model = host(args.model)
    print(f"{model.name}: CLIP space {model.spaces[0]}, CLAP space {model.spaces[1]} (* default)")
    found = _installed(model)
    missing = {name: "not installed" for name in EIGHTEEN if name not in found}
    if MEMORY not in found:
        missing[MEMORY] = "made at first use"
    print("\n".join(zoo.table(found.values(), model.default, missing)))


def _installed(model: HostModel) -> dict[str, zoo.Entry]:
    """All translators for the model's spaces, by name."""
    entries = (entry for root in dict.fromkeys(model.roots) for entry in zoo.available(root))
    return _by_name(entry for entry in entries if entry.fits(*model.spaces))


def _by_name(entries: Iterable[zoo.Entry]) -> dict[str, zoo.Entry]:
    """Of two with one name, the first counts."""
    return {entry.name: entry for entry in reversed(list(entries))}


def train(args: argparse.Namespace, host: Host) -> None:
    """Train, fit or draw the named translators."""
    from .shards.parquet import open_shards

    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"{args.out} is a file; --out must be a folder")
    shards = open_shards(args.data)
    from .training import named

    given = {flag: value for flag in SETTINGS if (value := getattr(args, flag)) is not None}
    order = named.Order(expand(args.names), given, args.weights, args.captions, args.half, args.device)
    named.make_all(order, shards, args.out, _say)


def evaluate(args: argparse.Namespace, host: Host) -> int:
    """Evaluate translators on photographs, held-out pairs or both, and print the tables.

    Returns the exit code: 0, or 1 if pictures were left out because they could not be used.
    """
    from .evaluation import judge, report
    from .evaluation.pictures import class_prompts, read_pictures, read_prompts
    from .model import load_translator

    if not args.images and not args.data:
        raise InputError("give photographs (--images), shards (--data) or both")
    if args.out:
        report.check_new(args.out)
    if args.seed < 0:
        raise InputError("the seed must be a whole number from 0 on")
    model = host(args.model)
    held_out = _held_out(args, model) if args.data else None
    chosen = _by_name(map(model.find, args.names)) or _installed(model)
    translators = {name: load_translator(entry.path) for name, entry in chosen.items()}
    for name, entry in chosen.items():
        if args.data and float(entry.metadata.get("held_out", 1)) < args.held_out:
            raise InputError(
                f"{name} was trained with only {entry.metadata['held_out']} of the pairs held out; "
                "--held_out must not be larger"
            )
    if held_out is not None and not args.images:
        print(report.held_out_markdown(judge.judge_pairs(held_out, translators)))
        return 0
    pictures = model.imagehear() if args.images == "imagehear" else read_pictures(args.images, args.root)
    given = model.sounds if args.prompts == "known" else read_prompts(args.prompts) if args.prompts else None
    found = judge.evaluate_images(
        model.encoders, pictures, class_prompts(pictures, given), translators,
        default=model.default if model.default in translators else None, held_out=held_out, seed=args.seed,
    )  # fmt: skip
    for skipped in found.skipped:
        _say(f"{printable(skipped.name, 100)} is left out: {printable(skipped.why, 400)}")
    print(report.markdown(found))
    if args.out:
        report.save(found, args.out)
        _say(f"tables, JSON and pictures: {args.out}")
    return 1 if found.skipped else 0


def _held_out(args: argparse.Namespace, model: HostModel) -> Batch:
    """The held-out pairs of all shards."""
    from .shards.pairs import join
    from .shards.parquet import open_shards
    from .training.named import by_source, read_pairs

    shards = open_shards(args.data)
    if (shards[0].clip_space, next((s.clap_space for s in shards if s.clap_space), None)) != tuple(model.spaces):
        raise InputError(f"the spaces of the shards are not those of {model.name}")
    sources = read_pairs(by_source(shards), args.held_out)
    parts = [pairs.held_out_pairs() for pairs in sources.values() if pairs.held_out]
    if not parts:
        raise InputError("there are too few pairs to hold any out")
    return join(parts)


def show(args: argparse.Namespace, host: Host) -> None:
    """Print a file's tensors, its metadata and the JSON beside it."""
    from .model import load_translator

    translator = load_translator(args.file)
    beside = _read_json_beside(args.file)
    tensors = translator.state_dict()
    print(f"{args.file}: {type(translator).__name__}, {sum(tensor.numel() for tensor in tensors.values()):,} numbers")
    for name, tensor in tensors.items():
        print(f"  {name:12} {' x '.join(map(str, tensor.shape))}")
    for key, value in sorted(translator.metadata.items()):
        plain = "".join(sign if sign.isprintable() else "?" for sign in value)
        print(f"  {key}: {plain if len(plain) < 100 else plain[:97] + '…'}")
    if not translator.metadata:
        print("  no metadata: the file does not name its spaces")
    if beside is not None:
        print(json.dumps(beside, indent=2))


def _read_json_beside(file: Path) -> object:
    """The content of the JSON file beside a translator; None if there is none. Raises InputError."""
    path = file.with_suffix(".json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise InputError(f"{path} is not a readable JSON file") from None


def install(args: argparse.Namespace, host: Host) -> None:
    """Copy a translator to where models look for it."""
    from .model import load_translator

    entry = zoo.read_entry(args.file)
    if args.model is None and None in entry.spaces:
        raise InputError(f"{args.file} does not name its spaces; --model names a model that has them")
    load_translator(args.file)  # a damaged file is reported before the model, which may be a download
    model = host(args.model)
    if args.model is not None and not entry.fits(*model.spaces):
        raise InputError("{} belongs to the spaces {} and {}, not to those of {}".format(
            args.file, *entry.spaces, model.name))  # fmt: skip
    install_file(args.file, model)


def installed_path(name: str, model: HostModel, spaces: tuple[str, str] | None = None) -> Path:
    """Where the translator ``name`` is installed for ``spaces``; None: those of the model."""
    return model.home / "-".join(spaces or model.spaces) / f"{name}.safetensors"


def install_file(file: Path, model: HostModel, *, replace: bool = False) -> None:
    """Copy the translator ``file`` to where models look for it; one that names no spaces gets those of ``model``.

    Raises InputError: it is damaged, or another of its name is installed and not to be replaced.
    """
    from .files import write
    from .model import load_translator, save_translator

    entry, translator = zoo.read_entry(file), load_translator(file)
    clip, clap = entry.spaces
    assumed = clip is None or clap is None
    if assumed and translator.dim != model.dim:
        raise InputError(
            f"the spaces of {file} have {translator.dim} dimensions, those of {model.name} {model.dim}"
        )
    spaces = model.spaces if clip is None or clap is None else (clip, clap)
    target = installed_path(entry.name, model, spaces)
    if target.exists() and not replace:
        raise InputError(f"a translator called {entry.name} is already installed: {target}")
    beside = file.with_suffix(".json")
    if beside.is_file():
        write(target.with_suffix(".json"), beside.read_bytes())
    if entry.unnamed:
        _say(zoo.UNNAMED.format(file))
    if assumed:
        facts = {"clip_space": spaces[0], "clap_space": spaces[1], **zoo.ASSUMED}
        save_translator(target, translator, {**entry.metadata, **facts})
    else:
        write(target, file.read_bytes())
    _say(f"installed: {target}")
    if spaces != tuple(model.spaces):
        _say(f"its spaces are {spaces[0]} and {spaces[1]}, not those of {model.name}")


def import_text_files(args: argparse.Namespace, host: Host) -> None:
    """Convert a folder of text files, or two tables, to a shard."""
    from .shards.text_files import check_import, import_pairs

    check_import(args.files, args.out, args.source)  # before the model, which may be a download
    model = host(args.model) if args.model and not args.spaces else None
    if model is None and not args.spaces:
        raise InputError("vectors do not name their spaces: give --model or --spaces CLIP CLAP")
    (clip, clap), dim = (args.spaces, None) if model is None else (model.spaces, model.dim)
    count = import_pairs(args.files, args.out, args.source, args.kind, clip, clap, dim)
    _say(f"{count} pairs in {args.out}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
