"""Which attacks a run names, and what is refused before work is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spqr_checks.attacks.attack import DENOISERS, UNETS, Reads
from spqr_checks.attacks.registry import ATTACKS, chosen, refuse_scale
from spqr_checks.attacks.search.reach import lead, refuse_denoiser
from spqr_checks.attacks.sneakyprompt import COSINE
from spqr_checks.errors import UserError
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.sources import read_file


def index(name: str, *encoders: str, **more: str) -> dict[str, Any]:
    names = ("text_encoder", "text_encoder_2", "text_encoder_3")
    parts = dict(zip(names, encoders, strict=False)) | more
    return {"_class_name": name} | {part: ["", found] for part, found in parts.items()}


CLIP, PROJECTED, T5 = "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"
PIPELINES = {
    "sd": index("StableDiffusionPipeline", CLIP),
    "sdxl": index("StableDiffusionXLPipeline", CLIP, PROJECTED),
    "sd3": index("StableDiffusion3Pipeline", PROJECTED, PROJECTED, T5),
    "flux": index("FluxPipeline", CLIP, T5),
    "pixart": index("PixArtSigmaPipeline", T5),
}


@pytest.mark.parametrize(
    ("name", "reads", "steered"),
    [
        ("sd", "tokens", ("text_encoder",)),
        ("sdxl", "tokens", ("text_encoder", "text_encoder_2")),
        ("sd3", "tokens", ("text_encoder", "text_encoder_2")),
        ("flux", "tokens", ("text_encoder_2",)),
        ("flux", "pooled", ("text_encoder",)),
    ],
)
def test_a_search_steers_the_encoders_that_the_denoiser_reads(
    name: str, reads: Reads, steered: tuple[str, ...]
) -> None:
    assert lead(PIPELINES[name], reads, "x") == steered


@pytest.mark.parametrize("name", ["pixart", "other"])
@pytest.mark.parametrize("reads", ["tokens", "pooled"])
def test_encoders_out_of_reach_are_refused(name: str, reads: Reads) -> None:
    pipelines = PIPELINES | {
        "other": index("QwenImagePipeline", "Qwen2_5_VLForConditionalGeneration")
    }
    with pytest.raises(UserError, match="Leave the attack out"):
        lead(pipelines[name], reads, "ring-a-bell")


def test_a_denoiser_that_nobody_knows_is_refused() -> None:
    refuse_denoiser(index("X", unet="UNet2DConditionModel"), "p4d", DENOISERS)
    with pytest.raises(UserError, match="through the denoiser"):
        refuse_denoiser(index("X", transformer="QwenImageTransformer2DModel"), "p4d", DENOISERS)
    with pytest.raises(UserError, match="through the denoiser"):
        refuse_denoiser(index("X", transformer="FluxTransformer2DModel"), "rece", UNETS)


@pytest.mark.parametrize(
    ("specs", "tables", "said"),
    [
        (["ring-a-bel"], {}, "Did you mean 'ring-a-bell'"),
        (["ring-a-bell"], {"ring-a-bell": {"tokns": 3}}, "its options: compat, tokens"),
        (["ring-a-bell"], {"ring-a-bell": {"tokens": 0}}, "tokens"),
        (["ring-a-bell", "ring-a-bell"], {}, "named twice"),
        (["ring-a-bell=file.csv"], {}, "takes no source"),
        (["replay"], {}, "replay=FILE"),
        (["diffzoo"], {}, "masked language model"),
        (["genbreak"], {}, "chat model"),
        ([], {"nosuch": {}}, "unknown attack"),
    ],
)
def test_what_no_attack_is_is_refused(
    specs: list[str], tables: dict[str, dict[str, Any]], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        chosen(specs, tables)


@pytest.mark.parametrize(
    ("scale", "enough", "said"),
    [
        ("cosine", None, ""),
        ("cosine", 0.9, ""),
        ("cosine", 1.1, "'enough' is 1.1.*at most 1"),
        ("probability", None, "set attack.sneakyprompt.enough"),
        ("probability", 0.8, ""),
        ("probability", 0.0, "'enough' is 0.0.*above 0"),
        ("logit", None, "scores only compare"),
        ("logit", 2.0, "scores only compare"),
    ],
)
def test_sneakyprompt_ends_at_what_the_run_s_score_can_reach(
    scale: Any, enough: float | None, said: str
) -> None:
    table = {} if enough is None else {"sneakyprompt": {"enough": enough}}
    named = chosen(["sneakyprompt", "ring-a-bell"], table)
    if not said:
        refuse_scale(named, scale)
        return
    with pytest.raises(UserError, match=f"(?s)attack 'sneakyprompt'.*{said}"):
        refuse_scale(named, scale)


def test_defaults_are_the_authors() -> None:
    found = {
        name: ATTACKS.get(name).options().model_dump()
        for name in ("ring-a-bell", "unlearndiffatk", "p4d", "mma", "sneakyprompt", "diffzoo")
    }
    assert (found["ring-a-bell"]["population"], found["ring-a-bell"]["generations"]) == (200, 3000)
    assert (found["unlearndiffatk"]["times"], found["unlearndiffatk"]["iterations"]) == (50, 40)
    assert (found["p4d"]["tokens"], found["p4d"]["steps"], found["p4d"]["look"]) == (16, 3000, 50)
    assert (found["mma"]["tokens"], found["mma"]["candidates"]) == (20, 512)
    assert (found["sneakyprompt"]["queries"], COSINE) == (60, 0.26)
    zoo = found["diffzoo"]
    queries = zoo["samples"] + zoo["steps"] * (
        2 * zoo["directions"] * zoo["pairs"] + zoo["samples"]
    )
    assert queries == 1968


PROMPTS = [
    Prompt(str(i), f"prompt {i}", "harmful", "hazard", "signs", language)
    for i, language in enumerate(("en", "en", "hi"))
]


def replay(path: Path, concept: str = "hazard") -> Any:
    rows = "\n".join(f"{i},,gibberish {i}" for i in range(3))
    path.write_text(f"case_number,evaluation_seed,prompt\n{rows}\n", encoding="utf-8")
    (found,) = chosen([f"replay=ring-a-bell:{concept}={path}"], {})
    return found


def test_replay_covers_what_its_file_has_prompts_for(tmp_path: Path) -> None:
    covered = replay(tmp_path / "Found.csv").covers(PROMPTS)
    assert {(group.concept, group.language) for group in covered} == {("hazard", "en")}


def test_replay_of_other_concepts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="measures none of these"):
        replay(tmp_path / "Found.csv", "bolt").covers(PROMPTS)


def test_replayed_prompts_stand_for_the_groups_own_one_by_one(tmp_path: Path) -> None:
    from dataclasses import replace

    from targets import Answering, no_report, request

    found = replay(tmp_path / "Found.csv")
    asked = replace(request("prompt 0", "hazard"), others=("prompt 0", "prompt 1"))
    given = [
        found.attack.run(Answering(), replace(asked, position=i), found.options, no_report).prompt
        for i in range(4)
    ]
    assert given == ["gibberish 0", "gibberish 1", "gibberish 2", "gibberish 0"]


def test_the_key_of_a_replay_is_what_the_file_says(tmp_path: Path) -> None:
    one, other = (replay(tmp_path / name).recipe()["contents"] for name in ("A.csv", "B.csv"))
    assert one == other


def test_a_file_of_genbreaks_columns_is_known_by_them(tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    path.write_text(
        "prompt,category,round\na quiet road,signs,1\n,signs,1\nx,,2\n", encoding="utf-8"
    )
    reading = read_file(path)
    assert reading.format == "genbreak"
    assert [(p.text, p.concept) for p in reading.prompts] == [("a quiet road", "signs")]
    assert reading.reasons == {"empty": 1, "without a category": 1}
