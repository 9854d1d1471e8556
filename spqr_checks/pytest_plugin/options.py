"""Command-line options of the plugin and the settings that they set. Light."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Option(NamedTuple):
    """One ``--spqr-…`` option; ``field`` is the dotted name of the setting."""

    group: str
    flag: str
    field: str
    metavar: str
    help: str

    @property
    def dest(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def short(self) -> str:
        """The flag where no other program's options stand beside it: ``--profiles``."""
        return "--" + self.flag.removeprefix("--spqr-")


# the setting (and the option's name where it is another), what it takes, what it does; groups end
# with a colon
_TABLE = """
What is tested:
preset  NAME  defaults to start from: miniature, none, …
base  PIPELINE  unaligned base: directory, Hub id or miniature
candidate  WHAT  base, method:NAME, a directory, Hub id, …
adapters  FILES  LoRA files or folders put on the candidate
adapter_scale  X  scale of these adapters
adapter_alpha  N  alpha of LoRA files that do not say it: a number, or rank
safety_checker  YES  true: the candidate draws with its own safety checker on
guard  GUARDS  input filters before the candidate, for example latent-guard=DIR
attach  WHERE  weights that users fine-tune: released, base (Modular LoRA) or auto
What it is asked:
prompts  FILES  prompt files, packaged sets or hf:// addresses, as FORMAT=FILE where needed
prompts_per_group  N  at most N prompts of each concept, language and domain
prompt_seed  N  which of them are chosen
doubtful_translations  HOW  translations marked as doubtful: skip or use
wrap  DOMAINS  also measure plain prompts as photo, sketch, …
alignment_prompts  FILES  prompts a method learns from
alignment_languages  CODES  languages of the prompts that a method learns from (default: all)
concepts  NAMES  concepts or categories to measure
languages  CODES  languages to measure
domains  NAMES  domains to measure
How users fine-tune it:
matrix  WHICH  own, or paper: one fine-tuning set for each scenario, its prompts beside it
profiles  NAMES  fine-tuning profiles: lite,moderate,standard
datasets  SETS  benign fine-tuning sets (folders)
seeds  NUMBERS  fine-tuning seeds
adaptations  WHAT  other benign changes: LoRA files, int8, few-step, …
How much is drawn:
mode  MODE  sequential (draw until decided) or fixed
images  N  images per safety cell and look
image_seed  N  seed of each prompt's first image
max_images  N  sequential: most images of a safety cell
sampler.steps=sampler-steps  N  denoising steps of an image
sampler.guidance=sampler-guidance  X  scale of classifier-free guidance
sampler.height=sampler-height  PIXELS  height of an image (default: the model's own)
sampler.width=sampler-width  PIXELS  width of an image
How it is attacked:
attacks  NAMES  attacks on the harmful prompts: ring-a-bell, replay=FILE, …
attack_prompts  N  at most N prompts of each concept, language and domain are attacked
attack_seed  N  seed of the attacks
assert_attacks  YES  true: the gate asks for safety under attack too
How cells are decided:
about  WHAT  what a verdict is about: these-prompts or prompts-like-these
multiplicity  METHOD  correction for many cells: holm, benjamini-hochberg or none
inconclusive  HOW  what is undecided: fail or warn
min_tuning_seeds  N  fine-tuning seeds that a verdict on R needs
What measures it:
judge  SPEC  image judge, for example classifier=PATH
judge_threshold  P  probability that counts as unsafe
judge_device  NAME  where the judge computes (as device)
calibration  FILE  the judge's errors (calibration.json)
clip  MODEL  CLIP model for alignment and image features
adherence  SPEC  prompt adherence by clip, open_clip=MODEL, pickscore=MODEL or vqa=MODEL
features  SPEC  image features: clip or vit=MODEL
distance  NAME  distance for quality: cmmd, kid, fid, …
reference  SET  reference images for quality
What passes:
protocol  NAME  anchored-2, v1, v2-code or v2-published
min_score  X  lowest SPQR that passes the gate
baseline  FILE  earlier scorecard.json; not worse than that
thresholds.unsafe=max-unsafe  RATE  S: highest unsafe rate of a cell
thresholds.unsafe_tuned=max-unsafe-tuned  RATE  S after fine-tuning: highest unsafe rate of a cell
thresholds.unsafe_attacked=max-unsafe-attacked  RATE  under attack: highest unsafe rate of a cell
thresholds.unsafe_attacked_tuned=max-unsafe-attacked-tuned  RATE  the same after fine-tuning
thresholds.adherence=min-adherence  RATIO  P: lowest alignment over base
thresholds.quality=min-quality  X  Q: lowest quality
thresholds.drift=max-drift  POINTS  R: highest rise of the unsafe rate
Where and how long:
budget  TIME  begin nothing new after 90s, 30min, 2h, …
shard  I/N  make the I-th of N shares of the artefacts only; see scale.md
engine  NAME  who makes artefacts: local (this machine) or ray (a cluster)
ray_address  WHERE  the cluster: auto, HOST:PORT or ray://HOST:PORT
store  DIR  where artefacts are kept (default .spqr)
report  DIR  where reports go (default spqr-report)
report_images  HOW  images not judged safe in report.html: blurred, sharp behind a blur, none
device  NAME  cpu, cuda, cuda:1, …
devices  NAMES  devices that workers share: cuda:0,cuda:1 or cpu:0,cpu:1
offload  HOW  weights wait in main memory: model or sequential
dtype  NAME  float32, float16 or bfloat16
threads  N  torch threads of each worker
"""


def _options() -> Iterator[Option]:
    group = ""
    for line in _TABLE.strip().splitlines():
        if line.endswith(":"):
            group = line.removesuffix(":")
            continue
        setting, metavar, text = line.split(maxsplit=2)
        field, _, name = setting.partition("=")
        yield Option(group, f"--spqr-{name or field.replace('_', '-')}", field, metavar, text)


OPTIONS = tuple(_options())


def given(value_of: Callable[[str], Any]) -> dict[str, Any]:
    """The settings that were given, by field; ``value_of`` has the values by ``Option.dest``."""
    values = {option.field: value_of(option.dest) for option in OPTIONS}
    return {field: value for field, value in values.items() if value is not None}
