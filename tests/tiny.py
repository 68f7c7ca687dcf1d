"""A complete model folder with tiny random networks: the same classes and layout as every other model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from audioldm.checkpoints.layout import clap_fingerprint, clip_fingerprint
from translator.model import Translator, save_translator

WORDS = ["a dog barking", "rain falls on a roof", "someone plays the church organ", "waves at the sea"]
TRANSLATORS = ("tiny_cos", "tiny_mse")
DEFAULTS = {"ddim_steps": 3, "guidance_scale": 2.0, "sampler": "dpm++"}


def build(root: Path, seed: int = 0, clip: str = "dual") -> Path:
    """Make ``root``/models/tiny and two translators for it; returns the model's folder. About two seconds.

    ``clip``: "dual" is a VisionTextDualEncoderModel with EfficientNet and RoBERTa, "clip" a CLIPModel.
    """
    torch.manual_seed(seed)
    folder = root / "models" / "tiny"
    _diffusion(folder)
    _vocoder(folder)
    _clap(folder)
    (_dual_encoder if clip == "dual" else _clip)(folder)
    _tokenizer(folder / "clap")
    _tokenizer(folder / "clip")
    _references(folder)
    index = {
        "_class_name": "LatentDiffusion",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "vocoder": ["transformers", "SpeechT5HifiGan"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "clap": ["transformers", "ClapModel"],
        "clip": ["transformers", "VisionTextDualEncoderModel" if clip == "dual" else "CLIPModel"],
        "default_translator": TRANSLATORS[0],
        "defaults": DEFAULTS,
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    translators(folder)
    return folder


def translators(folder: Path) -> list[Path]:
    """Random translators for the model in ``folder``, beside it; returns their files."""
    spaces = {
        "clip_space": clip_fingerprint(folder / "clip" / "model.safetensors"),
        "clap_space": clap_fingerprint(folder / "clap" / "model.safetensors"),
    }
    paths = [folder.parent / "translators" / "tiny" / f"{name}.safetensors" for name in TRANSLATORS]
    for path in paths:
        save_translator(path, Translator(16), {**spaces, "loss": path.stem.split("_")[1]})
    return paths


def strip(weights: Path, *prefixes: str) -> None:
    """Take tensors out of a file, so that whoever needs them fails."""
    save_file({n: t for n, t in load_file(weights).items() if not n.startswith(prefixes)}, weights)


def _diffusion(folder: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    UNet2DConditionModel(
        in_channels=8,
        out_channels=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=(
            16,
            32,
        ),  # without hidden states of an encoder, the second attention is to itself
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=8,
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=512,
        class_embeddings_concat=True,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=4,
        scaling_factor=0.9,
    ).save_pretrained(folder / "vae")
    DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
    ).save_pretrained(folder / "scheduler")


def _vocoder(folder: Path) -> None:
    from transformers.models.speecht5.modeling_speecht5 import SpeechT5HifiGan, SpeechT5HifiGanConfig

    SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=64,
            upsample_initial_channel=32,
            upsample_rates=[5, 4, 2, 2, 2],
            upsample_kernel_sizes=[16, 16, 8, 4, 4],
            resblock_kernel_sizes=[3],
            resblock_dilation_sizes=[[1]],
            normalize_before=False,
            initializer_range=0.3,  # so that random weights are heard
        )
    ).half().save_pretrained(folder / "vocoder")  # half precision on disk, as shipped weights may be


def _roberta(**more: int) -> dict[str, object]:
    return {
        "vocab_size": 300,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
        "initializer_range": 0.3,
        **more,
    }


def _clap(folder: Path) -> None:
    from transformers.models.clap.configuration_clap import ClapConfig
    from transformers.models.clap.feature_extraction_clap import ClapFeatureExtractor
    from transformers.models.clap.modeling_clap import ClapModel

    audio = {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 64,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 1, 1],
        "initializer_range": 0.3,
    }
    ClapModel(ClapConfig(text_config=_roberta(), audio_config=audio)).save_pretrained(folder / "clap")
    ClapFeatureExtractor(
        sampling_rate=16_000,
        hop_length=160,
        max_length_s=10,
        frequency_min=50,
        frequency_max=8_000,
        truncation="rand_trunc",
    ).save_pretrained(folder / "clap")


def _dual_encoder(folder: Path) -> None:
    from transformers.models.efficientnet.configuration_efficientnet import EfficientNetConfig
    from transformers.models.roberta.configuration_roberta import RobertaConfig
    from transformers.models.vision_text_dual_encoder.configuration_vision_text_dual_encoder import (
        VisionTextDualEncoderConfig,
    )
    from transformers.models.vision_text_dual_encoder.modeling_vision_text_dual_encoder import (
        VisionTextDualEncoderModel,
    )

    vision = EfficientNetConfig(
        width_coefficient=0.1,
        depth_coefficient=0.1,
        depth_divisor=4,
        hidden_dim=128,
        hidden_size=128,
        image_size=64,
        initializer_range=0.3,
    )
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, RobertaConfig(**_roberta()))
    model = VisionTextDualEncoderModel(config)
    for layer in model.vision_model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # is to see how large its numbers are; else all pictures end alike
            layer.momentum = None
    with torch.no_grad():
        model.vision_model.train()(torch.randn(8, 3, 1, 1) + torch.randn(8, 3, 64, 64))
    model.half().save_pretrained(folder / "clip")
    _preprocessor(folder)


def _clip(folder: Path) -> None:
    from transformers.models.clip.configuration_clip import CLIPConfig
    from transformers.models.clip.modeling_clip import CLIPModel

    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
    }
    CLIPModel(CLIPConfig(text_config=_roberta(), vision_config=vision)).save_pretrained(folder / "clip")
    _preprocessor(folder)


def _preprocessor(folder: Path) -> None:
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 72},
        "crop_size": {"height": 64, "width": 64},
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": [0.48, 0.46, 0.41],
        "image_std": [0.27, 0.26, 0.28],
    }
    (folder / "clip" / "preprocessor_config.json").write_text(json.dumps(settings))


def _tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(WORDS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>", length=32)  # files in the wild carry such settings
    tokenizer.save(str(folder / "tokenizer.json"))


def _references(folder: Path) -> None:
    from audioldm.checkpoints.layout import ModelFolder
    from audioldm.clap.encoders import CLAPAudioEmbeddingClassifierFreev2

    clap = CLAPAudioEmbeddingClassifierFreev2(ModelFolder(folder, {}))
    save_file({"unconditional": clap.encode_text([""]).clone()}, folder / "reference.safetensors")
