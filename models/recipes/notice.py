"""Write the credits of the sounds that the bundled weights were trained or judged on into NOTICE.

    python -m models.recipes.notice            # every label of the index: VAE and vocoder hear them all
    python -m models.recipes.notice dog rain   # these labels only

CC BY asks for the author's name: one line per recording (and for the Artistic licence, out of courtesy). The
rest is counted. What stands between the two marks in NOTICE is replaced, the rest of the file left as it is.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
INDEX = REPOSITORY.parent / "shared" / "sounds" / "index.csv"
BEGIN, END = "--- sounds: written by models/recipes/notice.py ---", "--- end of sounds ---"
FREE = {"CC0": "CC0 1.0", "CC0-1.0": "CC0 1.0", "public-domain": "public domain", "MIT": "MIT"}
NAMED = {"CC-BY": "CC BY 3.0", "CC-BY-3.0": "CC BY 3.0", "Artistic-1.0": "Artistic License 1.0"}


def clean(title: str) -> str:
    r"""The title on one line, with characters for ``\xe4`` and ``\u200b`` (the index writes only ASCII)."""
    title = re.sub(r"\\x(\w\w)|\\u(\w{4})", lambda m: chr(int(m[1] or m[2], 16)), title)
    return " ".join("".join(c for c in title if c.isprintable()).split())


def author(row: dict[str, str]) -> str:
    """Who made the clip; of the sounds in Debian's packages the index knows only the package."""
    return re.sub(r"^package (.+)", r"the authors of \1 (Debian package)", row["author"])


def credit(row: dict[str, str]) -> str:
    """One line of the index's ``row``: label, title, author, source, licence."""
    title, licence = clean(row["title"]), NAMED[row["licence"]]
    return f'{row["label"]}: "{title}" by {author(row)}, {row["source"]}, {licence}'


def section(rows: Iterable[dict[str, str]]) -> str:
    """The credits for ``rows`` of the index by label, a recording of several clips once; ends in a newline.

    A licence that is neither in ``FREE`` nor in ``NAMED`` raises KeyError: nobody has read its terms yet.
    """
    rows = list(rows)
    free = Counter((FREE[r["licence"]], author(r) if r["licence"] == "MIT" else "various authors")
                   for r in rows if r["licence"] not in NAMED)
    credits = sorted({credit(r) for r in rows if r["licence"] in NAMED})
    counts = [f"{n} clips: {licence}, {whom}" for (licence, whom), n in free.most_common()]
    return "\n".join([*counts, f"{len(credits)} recordings with their authors:", *credits, ""])


def replaced(notice: str, text: str) -> str:
    """``notice`` with ``text`` between the marks."""
    before, rest = notice.split(BEGIN + "\n")
    return f"{before}{BEGIN}\n{text}{END}\n{rest.split(END + chr(10))[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", nargs="*", help="as in the index (default: all)")
    parser.add_argument("--index", type=Path, default=INDEX)
    options = parser.parse_args()
    with open(options.index, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if unknown := set(options.labels) - {r["label"] for r in rows}:
        parser.error(f"not in {options.index}: {', '.join(sorted(unknown))}")
    notice = REPOSITORY / "NOTICE"
    text = section(r for r in rows if not options.labels or r["label"] in options.labels)
    notice.write_text(replaced(notice.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main()
