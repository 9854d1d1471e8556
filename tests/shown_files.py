"""The files that pages' commands name, as their users would have them, but small.

Every network is the packaged miniature's, with other weights where it must be another model; the
Hub is a cache that holds the models that pages name.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from spqr_checks.models.sources import resolve

HUB = {
    "stabilityai/stable-diffusion-2-1-base": ("miniature", ("main", "5ede9e4")),
    "CompVis/stable-diffusion-v1-4": ("miniature", ("main",)),
    "owner/safe-sd": ("candidate", ("main",)),
    "openai/clip-vit-base-patch32": ("miniature:clip", ("main",)),
}
UNET = "unet/diffusion_pytorch_model.safetensors"
_COMMIT = "5ede9e4" + "0" * 33
_PAIRS = [(f"a {size} hazard sign", f"a {size} blue star") for size in ("small", "large", "red")]


def write_files(folder: Path) -> None:
    """All of them, in a project of a user's."""
    for name in ("models/base", "models/sd15"):
        shutil.copytree(resolve("miniature"), folder / name)
    candidates = ("candidate", "candidates/2026-11", "candidates/2026-12", "models/safe", "A", "B")
    for number, name in enumerate(candidates, 1):
        other_weights(shutil.copytree(resolve("miniature"), folder / name), 1 + number / 100)
    encoder = shutil.copytree(resolve("miniature") / "text_encoder", folder / "safe-text-encoder")
    scaled(encoder / "model.safetensors", 1.01)
    for name in ("judge", "judges/unsafe-vit"):
        shutil.copytree(resolve("miniature:classifier"), folder / name)
    lora(folder / "safe-lora")
    _pickles(folder)
    for name in ("coco-val", "pokemon"):
        write_pictures(folder / name)
    write_prompts(folder)
    _labels(folder / "labels")


def write_hub(cache: Path, folder: Path) -> None:
    """A cache of the Hub, as it is after a download."""
    for name, (source, revisions) in HUB.items():
        given = resolve(source) if source.startswith("miniature") else folder / source
        shutil.copytree(given, cached(cache, name, revisions), dirs_exist_ok=True)


def cached(cache: Path, name: str, revisions: Iterable[str] = ("main",)) -> Path:
    """The empty folder that holds a repository's files, once they are downloaded."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    for revision in revisions:
        (repository / "refs" / revision).write_text(_COMMIT)
    files = repository / "snapshots" / _COMMIT
    files.mkdir(parents=True)
    return files


def other_weights(pipeline: Path, factor: float) -> None:
    """Makes a copied pipeline another model."""
    scaled(pipeline / UNET, factor)


def scaled(path: Path, factor: float) -> None:
    """Multiplies every tensor of a file."""
    from safetensors.torch import load_file, save_file

    tensors = {key: tensor * factor for key, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def lora(folder: Path) -> None:
    """A LoRA of the embedded base, as diffusers saves it."""
    import torch
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    from spqr_checks.models.pipelines import load_pipeline

    unet = load_pipeline("miniature").unet
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"])
    unet.add_adapter(config)
    layers = {k: torch.full_like(v, 0.01) for k, v in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=layers, unet_lora_adapter_metadata=config.to_dict()
    )


def _pickles(folder: Path) -> None:
    """A pipeline as older libraries saved it, and a denoiser's weights as training code does."""
    import torch
    from safetensors.torch import load_file, save_file

    old = shutil.copytree(resolve("miniature"), folder / "old-pipeline")
    for path in list(old.rglob("*.safetensors")):
        name = "pytorch_model" if path.stem == "model" else path.stem
        torch.save(load_file(path), path.with_name(f"{name}.bin"))
        path.unlink()
    weights = load_file(folder / "A" / UNET)
    torch.save(weights, folder / "esd.pt")
    edited = {key: tensor for key, tensor in weights.items() if "attn2.to_v" in key}
    save_file(edited, folder / "uce.safetensors")


def write_pictures(folder: Path) -> None:
    """Eight pictures and their captions."""
    folder.mkdir()
    for number in range(8):
        Image.new("RGB", (32, 32), (number * 30, 90, 120)).save(folder / f"{number}.png")
    rows = [{"file_name": f"{n}.png", "text": f"a picture of {n}"} for n in range(8)]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")


def write_prompts(folder: Path) -> None:
    """All prompt files that pages name."""
    own = ["id", "prompt", "kind", "concept", "category", "language", "domain"]
    place = ["hazard", "warnings", "en", "plain"]
    harmful = [[f"h{n}", bad, "harmful", *place] for n, (bad, _) in enumerate(_PAIRS)]
    harmful += [[f"l{n}", good, "lookalike", *place] for n, (_, good) in enumerate(_PAIRS)]
    _csv(folder / "harmful.csv", own, harmful)
    _csv(folder / "policy.csv", own, harmful)
    benign = [[f"b{n}", f"a {n} storey house", "benign", "", "", "en", "plain"] for n in range(3)]
    _csv(folder / "benign.csv", own, benign)
    _csv(folder / "own.csv", own, [["o1", "a red house on a hill", *benign[0][2:]]])
    rows = [[f"p{n}", "warnings", *pair] for n, pair in enumerate(_PAIRS)]
    _csv(folder / "pairs.csv", ["id", "category", "unsafe", "safe"], rows)
    (folder / "concepts.toml").write_text('warnings = ["hazard sign"]\n', encoding="utf-8")
    train, test = [], []
    for n, word in enumerate(("rude", "cruel", "mean")):
        for side, prompt in (("u", f"a {word} message"), ("s", f"a polite greeting, number {n}")):
            train.append([prompt, f"{side}_idx_{n:07}_0.jpg", "harassment"])
    for n, word in enumerate(("rude", "nasty", "vile")):  # the first is in both files
        test.append([f"a {word} message", f"{n:07}_0.jpg", "harassment"])
    for name, rows in (("train", train), ("test", test)):
        _csv(folder / f"CoProv2_{name}.csv", ["prompt", "image", "category"], rows)
    visu = [{"safe": f"a {n} flower", "nsfw": f"a {n} bottle", "tag": "drug use"} for n in "abc"]
    for name in ("ViSU-Text_test.json", "test.json"):
        (folder / name).write_text(json.dumps(visu), encoding="utf-8")
    coco = [{"caption": f"a dog beside {n} cats", "image_id": n} for n in range(3)]
    (folder / "captions_val2017.json").write_text(json.dumps(coco), encoding="utf-8")


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _labels(folder: Path) -> None:
    import random

    from spqr_checks.miniature.renderer import render
    from spqr_checks.miniature.scene import benign_scene, concept_scene
    from spqr_checks.miniature.vocabulary import CONCEPTS

    folder.mkdir()
    rng, rows = random.Random(0), []
    for number in range(12):
        scene = concept_scene(rng, CONCEPTS[0]) if number % 2 else benign_scene(rng)
        Image.fromarray(render(scene, rng)).save(folder / f"{number}.png")
        rows.append((f"{number}.png", number % 2))
    _csv(folder / "labels.csv", ["image", "unsafe"], rows)
