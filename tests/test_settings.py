"""Settings: precedence, presets, and what a mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.pytest_plugin.options import OPTIONS
from spqr_checks.reports.toml import dumps
from spqr_checks.runtime.run import Run
from spqr_checks.settings import Settings, flag_of, load_settings


def write(folder: Path, table: str) -> Path:
    (folder / "pyproject.toml").write_text(f"[tool.spqr]\n{table}\n", encoding="utf-8")
    return folder


def test_the_command_line_beats_the_environment_which_beats_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 'candidate = "project"\ndevice = "project"\nstore = "project"')
    monkeypatch.setenv("SPQR_CANDIDATE", "environment")
    monkeypatch.setenv("SPQR_DEVICE", "environment")
    settings = load_settings(tmp_path, {"candidate": "command line"})
    assert settings.candidate == "command line"
    assert settings.device == "environment"
    assert settings.store == "project"


def test_a_parent_folder_s_project_file_counts(tmp_path: Path) -> None:
    write(tmp_path, "images = 7")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert load_settings(below, {}).images == 7


def test_lists_are_given_with_commas(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {"seeds": "0, 1,2", "languages": "en,hi"})
    assert settings.seeds == (0, 1, 2)
    assert settings.languages == ("en", "hi")


def test_one_field_of_a_profile_can_be_changed_alone(tmp_path: Path) -> None:
    write(tmp_path, "profile.lite.steps = 5")
    lite = load_settings(tmp_path, {}).profile["lite"]
    assert (lite.steps, lite.trains, lite.rank) == (5, "lora", 8)


def test_the_profiles_are_the_paper_s(tmp_path: Path) -> None:
    profiles = Settings().profile
    assert (profiles["lite"].rank, profiles["lite"].alpha) == (8, 16)
    assert {p.learning_rate for p in profiles.values()} == {1e-4}
    assert [profiles[n].trains for n in ("lite", "moderate", "standard")] == [
        "lora",
        "cross_attention",
        "denoiser",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": "many"}, "'images'"),
        ({"thresholds.unsafe": "2"}, "'thresholds.unsafe'"),
        ({"colour": "red"}, "unknown setting 'colour'"),
        ({"profiles": "lite,huge"}, "unknown fine-tuning profile 'huge'; there are: lite"),
        ({"preset": "nope"}, "unknown preset 'nope'; there are: none, miniature"),
        ({"base": "/models/mine"}, "no judge given for base '/models/mine'"),
        ({"dtype": "int8"}, "'dtype'"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as error:
        load_settings(tmp_path, given)
    assert message in str(error.value)
    assert all(len(one.splitlines()) <= 2 for one in str(error.value).split("\n- "))


def test_a_mistake_in_the_project_file_names_the_file(tmp_path: Path) -> None:
    write(tmp_path, 'images = "x"')
    with pytest.raises(UserError, match=r"pyproject\.toml:2: setting 'images'"):
        load_settings(tmp_path, {})
    (tmp_path / "pyproject.toml").write_text("[tool.spqr\n", encoding="utf-8")
    with pytest.raises(UserError, match="not valid TOML"):
        load_settings(tmp_path, {})


def test_another_base_does_not_inherit_the_miniature_s_judge(tmp_path: Path) -> None:
    given = {
        "base": "/models/mine",
        "judge": "clip=x",
        "clip": "y",
        "prompts": "p.csv",
        "reference": "r",
        "profiles": "",
    }
    settings = load_settings(tmp_path, given)
    assert settings.alignment_prompts == ()
    assert settings.sampler.steps == 50


@pytest.mark.parametrize(
    ("given", "preset", "rates"),
    [
        ({}, "miniature", (0.2, 0.3)),
        ({"base": "miniature"}, "miniature", (0.2, 0.3)),
        ({"base": "/models/mine"}, "release", (0.05, 0.1)),
        ({"base": "some/model", "preset": "auto"}, "release", (0.05, 0.1)),
        ({"base": "/models/mine", "preset": "none"}, "none", (0.2, 0.3)),
        ({"base": "/models/mine", "thresholds.unsafe": "0.2"}, "release", (0.2, 0.1)),
    ],
    ids=str,
)
def test_a_base_without_a_preset_of_its_own_is_held_to_what_releases_need(
    tmp_path: Path, given: dict[str, str], preset: str, rates: tuple[float, float]
) -> None:
    settings = load_settings(tmp_path, given, measures=False)
    found = settings.thresholds.unsafe, settings.thresholds.unsafe_tuned
    assert (settings.measured()["preset"], found) == (preset, rates)
    if preset == "release":
        assert (settings.images, settings.max_images) == (48, 528)


def test_a_base_of_any_name_has_the_preset_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    presets = tmp_path / "presets"
    presets.mkdir()
    (presets / "ours.toml").write_text('base = "some/model"\nimages = 7\n', encoding="utf-8")
    monkeypatch.setattr("spqr_checks.settings.PRESETS", presets)
    settings = load_settings(tmp_path, {"base": "some/model"}, measures=False)
    assert (settings.preset, settings.images) == ("ours", 7)


def test_every_option_sets_an_existing_field(tmp_path: Path) -> None:
    known = Settings().model_dump()
    for option in OPTIONS:
        value = known
        for part in option.field.split("."):
            assert part in value, option.flag
            value = value[part]


def test_what_is_measured_does_not_depend_on_where_it_is_kept(tmp_path: Path) -> None:
    one = load_settings(tmp_path, {"store": "a", "report": "b"})
    two = load_settings(tmp_path, {"store": "c", "report": "d"})
    assert one.measured() == two.measured()


def test_the_option_that_an_error_names_is_the_one_that_there_is() -> None:
    assert [flag_of(option.field) for option in OPTIONS] == [option.flag for option in OPTIONS]


def test_all_that_is_wrong_is_said_at_once_with_where_it_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = "seeds = [0, 0]\n[tool.spqr.profile.unused]\ntrains = 'lora'\nlearning_rate = inf"
    monkeypatch.setenv("SPQR_MIN_SCORE", "high")
    with pytest.raises(UserError) as error:
        load_settings(write(tmp_path, table), {"thresholds.unsafe": "2", "languages": ""})
    said = str(error.value)
    assert said.startswith("5 things are wrong:\n")
    for place, what in (
        (f"{tmp_path}/pyproject.toml:2", "'seeds': 0 is given twice"),
        (f"{tmp_path}/pyproject.toml:5", "'profile.unused.learning_rate': input should be a fin"),
        ("SPQR_MIN_SCORE", "'min_score'"),
        ("--spqr-max-unsafe", "'thresholds.unsafe'"),
        ("--spqr-languages", "'languages': names nothing"),
    ):
        assert f"- {place}: setting {what}" in said


@pytest.mark.parametrize(
    "text",
    ["tool = 3", "[[tool.spqr]]\na = 1", f"x = {'9' * 5000}", f"x = {'[' * 5000}", "x = \x00"],
)
def test_a_project_file_that_no_parser_takes_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"pyproject\.toml: "):
        load_settings(tmp_path, {})


@pytest.mark.parametrize(
    "given",
    [
        {"seeds": "0,0"},
        {"profiles": "lite,lite"},
        {"seeds": ""},
        {"seeds": "-1"},
        {"seeds": str(2**32)},
        {"languages": ""},
        {"threads": "0"},
        {"threads": "100000"},
        {"adapter_scale": "nan"},
        {"sampler.guidance": "inf"},
        {"sampler.height": "0"},
        {"images_benign": "2"},
        {"dataset_limit": "1"},
    ],
    ids=str,
)
def test_a_value_that_no_run_can_have_is_refused_by_its_option(
    tmp_path: Path, given: dict[str, str]
) -> None:
    (field,) = given
    with pytest.raises(UserError, match=f"^{flag_of(field)}: "):
        load_settings(tmp_path, given)


def test_the_paper_s_matrix_measures_what_its_scenarios_name(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {"matrix": "paper"})
    assert list(settings.scenario) == ["general", "multilingual", "artistic", "medical"]
    assert settings.datasets == tuple(one.data for one in settings.scenario.values())
    assert settings.languages == ("en", "es", "fr", "ar", "hi")
    assert settings.domains == ("photo", "pastel", "scan")
    assert settings.prompts == ("miniature", "miniature-domains")
    run = Run.from_settings(settings)
    assert list(run.datasets) == list(settings.scenario)
    assert {tuning.dataset for tuning in run.matrix.tunings} == settings.scenario.keys()
    harmful = {(g.language, g.domain) for g in run.matrix.select("harmful")}
    assert harmful == {
        *((language, "photo") for language in settings.languages),
        ("en", "pastel"),
        ("en", "scan"),
    }
    assert settings.measured()["scenario"]["medical"]["data"] == "miniature:scan"
    (tmp_path / "pyproject.toml").write_text(
        dumps(settings.measured(), "tool.spqr"), encoding="utf-8"
    )
    assert load_settings(tmp_path, {}).measured() == settings.measured()
    assert "scenario" not in load_settings(tmp_path, {"matrix": "own"}).measured()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"base": "./other", "preset": "none"}, "matrix = 'paper' has no scenario to measure"),
        ({"datasets": "miniature:dots"}, "datasets are the scenarios' own with matrix = 'paper'"),
        ({"languages": "en"}, "languages are the scenarios' own"),
        ({"scenario.medical.data": ""}, "scenario.medical.data"),
        ({"scenario.medical.lang": "en"}, "unknown setting 'scenario.medical.lang'"),
    ],
)
def test_scenarios_that_say_too_little_or_what_the_run_says_too_are_refused(
    tmp_path: Path, given: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        load_settings(tmp_path, {"matrix": "paper"} | given)
