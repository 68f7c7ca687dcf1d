"""Folders as the hub's cvssp/audioldm repositories are, and the hub: a server here that speaks as much of its API."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from hub_layout import BIN, write_hub_folder
from safetensors.torch import load_file, save_file
from server import Server

from audioldm import registry
from audioldm.checkpoints import hub, layout
from audioldm.checkpoints.hub import corrected_unet_config, current_names, snapshot
from audioldm.checkpoints.layout import open_folder
from audioldm.checkpoints.published import explain_text_only
from audioldm.errors import InputError

REPO, SHA = "cvssp/audioldm", "0123456789abcdef0123456789abcdef01234567"
@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without HF_HUB_OFFLINE, which those who run the tests may have set: the hub here is a server of ours."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A small model as diffusers' AudioLDMPipeline saves it, its weights as .bin, as the published ones are."""
    return write_hub_folder(tiny_folder, tmp_path / "hub model")


def as_safetensors(weights: Path) -> None:
    name = next(name for name, old in BIN.items() if old == weights.name)
    save_file(torch.load(weights, weights_only=True), weights.with_name(name))


# The layout


def test_a_folder_of_the_hub_is_opened(folder: Path) -> None:
    model = open_folder(folder)
    assert model.in_hub_layout and not model.hears and model.name == "hub model" and model.defaults == {}
    assert model.part("clap") == folder / "text_encoder" and model.tokenizer == folder / "tokenizer"
    assert model.weights("unet") == folder / "unet" / "diffusion_pytorch_model.bin"
    assert model.weights("clap") == folder / "text_encoder" / "pytorch_model.bin"
    assert model.files() == sorted(path for path in folder.rglob("*") if path.is_file())


def test_safetensors_go_before_bin(folder: Path) -> None:
    for weights in list(folder.glob("*/*.bin")):
        as_safetensors(weights)
    model = open_folder(folder)
    assert model.weights("unet").name == "diffusion_pytorch_model.safetensors"
    assert model.weights("clap").name == model.weights("vocoder").name == "model.safetensors"


def test_our_own_folders_are_as_they_were(tiny_folder: Path) -> None:
    model = open_folder(tiny_folder)
    assert model.hears and not model.in_hub_layout
    assert model.part("clap") == model.tokenizer == tiny_folder / "clap"


@pytest.mark.parametrize("part", ["unet", "vae", "vocoder", "text_encoder"])
def test_a_part_without_weights_is_said(folder: Path, part: str) -> None:
    for weights in (folder / part).glob("*.bin"):
        weights.unlink()
    with pytest.raises(InputError, match=f"no weights in {part}/"):
        open_folder(folder)


def test_another_pipeline_is_refused(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "AudioLDM2Pipeline"}))
    with pytest.raises(InputError, match="AudioLDM2Pipeline; only AudioLDMPipeline"):
        open_folder(folder)


def test_what_is_missing_and_where_it_comes_from_is_one_sentence(folder: Path) -> None:
    said = explain_text_only(open_folder(folder))
    for part in ("hub model", "-n", "-f", "audioldm-s-full-v2", "audioldm-convert", "clap/"):
        assert part in said
    cache = layout.ModelFolder(Path("/x/models--cvssp--audioldm-m-full/snapshots/abc"), {})
    assert "cvssp/audioldm-m-full has only" in explain_text_only(cache)
    assert "--model_name audioldm-m-full has it" in explain_text_only(cache)


def test_an_audio_tower_may_be_put_into_the_folder(folder: Path, tiny_folder: Path) -> None:
    shutil.copytree(tiny_folder / "clap", folder / "clap")
    model = open_folder(folder)
    assert model.hears and model.part("clap") == folder / "clap" and model.tokenizer == folder / "tokenizer"
    weights = folder / "clap" / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor.half() for name, tensor in tensors.items()}, weights)
    assert open_folder(folder).hears

    name = "text_projection.linear1.weight"
    save_file({**tensors, name: tensors[name].roll(1)}, weights)
    with pytest.raises(InputError, match="belongs to a different model"):
        open_folder(folder)
    save_file({name: tensor for name, tensor in tensors.items() if name.startswith("text_")}, weights)
    with pytest.raises(InputError, match="has no audio tower"):
        open_folder(folder)


# What the published configs have wrong

UNET = {
    "_class_name": "UNet2DConditionModel",
    "attention_head_dim": 8,
    "class_embed_type": "simple_projection",
    "class_embeddings_concat": True,
    "projection_class_embeddings_input_dim": 512,
    "in_channels": 8,
    "out_channels": 8,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}


@pytest.mark.parametrize(
    ("channels", "heads", "dim"),
    [
        ([128, 256, 384, 640], [4, 8, 12, 20], 32),
        ([192, 384, 576, 960], [6, 12, 18, 30], 32),
        ([256, 512, 768, 1280], [4, 8, 12, 20], 64),
    ],
)
def test_eight_heads_are_corrected_and_said(channels: list[int], heads: list[int], dim: int) -> None:
    from diffusers.models.attention_processor import Attention
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    config = {**UNET, "block_out_channels": channels, "cross_attention_dim": channels}
    corrected, note = corrected_unet_config(config)
    assert corrected["attention_head_dim"] == heads and config["attention_head_dim"] == 8
    assert note and "8 attention heads" in note and f"{heads[2]} and {heads[3]} are used" in note
    del config["attention_head_dim"]
    assert corrected_unet_config(config) == (corrected, note)
    assert corrected_unet_config(corrected) == (corrected, None)
    with torch.device("meta"):
        net = UNet2DConditionModel.from_config(corrected)
    attentions = [module for module in net.modules() if isinstance(module, Attention)]
    assert {module.inner_dim // module.heads for module in attentions} == {dim}
    assert {module.heads for module in attentions} == set(heads[1:])  # the widest level alone has no attention


@pytest.mark.parametrize(
    "config",
    [
        {**UNET, "block_out_channels": [16, 32]},
        {**UNET, "block_out_channels": [128, 256, 384, 640], "class_embed_type": None},
        {**UNET, "block_out_channels": [128, 256, 384, 640], "attention_head_dim": 2},
        {**UNET, "block_out_channels": [128, 256, 384, 640], "num_attention_heads": 4},
        {**UNET, "block_out_channels": 320},
        {},
    ],
)
def test_other_configs_stay(config: dict) -> None:
    assert corrected_unet_config(config) == (config, None)


def test_old_names_of_the_vae(tiny_folder: Path) -> None:
    now = list(load_file(tiny_folder / "vae" / "diffusion_pytorch_model.safetensors"))
    before = now
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        before = [name.replace(f".{new}.", f".{old}.") for name in before]
    assert sum(".query." in name for name in before) == 4
    assert list(current_names(dict.fromkeys(before))) == list(current_names(dict.fromkeys(now))) == now


# The hub


class Hub:
    """What snapshot needs of the hub's API, for the repository REPO in ``folder``."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.endpoint, self.folder = server, server.url("").rstrip("/"), folder
        self.fetched: list[str] = []
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        tree = [{"type": "file", "path": name, "size": path.stat().st_size, "oid": digest(path)}
                for name, path in files.items()]  # fmt: skip
        for revision in ("main", SHA):
            server.answer(f"/api/models/{REPO}/tree/{revision}", json.dumps(tree).encode(), Content_Type=JSON)
        about = {"id": REPO, "sha": SHA, "siblings": [{"rfilename": name} for name in files]}
        for path in (f"/api/models/{REPO}", f"/api/models/{REPO}/revision/main"):
            server.answer(path, json.dumps(about).encode(), Content_Type=JSON)
        for name, path in files.items():
            self._file(name, path)

    def _file(self, name: str, path: Path) -> None:
        def handle(handler: BaseHTTPRequestHandler) -> None:
            content = path.read_bytes()
            handler.send_response(200)
            for header, value in (
                ("Content-Length", str(len(content))),
                ("ETag", f'"{digest(path)}"'),
                ("X-Repo-Commit", SHA),
            ):
                handler.send_header(header, value)
            handler.end_headers()
            if handler.command == "GET":
                self.fetched.append(unquote(name))
                handler.wfile.write(content)

        self.server.route(f"/{REPO}/resolve/{SHA}/{name}", handle)


JSON = "application/json"


def digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@pytest.fixture
def remote(folder: Path) -> Iterator[Hub]:
    with Server() as server:
        yield Hub(server, folder)


def get(remote: Hub, tmp_path: Path, repo: str = REPO, files: tuple[str, ...] | None = None) -> Path:
    return snapshot(repo, files, endpoint=remote.endpoint, cache_dir=tmp_path / "cache")


def test_a_repository_is_fetched_once(remote: Hub, folder: Path, tmp_path: Path, capsys, caplog) -> None:
    path = get(remote, tmp_path)
    model = open_folder(path)
    assert model.name == REPO and not model.hears and "CC BY-NC-SA 4.0" in caplog.text
    assert {file.relative_to(path) for file in model.files()} == {f.relative_to(folder) for f in folder.glob("**/*.*")}
    assert capsys.readouterr().err == ""
    before = len(remote.server.requests)
    assert get(remote, tmp_path) == path and len(remote.server.requests) == before


def test_of_two_formats_safetensors_is_fetched(folder: Path, tmp_path: Path) -> None:
    for weights in list(folder.glob("*/*.bin")):
        as_safetensors(weights)
    (folder / "README.md").write_text("words")
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_text("half")
    with Server() as server:
        remote = Hub(server, folder)
        get(remote, tmp_path)
    assert sum(name.endswith(".safetensors") for name in remote.fetched) == 4
    assert not [name for name in remote.fetched if name.endswith((".bin", ".md")) or "fp16" in name]


@pytest.mark.parametrize("lost", ["unet/diffusion_pytorch_model.bin", "vae/config.json"])
def test_half_a_download_is_gone_on_with(remote: Hub, tmp_path: Path, lost: str) -> None:
    path = get(remote, tmp_path)
    (path / lost).resolve().unlink()
    (path / lost).unlink()
    remote.fetched.clear()
    assert get(remote, tmp_path) == path and (path / lost).is_file() and remote.fetched == [lost]


def test_single_files_of_a_repository(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "README.md"):
        (folder / name).write_text(name)
    wanted = ("config.json", "pytorch_model.bin", "model.safetensors")
    with Server() as server:
        remote = Hub(server, folder)
        path = get(remote, tmp_path, files=wanted)
        assert (path / "config.json").is_file() and sorted(remote.fetched) == ["config.json", "pytorch_model.bin"]
        before = len(server.requests)
        assert get(remote, tmp_path, files=wanted) == path and len(server.requests) == before
        get(remote, tmp_path, files=("tokenizer/tokenizer.json", "vocab.json"))
        assert remote.fetched[2:] == ["tokenizer/tokenizer.json"]


def test_files_that_are_not_there(remote: Hub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no vocab.json"):
        get(remote, tmp_path, files=("vocab.json",))


def test_what_the_cache_has_needs_no_connection(remote: Hub, tmp_path: Path) -> None:
    path = get(remote, tmp_path)
    assert snapshot(REPO, endpoint="http://127.0.0.1:9", cache_dir=tmp_path / "cache") == path


def test_offline_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="127.0.0.1:9 cannot be reached") as error:
        snapshot(REPO, endpoint="http://127.0.0.1:9", cache_dir=tmp_path)
    assert "--model_name FOLDER" in str(error.value) and "\n" not in str(error.value)


def test_no_such_repository(remote: Hub, tmp_path: Path) -> None:
    for status, code in ((404, "RepoNotFound"), (401, "RepoNotFound"), (403, "GatedRepo")):
        remote.server.answer("/api/models/a/b", b"{}", status, X_Error_Code=code)
        with pytest.raises(InputError, match="has no such repository|conditions there") as error:
            get(remote, tmp_path, "a/b")
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no repository can have this name"):
        get(remote, tmp_path, "a--b/c..d")


def test_a_repository_of_something_else(remote: Hub, tmp_path: Path) -> None:
    about = {"id": "a/b", "sha": SHA, "siblings": [{"rfilename": "README.md"}]}
    remote.server.answer("/api/models/a/b", json.dumps(about).encode(), Content_Type=JSON)
    with pytest.raises(InputError, match="it has no model_index.json"):
        get(remote, tmp_path, "a/b")


def test_the_environment_may_forbid_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE forbids"):
        snapshot(REPO, cache_dir=tmp_path)


def test_find_asks_the_hub_for_owner_and_name(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(hub, "snapshot", lambda repo: asked.append(repo) or folder)
    monkeypatch.chdir(tmp_path)
    assert registry.find_model("cvssp/audioldm-m-full").path == folder and asked == ["cvssp/audioldm-m-full"]
    (tmp_path / "cvssp").mkdir()
    with pytest.raises(InputError, match="no such model folder"):
        registry.find_model("cvssp/audioldm")
    assert len(asked) == 1
