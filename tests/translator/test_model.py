"""The translator network, its files, and finding one."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from translator import InputError, zoo
from translator.model import Translator, load_translator, save_translator

SPACES = {"clip_space": "c" * 12, "clap_space": "a" * 12}


@pytest.fixture
def net() -> Translator:
    torch.manual_seed(0)
    return Translator(24).eval()


def test_the_network_is_the_one_described(net: Translator) -> None:
    clip = torch.randn(5, 512) * 7
    w = {name: tensor.detach().double().numpy() for name, tensor in net.state_dict().items()}
    x = clip.double().numpy()
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x = np.maximum(0, x @ w["fc1.weight"].T + w["fc1.bias"])
    x = np.maximum(0, x @ w["fc2.weight"].T + w["fc2.bias"])
    x = x @ w["fc3.weight"].T + w["fc3.bias"]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(net(clip).detach().numpy(), x, atol=1e-6)
    torch.testing.assert_close(net(clip * 100), net(clip))


def test_dropout_is_for_training_only() -> None:
    clip, net = torch.randn(1, 512), Translator(64, dropout=0.5)
    assert not torch.equal(net.train()(clip), net(clip))
    assert torch.equal(net.eval()(clip), net(clip))


def test_saved_and_loaded(net: Translator, tmp_path: Path) -> None:
    path = tmp_path / "space" / "wit_cos_24.safetensors"
    save_translator(path, net, {**SPACES, "data": "WIT"})
    loaded, clip = load_translator(path), torch.randn(3, 512)
    assert torch.equal(loaded(clip), net(clip)) and not loaded.training
    assert loaded.metadata == {**SPACES, "data": "WIT", "hidden": "24"}
    assert zoo.read_entry(path).metadata == loaded.metadata
    save_translator(path, Translator(8), SPACES)
    assert load_translator(path).fc1.out_features == 8
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_interrupted_save_leaves_the_old_file(net: Translator, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "x.safetensors"
    save_translator(path, net, SPACES)
    before = path.read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_translator(path, Translator(8), SPACES)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_metadata_must_name_the_spaces(net: Translator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="clap_space"):
        save_translator(tmp_path / "x.safetensors", net, {"clip_space": "c"})


def test_a_state_dict_of_the_thesis_loads(net: Translator, tmp_path: Path) -> None:
    torch.save(OrderedDict(net.state_dict()), tmp_path / "thesis.pth")
    loaded, clip = load_translator(tmp_path / "thesis.pth"), torch.randn(3, 512)
    assert torch.equal(loaded(clip), net(clip)) and loaded.metadata == {}
    assert zoo.find(str(tmp_path / "thesis.pth"), [], "any", "any").name == "thesis"


def test_a_pickle_that_runs_something_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"fc1.weight": Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.pth", "old.pth"):
        with pytest.raises(InputError):
            load_translator(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_files_that_are_no_translators(net: Translator, tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    save_translator(good, net, SPACES)
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:1000])
    (tmp_path / "words.safetensors").write_text("hello")
    (tmp_path / "empty.pth").touch()
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    odd = {**net.state_dict(), "fc2.weight": torch.zeros(3, 3)}
    save_file(odd, tmp_path / "odd.safetensors")
    for name, value in (("nan", float("nan")), ("inf", float("inf"))):
        weights = {**net.state_dict(), "fc2.bias": torch.full((24,), value)}
        save_file(weights, tmp_path / f"{name}.safetensors")
    torch.save({name: 1 for name in net.state_dict()}, tmp_path / "numbers.pth")
    for path in [path for path in tmp_path.iterdir() if path != good] + [tmp_path / "none.safetensors"]:
        with pytest.raises(InputError, match=path.name):
            load_translator(path)


def test_finding_by_name_and_spaces(net: Translator, tmp_path: Path) -> None:
    other = {"clip_space": "0" * 12, "clap_space": "1" * 12}
    save_translator(tmp_path / "one" / "wit_cos_512.safetensors", net, SPACES)
    save_translator(tmp_path / "two" / "wit_cos_512.safetensors", net, other)
    save_translator(tmp_path / "two" / "wit_cl_256.safetensors", net, other)
    (tmp_path / "two" / "broken.safetensors").write_text("no")
    assert [entry.name for entry in zoo.available(tmp_path)] == ["wit_cos_512", "wit_cl_256", "wit_cos_512"]
    for spaces, folder in ((SPACES, "one"), (other, "two")):
        found = zoo.find("wit_cos_512", [tmp_path], spaces["clip_space"], spaces["clap_space"])
        assert found.path == tmp_path / folder / "wit_cos_512.safetensors"
    with pytest.raises(InputError, match="did you mean wit_cos_512"):
        zoo.find("wit_cos_51", [tmp_path], *SPACES.values())
    with pytest.raises(InputError, match="0{12} to CLAP space 1{12}, .* c{12} and a{12}"):
        zoo.find("wit_cl_256", [tmp_path], *SPACES.values())
    with pytest.raises(InputError, match="0{12}"):
        zoo.find(str(tmp_path / "two" / "wit_cl_256.safetensors"), [], *SPACES.values())


def test_it_imports_nothing_of_ours_and_the_zoo_no_torch() -> None:
    code = """
import sys, translator.zoo
assert "torch" not in sys.modules
import translator.model
assert not [name for name in sys.modules if name.split(".")[0] in ("audioldm", "prior_steps", "models")]
"""
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=root)


WRAPPED = {
    "alone": lambda state: state,
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"state": {}}},
    "state_dict": lambda state: {"state_dict": state},
    "parallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "both": lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "loss": 0.1},
    "beside": lambda state: {**state, "optimizer": {"state": {0: torch.zeros(2)}}, "epoch": 50},
    "loss": lambda state: {**state, "loss": torch.tensor(float("nan"))},
    "numpy": lambda state: {"net": state, "best": np.float64(0.3), "losses": np.array([0.3, 0.2], np.float32),
                            "names": np.array(["a", "b"]), "all": np.array([1, None, {}], object)},
}


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("name", ["x.pth", "X.PT"])
def test_forms_in_which_people_save_a_network(tmp_path: Path, form: str, name: str) -> None:
    network = Translator(256)
    torch.save(WRAPPED[form](network.state_dict()), tmp_path / name)
    assert zoo.is_path(name) and zoo.read_entry(tmp_path / name).spaces == (None, None)
    found = load_translator(tmp_path / name)
    clip = torch.randn(3, 512)
    assert torch.equal(found(clip), network(clip)) and found.metadata == {}


def test_what_was_found_is_said_where_it_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"net": {"conv.weight": torch.zeros(2), "fc1.weight": torch.zeros(2)}, "epoch": 3}, path)
    with pytest.raises(InputError, match=r"it holds net \(conv.weight, fc1.weight\), epoch and lacks fc1.bias, fc2"):
        load_translator(path)
    state = Translator(8).state_dict()
    torch.save({"model_state_dict": {name: state[name] for name in state if name != "fc3.bias"}}, path)
    with pytest.raises(InputError, match=r"fc3.weight\) and lacks fc3.bias; required tensors: fc1.bias, fc1.weight"):
        load_translator(path)
    torch.save({name: tensor.numpy() for name, tensor in state.items()}, path)
    with pytest.raises(InputError, match="it holds fc1.weight, .*, not all of which are tensors; required"):
        load_translator(path)
    torch.save({name: torch.zeros(2) for name in "abcdefgh"}, path)
    with pytest.raises(InputError, match=r"it holds a, b, c, d, e, f and 2 more; required tensors: fc1.bias"):
        load_translator(path)
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(InputError, match=r"save the network's state_dict\(\)"):
        load_translator(path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(InputError, match="it holds Tensor; required"):
        load_translator(path)


def test_a_file_with_another_ending_is_answered_with_those_that_are_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Translator(8).state_dict(), "model.pth.tar")
    for given in ("model.pth.tar", "./model.pth.tar"):
        with pytest.raises(InputError, match=r"model.pth.tar is not a .* end in .safetensors, .pth, .pt$"):
            zoo.find(given, [], *SPACES.values())
    with pytest.raises(InputError, match='unknown translator "model.tar"'):
        zoo.find("model.tar", [], *SPACES.values())
    with pytest.raises(InputError, match=r"model.pth.tar is not a .* end in .safetensors, .pth, .pt$"):
        load_translator("model.pth.tar")


def test_a_name_that_can_be_and_is_not_is_no_typo(net: Translator, tmp_path: Path) -> None:
    save_translator(tmp_path / "one" / "wit_cos_512.safetensors", net, SPACES)
    for name, said in (("ridge", 'this model has no translator "ridge"$'), ("imp", "; available: wit_cos_512$"),
                       ("rigde", r"; did you mean ridge\?$")):
        with pytest.raises(InputError, match=said):
            zoo.find(name, [tmp_path], *SPACES.values(), ["ridge", "memory"])
    with pytest.raises(InputError, match='unknown translator ""; this model has none; it may have: ridge, memory$'):
        zoo.find("", [], *SPACES.values(), ["ridge", "memory"])
