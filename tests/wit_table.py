"""Tables as Google publishes WIT, for tests."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

COLUMNS = (
    "language page_url image_url page_title section_title hierarchical_section_title caption_reference_description "
    "caption_attribution_description caption_alt_text_description mime_type original_height original_width "
    "is_main_image attribution_passes_lang_id page_changed_recently context_page_description "
    "context_section_description"
).split()


def wit_line(
    url: str, reference: str = "", alt: str = "", language: str = "en", mime: str = "image/jpeg", **more: str
) -> list[str]:
    """The fields of a row; ``more``: columns by name."""
    fields = {name: "" for name in COLUMNS} | more
    fields |= {"language": language, "image_url": url, "mime_type": mime}
    return list((fields | {"caption_reference_description": reference, "caption_alt_text_description": alt}).values())


def write_wit(path: Path, *lines: list[str]) -> Path:
    """A table of ``lines``, quoted where it takes quotes, packed if its name says so."""
    file = io.StringIO()
    csv.writer(file, delimiter="\t", lineterminator="\n").writerows([COLUMNS, *lines])
    data = file.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
