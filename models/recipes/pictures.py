"""Free pictures with captions, in the form in which Wikimedia publishes WIT, for the starter's ``wit_*`` translators.

    apt-get install openclipart-png
    python -m models.recipes.pictures
    python -m prior_steps.wit.embedding build/recipes/clipart.parquet --out build/embeddings/wit/clipart

The pictures are the Open Clip Art Library's, dedicated to the public domain, as Debian packages them; title and
description stand in each file. Symbols, flags, screen icons and patterns are left out.
"""

from __future__ import annotations

import argparse
import html
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from .training import WORK

FOLDER = Path("/usr/share/openclipart/png")
SUBJECTS = ("animals", "buildings", "containers", "education", "electronics", "food", "office", "people", "plants",
            "recreation", "science", "tools", "transportation")  # fmt: skip
SYMBOLS = ("aiga-symbols", "roadsigns", "cards", "smilies", "stickmen")  # folders among them that show no things
NO_TITLE = re.compile(r"^(various cliparts|clipart by .*|.*road signs|menu clip art .*|template.*|unknown|\W*)$", re.I)
PAGE = pa.struct([("language", pa.string()), ("caption_reference_description", pa.string()),
                  ("caption_alt_text_description", pa.string())])  # fmt: skip
SCHEMA = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("image_url", pa.string()),
                    ("wit_features", pa.list_(PAGE))])  # fmt: skip


def caption(path: Path) -> str | None:
    """What the picture's file says it shows; None if it does not say."""
    with Image.open(path) as image:
        title, about = (html.unescape(image.info.get(key) or "").strip() for key in ("Title", "Description"))
    words = [text for text in dict.fromkeys((title, about)) if not NO_TITLE.match(text) and "@" not in text]
    return ": ".join(text.replace("_", " ") for text in words) or None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    rows = []
    for subject in SUBJECTS:
        for path in sorted((options.folder / subject).rglob("*.png")):
            place = path.relative_to(options.folder)
            if path.is_symlink() or set(place.parts) & set(SYMBOLS) or not (said := caption(path)):
                continue
            page = {"language": "en", "caption_reference_description": said, "caption_alt_text_description": None}
            rows.append({"image": {"bytes": path.read_bytes(), "path": str(place)}, "image_url": None,
                         "wit_features": [page]})  # fmt: skip
    WORK.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), WORK / "clipart.parquet", row_group_size=100)
    print(f"{len(rows)} pictures with captions: {WORK / 'clipart.parquet'}")


if __name__ == "__main__":
    main()
