"""The command ``audioldm-translator``, and a model's part in it: its spaces, its towers, its sounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from translator import zoo
from translator.programs import pip_install

from .. import registry
from ..checkpoints.layout import cache_dir, read_json, reporting
from ..errors import InputError
from .common import Parser, command
from .list import unknown_yet

if TYPE_CHECKING:
    from torch import Tensor

    from translator.cli import Extra
    from translator.evaluation.pictures import Picture

    from ..latent_diffusion.model import LatentDiffusion


class HostedModel:
    """A model, as ``translator.actions.HostModel`` describes it."""

    def __init__(self, name: str | None) -> None:
        self.model = registry.build_model(model_name=registry.DEFAULT_MODEL if name is None else name)
        self.name, self.spaces = self.model.folder.name, self.model.spaces
        self.roots, self.home = registry.translator_roots(self.model), registry.translators_home()
        self.default: str | None = self.model.folder.index.get("default_translator")

    def find(self, name: str) -> zoo.Entry:
        """The translator called ``name``, or the file there; a memory is made. Raises InputError."""
        return registry.find_or_make_translator(self.model, name)

    @property
    def dim(self) -> int:
        return self.model.dimension

    @property
    def sounds(self) -> dict[str, str]:
        path = self.model.folder.path / "sounds.json"
        if not path.is_file():
            raise InputError(f"{self.name} does not list its sounds")
        with reporting(path):
            return {sound["name"]: sound["prompt"] for sound in read_json(path)["sounds"]}

    @property
    def encoders(self) -> ModelTowers:
        return ModelTowers(self.model)

    def imagehear(self) -> list[Picture]:
        from translator.evaluation.imagehear import photographs

        from ..inputs.web import download as fetch

        accept = {"Accept": "application/json, image/*"}  # the listing's server wants the first to be named
        return photographs(cache_dir() / "imagehear", lambda url: fetch(url, headers=accept))


class ModelTowers:
    """The towers of a model, as ``translator.evaluation.judge.Towers`` describes them."""

    def __init__(self, model: LatentDiffusion) -> None:
        self.model, self.name, self.spaces = model, model.folder.name, model.spaces

    def image(self, source: str) -> Tensor:
        """(1, dim) of the picture at a URL or in a file. Raises InputError."""
        from ..inputs.images import load_image

        return self.model.clip.encode_image([load_image(source)]).cpu()

    def clip_text(self, texts: Sequence[str]) -> Tensor:
        """(N, dim), not normalised."""
        return self.model.clip.encode_text(texts).cpu()

    def clap_text(self, texts: Sequence[str]) -> Tensor:
        """(N, dim) unit vectors."""
        return self.model.clap.encode_text(texts).cpu()


def main(argv: Sequence[str] | None = None, extras: Mapping[str, Extra] | None = None) -> int:
    """The command ``audioldm-translator``; returns its exit code. ``extras``: sub-commands of other packages."""
    return command(lambda: _run(argv, extras or {}), as_program=argv is None, name="audioldm-translator")


def _run(argv: Sequence[str] | None, extras: Mapping[str, Extra]) -> int:
    from translator import cli

    parser = Parser("audioldm-translator", allow_abbrev=False)
    cli.add_arguments(parser, extras)
    args = parser.parse_args(argv)
    if args.command == "list" and (why := unknown_yet(args.model or registry.DEFAULT_MODEL)):
        print(why)  # a list needs no download
        return 0
    try:
        return cli.run(args, HostedModel, extras)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; run: {pip_install(error.name or '')}") from None
