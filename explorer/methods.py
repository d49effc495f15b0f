"""The table of attribution methods, as data: what each is, needs and costs, and the trap in it.

The app, the command line, docs/methods.md and the tests read these rows; nothing else tells methods apart.
`python -m explorer.methods docs/methods.md` writes the page's table anew.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from explorer import maps, probes, totals
from vit.config import ViTConfig
from vit.trace import Trace

COMMON = {"query", "layer", "head", "fuse", "model", "target", "contrast", "progress"}


@dataclass(frozen=True)
class Method:
    """A row of METHODS, called like its function: `METHODS["rollout"](trace, query=3)`.

    Options that mean the same everywhere (query, layer, head, fuse, model, target, contrast, progress) may
    be given to every method: None means not given, and those that a method has no use for are left out.
    Another unknown option is a TypeError.
    """

    function: Callable[..., Tensor]
    label: str
    about: str  # one line for the visitor
    formula: str
    source: str
    url: str
    trap: str  # how it misleads, or is easily got wrong
    cost: str = "none"  # on top of the trace, in words; P is the number of patches
    forwards: int = 0  # passes, where they are more than a few
    backwards: int = 0
    forwards_per_patch: int = 0
    # the way of hiding patches in a race (see explorer/faithfulness.py) that it is made of itself
    judged_by: str = ""
    class_specific: bool = True
    signed: bool = False
    needs_model: bool = False
    needs_grad: bool = False  # a trace with a target
    additive_stream: bool = False  # needs a residual stream that is a sum and read as one: no post_norm
    pools: bool = False  # needs a model that pools by attention
    rows_sum_to_1: bool = False  # so that "times uniform" can be said of its map
    max_tokens: int | None = None
    min_patches: int = 0

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options that the method knows."""
        return tuple(inspect.signature(self.function).parameters)[1:]

    def default(self, option: str) -> Any:
        """What an option is where it is not given."""
        return inspect.signature(self.function).parameters[option].default

    @property
    def is_long(self) -> bool:
        """Is it many passes, or other long work, of which it tells the progress?"""
        return "progress" in self.options

    @property
    def entry(self) -> dict[str, Any]:
        """What the viewer is told of it; depends: what its map belongs to."""
        depends = ["target"] * self.class_specific
        about = f"{self.about}  {self.formula}  ({self.source})"
        return {"name": self.name, "label": self.label, "about": about, "depends": depends}

    def passes_for(self, patches: int) -> int:
        """Forward passes on a picture of so many patches, where they are more than a few; a backward pass
        counts as two."""
        return self.forwards + 2 * self.backwards + self.forwards_per_patch * patches

    def cost_for(self, patches: int) -> str:
        """What it costs on a picture of so many patches, such as "196 forwards"."""
        return self.cost.replace("P ", f"{patches} ")

    def refusal(self, config: ViTConfig, num_tokens: int) -> str:
        """Why it says nothing about such a model or picture, in one sentence; empty if it does."""
        if self.class_specific and not config.num_classes:
            return f"{self.label} explains a class, and this model has no classification head."
        if self.pools and config.pool != "attention":
            reads = "the mean of its patches" if config.pool == "mean" else "its class token"
            return f"{self.label} is of models that pool by attention, and this one reads {reads}."
        if self.additive_stream and config.post_norm:
            return f"{self.label} needs a residual stream that only adds: this model has post_norm."
        if self.additive_stream and config.pool == "attention":
            return f"{self.label} needs a linear read-out: this model pools by attention."
        if self.max_tokens is not None and num_tokens > self.max_tokens:
            most = f"is made for up to {self.max_tokens} tokens"
            return f"{self.label} {most}, and this picture has {num_tokens}."
        if (patches := num_tokens - config.num_prefix_tokens) < self.min_patches:
            return f"{self.label} needs at least {self.min_patches} patches, and this picture has {patches}."
        return ""

    def __call__(self, trace: Trace, **options: object) -> Tensor:
        if self.needs_model and options.get("model") is None:
            raise ValueError(f"{self.label} runs the model again: pass model=.")
        for key in COMMON & options.keys():
            if options[key] is None or key not in self.options:
                del options[key]
        return self.function(trace, **options)


VASWANI, KOBAYASHI = "https://arxiv.org/abs/1706.03762", "https://arxiv.org/abs/2004.10102"
ABNAR, CHEFER = "https://arxiv.org/abs/2005.00928", "https://arxiv.org/abs/2103.15679"
ALI = "https://arxiv.org/abs/2202.07304"
ROWS = (
    Method(
        maps.attention,
        label="Attention",
        about="Where the query looks in one layer.",
        formula="A[l, h][q, j]",
        source="Vaswani et al. 2017, eq. 1",
        url=VASWANI,
        trap="A row (looks at) is not a column (is looked at). What falls on [CLS] and registers is "
        "not on the map. A weight is not a contribution.",
        class_specific=False,
        rows_sum_to_1=True,
    ),
    Method(
        maps.attention_all_layers,
        label="Attention, all layers",
        about="Where the query looks, averaged over depth.",
        formula="meanₗ Āₗ[q, j]",
        source="Vaswani et al. 2017, eq. 1",
        url=VASWANI,
        trap="An average over layers that do different things; it is here because it often beats the "
        "last layer alone.",
        class_specific=False,
        rows_sum_to_1=True,
    ),
    Method(
        maps.pooling_attention,
        label="Pooling attention",
        about="Where the learned query looks that gathers the answer: SigLIP, Perception Encoder.",
        formula="A_pool[h, j]",
        source="Zhai et al. 2022, MAP head",
        url="https://arxiv.org/abs/2106.04560",
        trap="The query is the same for every picture and every class. After the last layer a token need "
        "not speak for its own place.",
        class_specific=False,
        pools=True,
        rows_sum_to_1=True,
    ),
    Method(
        maps.value_weighted,
        label="Value-weighted attention",
        about="How large a message each patch sends, not how large a weight it gets.",
        formula="‖Σₕ A[l, h][q, j] · v[j] Wₒ‖",
        source="Kobayashi et al. 2020, eq. 5",
        url=KOBAYASHI,
        trap="A length has no direction: a large message may speak for another class.",
        cost="1 projection",
        class_specific=False,
        needs_model=True,
    ),
    Method(
        maps.rollout,
        label="Attention rollout",
        about="Attention multiplied through depth, with the residual path.",
        formula="Rₗ = (½ I + ½ Āₗ) Rₗ₋₁",
        source="Abnar & Zuidema 2020, eq. 1",
        url=ABNAR,
        trap="Later layers stand on the left; without I it is something else. Fused by max or min, or "
        "with weights discarded, rows are brought to sum 1 (rows, not columns) before I is mixed "
        "in: Gildenblat's code mixes first, which is another map (correlation 0.90 for max, 0.31 "
        "for min, whose rows then are nearly I alone). The same for every class, blind to V and "
        "to MLPs, and blurrier with depth.",
        class_specific=False,
        rows_sum_to_1=True,
    ),
    Method(
        maps.flow,
        label="Attention flow",
        about="The most that could flow from each patch through attention's pipes.",
        formula="max-flow over ½ I + ½ Āₗ",
        source="Abnar & Zuidema 2020, sec. 3",
        url=ABNAR,
        trap="Narrow pipes at the query saturate: nearly all patches end near the same value. Bounded "
        f"to {maps.MAX_FLOW_TOKENS} tokens.",
        cost="P max-flows",
        class_specific=False,
        max_tokens=maps.MAX_FLOW_TOKENS,
    ),
    Method(
        maps.attention_gradient,
        label="Attention × gradient",
        about="Attention of one layer, weighed by what it does for the class.",
        formula="meanₕ (A ⊙ ∂y/∂A)₊",
        source="Chefer et al. 2021 (ICCV), eq. 5",
        url=CHEFER,
        trap="One layer's view.",
        cost="1 backward",
        needs_grad=True,
    ),
    Method(
        maps.gradient_rollout,
        label="Gradient rollout",
        about="Rollout of attention × gradient.",
        formula="Rₗ = rownorm(I + (meanₕ A ⊙ ∂y/∂A)₊) Rₗ₋₁",
        source="Gildenblat 2020",
        url="https://jacobgil.github.io/deeplearning/vision-transformer-explainability",
        trap="Backward hooks fire last layer first: paired with attention in forward order, every "
        "gradient meets the wrong layer. Gildenblat's code does that; its hook on a dropout that "
        "does nothing gives the gradient of the scores, not of attention (correlation 0.13); and "
        "it drops the lowest 90 % and divides columns by sums of rows. Here none of these. Heads "
        "are averaged before the clamp, so signs cancel.",
        cost="1 backward",
        needs_grad=True,
    ),
    Method(
        maps.relevance,
        label="Class relevance",
        about="Attention's positive pull on the class, gathered through depth.",
        formula="Rₗ = Rₗ₋₁ + meanₕ (A ⊙ ∂y/∂A)₊ Rₗ₋₁",
        source="Chefer et al. 2021 (ICCV), eqs. 5, 6",
        url=CHEFER,
        trap="The clamp comes before the mean over heads, and no row is normalised. A patch is "
        "relevant to itself by 1: read from all patches (mean pooling), that I is left out, or "
        "the map would sit on a constant.",
        cost="1 backward",
        needs_grad=True,
    ),
    Method(
        maps.attention_gradcam,
        label="Attention Grad-CAM",
        about="Heads of one layer added up, each by how much the class wants it.",
        formula="(Σₕ αₕ A[l, h][q, j])₊,  αₕ = meanⱼ ∂y/∂A",
        source="Chefer et al. 2021 (CVPR), baseline",
        url="https://arxiv.org/abs/2012.09838",
        trap="Where every head's gradient is negative the map is empty.",
        cost="1 backward",
        needs_grad=True,
    ),
    Method(
        probes.legrad,
        label="LeGrad",
        about="How fast the class rises where more attention goes to a patch, averaged over depth.",
        formula="meanₗ meanₕ meanᵢ (∂yₗ/∂A[l, h][i, j])₊",
        source="Bousselham et al. 2025, sec. 3",
        url="https://arxiv.org/abs/2404.03214",
        trap="A slope, not a share: a patch that no head looks at may have a large one. Early layers "
        "are read by a head that was trained for the last one. The authors stretch each map to "
        "[0, 1]; here not. Of a model that pools by attention it is the pool's attention at every depth.",
        cost="1 forward, 1 backward",
        needs_model=True,
    ),
    Method(
        probes.gradcam,
        label="Grad-CAM",
        about="Channels of the last block's input, each by how much the class wants it.",
        formula="(Σ_d α_d F[j, d])₊,  α_d = meanⱼ ∂y/∂F",
        source="Selvaraju et al. 2017, eqs. 1, 2",
        url="https://arxiv.org/abs/1610.02391",
        trap="F must be what the last block's attention reads: under [CLS] pooling the gradient of "
        "patches after it is exactly zero.",
        cost="1 block, forward and backward",
        needs_model=True,
    ),
    Method(
        probes.input_gradient,
        label="Input × gradient",
        about="What each embedded patch adds to the logit, to first order.",
        formula="Σ_d x₀[j, d] · ∂y/∂x₀[j, d]",
        source="Shrikumar et al. 2016",
        url="https://arxiv.org/abs/1605.01713",
        trap="First order only. A norm undoes the scaling of a token, so what acts through it alone"
        " gets nothing (Euler).",
        cost="1 forward, 1 backward",
        needs_model=True,
        signed=True,
    ),
    Method(
        totals.layernorm_rule,
        label="LayerNorm rule",
        about="Input × gradient with the scale of every norm held: what each patch adds in all.",
        formula="Σ_d x₀[j, d] · ∂y/∂x₀[j, d], every σ constant",
        source="Ali et al. 2022, sec. 4.2",
        url=ALI,
        trap="Attention and the MLPs still bend, so the sum misses what they do: `total_effects` tells"
        " the gap.",
        cost="1 forward, 1 backward",
        needs_model=True,
        signed=True,
    ),
    Method(
        totals.cp_lrp,
        label="CP-LRP",
        about="What each patch gave to the logit by whatever way, adding up exactly.",
        formula="Σ_d x₀[j, d] · ∂y/∂x₀[j, d]; σ, A and gates constant",
        source="Ali et al. 2022, secs. 4.1, 4.2",
        url=ALI,
        trap="With attention held, a patch gets nothing for where it made others look: exact about a "
        "model that is not quite this one.",
        cost="1 forward, 1 backward",
        needs_model=True,
        signed=True,
    ),
    Method(
        probes.smoothgrad,
        label="SmoothGrad",
        about="The pixel gradient, averaged over noisy copies of the image.",
        formula="Σ_pixels |meanₙ ∂y/∂x(x + εₙ)|",
        source="Smilkov et al. 2017, sec. 2.2",
        url="https://arxiv.org/abs/1706.03825",
        trap="How steep the logit is, not what it owes to the patch. The noise comes from a generator "
        "of its own: the same map every time.",
        cost=f"{probes.SAMPLES} forwards, {probes.SAMPLES} backwards",
        forwards=probes.SAMPLES,
        backwards=probes.SAMPLES,
        needs_model=True,
    ),
    Method(
        probes.integrated_gradients,
        label="Integrated gradients",
        about="Gradients gathered between a grey image and this one; they add up to the logit's change.",
        formula="Σ_pixels (x − x′) ⊙ mean_α ∂y/∂x(x′ + α (x − x′))",
        source="Sundararajan et al. 2017, eq. 1",
        url="https://arxiv.org/abs/1703.01365",
        trap="Depends on the baseline x′ (here the card's mean: mid-grey for the bundled models): grey"
        " parts of a grey object get nothing. `integrate` reports the completeness gap.",
        cost=f"{probes.STEPS} forwards, {probes.STEPS} backwards",
        forwards=probes.STEPS,
        backwards=probes.STEPS,
        needs_model=True,
        signed=True,
    ),
    Method(
        probes.occlusion,
        label="Occlusion",
        about="What the logit loses when one patch is painted grey.",
        formula="y(x) − y(x, patch j grey)",
        source="Zeiler & Fergus 2014, sec. 4.2",
        url="https://arxiv.org/abs/1311.2901",
        trap="One patch at a time misses what two patches both say; a grey square is itself a thing "
        "the model has never seen.",
        cost="P forwards",
        forwards_per_patch=1,
        judged_by="grey",
        needs_model=True,
        signed=True,
    ),
    Method(
        probes.knockout,
        label="Attention knock-out",
        about="What the logit loses when no token can attend to a patch.",
        formula="y(x) − y(x, token j unseen)",
        source="Geva et al. 2023, sec. 4",
        url="https://arxiv.org/abs/2304.14767",
        trap="Also one at a time; a mean pool must leave the token out of the mean too.",
        cost="P forwards",
        forwards_per_patch=1,
        min_patches=2,
        judged_by="drop",
        needs_model=True,
        signed=True,
    ),
    Method(
        probes.ridge,
        label="Ridge on halves",
        about="What a patch adds on average while a random half of the others is left out.",
        formula="β of y ~ patches there, ridge λ by cross-validation",
        source="Ribeiro et al. 2016, sec. 3; Hoerl & Kennard 1970",
        url="https://arxiv.org/abs/1602.04938",
        trap="A fit to noise where passes are few: look at its standard errors (`regress`). Half a "
        "picture is unlike any that the model has seen.",
        cost=f"{probes.HALVES} forwards on half the patches",
        forwards=probes.HALVES,
        min_patches=2,
        judged_by="drop",
        needs_model=True,
        signed=True,
    ),
    Method(
        probes.logit_ledger,
        label="Logit ledger",
        about="What all heads carried from each patch straight into the logit.",
        formula="Σₗₕ A[l, h][q, j] · (v[j] Wₒ) · u",
        source="Elhage et al. 2021",
        url="https://transformer-circuits.pub/2021/framework/index.html",
        trap="Direct effects only: early layers act mostly through later ones.",
        cost="½ to 1 forward",
        needs_model=True,
        signed=True,
        additive_stream=True,
    ),
)
METHODS: dict[str, Method] = {method.name: method for method in ROWS}
LETTERS = (
    "A attention, Ā its heads fused, y the class's logit, ∂ its gradient, ⊙ elementwise product, (·)₊ "
    "negatives\n  to 0, q the query, j a patch"
)


# ---- the same table for people ---------------------------------------------------------------------


def markdown() -> str:
    """The table of docs/methods.md."""
    lines = ["| method | map | source | cost | the trap in it |", "| --- | --- | --- | --- | --- |"]
    for name, method in METHODS.items():
        formula = method.formula.replace("|", "\\|").replace("  ", " ")
        source = f"[{method.source}]({method.url})"
        lines.append(f"| `{name}` | {formula} | {source} | {method.cost} | {method.trap} |")
    return "\n".join(lines)


def plain() -> str:
    """The table of `--help`."""
    lines = []
    for name, method in METHODS.items():
        about, *more = method.about, method.formula, f"{method.source}; cost: {method.cost}"
        lines += [f"  {name:<21} {about}", *(f"{'':<24}{line}" for line in more)]
    return "\n".join([*lines, ""])


def page_with_table(page: str) -> str:
    """A Markdown page with its table of methods written anew. Raises ValueError if it has no place for it."""
    begin, end = "<!-- methods -->\n", "\n<!-- end of methods -->"
    before, opened, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"The page needs the lines {begin.strip()} and {end.strip()} around its table.")
    return before + begin + markdown() + end + after


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python -m explorer.methods docs/methods.md: write the page's table of methods anew.")
    path = Path(sys.argv[1])
    path.write_text(page_with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
