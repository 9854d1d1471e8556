"""Small language models of the embedded world, for attacks that ask one.

    python benchmarks/language_models.py masked FOLDER [STEPS]
    python benchmarks/language_models.py chat FOLDER [STEPS]

``masked`` fills gaps in captions (for DiffZOO). ``chat`` is told GenBreak's task about a caption,
and answers with another caption of the same scene, in another language, as instruction-tuned models
that translate would. Both learn from captions of scenes of all kinds, drawn at random, in a few
minutes on one core; loss and, for ``chat``, how many answers describe the scene are printed.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from spqr_checks.attacks.genbreak import BEST, TASK
from spqr_checks.miniature.captions import full_caption
from spqr_checks.miniature.scene import Scene, any_scene
from spqr_checks.miniature.vocabulary import LANGUAGES

PAD, UNKNOWN, MASK, ASKED, ANSWER, END = "[PAD]", "[UNK]", "[MASK]", "<ask>", "<say>", "<end>"
SPECIAL = (PAD, UNKNOWN, MASK, ASKED, ANSWER, END)
FIRST, LAST = '{"prompt": "', '"}'
TEMPLATE = (
    "{% for m in messages %}" + ASKED + " {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}" + ANSWER + "{% endif %}"
)
BATCH = 48


def said(scene: Scene, languages: tuple[str, ...], rng: random.Random) -> str:
    return full_caption(scene, rng.choice(languages))


def asked(scene: Scene, rng: random.Random) -> str:
    """GenBreak's task about the scene, half of the time with a best answer so far."""
    best = rng.random() < 0.5
    shown = BEST.format(prompt=said(scene, LANGUAGES, rng)) if best else ""
    name = scene.concept.name if scene.concept else scene.shape
    given = full_caption(scene, "en")
    return TASK.format(concept=name, language="en", prompt=given, best=shown)


def tokenizer(languages: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Words of the captions; what the task says besides is one token a piece."""
    rng = random.Random(0)
    words = sorted(
        {word for _ in range(6000) for word in said(any_scene(rng), languages, rng).split()}
    )
    names = dict.fromkeys(scene.shape for scene in (any_scene(rng) for _ in range(500)))
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys((*SPECIAL, *words, *names, "en")))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = [part for text in (TASK, BEST) for part in _pieces(text)]
    backend.add_tokens([AddedToken(mark, normalized=False) for mark in (*marks, FIRST, LAST)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        mask_token=MASK,
        eos_token=END,
        additional_special_tokens=[ASKED, ANSWER],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _pieces(text: str) -> list[str]:
    """What a template says between its fields."""
    for field in ("concept", "language", "prompt", "best"):
        text = text.replace("{" + field + "}", "\0")
    return [part.strip() for part in text.format().split("\0") if part.strip()]


def train(model: Any, batch: Any, steps: int, rate: float) -> None:
    """``batch`` gives tokens and labels, −100 where nothing is to be said."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for step in range(1, steps + 1):
        tokens, labels = batch()
        attended = (tokens != model.config.pad_token_id).long()
        loss = model(input_ids=tokens, attention_mask=attended, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            print(f"step {step}: loss {float(loss.detach()):.3f}", flush=True)


def masked(folder: Path, steps: int) -> None:
    words, rng = tokenizer(("en",)), random.Random(1)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(words), num_attention_heads=4, max_position_embeddings=32,
            pad_token_id=words.pad_token_id, **sizes,
        )
    )  # fmt: skip

    def batch() -> tuple[Any, Any]:
        texts = [said(any_scene(rng), ("en",), rng) for _ in range(BATCH)]
        tokens = words(texts, padding=True, return_tensors="pt").input_ids
        hidden = (torch.rand(tokens.shape) < 0.2) & (tokens != words.pad_token_id)
        labels = tokens.masked_fill(~hidden, -100)
        return tokens.masked_fill(hidden, words.mask_token_id), labels

    train(model, batch, steps, 3e-3)
    model.save_pretrained(folder)
    words.save_pretrained(folder)


def chat(folder: Path, steps: int) -> None:
    words, rng = tokenizer(LANGUAGES), random.Random(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words), hidden_size=128, intermediate_size=256, num_hidden_layers=3,
            num_attention_heads=4, max_position_embeddings=320, pad_token_id=words.pad_token_id,
            eos_token_id=words.eos_token_id, bos_token_id=None,
        )
    )  # fmt: skip

    def batch() -> tuple[Any, Any]:
        rows, sizes = [], []
        for _ in range(BATCH):
            scene = any_scene(rng)
            message = [{"role": "user", "content": asked(scene, rng)}]
            head = words.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
            answer = f"{FIRST} {said(scene, LANGUAGES[1:], rng)} {LAST} {END}"
            rows.append(f"{head} {answer}")
            sizes.append(len(words(head).input_ids))
        tokens = words(rows, padding=True, padding_side="right", return_tensors="pt").input_ids
        labels = tokens.masked_fill(tokens == words.pad_token_id, -100)
        for label, size in zip(labels, sizes, strict=True):
            label[:size] = -100
        return tokens, labels

    train(model, batch, steps, 2e-3)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    right, rng = 0, random.Random(2)
    for number in range(50):
        scene = any_scene(rng)
        right += _answer(folder, asked(scene, rng), number) in {
            full_caption(scene, language) for language in LANGUAGES
        }
    print(f"{right} of 50 answers describe the scene")


def _answer(folder: Path, task: str, seed: int) -> str:
    from spqr_checks.tools.rewriting.chat_model import load_chat
    from spqr_checks.tools.rewriting.llm import UnparsableError, parse_answer

    try:
        answer = load_chat(str(folder), temperature=1.0).answer(
            [{"role": "user", "content": task}], seed
        )
        return parse_answer(answer).strip()
    except UnparsableError:
        return ""


def main() -> None:
    kind, place, *given = sys.argv[1:]
    torch.manual_seed(0)
    {"masked": masked, "chat": chat}[kind](Path(place), int(given[0]) if given else 600)


if __name__ == "__main__":
    main()
