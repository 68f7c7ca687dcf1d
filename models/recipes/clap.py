"""Train the starter's CLAP: an HTSAT of 2.4 M parameters listens, the distilled text tower reads.

    python -m models.recipes.clap --minutes 15

The text tower's layers stay as distilled; its projection starts as an exact copy of the teacher's space and learns
with the audio tower, held to the teacher's similarities on AudioCaps captions so that unseen words keep their
neighbours. Every clip is classified among the sentences of all 129 labels (a contrastive loss whose negatives are
labels, not the same label said twice).
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from audioldm.audio import SAMPLE_RATE

from . import data, texts
from .text import CONFIG as TEXT
from .text import Student, load_student, padded, tokenizer
from .training import DEVICE, WORK, autocast, fit, save_half

BATCH = 24
TEMPERATURE = 0.05
CLAP = data.STARTER / "clap"


def configuration() -> ClapConfig:
    """AudioLDM's CLAP made small; half its window of 1,024 x 64 because 5 s are heard, not 10."""
    return ClapConfig(
        text_config=TEXT | dict(projection_dim=512, projection_hidden_act="relu"),
        audio_config=dict(
            num_mel_bins=64, spec_size=128, window_size=4, patch_size=4, patch_stride=[4, 4], depths=[2, 2, 2, 2],
            patch_embeds_hidden_size=32, hidden_size=256, num_attention_heads=[2, 4, 8, 16], projection_dim=512,
            projection_hidden_act="relu", enable_fusion=False, drop_path_rate=0.1, hidden_dropout_prob=0.1,
        ),
        projection_dim=512,
    )


def feature_extractor() -> ClapFeatureExtractor:
    """Log-mel of 5 s at 16 kHz, 20 ms hop: 251 frames, which the tower stretches to 256."""
    return ClapFeatureExtractor(
        feature_size=64, sampling_rate=SAMPLE_RATE, hop_length=320, max_length_s=5, fft_window_size=1024,
        frequency_min=50, frequency_max=8000, truncation="rand_trunc", padding="repeatpad",
    )


def sentences(label: str) -> list[str]:
    """What people call the sound ``label``: the known sounds' prompts, or plain templates for the rest."""
    words = label.replace("_", " ")
    return data.SOUNDS.get(label, [words, f"the sound of {words}"])


def start(model: ClapModel, student: Student) -> None:
    """Copy the student in; make the text projection compute exactly the student's linear head.

    relu(x) - relu(-x) = x: the first layer holds I and -I, the second H and -H, rotated into 512 dimensions.
    """
    buffers = dict(model.text_model.named_buffers())  # position numbers, which RoBERTa does not store
    model.text_model.load_state_dict(buffers | student.tower.state_dict(), strict=True)
    width = TEXT["hidden_size"]
    rotation = nn.init.orthogonal_(torch.empty(512, 384), generator=torch.Generator().manual_seed(1))
    head = 4 * rotation @ student.head.weight.detach()
    with torch.no_grad():
        first, second = model.text_projection.linear1, model.text_projection.linear2
        first.weight.mul_(0.5), first.bias.zero_(), second.weight.mul_(0.1), second.bias.zero_()
        first.weight[:width], first.weight[width : 2 * width] = torch.eye(width), -torch.eye(width)
        second.weight[:, :width], second.weight[:, width : 2 * width] = head, -head


class Trainee(nn.Module):
    """What learns: the audio tower and both projections."""

    def __init__(self, clap: ClapModel) -> None:
        super().__init__()
        self.audio, self.hear, self.say = clap.audio_model, clap.audio_projection, clap.text_projection

    def listen(self, features: Tensor) -> Tensor:
        return F.normalize(self.hear(self.audio(input_features=features).pooler_output).float(), dim=1)

    def read(self, pooled: Tensor) -> Tensor:
        return F.normalize(self.say(pooled).float(), dim=1)


def features(clips: list[data.Clip], name: str) -> Tensor:
    """The extractor's log-mels (N, 1, 251, 64) of ``clips`` in dB, computed once."""
    path = WORK / f"clap_{name}.pt"
    if not path.exists():
        extract = feature_extractor()
        waves = [data.load(c, 5.0) for c in clips]
        torch.save(torch.cat([extract(w, sampling_rate=SAMPLE_RATE, return_tensors="pt")["input_features"]
                              for w in waves]), path)
    return torch.load(path, weights_only=True)


def augment(mels: Tensor) -> Tensor:
    """Shift in time and loudness, mask a band and a stretch, add a little noise: (B, 1, T, 64) -> same."""
    mels = torch.stack([m.roll(int(torch.randint(mels.shape[2], ())), dims=1) for m in mels])
    mels = mels + torch.empty(len(mels), 1, 1, 1).uniform_(-12, 6) + torch.randn_like(mels)
    for mel in mels:
        start, band = int(torch.randint(230, ())), int(torch.randint(56, ()))
        mel[:, start : start + int(torch.randint(40, ()))] = mel.mean()
        mel[:, :, band : band + int(torch.randint(12, ()))] = mel.mean()
    return mels


@torch.no_grad()
def pooled(model: nn.Module, lines: list[str]) -> Tensor:
    """The text tower's pooled outputs (N, 192); ``model`` is a ClapModel or a dual encoder."""
    ids = tokenizer()(lines, truncation=True)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    states = torch.empty(len(ids), TEXT["hidden_size"], device=DEVICE)
    for rows in (order[i : i + 256] for i in range(0, len(order), 256)):
        states[rows] = model.text_model(*padded([ids[i] for i in rows])).pooler_output
    return states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15)
    options = parser.parse_args()

    clips, judge = data.clips(), data.clips(judge=True)
    train, held_out = features(clips, "train"), features(judge, "judge")
    labels = sorted({c.label for c in clips})
    targets = torch.tensor([labels.index(c.label) for c in clips])
    weights = 1 / torch.bincount(targets)[targets].float() ** 0.7

    student, model = load_student(), ClapModel(configuration()).to(DEVICE)
    start(model, student.to(DEVICE))
    model.text_model.eval().requires_grad_(False)
    spoken = [pooled(model, sentences(label)) for label in labels]
    caption_states = pooled(model, texts.captions("train")[:20_000])
    with torch.no_grad():
        caption_targets = F.normalize(student.head(caption_states), dim=1)
    trainee = Trainee(model)

    def loss(step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        rows = torch.multinomial(weights, BATCH, replacement=True)
        with autocast():
            heard = trainee.listen(augment(train[rows].clone()).to(DEVICE))
        said = trainee.read(torch.stack([s[int(torch.randint(len(s), ()))] for s in spoken]))
        contrast = F.cross_entropy(heard @ said.T / TEMPERATURE, targets[rows].to(DEVICE), label_smoothing=0.05)
        some = torch.randint(len(caption_states), (192,))
        read, wanted = trainee.read(caption_states[some]), caption_targets[some]
        geometry = F.mse_loss(read @ read.T, wanted @ wanted.T)
        return contrast + 20 * geometry, {"contrast": contrast.item(), "geometry": geometry.item()}

    names = list(data.SOUNDS)
    truth = torch.tensor([names.index(c.label) for c in judge])

    @torch.no_grad()
    def report(step: int, module: Trainee) -> dict[str, float]:
        module.eval()
        prompts = module.read(torch.cat([pooled(model, [p[0]]) for p in data.SOUNDS.values()]))
        heard = torch.cat([module.listen(x.to(DEVICE)) for x in held_out.split(40)])
        right = (heard @ prompts[:10].T).argmax(1).cpu() == truth
        return {"held_out_accuracy_of_10": round(right.float().mean().item(), 3)}

    fit("clap", trainee, loss, steps=50_000, minutes=options.minutes, lr=1e-3, weight_decay=0.05, report=report)
    print(report(0, trainee))
    save_half(model, CLAP)
    feature_extractor().save_pretrained(CLAP)
    tokenizer().save_pretrained(CLAP)


if __name__ == "__main__":
    main()
