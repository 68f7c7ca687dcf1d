"""Seconds per stage, and peak memory, of one prompt: ``python benchmarks/stages.py -t examples/dog.jpg``.

Stages are the functions of a run that have these names. Importing happens inside them, when a part is first needed;
its time is taken apart by watching import statements. What loading an encoder costs is its first use less its second.
"""

from __future__ import annotations

import argparse
import builtins
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


STAGES = ("import", "load", "condition", "denoise", "decode", "rank", "write")


class Stopwatch:
    """Seconds by stage; those of import statements go to the stage "import" wherever they occur."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._import, self._depth = builtins.__import__, 0
        builtins.__import__ = self._timed_import

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began, imported = time.perf_counter(), self.seconds["import"]
        yield
        imported = self.seconds["import"] - imported
        self.seconds[name] += time.perf_counter() - began - imported

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, whose seconds go to the stage ``name``."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return call

    def second(self, name: str, use: Callable[[], Any]) -> Any:
        """What ``use`` gives; its second run is the stage ``name``, and what the first took more is "load"."""
        with self.stage("load"):
            use()
        with self.stage(name):
            result = use()
        self.seconds["load"] = max(0.0, self.seconds["load"] - self.seconds[name])  # the second may be the slower one
        return result

    def _timed_import(self, *args: object, **kwargs: object) -> object:
        began = time.perf_counter()
        self._depth += 1
        try:
            return self._import(*args, **kwargs)
        finally:
            self._depth -= 1
            if not self._depth:
                self.seconds["import"] += time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-t", "--text", default="a dog barking", help="text or image")
    parser.add_argument("--model_name", default="starter", help="name or folder")
    parser.add_argument("-dur", "--duration", type=float, help="seconds")
    parser.add_argument("-n", dest="n_candidates", type=int, help="candidates, of which the best is kept")
    parser.add_argument("--ddim_steps", type=int)
    parser.add_argument("--sampler")
    parser.add_argument("--device")
    args = parser.parse_args()

    watch = Stopwatch()
    import numpy as np

    from audioldm import generation, pipeline
    from audioldm.conditioning import condition
    from audioldm.inputs.prompt import read_prompt
    from audioldm.latent_diffusion import sampling
    from audioldm.options import GenerateOptions
    from audioldm.outputs.destination import make_record
    from audioldm.utils import save_wave

    with watch.stage("load"):
        model = pipeline.build_model(model_name=args.model_name, device=args.device)
        given = {name: getattr(args, name) for name in ("duration", "ddim_steps", "sampler", "n_candidates")}
        options = GenerateOptions.build(given, model.defaults)
        prompt = read_prompt(args.text)
        _ = model.unet, model.vae, model.vocoder, model.unconditional
    vector = watch.second("condition", lambda: condition(model, prompt))
    if options.n_candidates > 1:
        with watch.stage("load"):
            generation.rank(model, [np.zeros(8000, np.float32)], vector)
    for place, name in ((sampling, "denoise"), (generation, "decode"), (generation, "rank")):
        setattr(place, name, watch.timed(name, getattr(place, name)))
    (sound,) = generation.generate(model, vector, options)
    with watch.stage("write"), tempfile.TemporaryDirectory() as folder:
        make_record(model, prompt, None, options)
        save_wave(sound.wave[None, None], folder)

    for name, seconds in watch.seconds.items():
        print(f"{name:10} {seconds:7.2f} s")
    print(f"{'together':10} {sum(watch.seconds.values()):7.2f} s")
    print(
        f"{'peak RSS':10} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:7.2f} GiB"
    )  # Linux: KiB
    print(
        f"{options.duration:g} s of sound, {options.ddim_steps} steps of {options.sampler}, "
        f"{options.n_candidates} candidates, on {model.device}"
    )


if __name__ == "__main__":
    main()
