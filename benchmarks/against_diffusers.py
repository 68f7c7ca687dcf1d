"""A race against diffusers' AudioLDMPipeline: the same random full-size weights, 10 s of sound, equal steps.

    python benchmarks/against_diffusers.py [--quick] [--steps 10] [--rounds 3] [--threads 2] [--clock wall|cpu]

All take turns in one process: ours with --precision auto and fp32, diffusers' as it comes (float32) and in bf16. Each
row is the median of the rounds, in seconds; the last lines are ratios of medians. Last, one round at equal distance:
ours with its defaults, diffusers with the number of DDIM steps (``--ddim``) that comes as near to the reference, which
``samplers.py`` measures with the starter, whose weights are trained. Peak memory is that of a process of
its own with one step. On a machine where other programs run, use ``--threads 1 --clock cpu``. Needs ../shared for the
names of the tensors, and 5 GB for a temporary folder.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

for library in ("TRANSFORMERS", "DIFFUSERS"):
    os.environ[f"{library}_VERBOSITY"] = "error"
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

PROMPT, SECONDS, GUIDANCE = "a dog barking", 10.0, 2.5
STAGES = ("condition", "step", "decode", "vocoder", "whole")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Run = Callable[[int, int], None]  # (sounds, steps)


class Stopwatch:
    """Seconds of each call, by stage."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.calls = clock, defaultdict(list)

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def measured(*args: Any, **named: Any) -> Any:
            began = self.clock()
            result = function(*args, **named)
            self.calls[stage].append(self.clock() - began)
            return result

        return measured


def ours(folder: Path, precision: str, watch: Stopwatch) -> Run:
    """Our pipeline from a text to a wave; its parts are read in the first run."""
    from audioldm import pipeline
    from audioldm.latent_diffusion import codec
    from audioldm.latent_diffusion.model import LatentDiffusion

    model = LatentDiffusion.from_folder(folder, "cpu", precision)
    model.unet.forward = watch.timed("step", model.unet.forward)

    def run(sounds: int, steps: int) -> None:
        real = pipeline.condition_all, codec.to_mel, codec.vocode
        pipeline.condition_all = watch.timed("condition", pipeline.condition_all)
        codec.to_mel, codec.vocode = watch.timed("decode", real[1]), watch.timed("vocoder", real[2])
        try:
            pipeline.text_to_audio(model, PROMPT, ddim_steps=steps, duration=SECONDS, batchsize=sounds,
                                   guidance_scale=GUIDANCE, n_candidate_gen_per_text=1)  # fmt: skip
        finally:
            pipeline.condition_all, codec.to_mel, codec.vocode = real

    return run


def theirs(folder: Path, dtype: torch.dtype, watch: Stopwatch) -> Run:
    """diffusers' pipeline with the same parts."""
    from diffusers import AudioLDMPipeline, AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import ClapTextModelWithProjection, RobertaTokenizerFast, SpeechT5HifiGan

    pipe = AudioLDMPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=dtype),
        text_encoder=ClapTextModelWithProjection.from_pretrained(folder / "clap", dtype=dtype),
        tokenizer=RobertaTokenizerFast(tokenizer_file=str(folder / "clap" / "tokenizer.json"), model_max_length=512),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
        vocoder=SpeechT5HifiGan.from_pretrained(folder / "vocoder", dtype=dtype),
    )
    pipe.set_progress_bar_config(disable=True)
    pipe._encode_prompt = watch.timed("condition", pipe._encode_prompt)
    pipe.unet.forward = watch.timed("step", pipe.unet.forward)
    pipe.decode_latents = watch.timed("decode", pipe.decode_latents)
    pipe.mel_spectrogram_to_waveform = watch.timed("vocoder", pipe.mel_spectrogram_to_waveform)

    def run(sounds: int, steps: int) -> None:
        pipe(PROMPT, audio_length_in_s=SECONDS, num_inference_steps=steps, guidance_scale=GUIDANCE,
             num_waveforms_per_prompt=sounds)  # fmt: skip

    return run


CONTENDERS: dict[str, Callable[[Path, Stopwatch], Run]] = {
    "ours, auto": lambda folder, watch: ours(folder, "auto", watch),
    "ours, fp32": lambda folder, watch: ours(folder, "fp32", watch),
    "diffusers, float32": lambda folder, watch: theirs(folder, torch.float32, watch),
    "diffusers, bfloat16": lambda folder, watch: theirs(folder, torch.bfloat16, watch),
}


RATIOS = (("ours, auto", "diffusers, float32"), ("ours, auto", "diffusers, bfloat16"),
          ("ours, fp32", "diffusers, float32"))  # fmt: skip


def random_model(scratch: Path) -> Path:
    """A model folder of -s-full-v2's size. Its tokenizer is a small one."""
    from full_size import checkpoint
    from upstream import GOLDEN

    from audioldm.convert.checkpoint import convert

    checkpoint("s", scratch / "random.ckpt")
    folder = convert(scratch / "random.ckpt", scratch / "full", tokenizer=GOLDEN / "tokenizer")
    (scratch / "random.ckpt").unlink()
    return Path(folder)


def race(runs: dict[str, Run], watches: dict[str, Stopwatch], sounds: int, steps: dict[str, int],
         rounds: int) -> None:  # fmt: skip
    """Print a table of the contenders in ``steps``, and how much faster ours are."""
    whole = defaultdict(list)
    for watch in watches.values():
        watch.calls.clear()
    for _ in range(rounds):
        for name in steps:
            began = watches[name].clock()
            runs[name](sounds, steps[name])
            whole[name].append(watches[name].clock() - began)
    print(f"\n{sounds} x {SECONDS:g} s\n\n| | steps | " + " | ".join(STAGES) + " |\n" + "|---" * 7 + "|")
    for name, count in steps.items():
        calls = {**watches[name].calls, "whole": whole[name]}
        cells = [f"{statistics.median(calls[stage]):.2f}" for stage in STAGES]
        print(f"| {name} | {count} | " + " | ".join(cells) + " |", flush=True)
    medians = {name: statistics.median(seconds) for name, seconds in whole.items()}
    for one, other in RATIOS:
        if {one, other} <= medians.keys():
            print(f"{one}: {medians[other] / medians[one]:.2f} times as fast as {other}")


def peak_memory(name: str, folder: Path) -> float:
    """GB of a process that makes one sound with one step: our command, or a program with diffusers' pipeline."""
    command = ["-ckpt", str(folder), "-t", PROMPT, "-dur", str(SECONDS), "--ddim_steps", "1", "-n", "1",
               "-s", str(folder.parent / "sounds")]  # fmt: skip
    make = f"CONTENDERS[{name!r}](Path({str(folder)!r}), Stopwatch(time.time))(1, 1)"
    if name.startswith("ours"):
        make = f"from audioldm.commands.generate import main; assert main({command!r}) == 0"
    code = (
        f"import sys; sys.path[:0] = {[str(HERE.parent), str(HERE)]!r}\n"
        "import re, time, torch\nfrom pathlib import Path\n"
        "from against_diffusers import CONTENDERS, Stopwatch\n"
        f"torch.set_num_threads({torch.get_num_threads()})\nwith torch.inference_mode():\n    {make}\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return int(re.findall(r"\d+", done.stdout)[-1]) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of 3 steps, one sound; under three minutes")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--ddim", type=int, default=50, help="steps of diffusers that equal our 25")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    steps, rounds, counts = (3, 1, (1,)) if options.quick else (options.steps, options.rounds, (1, 3))
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        folder = random_model(Path(scratch))
        memory = {name: peak_memory(name, folder) for name in ("ours, auto", "diffusers, float32")}
        watches = {name: Stopwatch(CLOCKS[options.clock]) for name in CONTENDERS}
        runs = {name: make(folder, watches[name]) for name, make in CONTENDERS.items()}
        print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, seconds of the {options.clock} clock")
        for run in runs.values():  # reads what is read at the first use
            run(1, 1)
        for sounds in counts:
            race(runs, watches, sounds, dict.fromkeys(runs, steps), rounds)
        if not options.quick:
            race(runs, watches, 1, {"ours, auto": 25, "ours, fp32": 25, "diffusers, float32": options.ddim}, 1)
    print("peak memory: " + ", ".join(f"{name} {size:.2f} GB" for name, size in memory.items()))


if __name__ == "__main__":
    main()
