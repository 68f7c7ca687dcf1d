"""Train the starter's UNet: noise and a CLAP vector (B, 512) -> latents (B, 32, T/8, 8).

    python -m models.recipes.unet --minutes 90

v-prediction (arXiv 2202.00512). The condition of a clip is, at random, its
own CLAP audio vector (as AudioLDM was trained), the text vector of one of its label's sentences, or a translated
picture of such a thing; 10 % see the empty prompt. The pictures are features imagined for the classes that make the
sound (``clip.imagined``): no photograph of a sounding thing is used. They go through the translators that are shipped,
half of them through the default one.
"""

from __future__ import annotations

import argparse
import json

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import ClapModel, VisionTextDualEncoderModel

from translator.model import load_translator

from . import data, sources
from .clap import CLAP, Trainee, features, pooled
from .clip import CLIP, imagined, photo_features, usable_photos, vision_tower
from .training import DEVICE, autocast, fit, save_half
from .vae import mels

TRANSLATORS = data.REPOSITORY / "models" / "translators" / "starter"
DEFAULT_TRANSLATOR = "wit_cos_512"
BATCH = 16
PICTURES = 1000  # imagined for each sound and translator, at least
UNIFORM_SHARE = 0.3  # of the steps of the noise schedule that are drawn alike
NOISE = 0.4  # greatest length of the noise added to the unit condition vector


def network(channels: int) -> UNet2DConditionModel:
    """9 M parameters; the vector enters beside the time embedding, concatenated as in AudioLDM."""
    return UNet2DConditionModel(
        sample_size=[64, 8], in_channels=channels, out_channels=channels, block_out_channels=[96, 160, 192],
        layers_per_block=1,
        down_block_types=["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"], mid_block_type="UNetMidBlock2D",
        up_block_types=["AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"], attention_head_dim=32, norm_num_groups=16,
        class_embed_type="simple_projection", projection_class_embeddings_input_dim=512, class_embeddings_concat=True,
    )


def scheduler() -> DDIMScheduler:
    """AudioLDM's betas, but v-prediction and no signal left at the last step (arXiv 2305.08891)."""
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear",
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
        set_alpha_to_one=True,
    )


@torch.no_grad()
def conditions(clips: list[data.Clip]) -> tuple[Tensor, list[Tensor], Tensor]:
    """Audio vectors (N, 512) of the clips, text vectors (K, 512) of each known sound, the empty prompt (1, 512)."""
    clap = ClapModel.from_pretrained(CLAP).float().eval()
    towers = Trainee(clap).to(DEVICE)
    heard = torch.cat([towers.listen(x.to(DEVICE)) for x in features(clips, "sounds").split(32)])
    said = [towers.read(pooled(clap, prompts)) for prompts in data.SOUNDS.values()]
    return heard, said, towers.read(pooled(clap, [""]))


@torch.no_grad()
def translated(translators: list[str], disturbed: bool = True) -> dict[str | None, Tensor]:
    """Sound -> CLAP vectors (N, 512) of imagined pictures of what makes it; None -> those of all other classes."""
    tower, weight, _ = vision_tower()
    views, sounds = photo_features(tower), sources.class_sounds()
    project = VisionTextDualEncoderModel.from_pretrained(CLIP).float().visual_projection
    networks = [load_translator(TRANSLATORS / f"{name}.safetensors") for name in translators]
    vectors = {}
    for sound in set(sounds):
        classes = torch.tensor([row for row, s in enumerate(sounds) if s == sound])
        classes = classes.repeat(-(-PICTURES // len(classes)))
        features = project(imagined(weight, views, usable_photos(), classes, disturbed))
        vectors[sound] = torch.cat([network(features) for network in networks])
    return vectors


@torch.no_grad()
def moments(vae: AutoencoderKL, clips: list[data.Clip]) -> tuple[Tensor, Tensor]:
    """Means and deviations of the clips' scaled latents, each (N, C, 64, 8)."""
    posteriors = [vae.encode(x.to(DEVICE)).latent_dist for x in mels(clips, "sounds").split(16)]
    scale = vae.config.scaling_factor
    return torch.cat([p.mean for p in posteriors]) * scale, torch.cat([p.std for p in posteriors]) * scale


@torch.no_grad()
def carried_over(unet: UNet2DConditionModel, channels: int) -> UNet2DConditionModel:
    """``unet`` for latents of ``channels``, of which the first are those that it was trained on."""
    first, last, more = unet.conv_in, unet.conv_out, channels - unet.config.in_channels
    first.weight = nn.Parameter(F.pad(first.weight, (0, 0, 0, 0, 0, more)))
    last.weight = nn.Parameter(F.pad(last.weight, (0, 0, 0, 0, 0, 0, 0, more)))
    last.bias = nn.Parameter(F.pad(last.bias, (0, more)))
    unet.register_to_config(in_channels=channels, out_channels=channels)
    return unet


class Lessons:
    """The twenty sounds' clips as latents, and vectors (B, 512) that may ask for them."""

    def __init__(self, vae: AutoencoderKL, typical: int) -> None:
        names = list(data.SOUNDS)
        clips = data.generated_from()
        self.heard, self.said, self.empty = conditions(clips)
        self.labels = torch.tensor([names.index(c.label) for c in clips])
        rows = self.typical(typical)
        self.heard, self.labels = self.heard[rows], self.labels[rows]
        self.means, self.deviations = (part[rows] for part in moments(vae, clips))
        weights = 1 / torch.bincount(self.labels)[self.labels].float()
        self.weights = weights * torch.where(self.labels < len(data.TEN), 2.0, 1.0)  # a recording each, not a melody
        others = sorted({path.stem for path in TRANSLATORS.glob("*.safetensors")} - {DEFAULT_TRANSLATOR})
        default, pictures = translated([DEFAULT_TRANSLATOR]), translated(others)
        self.shown = [default.get(name, self.said[i].cpu()).to(DEVICE) for i, name in enumerate(names)]
        self.shown_by_others = [pictures.get(name, self.said[i].cpu()).to(DEVICE) for i, name in enumerate(names)]

    def typical(self, number: int) -> Tensor:
        """Rows of the ``number`` clips of each sound that CLAP finds closest to its sentences.

        The net has few minutes, and knows fewer clips sooner.
        """
        words = torch.stack([F.normalize(vectors.mean(0), dim=0) for vectors in self.said])
        near = (self.heard * words[self.labels]).sum(1)
        rows = [torch.nonzero(self.labels == label)[:, 0] for label in range(len(self.said))]
        return torch.cat([own[near[own].argsort(descending=True)[:number]] for own in rows])

    def _one_of(self, vectors: list[Tensor], rows: Tensor) -> Tensor:
        return torch.stack([vectors[i][int(torch.randint(len(vectors[i]), ()))] for i in self.labels[rows].tolist()])

    def condition(self, rows: Tensor, empty: float = 0.1) -> Tensor:
        """A vector for each of the clips ``rows``; with the probability ``empty`` that of the empty prompt."""
        chance = torch.rand(len(rows), 1, device=DEVICE)
        vectors = torch.where(chance < 0.15, self.heard[rows], self._one_of(self.said, rows))
        vectors = torch.where(chance > 0.6, self._one_of(self.shown, rows), vectors)
        vectors = torch.where(chance > 0.8, self._one_of(self.shown_by_others, rows), vectors)
        vectors = vectors + NOISE * torch.rand(len(rows), 1, device=DEVICE) * torch.randn_like(vectors) / 512**0.5
        vectors = torch.where(torch.rand(len(rows), 1, device=DEVICE) < empty, self.empty, vectors)
        return F.normalize(vectors, dim=1)


def timesteps(batch: int) -> Tensor:
    """Random steps (batch,) of the 1,000, most of them where a sound takes shape (logit-normal, arXiv 2403.03206).

    Above 700 there is hardly a signal: 2 % of the variance and less.
    """
    shaping = (1000 * torch.sigmoid(torch.randn(batch) - 0.5)).long()
    return torch.where(torch.rand(batch) < UNIFORM_SHARE, torch.randint(1000, (batch,)), shaping)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--typical", type=int, default=12, help="clips of each sound that are learnt")
    parser.add_argument("--warm-start", action="store_true", help="begin from the committed weights")
    options = parser.parse_args()

    vae = AutoencoderKL.from_pretrained(data.STARTER / "vae").float().to(DEVICE).eval()
    lessons, channels = Lessons(vae, options.typical), vae.config.latent_channels
    unet = network(channels)
    if options.warm_start:
        unet = carried_over(UNet2DConditionModel.from_pretrained(data.STARTER / "unet").float(), channels)
    alphas = scheduler().alphas_cumprod.to(DEVICE)

    def error(rows: Tensor, latents: Tensor, t: Tensor, vectors: Tensor) -> Tensor:
        """The mean squared errors (B,) of v for the clips ``rows`` at the steps ``t``."""
        noise, a = torch.randn_like(latents), alphas[t].view(-1, 1, 1, 1)
        noisy, target = a.sqrt() * latents + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * latents
        with autocast():
            answer = unet(noisy, t, None, class_labels=vectors).sample
        return (answer.float() - target).square().mean((1, 2, 3))

    def loss(step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        rows = torch.multinomial(lessons.weights, BATCH, replacement=True)
        latents = lessons.means[rows] + lessons.deviations[rows] * torch.randn_like(lessons.means[rows])
        if step % 4 == 0:  # shorter sounds are asked for, too
            start = int(torch.randint(5, ())) * 8
            latents = latents[:, :, start : start + 32]
        return error(rows, latents, timesteps(BATCH).to(DEVICE), lessons.condition(rows)).mean(), {}

    @torch.no_grad()
    def report(step: int, module: UNet2DConditionModel) -> dict[str, float]:
        """Errors on training clips at three noise levels, always with the same noise and conditions."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            rows = torch.arange(0, len(lessons.means), max(1, options.typical // 2), device=DEVICE)
            return {f"v_{t}": round(error(rows, lessons.means[rows], torch.full_like(rows, t), lessons.condition(rows))
                                    .mean().item(), 4) for t in (200, 500, 800)}

    print(report(0, unet.to(DEVICE)))
    fit("unet", unet, loss, steps=options.steps, minutes=options.minutes, lr=options.rate, ema=0.998, muon=True,
        report=report, report_every=250)
    save_half(unet, data.STARTER / "unet")
    scheduler().save_pretrained(data.STARTER / "scheduler")
    print(json.dumps({"parameters": sum(p.numel() for p in unet.parameters())}))


if __name__ == "__main__":
    main()
