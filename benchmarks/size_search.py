"""How large the base should be for the compute it gets: small runs, a fitted law, the best predicted size.

    python benchmarks/size_search.py [--minutes 45] [--only PART …] [--first-stage FOLDER] [--results FOLDER]
    python benchmarks/size_search.py --fit-only

Trains shapes of the base on the sources and shares of recipes/base.yaml, each run with a complete schedule of its own,
by the functions of `treetune pretrain` (bf16, one thread, the shipped tokenizer), and measures held-out bits per byte.
Then fits L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, arXiv 2203.15556, section 3.3: Huber loss on
log L, many starts) with bootstrap intervals, once without its largest runs to see how well it foretells them, and says
which size it calls best for C = 6 N D and where the shipped base lies. A learning rate that suits a long run starves a
short one, so runs are made at twice or four times the recipe's, too, and the law is fitted to the best of each where
several were run, beside that of the recipe's rate alone. Written: size_search.json, .md and .svg.

``--first-stage`` measures one more base beside it: what recipes/base.yaml alone left (model files, pretraining.json;
`git archive 2739cea^ src/treetune/models/embedded/gpt3` gives them back). Trained as the runs are, for longer, it is
the farthest check of the law, and a second fit takes it in. The shipped base itself is never fitted to.

N counts every weight, the token embeddings once: they are tied to the head, which multiplies every token by them, so
they cost compute like any matrix, and at these sizes they are a third to nine tenths of the model.

A run that is done is kept in size_search.json and not run again; ``--minutes`` starts no run that would end later.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import scaling_law
from machine import RESULTS, conditions, facts, keep_results, table
from scaling_law import Law, Trained
from treetune.core.files import file_digest

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RECIPE = ROOT / "recipes" / "base.yaml"
EVERY = 4  # of the held-out blocks every fourth is scored, the same ones for all
VOCABULARY = 8192  # of the shipped tokenizer
RATE = 0.004  # of the recipe
TRIAL_STEPS = 4  # of the forecast, the first not counted
LEFT_OUT = 2  # runs of most compute that a second fit has to foretell
DRAWS = 50  # of the bootstrap
BUDGETS = (1e13, 1e14, 1e15)  # FLOPs, beside the shipped base's own
FLAT = 0.01  # a loss this share above the best one counts as nearly as good
COLORS = ("#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7")  # Okabe and Ito's, told apart by colour-blind readers
MARKS = ("o", "s", "^", "D", "v")
FITS = (("recipe's rate", "recipe_rate"), ("better rate", "better_rate"), ("with first stage", "with_first_stage"))
PARTS = ("grid", "rates", "checks")
BASES = (("first stage", "first_stage"), ("shipped base", "shipped"))
NUMBERS = (("E", "floor", ".3f"), ("A", "a", ".3g"), ("alpha", "alpha", ".3f"), ("B", "b", ".3g"),
           ("beta", "beta", ".3f"), ("exponent of the best N in C", "size_exponent", ".3f"))


@dataclass(frozen=True, slots=True)
class Shape:
    """Layers, width, heads."""

    layers: int
    width: int
    heads: int


TINY, SMALL, MIDDLE, SHIPPED, LARGE = (
    Shape(2, 64, 1), Shape(2, 96, 3), Shape(3, 128, 2), Shape(4, 192, 3), Shape(5, 256, 4))


@dataclass(frozen=True, slots=True)
class Run:
    """One training run; ``tokens`` are those asked for."""

    shape: Shape
    tokens: int
    part: str = "grid"
    optim: str = "muon"
    learning_rate: float = RATE
    vocabulary: int = VOCABULARY

    @property
    def name(self) -> str:
        """The key in the results."""
        words = [f"{self.shape.layers}x{self.shape.width}", f"{self.tokens / 1e6:g}M tokens"]
        words += [self.optim] if self.optim != "muon" else []
        words += [f"rate {self.learning_rate:g}"] if self.learning_rate != RATE else []
        return ", ".join(words + ([f"vocabulary {self.vocabulary}"] if self.vocabulary != VOCABULARY else []))


# in the order of what they tell for their time, so that a search cut short is a search still
RUNS = (
    *(Run(shape, 600_000) for shape in (TINY, SMALL, MIDDLE, SHIPPED, LARGE)),
    *(Run(shape, 1_200_000) for shape in (TINY, MIDDLE, SHIPPED)),
    *(Run(shape, 2_400_000) for shape in (TINY, MIDDLE, SHIPPED)),
    Run(TINY, 4_800_000), Run(SMALL, 2_400_000), Run(LARGE, 1_200_000), Run(SMALL, 1_200_000),
    *(Run(shape, tokens, "rates", learning_rate=rate * RATE) for shape, tokens, rate in (
        (TINY, 600_000, 4), (TINY, 600_000, 2), (MIDDLE, 600_000, 4), (MIDDLE, 600_000, 2), (MIDDLE, 600_000, 0.5),
        (TINY, 1_200_000, 4), (TINY, 1_200_000, 2), (SHIPPED, 600_000, 4), (MIDDLE, 1_200_000, 4), (TINY, 2_400_000, 4),
        (SMALL, 600_000, 4), (SHIPPED, 600_000, 2), (SHIPPED, 1_200_000, 2), (MIDDLE, 1_200_000, 2),
        (MIDDLE, 2_400_000, 2), (LARGE, 600_000, 2), (SMALL, 600_000, 2))),
    Run(MIDDLE, 1_200_000, "checks", optim="adamw"),
    Run(MIDDLE, 1_200_000, "checks", optim="adamw", learning_rate=0.002),
    Run(MIDDLE, 1_740_000, "checks", vocabulary=4096), Run(MIDDLE, 744_000, "checks", vocabulary=16384),
)


class Material:
    """Split, tokenizers and blocks of the recipe's sources; each is made once and shared by all runs."""

    def __init__(self, recipe: Path, data_root: Path, tokenizer: Path) -> None:
        from treetune.core.settings import PretrainSettings, read_settings
        from treetune.workflow.pretraining_text import split_source

        self.settings = read_settings(PretrainSettings, recipe, {
            "data_root": str(data_root), "tokenizer": str(tokenizer), "bf16": True})
        self.texts = {source.path: split_source(source, self.settings) for source in self.settings.data}
        self.tokenizer = cache(self._tokenizer)
        self.training = cache(self._training)
        self.held_out = cache(self._held_out)

    def of(self, run: Run, folder: Path) -> Any:
        """The settings of a run: the recipe's, but for what the run changes and what it does not need."""
        return self.settings.model_copy(update={
            "output_dir": str(folder), "n_layer": run.shape.layers, "n_embd": run.shape.width,
            "n_head": run.shape.heads, "total_tokens": run.tokens, "optim": run.optim,
            "learning_rate": run.learning_rate, "eval_steps": 10**9, "save_steps": 10**9,
            **({"vocab_size": run.vocabulary, "tokenizer": None} if run.vocabulary != VOCABULARY else {}),
        })

    def _tokenizer(self, vocabulary: int) -> Any:
        from treetune.core.files import RunFolder
        from treetune.workflow.pretrain import tokenizer_for

        with tempfile.TemporaryDirectory() as name:
            run = Run(TINY, self.settings.total_tokens, vocabulary=vocabulary)
            found = tokenizer_for(self.of(run, Path(name)), self.texts, RunFolder(Path(name)))
        found.model_max_length = 10**9  # documents longer than the window are cut into blocks
        return found

    def _training(self, tokens: int, vocabulary: int) -> tuple[list[Any], dict[str, dict[str, float]]]:
        from treetune.workflow.pretrain import training_blocks

        settings = self.settings.model_copy(update={"total_tokens": tokens})
        return training_blocks(settings, self.texts, self.tokenizer(vocabulary))

    def _held_out(self, vocabulary: int) -> list[Any]:
        """Every `EVERY`-th held-out block of each source; in another vocabulary, the same bytes spelt in it."""
        from base_model import Spelling, respelt
        from treetune.workflow.pretrain import held_out_blocks

        shipped = self.tokenizer(VOCABULARY)
        blocks = [block for each in held_out_blocks(self.settings, self.texts, shipped).values()
                  for block in each[::EVERY]]
        if vocabulary == VOCABULARY:
            return blocks
        before, after = Spelling(shipped), Spelling(self.tokenizer(vocabulary))
        return [part for block in blocks for part in respelt(block, before, after, self.settings.n_positions)]

    def num_bytes(self) -> int:
        """Bytes that the held-out labels spell, the end of a document being one."""
        from base_model import Spelling

        spelling = Spelling(self.tokenizer(VOCABULARY))
        return sum(len(spelling.text(block.completion_ids)) for block in self.held_out(VOCABULARY))

    def bits_per_byte(self, model: Any, vocabulary: int = VOCABULARY) -> float:
        """Held-out bits per byte of all sources together."""
        from base_model import bits
        from treetune.models.load import LoadedModel

        loaded = LoadedModel(model, self.tokenizer(vocabulary), self.settings.n_positions, "flat")
        return bits(loaded, self.held_out(vocabulary)) / self.num_bytes()


def new_model(run: Run, material: Material, settings: Any) -> Any:
    """The untrained model of a run, as `treetune pretrain` makes it."""
    import torch

    from treetune.core.seeds import seed_of
    from treetune.models.gpt3 import GPT3LMHeadModel
    from treetune.workflow.pretrain import model_config

    torch.manual_seed(seed_of(settings.seed, "init"))
    return GPT3LMHeadModel(model_config(settings, material.tokenizer(run.vocabulary)))


def train(run: Run, material: Material) -> dict[str, Any]:
    """One run by the steps of `treetune pretrain`; nothing is saved but its numbers."""
    from treetune.core.files import RunFolder
    from treetune.models.batches import batches_of
    from treetune.models.exactness import prove
    from treetune.train.loop import fit

    training, counts = material.training(run.tokens, run.vocabulary)
    with tempfile.TemporaryDirectory() as name:
        settings = material.of(run, Path(name))
        model = new_model(run, material, settings)
        make_batches = partial(batches_of, layout="padded", rows_per_pass=settings.per_device_train_batch_size,
                               max_tokens=settings.n_positions)
        prove(model, training[:4], "padded", settings.n_positions)
        began = time.process_time()
        state = fit(model, training, [], settings, make_batches, RunFolder(Path(name)), {}, lambda event: None)
        processor = time.process_time() - began
    return {
        "layers": run.shape.layers, "width": run.shape.width, "heads": run.shape.heads, "part": run.part,
        "optim": run.optim, "learning_rate": run.learning_rate, "vocabulary": run.vocabulary,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "in_blocks": sum(weight.numel() for weight in model.transformer.h.parameters()),
        "tokens": state.tokens, "steps": state.step, "seconds": state.seconds, "processor_seconds": processor,
        "most_passes": max(count["passes"] for count in counts.values()),
        "bits_per_byte": material.bits_per_byte(model, run.vocabulary),
    }


def pace(run: Run, material: Material) -> tuple[float, float]:
    """Processor seconds for (a token of training, the measurement at the end), from a few steps thrown away."""
    from treetune.models.batches import batches_of
    from treetune.train.loop import mean_loss, train_step
    from treetune.train.optimizers import build_optimizers

    settings = material.of(run, Path("unused"))
    model = new_model(run, material, settings)
    rows = settings.per_device_train_batch_size
    make_batches = partial(batches_of, layout="padded", rows_per_pass=rows, max_tokens=settings.n_positions)
    blocks = material.held_out(VOCABULARY)
    began = time.process_time()
    mean_loss(model, blocks[:rows], make_batches)
    measuring = (time.process_time() - began) / rows * len(blocks)
    optimizers = build_optimizers(model, run.optim, 1e-9, settings.weight_decay)
    training = material.training(600_000, VOCABULARY)[0]
    tokens = 0
    for step in range(TRIAL_STEPS):
        taken = training[rows * step : rows * (step + 1)]
        tokens += train_step(model, optimizers, taken, make_batches, settings, step).row_tokens if step else 0
        began = began if step else time.process_time()
    return (time.process_time() - began) / tokens, measuring


def forecast(runs: Sequence[Run], material: Material) -> list[float]:
    """Seconds that each run will take, from the pace of its shape; another vocabulary is reckoned as the shipped."""
    paces = {shape: pace(Run(shape, 600_000), material) for shape in dict.fromkeys(run.shape for run in runs)}
    return [paces[run.shape][0] * run.tokens + paces[run.shape][1] for run in runs]


def base_in(place: Path, material: Material) -> dict[str, Any]:
    """A base on the same held-out blocks: size, tokens and FLOPs of all its stages, bits per byte."""
    from treetune.models.load import load_model

    record = json.loads((place / "pretraining.json").read_text(encoding="utf-8"))
    tokens = sum(stage["tokens_seen"] for stage in [*record.get("stages_before", []), record])
    return {"parameters": record["parameters"], "tokens": tokens, "flops": 6 * record["parameters"] * tokens,
            "most_passes": max(count["passes"] for count in record["training_tokens_by_source"].values()),
            "bits_per_byte": material.bits_per_byte(load_model(str(place)).model)}


def search(
    runs: Sequence[Run], minutes: float, kept: dict[str, Any], results: Path, first_stage: Path | None = None
) -> dict[str, Any]:
    """Train what is not kept yet, for ``minutes`` of the processor at most; a run is kept as soon as it is done."""
    import torch

    from treetune.models.embedded import folder
    from treetune.train.memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()  # as `fit` does, but before the forecast and the first product
    began = time.process_time()
    kept = {"conditions": facts(1), "recipe_sha256": file_digest(RECIPE), "runs": {}} | kept
    if kept["recipe_sha256"] != file_digest(RECIPE):
        raise SystemExit(f"the kept runs are of another {RECIPE.name}: move size_search.json away first")
    material = Material(RECIPE, DATA, folder())
    if "shipped" not in kept:
        kept |= {"shipped": base_in(folder(), material), "held_out_bytes": material.num_bytes(),
                 "held_out_blocks": len(material.held_out(VOCABULARY))}
    if first_stage:
        kept["first_stage"] = base_in(first_stage, material)
    pending = [run for run in runs if run.name not in kept["runs"]]
    seconds = forecast(pending, material)
    for run, expected in zip(pending, seconds, strict=True):
        print(f"  forecast {expected:5.0f} s  {run.name}", flush=True)
    print(f"{len(pending)} runs, {sum(seconds) / 60:.0f} minutes of the processor by the forecast, {minutes:g} allowed",
          flush=True)
    for run, expected in zip(pending, seconds, strict=True):
        if time.process_time() - began + expected > 60 * minutes:
            print(f"left out for want of time: {run.name}", flush=True)
            continue
        kept["runs"][run.name] = found = train(run, material)
        keep_results("size_search", kept, report, results)
        print(f"{time.process_time() - began:6.0f} s  {run.name}: {found['bits_per_byte']:.4f} bits a byte, "
              f"{found['parameters']:,} parameters, {found['processor_seconds']:.0f} s", flush=True)
    return kept


def plain(kept: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs with the recipe's optimizer and vocabulary, at any rate."""
    return [run for run in kept["runs"].values() if run["optim"] == "muon" and run["vocabulary"] == VOCABULARY]


def grid_runs(kept: dict[str, Any], better: bool = False) -> list[dict[str, Any]]:
    """The runs that a law is fitted to, in the order of their compute: one a size and amount of text.

    Args:
        better: the best rate of each that was run at two rates at least, in place of the recipe's rate of all.
    """
    tried: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for run in plain(kept):
        tried.setdefault((run["parameters"], run["tokens"]), []).append(run)
    if better:
        found = [min(runs, key=lambda run: run["bits_per_byte"]) for runs in tried.values() if len(runs) > 1]
    else:
        found = [run for runs in tried.values() for run in runs if run["learning_rate"] == RATE]
    return sorted(found, key=lambda run: run["parameters"] * run["tokens"])


def trained(runs: Sequence[dict[str, Any]], size: str = "parameters") -> list[Trained]:
    """Runs as the law knows them; ``size``: which count of weights N is."""
    return [Trained(run[size], run["tokens"], run["bits_per_byte"]) for run in runs]


def fitted(kept: dict[str, Any]) -> dict[str, Any]:
    """The law of the recipe's rate, of the better rate, of that and the first stage; how the largest runs check."""
    runs = {key: trained(grid_runs(kept, key == "better_rate")) for key in ("recipe_rate", "better_rate")}
    if "first_stage" in kept:
        base = kept["first_stage"]
        few = not scaling_law.can_be_fitted(runs["better_rate"])
        runs["with_first_stage"] = [*runs["recipe_rate" if few else "better_rate"],
                                    Trained(base["parameters"], base["tokens"], base["bits_per_byte"])]
    fits = {key: summary(each, kept) for key, each in runs.items() if scaling_law.can_be_fitted(each)}
    checks = [check for better in (False, True) for size in ("parameters", "in_blocks")
              for check in foretold(grid_runs(kept, better), size)]
    return {"fits": fits, "foretold": checks}


def summary(runs: Sequence[Trained], kept: dict[str, Any]) -> dict[str, Any]:
    """A law with its intervals, the best size of each budget, and the bases against it."""
    law = scaling_law.fit(runs)
    laws = scaling_law.resampled(runs, law, DRAWS)
    flops = kept["shipped"]["flops"]
    least, most = min(run.flops for run in runs), max(run.flops for run in trained(grid_runs(kept)))
    return {
        "runs": len(runs), "law": asdict(law), "size_exponent": law.size_exponent,
        "intervals": {name: scaling_law.interval([getattr(each, name) for each in laws])
                      for name in (*asdict(law), "size_exponent")},
        "error": float(np.sqrt(np.mean([math.log(law.loss(run.parameters, run.tokens) / run.loss) ** 2
                                        for run in runs]))),
        "budgets": [budget(law, laws, each, most) for each in sorted((*BUDGETS, flops))],
        "bases": {key: of_base(law, laws, kept[key]) for _, key in BASES if key in kept},
        "frontier": [{"flops": float(each), "loss": law.best_loss(each),
                      "interval": scaling_law.interval([one.best_loss(each) for one in laws])}
                     for each in np.geomspace(least, 2 * flops, 40)],
    }


def of_base(law: Law, laws: Sequence[Law], base: dict[str, Any]) -> dict[str, Any]:
    """What the law says of a base; ``lost``: how far its size is above the best loss of its compute."""
    size, tokens, flops = base["parameters"], base["tokens"], base["flops"]
    return {"predicted": law.loss(size, tokens),
            "interval": scaling_law.interval([each.loss(size, tokens) for each in laws]),
            "lost": law.loss(size, tokens) - law.best_loss(flops),
            "lost_interval": scaling_law.interval(
                [each.loss(size, tokens) - each.best_loss(flops) for each in laws])}


def budget(law: Law, laws: Sequence[Law], flops: float, largest: float) -> dict[str, Any]:
    """The best size for ``flops`` and what it should give; ``beyond``: as a multiple of the largest run's compute."""
    size = law.best_size(flops)
    return {"flops": flops, "size": size, "tokens": flops / 6 / size, "loss": law.best_loss(flops),
            "size_interval": scaling_law.interval([each.best_size(flops) for each in laws]),
            "loss_interval": scaling_law.interval([each.best_loss(flops) for each in laws]),
            "nearly_as_good": law.sizes_within(flops, FLAT), "beyond": flops / largest}


def foretold(runs: Sequence[dict[str, Any]], size: str) -> list[dict[str, Any]]:
    """The largest runs as a fit without them says, with intervals; [] where too few are left.

    ``before`` is the best loss among the runs that it was fitted to: what "no better than so far" would have said.
    """
    others, largest = trained(runs[:-LEFT_OUT], size), runs[-LEFT_OUT:]
    if not scaling_law.can_be_fitted(others):
        return []
    law = scaling_law.fit(others)
    laws = scaling_law.resampled(others, law, DRAWS)
    return [{"size": size, "parameters": run[size], "tokens": run["tokens"], "learning_rate": run["learning_rate"],
             "measured": run["bits_per_byte"], "predicted": law.loss(run[size], run["tokens"]),
             "before": min(each.loss for each in others), "runs": len(others),
             "interval": scaling_law.interval([each.loss(run[size], run["tokens"]) for each in laws])}
            for run in largest]


def millions(value: float) -> str:
    """3,451,008 -> 3.45 M."""
    return f"{value / 1e6:.3g} M" if value < 1e9 else f"{value / 1e6:,.0f} M"


def between(ends: Sequence[float], form: str = ".3f") -> str:
    """An interval."""
    return f"{ends[0]:{form}} – {ends[1]:{form}}"


def report(kept: dict[str, Any]) -> str:
    """The results page."""
    rates = sorted({run["learning_rate"] for run in plain(kept)})
    lines = [[f"{run['layers']} x {run['width']}", f"{run['parameters']:,}", f"{run['in_blocks']:,}",
              f"{run['tokens']:,}", f"{run['steps']:,}", f"{6 * run['parameters'] * run['tokens']:.2e}",
              f"{run['processor_seconds']:.0f}", *(at_rate(kept, run, rate) for rate in rates)]
             for run in sorted(grid_runs(kept), key=lambda run: (run["parameters"], run["tokens"]))]
    text = [
        "# How large should the base be?", "`python benchmarks/size_search.py`",
        f"Held-out bits per byte of every {EVERY}th held-out block of all sources ({kept['held_out_blocks']} blocks, "
        f"{kept['held_out_bytes']:,} bytes), the same for all. Each run has the recipe's sources, shares, batch (8 "
        "rows of 512 tokens), Muon and a linear schedule of its own to 0; bf16 on one thread. The recipe's rate is "
        f"{RATE:g}; seconds are those of its run.", "## Runs",
        table(["layers x width", "parameters (N)", "of them in layers", "tokens read (D)", "steps", "6 N D",
               "processor seconds", *(f"bits per byte at {rate:g}" for rate in rates)], lines)]
    if "fit" in kept:
        text += law_page(kept)
    return "\n\n".join([*text, *checks_page(kept), conditions(kept["conditions"])]) + "\n"


def law_page(kept: dict[str, Any]) -> list[str]:
    """What the fits say: the plot, the laws, the check, the budgets, the bases, and what it cannot say."""
    found, shipped = kept["fit"], kept["shipped"]
    fits = [(name, found["fits"][key]) for name, key in FITS if key in found["fits"]]
    numbers = [[label, *(cell for _, fit in fits for cell in (
        f"{(fit['law'] | fit)[key]:{form}}", between(fit["intervals"][key], form)))] for label, key, form in NUMBERS]
    checks = [[f"{each['learning_rate']:g}", str(each["runs"]),
               {"parameters": "all weights", "in_blocks": "weights in layers"}[each["size"]],
               millions(each["parameters"]),
               millions(each["tokens"]), f"{each['before']:.3f}", f"{each['predicted']:.3f}", between(each["interval"]),
               f"{each['measured']:.3f}", f"{100 * (each['predicted'] / each['measured'] - 1):+.1f} %"]
              for each in found["foretold"]]
    budgets = [[f"{each['flops']:.2e}" + (" (shipped base)" if each["flops"] == shipped["flops"] else ""),
                f"{each['beyond']:.2g}", name, millions(each["size"]), " – ".join(map(millions, each["size_interval"])),
                " – ".join(map(millions, each["nearly_as_good"])), millions(each["tokens"]), f"{each['loss']:.3f}",
                between(each["loss_interval"])]
               for pair in zip(*(fit["budgets"] for _, fit in fits), strict=True)
               for (name, _), each in zip(fits, pair, strict=True)]
    bases = [base_line(name, label, kept[key], fit["bases"][key]) for label, key in BASES for name, fit in fits
             if key in fit["bases"]]
    errors = ", ".join(f"{100 * fit['error']:.2f} % ({name}, {fit['runs']} runs)" for name, fit in fits)
    return [
        "## The law", "![held-out loss against compute](size_search.svg)",
        "L(N, D) = E + A / N^alpha + B / D^beta in bits per byte; N counts all weights, the tied embeddings once, as "
        "the head multiplies every token by them. 90 % intervals of runs drawn with replacement. Typical error on the "
        f"runs fitted to: {errors}.",
        table(["", *(cell for name, _ in fits for cell in (name, "90 %"))], numbers),
        f"### The check: a fit without the {LEFT_OUT} runs of most compute",
        table(["rate", "fitted to", "N counts", "N", "D", "best of the others", "predicted", "90 %", "measured",
               "error"], checks)
        if checks else "Too few runs are left for it.",
        "### The base that ships",
        "Its first stage was trained as the runs were, in float32 and for longer; the second began at a high rate "
        "again. *Lost*: what the size of the base is predicted to lose to the best size of its compute.",
        table(["", "N", "D", "6 N D", "fitted to", "predicted", "90 %", "measured", "error", "lost", "90 %"], bases),
        "### Best size for a budget",
        table(["6 N D", "times the largest run", "fitted to", "best N", "90 %", f"within {FLAT:.0%} of the best loss",
               "D", "bits per byte", "90 %"], budgets),
        "### What this cannot tell",
        *limits(kept)]


def base_line(fitted_to: str, label: str, base: dict[str, Any], at: dict[str, Any]) -> list[str]:
    """A base against a law."""
    return [label, f"{base['parameters']:,}", f"{base['tokens']:,}", f"{base['flops']:.2e}", fitted_to,
            f"{at['predicted']:.3f}", between(at["interval"]), f"{base['bits_per_byte']:.3f}",
            f"{100 * (at['predicted'] / base['bits_per_byte'] - 1):+.1f} %", f"{at['lost']:.3f}",
            between(at["lost_interval"])]


def limits(kept: dict[str, Any]) -> list[str]:
    """What the grid is too small for."""
    runs, shipped = trained(grid_runs(kept)), kept["shipped"]
    beyond = shipped["flops"] / max(run.flops for run in runs)
    longer = shipped["tokens"] / max(run.tokens for run in runs)
    passes = max(run["most_passes"] for run in plain(kept))
    return ["\n".join([
        f"- The shipped base's budget is {beyond:.0f} times the largest run's, its text {longer:.1f} times the "
        "longest: the law is carried far outside what it was fitted to, and the intervals cover chance among "
        f"these {len(runs)} runs only, not a law that bends. An E of 0 says that the runs do not show where the loss "
        "would stop falling.",
        f"- Passes over a source: at most {passes:g} in these runs; the shipped base read one "
        f"{shipped['most_passes']:g} times in its last stage alone, after another. Repeated text is worth less, which "
        "the law does not know: a smaller N with more tokens than the sources hold is a size on paper.",
        "- The learning rate matters more in these short runs than a size up or down, and only a few were tried, none "
        "for the first stage: the law of the recipe's rate mixes up size and rate, that of the better rate less so.",
        "- One seed a run, one shape a size, one mix of sources. The shipped base was trained in two stages with a "
        "decay each, and its first was in float32.",
        "- 6 N D is not time: on one core the smaller shapes get fewer operations a second (see the runs), so a budget "
        "in hours favours somewhat larger ones.",
        "- The best loss of a base is not the best score after tuning; that was not searched."])]


def at_rate(kept: dict[str, Any], like: dict[str, Any], rate: float) -> str:
    """Bits per byte of the run of that size and text at a rate; "" where it was not run."""
    for run in plain(kept):
        if (run["parameters"], run["tokens"], run["learning_rate"]) == (like["parameters"], like["tokens"], rate):
            return f"{run['bits_per_byte']:.4f}"
    return ""


def checks_page(kept: dict[str, Any]) -> list[str]:
    """Single runs beside the grid: optimizer, vocabulary."""
    found = [run for run in kept["runs"].values() if run["optim"] != "muon" or run["vocabulary"] != VOCABULARY]
    head = "## Optimizer, vocabulary"
    if not found:
        return [head, "Not run (`--only checks`)."]
    shapes = {(run["layers"], run["width"]) for run in found}
    beside = [run for run in plain(kept) if (run["layers"], run["width"]) in shapes]
    lines = [[f"{run['layers']} x {run['width']}", run["optim"], f"{run['learning_rate']:g}", f"{run['vocabulary']:,}",
              f"{run['parameters']:,}", f"{run['tokens']:,}", f"{6 * run['parameters'] * run['tokens']:.2e}",
              f"{run['bits_per_byte']:.4f}"] for run in sorted((*beside, *found), key=lambda run: run["tokens"])]
    return [head, "Single runs, one seed each, beside all others of the same shape. Other vocabularies have a "
            "tokenizer of their own and are scored on the same bytes.",
            table(["layers x width", "optimizer", "learning rate", "vocabulary", "parameters", "tokens read", "6 N D",
                   "bits per byte"], lines)]


def draw(kept: dict[str, Any], path: Path) -> None:
    """Held-out loss against compute: a line a size, the fitted frontier with its interval, the shipped base."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    shipped, fits = kept["shipped"], kept["fit"]["fits"]
    better = "better_rate" in fits
    grid = fits["better_rate" if better else "recipe_rate"]
    law = Law(**grid["law"])
    figure, axis = pyplot.subplots(figsize=(8, 5), layout="constrained")
    sizes = sorted({run["parameters"] for run in grid_runs(kept)})
    for number, size in enumerate(sizes):
        runs, plainly = ([run for run in trained(grid_runs(kept, kind)) if run.parameters == size]
                         for kind in (better, False))
        color, mark = COLORS[number % len(COLORS)], MARKS[number % len(MARKS)]
        across = np.geomspace(plainly[0].flops, 2 * shipped["flops"], 60)
        axis.plot(across, [law.loss(size, each / 6 / size) for each in across], color=color, linewidth=0.8, alpha=0.6,
                  linestyle=":")
        axis.plot([run.flops for run in runs], [run.loss for run in runs], marker=mark, markersize=5, color=color,
                  label=f"{millions(size)} parameters, measured")
        if better:
            axis.plot([run.flops for run in plainly], [run.loss for run in plainly], marker=mark, markersize=4,
                      color=color, markerfacecolor="white", linewidth=0.6, alpha=0.6)
    if better:
        axis.plot([], [], marker="o", markersize=4, color="#555555", markerfacecolor="white", linewidth=0.6,
                  label=f"at the recipe's rate, {RATE:g}")
    flops = [each["flops"] for each in grid["frontier"]]
    axis.fill_between(flops, *zip(*(each["interval"] for each in grid["frontier"]), strict=True), color="#555555",
                      alpha=0.15, linewidth=0)
    axis.plot(flops, [each["loss"] for each in grid["frontier"]], color="black", linewidth=1.4, linestyle="--",
              label="frontier (best size) fitted to the grid, 90 %")
    if "with_first_stage" in fits:
        wider = fits["with_first_stage"]["frontier"]
        axis.plot([each["flops"] for each in wider], [each["loss"] for each in wider], color="black", linewidth=1.0,
                  linestyle="-.", label="frontier fitted to the first stage as well")
    axis.plot([], [], color="#555555", linewidth=0.8, linestyle=":", label="the grid's law at each size")
    for name, key in BASES:
        if key in kept:
            axis.plot([kept[key]["flops"]], [kept[key]["bits_per_byte"]], marker="*", markersize=14, color="black",
                      markerfacecolor="black" if key == "shipped" else "white", linestyle="",
                      label=f"{name} ({millions(kept[key]['parameters'])})")
    axis.set_xscale("log")
    axis.set_xlabel("training compute, 6 N D in FLOPs", fontsize=9)
    axis.set_ylabel("held-out bits per byte", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.legend(frameon=False, fontsize=8)
    axis.set_title("Loss of small bases, and what a law fitted to them foretells", loc="left", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """Train what is missing, fit, print, keep, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=45, help="of the processor, for runs that are not kept yet")
    parser.add_argument("--only", choices=PARTS, nargs="*", default=PARTS, help="parts of the runs; default: all")
    parser.add_argument("--first-stage", type=Path, help="folder of a base that recipes/base.yaml alone left")
    parser.add_argument("--fit-only", action="store_true", help="train nothing, fit and draw what is kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    place = given.results / "size_search.json"
    kept = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    if not given.fit_only:
        if not DATA.is_dir():
            raise SystemExit(f"the shared data is not beside the repository: {DATA}")
        kept = search([run for run in RUNS if run.part in given.only], given.minutes, kept, given.results,
                      given.first_stage)
    if not kept or not scaling_law.can_be_fitted(trained(grid_runs(kept))):
        raise SystemExit("too few runs are kept for a law")
    kept["fit"] = fitted(kept)
    keep_results("size_search", kept, report, given.results)
    draw(kept, given.results / "size_search.svg")
    print(report(kept))


if __name__ == "__main__":
    main()
