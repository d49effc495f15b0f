"""Inside a Vision Transformer: `show(trace)` in a notebook, `show(trace).save("view.html")` as one file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit import ViT
from vit.card import Card
from vit.trace import Trace

if TYPE_CHECKING:
    from explorer.roles import Roles

__all__ = ["Shown", "show"]


@dataclass(frozen=True)
class Shown:
    """The viewer as one HTML page that holds everything it shows."""

    page: str = field(repr=False)  # its text is megabytes
    height: int

    def _repr_html_(self) -> str:
        from explorer.viewer import framed

        return framed(self.page, self.height)

    def save(self, path: str | Path) -> Path:
        path = Path(path)
        if path.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"{path.name} would hold a page: let its name end in .html.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.page, encoding="utf-8", errors="replace")  # a title may hold any bytes
        return path


def show(
    trace: Trace,
    card: Card | None = None,
    model: ViT | None = None,
    *,
    title: str = "",
    height: int = 820,
    roles: "Roles | None" = None,
    believed: str = "",
    **state: Any,
) -> Shown:
    """The interactive viewer of this trace, for Jupyter or as a file that needs no server and no network.

    card: names the classes and gives the image its true colours. model: adds position embeddings, patch
    filters, the methods that run it once, and the lesson, step by step; a trace of a target adds those that
    need gradients. roles, believed: what was measured of its heads (`explorer.roles.read_roles`), and the
    method whose maps were measured to lead (`explorer.record.load_record`). state: what to show first, such
    as layer=3, head=1, fuse="one", query=0, mode="rollout"; negative numbers count from the end. Raises
    ValueError for what this trace or the viewer does not have.
    """
    from explorer.lesson.follow import Choice, liveliest
    from explorer.lesson.page import section
    from explorer.payload import maps_at_hand, payloads
    from explorer.viewer import viewer_html

    counts = {"layer": len(trace.tokens) - 1, "head": trace.attn.shape[1], "query": trace.tokens.shape[1]}
    for name in counts.keys() & state.keys():
        count, value = counts[name], state[name]
        if not isinstance(value, int) or not -count <= value < count:
            raise ValueError(f"There is no {name} {value!r}: there are {count}, 0 to {count - 1}.")
        state[name] = value % count
    card = card or Card(name="ViT")
    head, embeddings, *layers = payloads(trace, card, model, roles, believed)
    maps, methods = maps_at_hand(trace, card, model)
    if trace.target is not None:
        state = {"target": trace.target} | state
    title = title or card.name
    page = viewer_html(head, layers, embeddings, [maps], methods=methods, title=title, state=state)
    if model is not None:
        prefix = trace.num_prefix_tokens
        pinned = state.get("query", -1) >= prefix
        patch = state["query"] - prefix if pinned else liveliest(trace, model.config)
        choice = Choice(patch, state.get("layer", model.config.depth // 2), state.get("head", 0))
        page = page.replace("</html>", section(trace, model, card, choice) + "</html>")
    return Shown(page, height)
