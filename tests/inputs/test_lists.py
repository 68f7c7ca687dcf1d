"""Lists as people have them: of spreadsheets, old Macs and data sets, with pictures and their captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from audioldm.errors import InputError
from audioldm.inputs.rows import Row, read


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two pictures in lists/."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    for name in ("dog.jpg", "犬.webp", "bare"):
        Image.new("RGB", (3, 3)).save(f"lists/{name}", "PNG")
    return tmp_path


def rows(name: str, content: str | bytes) -> tuple[list[Row], list[str]]:
    """The rows of a list, and the remarks on it."""
    data = content if isinstance(content, bytes) else content.encode()
    Path("lists", name).write_bytes(data)
    notes: list[str] = []
    return list(read(f"lists/{name}", on_note=notes.append)), notes


def prompts(name: str, content: str | bytes) -> list[str]:
    found, _ = rows(name, content)
    assert all(row.error is None for row in found), found
    return [row.prompt for row in found]


# 1: pictures and their captions


@pytest.mark.parametrize(
    "header",
    ["image,caption", "caption,image", "file_name,text", "text,file_name", "Image URL,Caption",
     "IMAGE_PATH,Description", "filename,title", "Photo,Text", '"img","caption"', "url , caption"],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_the_picture_is_the_prompt(header: str, ending: str) -> None:
    names = header.split(",")
    words_first = names[0].strip().lower() in ("caption", "text")
    table = [("dog.jpg", "a dog barks"), ("", "rain"), ("https://example.org/sea.jpg", "the sea"), ("nan", "wind")]
    table = [pair[::-1] if words_first else pair for pair in table]
    if ending == "csv":
        text = "\n".join([header, *(",".join(pair) for pair in table)])
    else:
        keys = [name.strip(' "') for name in names]
        text = "\n".join(json.dumps(dict(zip(keys, pair, strict=True))) for pair in table)
    found, notes = rows(f"list.{ending}", text)
    assert [row.prompt for row in found] == ["lists/dog.jpg", "rain", "https://example.org/sea.jpg", "wind"]
    assert len(notes) == 1 and "the prompts are the pictures in" in notes[0] and "a row without one takes" in notes[0]


def test_an_explicit_prompt_goes_before_all() -> None:
    assert prompts("list.csv", "image,prompt\ndog.jpg,a dog barks\ndog.jpg,\n") == ["a dog barks", "lists/dog.jpg"]


def test_a_picture_that_is_not_there_is_not_taken_for_words() -> None:
    found, _ = rows("list.csv", "image,caption\ncat,a cat\nbare,a dog\n")
    assert found[0].error == "the line names a picture that is not there" and found[1].prompt == "lists/bare"


# 2: tables

TABLE = [["prompt", "seed"], ["un été", "7"], ["犬, 猫; x\ty", "8"]]


def written(delimiter: str = ",", end: str = "\n", quote_all: bool = False, blank: str = "") -> str:
    def field(text: str) -> str:
        return f'"{text}"' if quote_all or any(c in text for c in ",;\t") else text

    return end.join((delimiter + blank).join(map(field, row)) for row in TABLE) + end


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("quote_all", [False, True])
@pytest.mark.parametrize("before", ["", "sep=", "\n\n"])
def test_tables_of_all_kinds(encoding: str, end: str, delimiter: str, quote_all: bool, before: str) -> None:
    first = f"sep={delimiter}{end}" if before else ""
    text = first + written(delimiter, end, quote_all) + f"{delimiter}{end}" * 3 + end
    found, notes = rows("table.csv", text.encode(encoding))
    assert [(row.prompt, row.settings) for row in found] == [("un été", {"seed": 7}), ("犬, 猫; x\ty", {"seed": 8})]
    assert notes == []


@pytest.mark.parametrize("delimiter", ["|", ":"])
def test_a_delimiter_that_the_first_line_names(delimiter: str) -> None:
    assert prompts("table.csv", f"sep={delimiter}\nprompt{delimiter}seed\nrain{delimiter}7\n") == ["rain"]


def test_blanks_after_commas_and_other_case() -> None:
    text = 'Prompt , SEED, Guidance Scale, "DDIM-Steps"\nrain, 7, 3, 5\n"wind, rain", "8", , \n'
    found, notes = rows("table.csv", text)
    assert [row.prompt for row in found] == ["rain", "wind, rain"] and notes == []
    assert found[0].settings == {"seed": 7, "guidance_scale": 3.0, "ddim_steps": 5} and found[1].settings == {"seed": 8}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_texts_and_json_lines_too(encoding: str, end: str) -> None:
    lines = ["rain", "", "# no", " '犬.webp' "]
    assert prompts("list.txt", end.join(lines).encode(encoding)) == ["rain", "lists/犬.webp"]
    lines = ['"rain"', '{"image": "犬.webp"}']
    assert prompts("list.jsonl", end.join(lines).encode(encoding)) == ["rain", "lists/犬.webp"]


def test_a_line_that_is_not_text_costs_one_row() -> None:
    for name, line in (("list.txt", b"caf\xe9"), ("list.csv", b"caf\xe9"), ("list.jsonl", b'"caf\xe9"')):
        first = b"prompt\n" if name.endswith("csv") else b""
        found, _ = rows(name, first + b'"rain"\n' + line + b'\n"wind"\n')
        assert [row.error is None for row in found] == [True, False, True] and "is not UTF-8" in str(found[1].error)


def test_quoted_names_in_a_list() -> None:
    table = "image\n'dog.jpg'\n<https://example.org/a.jpg>\n[x](dog.jpg)\n"
    assert prompts("list.csv", table) == ["lists/dog.jpg", "https://example.org/a.jpg", "lists/dog.jpg"]


# 10: JSON lines are as lenient as tables


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({"seed": 7.0}, {"seed": 7}),
        ({"seed": "7.0", "batchsize": "2"}, {"seed": 7, "batchsize": 2}),
        ({"Seed": 7, "DDIM steps": 5.0}, {"seed": 7, "ddim_steps": 5}),
        ({"duration": 3, "guidance_scale": "2.5"}, {"duration": 3, "guidance_scale": 2.5}),
        ({"seed": None, "sampler": "ddim"}, {"sampler": "ddim"}),
        ({"seed": 9007199254740993}, {"seed": 9007199254740993}),
        ({"negative_prompt": "wind"}, {"negative_prompt": "wind"}),
        ({"Negative Prompt": "dog.jpg"}, {"negative_prompt": "lists/dog.jpg"}),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_settings_of_a_row(given: dict[str, Any], settings: dict[str, Any], ending: str) -> None:
    if ending == "jsonl":
        text = json.dumps({"prompt": "rain", **given})
    else:
        values = ["" if value is None else str(value) for value in given.values()]
        text = "\n".join([",".join(["prompt", *given]), ",".join(["rain", *values])])
    found, notes = rows(f"list.{ending}", text)
    assert [(row.prompt, row.error) for row in found] == [("rain", None)] and notes == []
    assert found[0].settings == settings


def test_unknown_keys_are_told_once() -> None:
    line = json.dumps({"prompt": "rain", "author": "me", "licence": "MIT"})
    found, notes = rows("list.jsonl", "\n".join([line] * 3))
    assert [row.prompt for row in found] == ["rain"] * 3
    assert notes == ["lists/list.jsonl: not used: key author, licence"]


@pytest.mark.parametrize(
    "content", ["image,caption\ndog.jpg,a dog\n犬.webp,a dog\n", "Image\tCaption\ndog.jpg\ta, b\n犬.webp\tdog\n"]
)
def test_a_text_that_is_a_table(content: str) -> None:
    found, notes = rows("captions.txt", content)
    assert [row.prompt for row in found] == ["lists/dog.jpg", "lists/犬.webp"]
    assert "is read as a table" in notes[0]


@pytest.mark.parametrize("line", ["dog.jpg\ta dog barks", "dog.jpg#0\ta dog", "dog.jpg,a dog", "dog.jpg; a dog"])
def test_a_text_with_captions_behind_names_is_not_taken_for_words(line: str) -> None:
    (first, second), _ = rows("list.txt", f"# cat.jpg, left out\n{line}\nrain, and wind\n")
    assert "the line has words behind the name of a picture; save the list as .csv" in str(first.error)
    assert second.error is None and second.prompt == "rain, and wind"


def test_a_decimal_comma() -> None:
    found, _ = rows("list.csv", "prompt;duration;guidance_scale;seed\nrain;0,5;2,25;7\nwind;1,000;;1,5\n")
    assert found[0].settings == {"duration": 0.5, "guidance_scale": 2.25, "seed": 7}
    assert found[1].settings == {"duration": "1,000", "seed": "1,5"}  # which the check of the options refuses


def test_a_column_that_is_there_twice() -> None:
    found, notes = rows("list.csv", "image,image\ndog.jpg,bare\n")
    assert found[0].prompt == "lists/dog.jpg" and "image is there more than once; the first is used" in notes[0]


def test_a_whole_number_as_id() -> None:
    found, _ = rows("list.jsonl", '{"prompt": "rain", "id": 7.0}\n{"prompt": "rain", "name": 2.0, "id": 1.5}')
    assert [(row.id, row.name) for row in found] == [("7", "7"), ("1.5", "2")]


@pytest.mark.parametrize("content", ['[\n{"prompt": "rain"},\n{"prompt": "wind"}\n]', '{\n"prompt": "rain"\n}'])
def test_json_over_several_lines(content: str) -> None:
    with pytest.raises(InputError, match="JSON lines have each object whole on a line of its own"):
        rows("list.jsonl", content)


@pytest.mark.parametrize("prompt", ["\\ud800", "rain\\u0000"])
def test_characters_that_no_text_has(prompt: str) -> None:
    (bad, good), _ = rows("list.jsonl", f'{{"prompt": "{prompt}"}}\n{{"prompt": "wind"}}')
    assert "has a prompt with characters that no text has" in str(bad.error) and good.error is None


def test_one_bad_byte_does_not_end_the_list() -> None:
    found, _ = rows("list.csv", b"prompt\nra\0in\nwind\nwaves at the sea\n")
    assert [row.error is None for row in found] == [False, True, True]


def test_a_loop_of_links_does_not_end_the_folder(here: Path) -> None:
    (here / "lists" / "loop.jpg").symlink_to("loop.jpg")
    assert [row.id for row in read("lists/")] == ["dog.jpg", "loop.jpg", "犬.webp"]
