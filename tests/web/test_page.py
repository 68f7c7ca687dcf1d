"""The page in a real browser, with what people do: drop, press, hear, mix, cancel, err; by mouse, keyboard, phone."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import soundfile
from PIL import Image
from server import Server
from web_site import ROOT, Site

DOG, BARK = ROOT / "examples" / "dog.jpg", ROOT / "examples" / "dog.wav"
DROP = """([data, name, type]) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], name, {type}));
    const target = document.querySelector('[aria-label="Drop an image file here to upload"]');
    for (const kind of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true}));
}"""
BYTES = """async (address) => {
    const bytes = new Uint8Array(await (await fetch(address)).arrayBuffer());
    return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ""));
}"""
COPY = """async (data) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    await navigator.clipboard.write([new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})})]);
}"""
SLOW_CANCEL = """() => {
    const now = window.fetch;
    window.fetch = async (address, ...more) => {
        if (/gradio_api\\/(cancel|reset)$/.test(address)) await new Promise((done) => setTimeout(done, 400));
        return now(address, ...more);
    };
}"""
NAMELESS = """() => [...document.querySelectorAll(
        "button, input, textarea, select, audio, img, [role=slider], progress")]
    .filter((one) => one.checkVisibility({visibilityProperty: true}) && one.type !== "file")
    .filter((one) => !(one.ariaLabel || one.alt || one.title || one.innerText?.trim() || one.labels?.length
        || one.closest("button, label")?.innerText?.trim() || one.closest("[aria-label], [aria-hidden=true]")))
    .map((one) => one.outerHTML.slice(0, 200))"""


def make_button(page: Any) -> Any:
    return page.get_by_role("button", name="Make the sound")


def make(page: Any) -> None:
    """Press the button and wait for the sound."""
    before = page.locator(".result").count()
    make_button(page).click()
    page.wait_for_function("count => document.querySelectorAll('.result').length > count", arg=before, timeout=90_000)
    page.get_by_role("button", name="WAV").first.wait_for()


def heard(page: Any) -> tuple[Any, int]:
    """The newest sound in the page's audio element: samples and rate."""
    audio = page.locator(".result audio[src]").first
    audio.wait_for(state="attached")
    data = base64.b64decode(page.evaluate(BYTES, audio.get_attribute("src")))
    return soundfile.read(io.BytesIO(data))


def record(page: Any) -> dict[str, Any]:
    """The JSON of the newest sound, as the button gives it."""
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").first.click()
    return json.loads(Path(download.value.path()).read_text())


def test_drop_a_photo_press_and_hear(page: Any):
    page.evaluate(DROP, [base64.b64encode(DOG.read_bytes()).decode(), "my dog.jpg", "image/jpeg"])
    page.get_by_role("button", name="Remove Image").wait_for()
    make(page)
    samples, rate = heard(page)
    assert (len(samples), rate) == (80_000, 16_000) and abs(samples).max() > 0
    assert record(page)["prompt"] == "my dog.jpg"
    picture = page.get_by_role("img", name="log-mel spectrogram of my dog.jpg")
    page.wait_for_function("one => one.complete && one.naturalWidth > 0", arg=picture.element_handle())


def test_paste_a_picture_with_the_keyboard_and_with_the_button(page: Any):
    copied = base64.b64encode(small(DOG, "PNG")).decode()
    page.evaluate(COPY, copied)
    for _ in range(2):  # the second one takes the place of the first
        page.keyboard.press("Control+V")
        page.locator("#picture img[src*='image.png']").wait_for()
    make(page)
    assert record(page)["kind"] == "image"
    page.get_by_role("button", name="Remove Image").click()
    page.get_by_role("button", name="Paste from clipboard").click()
    page.get_by_role("button", name="Remove Image").wait_for()
    make(page)
    assert record(page)["kind"] == "image"


def test_several_pictures_and_their_sounds_as_a_zip(page: Any):
    page.get_by_role("button", name="Several pictures, a sound for each").click()
    page.locator("input[type=file][multiple]").set_input_files([DOG, DOG.with_name("drums.jpg")])
    page.get_by_text("drums").first.wait_for()
    make(page)
    page.get_by_text("2 sounds are made.").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="These sounds as ZIP").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        wavs = [name for name in archive.namelist() if name.endswith(".wav")]
        assert len(wavs) == 2 and len(archive.namelist()) == 4
        assert [len(soundfile.read(io.BytesIO(archive.read(wav)))[0]) for wav in wavs] == [80_000] * 2


def test_weights_settings_and_the_history_of_the_session(page: Any):
    page.get_by_label("Words", exact=True).fill("rain")
    page.get_by_label("Words weight").fill("-0,5")
    page.get_by_label("Address of a picture").fill("data:image/jpeg;base64," + base64.b64encode(small(DOG)).decode())
    page.get_by_role("button", name="Model and settings").click()
    page.get_by_label("Duration").fill("1.5")
    page.get_by_label("Seed", exact=False).first.fill("11")
    page.get_by_label("Batch size").fill("2")
    make(page)
    page.get_by_text("2 sounds are made.").wait_for()
    first = record(page)
    assert [one["weight"] for one in first["prompts"]] == [1, -0.5]
    assert first["options"]["seed"] == 11 and first["options"]["duration"] == 1.5
    page.get_by_role("button", name="Again with this seed").nth(1).click()
    page.wait_for_function("() => [...document.querySelectorAll('input,textarea')].every((one) => one.value !== '2')")
    page.get_by_label("Words weight").fill("1")
    make(page)
    again = record(page)
    assert again["options"]["batchsize"] == 1 and again["options"]["seed"] != 11
    assert page.locator(".result").count() == 3, "what was made before is still there"
    page.get_by_role("button", name="Use as sound prompt").first.click()
    page.get_by_label("Address of a picture").fill("")
    page.get_by_label("Words", exact=True).fill("")
    make(page)
    assert record(page)["kind"] == "audio"


def small(path: Path, format: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.open(path).resize((160, 120)).save(file, format)
    return file.getvalue()


def test_cancel_really_stops(page: Any, site: Site):
    page.evaluate(SLOW_CANCEL)  # "Cancelled." is not said before a press makes a sound again
    page.get_by_role("button", name="Model and settings").click()
    page.get_by_label("Number of steps").fill("1000")
    page.get_by_label("Words", exact=True).fill("rain")
    make_button(page).click()
    page.get_by_text(re.compile(r"step \d+ of 1000, about \d+ (s|min) left")).wait_for()
    assert page.get_by_role("progressbar", name="Progress").get_attribute("max") == "1000"
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled.").wait_for()
    page.get_by_label("Number of steps").fill("")
    make(page)


def test_what_was_made_before_a_cancel_is_shown(page: Any):
    page.get_by_role("button", name="Several pictures, a sound for each").click()
    page.locator("input[type=file][multiple]").set_input_files([DOG, DOG.with_name("drums.jpg")])
    page.get_by_text("drums").first.wait_for()
    page.get_by_role("button", name="Model and settings").click()
    page.get_by_label("Number of steps").fill("1000")
    make_button(page).click()
    page.get_by_text("2 of 2: Making the sound").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled.").wait_for()
    page.get_by_text("dog.jpg (seed").wait_for()
    assert page.locator(".result").count() == 1
    page.get_by_label("Number of steps").fill("")
    make(page)
    assert page.locator(".result").count() == 3


@pytest.fixture(scope="module")
def hostile() -> dict[str, bytes]:
    bomb = io.BytesIO()
    Image.new("L", (9_000, 5_000)).save(bomb, "PNG")
    return {
        "page.jpg": b"<!doctype html><html>no picture</html>",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "bark.jpg": BARK.read_bytes(),
        "bomb.png": bomb.getvalue(),
        "nothing.png": b"\x89PNG\r\n\x1a\n",
        "half.jpg": DOG.read_bytes()[:3_000],
    }


SENTENCES = {
    "page.jpg": "is a web page, not an image",
    "drawing.png": "is an SVG drawing",
    "bark.jpg": "is a sound, not a picture",
    "bomb.png": "megapixels",
    "nothing.png": "damaged",
    "half.jpg": "damaged",
}


def test_hostile_pictures_are_answered_in_one_sentence(page: Any, hostile: dict[str, bytes]):
    with Server() as server:
        server.answer("/gone.jpg", status=404)
        server.answer("/huge.jpg", Content_Length="30000000")
        for name, data in hostile.items():
            server.answer(f"/{name}", data)
        sentences = {**SENTENCES, "gone.jpg": "404", "huge.jpg": "20 MB"}
        for name, sentence in sentences.items():
            page.get_by_label("Address of a picture").fill(server.url(f"/{name}"))
            make_button(page).click()
            page.get_by_role("alert").filter(has_text=name).filter(has_text=sentence).first.wait_for()
            assert "\n" not in page.locator("#status [role=alert]").inner_text()
    page.get_by_label("Address of a picture").fill("")
    for name, data in hostile.items():
        page.locator("input[type=file]").first.set_input_files({"name": name, "mimeType": "image/png", "buffer": data})
        page.get_by_role("button", name="Remove Image").wait_for()
        make_button(page).click()
        page.get_by_role("alert").filter(has_text=name).filter(has_text=SENTENCES[name]).first.wait_for()
        page.get_by_role("button", name="Remove Image").click()


def test_a_hostile_sound_is_answered_when_it_arrives(page: Any):
    page.locator("input[type=file]").nth(1).set_input_files(
        {"name": "song.wav", "mimeType": "audio/wav", "buffer": DOG.read_bytes()}
    )
    page.get_by_text("song.wav is a picture, not a sound").first.wait_for()


def test_the_seconds_to_replace_are_chosen_with_two_handles(page: Any):
    page.get_by_label("replace a part (inpaint)").check()
    page.locator("input[type=file]").nth(1).set_input_files(BARK)
    first, last = (page.get_by_role("slider", name=f"Time range: {end} (seconds)") for end in ("from", "to"))
    page.wait_for_function("one => one.max === '5'", arg=first.element_handle())
    first.focus()
    for _ in range(3):
        page.keyboard.press("PageUp")
    last.focus()
    page.keyboard.press("End")
    page.keyboard.press("PageDown")
    chosen = [float(handle.input_value()) for handle in (first, last)]
    assert 0 < chosen[0] < chosen[1] < 5
    page.get_by_text(f"{chosen[0]:g} to {chosen[1]:g} seconds").wait_for()
    page.get_by_label("Words", exact=True).fill("rain")
    make(page)
    about = record(page)
    assert about["options"]["time_range"] == chosen and about["original"]["file"] == "dog.wav"
    assert "frequency_range" not in about["options"]


def test_camera_and_microphone(page: Any):
    page.get_by_role("button", name="Capture from camera").click()
    page.get_by_text("Click to Access Webcam").or_(page.get_by_label("capture photo")).first.click()
    capture = page.get_by_label("capture photo")
    page.wait_for_function("() => document.querySelector('video')?.videoWidth > 0")
    if capture.count():
        capture.first.click()
    page.get_by_role("button", name="Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(2_000)
    with page.expect_response(re.compile("/gradio_api/upload")):
        page.get_by_role("button", name="Stop", exact=True).click()
    page.locator("audio").first.wait_for(state="attached")
    page.wait_for_timeout(500)  # until the field has the name of what was uploaded
    make(page)
    assert [one["kind"] for one in record(page)["prompts"]] == ["image", "audio"]


def test_a_picture_of_the_gallery(page: Any):
    page.get_by_role("button", name="Thumbnail 2 of 3").click()
    page.get_by_role("button", name="Remove Image").wait_for()
    make(page)
    assert record(page)["prompt"] == "drums.jpg"


def test_with_the_keyboard_alone(page: Any):
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.labels?.[0]?.innerText.trim()") == "Words":
            break
    page.keyboard.type("a dog barking")
    for _ in range(60):
        if page.evaluate("() => document.activeElement.id") == "make":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator(".result").first.wait_for(timeout=60_000)
    assert record(page)["prompt"] == "a dog barking"


def test_on_a_phone(page: Any):
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_label("Words", exact=True).fill("rain")
    make(page)
    width = page.evaluate("() => document.documentElement.scrollWidth")
    assert width <= 390
    for one in (make_button(page), page.get_by_role("button", name="Cancel"), page.locator(".result").first):
        box = one.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert len(heard(page)[0]) == 80_000


def test_everything_has_a_name_for_screen_readers(page: Any):
    page.get_by_role("button", name="Model and settings").click()
    page.get_by_label("replace a part (inpaint)").check()
    page.get_by_role("slider", name="Frequency range: from (Hz)").wait_for()
    page.get_by_label("make a sound").check()
    page.get_by_label("Words", exact=True).fill("rain")
    make(page)
    page.wait_for_timeout(500)
    assert page.evaluate(NAMELESS) == []
    assert page.locator("h1").count() == 1 and page.locator("html").get_attribute("lang")
    assert page.title().startswith("audioldm")
