"""How the cost of a sound grows: with its seconds, the steps, the number of sounds and the length of a list.

    python benchmarks/growth.py [--model_name starter] [--precision auto]

Seconds of the processor's clock (all threads together), of runs in one process whose model is loaded. One thing is
changed at a time; the rest is 5 s of sound, 25 steps, one sound and one candidate.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

COUNTS = (1, 2, 4, 8)
CHANGES = {"seconds": (2.5, 5, 10, 20, 40), "steps": (10, 25, 50), "sounds": COUNTS, "rows of a list": COUNTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name", default="starter")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    from audioldm.commands import batch
    from audioldm.options import GenerateOptions
    from audioldm.pipeline import build_model, text_to_audio

    model = build_model(model_name=args.model_name, device="cpu", precision=args.precision)

    def run(what: str, value: float) -> None:
        if what == "rows of a list":
            options = GenerateOptions.build({"n_candidates": 1, "ddim_steps": 25}, model.defaults)
            with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                prompts = Path(folder) / "prompts.txt"
                prompts.write_text("".join(f"a dog barking {row} times\n" for row in range(int(value))))
                batch.run(str(prompts), model, options, folder)
            return
        seconds, steps, sounds = (value if what == name else usual
                                  for name, usual in (("seconds", 5), ("steps", 25), ("sounds", 1)))  # fmt: skip
        text_to_audio(model, "a dog barking", duration=seconds, ddim_steps=int(steps), batchsize=int(sounds),
                      n_candidate_gen_per_text=1)  # fmt: skip

    run("rows of a list", 1)  # loads
    for what, values in CHANGES.items():
        cells = []
        for value in values:
            began = time.process_time()
            run(what, value)
            cells.append(f"{time.process_time() - began:.2f}")
        print(f"| {what} | " + " | ".join(f"{value:g}" for value in values) + " |")
        print("|---" * (len(values) + 1) + "|")
        print("| | " + " | ".join(cells) + " |\n", flush=True)


if __name__ == "__main__":
    main()
