"""Words → token numbers, with the tokenizers library alone: transformers' wrapper takes a second to import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # of RoBERTa, at the beginning of its vocabulary


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in ``folder``: of tokenizer.json, or RoBERTa's of vocab.json and merges.txt.

    Raises InputError.
    """
    from tokenizers import AddedToken, ByteLevelBPETokenizer, Tokenizer, processors

    whole, vocabulary, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    try:
        if whole.is_file() or not vocabulary.is_file():
            return Tokenizer.from_file(str(whole))
        made = ByteLevelBPETokenizer(str(vocabulary), str(merges), add_prefix_space=False)
    except Exception:  # the library raises nothing more precise
        raise InputError(
            f"the model's tokenizer is missing or damaged: {folder} needs tokenizer.json, or vocab.json and merges.txt"
        ) from None
    made.add_special_tokens([*SPECIAL, AddedToken("<mask>", lstrip=True)])
    ends = [(token, made.token_to_id(token)) for token in ("</s>", "<s>")]
    made.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=False)
    return Tokenizer.from_str(made.to_str())
