"""explorer/roles.py: heads built to do one thing are called what they do; names belong to weights."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from PIL import Image

from explorer import objects, roles
from explorer.cli import commands as cli
from explorer.faithfulness import weights_digest
from explorer.views.heads import roles_panels
from vit import Card, Trace, ViT, load, save, trace
from vit.grid import Grid

h, w = 4, 6
P = h * w


def made_trace(patches: dict[str, torch.Tensor], image: torch.Tensor) -> Trace:
    """One layer whose heads look as these (P, P) matrices say, [CLS] evenly at all."""
    attn = torch.full((1, len(patches), P + 1, P + 1), 1 / (P + 1))
    for head, rows in enumerate(patches.values()):
        attn[0, head, 1:, 1:] = rows * (1 - attn[0, head, 1:, :1])
    return Trace(image, torch.zeros(2, P + 1, 8), attn, torch.zeros(7), Grid((h, w)), ("[CLS]",))


def test_heads_that_do_one_thing_are_called_so():
    rows, columns = torch.arange(h).repeat_interleave(w), torch.arange(w).repeat(h)
    image = torch.randn(3, h, w).repeat_interleave(4, 1).repeat_interleave(4, 2)
    colours = image[:, ::4, ::4].flatten(1).T
    single = torch.zeros(P, P)
    single[:, 5] = 1
    patches = {
        "local": torch.eye(P),
        "row": (rows[:, None] == rows) / w,
        "column": (columns[:, None] == columns) / h,
        "same colour": (-2 * torch.cdist(colours, colours)).softmax(dim=-1),
        "sink": single,
        "": torch.full((P, P), 1 / P),
    }
    seen = made_trace(patches, image)
    found = roles.head_figures(seen, ViT(tiny_config()))
    assert found["distance"][0].tolist()[5] == pytest.approx(1, abs=1e-4)
    assert found["row"][0, 1] == pytest.approx(h, abs=1e-4) and found["row"][0, 5] == pytest.approx(
        1, abs=1e-4
    )
    assert found["column"][0, 2] == pytest.approx(w, abs=1e-4)
    colour = [np.corrcoef(r, n)[0, 1] for r, n in zip(patches["same colour"], -torch.cdist(colours, colours))]
    assert found["colour"][0, 3] == pytest.approx(np.mean(colour), abs=1e-4)
    told = roles.Roles("", "", 1, {name: x.tolist() for name, x in found.items()}, {})
    for head, name in enumerate(patches):
        assert name in told.names(0, head) or not name
    assert told.names(0, 5) == [] and "sink" not in told.names(0, 0)


def test_a_head_that_gives_all_its_attention_to_a_token_that_is_no_patch_is_a_sink():
    attn = torch.full((1, 2, P + 2, P + 2), 1 / (P + 2))
    attn[0, 0, 2:] = 0
    attn[0, 0, 2:, :2] = torch.tensor([0.7, 0.3])  # to both together
    names = ("[CLS]", "[REG1]")
    seen = Trace(torch.randn(3, 16, 24), torch.zeros(2, P + 2, 8), attn, torch.zeros(7), Grid((h, w)), names)
    found = roles.head_figures(seen, ViT(tiny_config(num_registers=1)))
    assert found["sink"][0].tolist() == pytest.approx([1, 2 / (P + 2)], abs=1e-5)
    told = roles.Roles("", "", 1, {name: x.tolist() for name, x in found.items()}, {})
    assert told.names(0, 0) == ["sink"], "who looks at no patch does not look near"
    assert "sink" not in told.names(0, 1)


def test_the_opening_is_the_one_head_that_finds_objects_where_it_does_so_better_than_all_together(
    monkeypatch,
):
    """Its own layer drowns it in noise: the layer that is best as a whole is another one."""
    figures = {name: torch.zeros(2, 3) for name in ("distance", "row", "column", "colour", "sink")}
    aucs = torch.tensor([[0.5, 0.4, 1.0], [0.6, 0.7, 0.6]])

    def opening(fused: list[float]) -> dict[str, int]:
        found = figures | {"object": aucs.clone(), "fused": torch.tensor(fused)}
        monkeypatch.setattr(roles, "head_figures", lambda *about: {n: x.clone() for n, x in found.items()})
        return roles.measure(model, [(image, image[0] > 0)] * 2, "").opening

    model, image = randomised(ViT(tiny_config())), torch.randn(3, 12, 20)
    assert opening([0.6, 0.8]) == {"layer": 0, "head": 2}
    aucs[0, 2] = 0.75
    assert opening([0.6, 0.8]) == {"layer": 1}


def test_names_are_means_over_pictures_and_the_opening_finds_objects_best():
    model = randomised(ViT(tiny_config()))
    masks = [
        (torch.rand(3, 5) < 0.4).float().repeat_interleave(4, 0).repeat_interleave(4, 1) for _ in range(3)
    ]
    pictures = [(torch.randn(3, 12, 20), mask) for mask in masks]
    found = roles.measure(model, [*pictures, (pictures[0][0], None)], "noise")
    measured = objects.measure(model, pictures)
    aucs = measured.heads["auc"].mean(dim=0)
    assert (torch.tensor(found.figures["object"]) - aucs).abs().max() < 1e-3
    layers = [row.figures["auc"].mean for row in measured.rows if "mean of heads" in row.name]
    layer, head = divmod(int(aucs.argmax()), aucs.shape[1])
    best = {"layer": layer, "head": head} if aucs.max() > max(layers) else {"layer": int(np.argmax(layers))}
    assert found.pictures == 4 and found.opening == best
    one = roles.head_figures(trace(model, pictures[1][0]), model)
    assert "object" not in one and roles.measure(model, [(pictures[1][0], None)], "").opening == {}
    with pytest.raises(ValueError, match="there was none"):
        roles.measure(model, [], "")


def test_names_belong_to_the_weights_that_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    model, card = randomised(ViT(tiny_config())), Card("tiny", tuple("abcdefg"))
    save("tiny", model, card)
    model = load("tiny")[0]
    rng = np.random.default_rng(0)
    for name in "ab":
        for folder, shape in (("photos", (12, 20, 3)), ("masks", (12, 20))):
            Path(folder).mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 2, shape, dtype=np.uint8) * 255).save(f"{folder}/{name}.png")
    words = ["roles", "--model", "tiny", "--data", "photos", "--masks", "masks", "--out", "roles.csv"]
    assert cli.main(words) == 0 and roles.read_roles(Path("tiny"), model) is None
    assert cli.main([*words, "--record"]) == 0 and "none of these" in capsys.readouterr().out
    found = roles.read_roles(Path("tiny"), model)
    assert found is not None and found.pictures == 2 and len(Path("roles.csv").read_text().splitlines()) == 13
    Path("tiny/heads.json").write_text(json.dumps({"weights": found.weights}))
    assert roles.read_roles(Path("tiny"), model) is None  # damaged
    roles.write_roles(Path("tiny"), found)
    assert roles.read_roles(Path("tiny"), model) is not None
    assert roles.read_roles(Path("tiny"), randomised(model)) is None  # other weights
    assert roles.read_roles(None, model) is None


@pytest.mark.parametrize(
    "broken",
    [
        {"figures": {}},
        {"figures": []},
        {"figures": {"sink": [[0.5]]}},
        {"figures": {"sink": [[0.5, 0.5], [0.5]]}},
        {"figures": {"sink": [["x"] * 2] * 3}},
        {"figures": {"sink": [[float("nan")] * 2] * 3}},
        {"figures": {"<b>": [[0.5] * 2] * 3}},
        {"opening": {"layer": 99}},
        {"opening": {"layer": "0"}},
        {"opening": {"x": 0}},
        {"opening": [1]},
        {"pictures": "many"},
        {"data": 5},
        {"more": 1},
        "[" * 100_000,
        "[]",
    ],
    ids=lambda broken: str(broken)[:40],
)
def test_a_file_that_does_not_fit_the_heads_says_nothing(broken, tmp_path: Path) -> None:
    model = randomised(ViT(tiny_config()))
    shape = model.config.depth, model.config.num_heads
    sound = roles.Roles(
        weights_digest(model), "photos", 2, {"sink": np.full(shape, 0.5).tolist()}, {"layer": 0}
    )
    roles.write_roles(tmp_path, sound)
    assert roles.read_roles(tmp_path, model) == sound
    told = broken if isinstance(broken, str) else json.dumps(asdict(sound) | broken)
    (tmp_path / roles.FILE).write_text(told)
    assert roles.read_roles(tmp_path, model) is None


def test_the_page_says_what_was_measured_and_on_what():
    figures = {"sink": [[0.9, 0.1], [0.2, 0.1]], "object": [[0.5, 0.8], [0.3, 0.6]]}
    found = roles.Roles("", "boxes of photos", 366, figures, {"layer": 1})
    page = roles_panels(SimpleNamespace(loaded=SimpleNamespace(roles=found)))
    assert "&lt;" not in page, "no tag is shown as text"
    assert "<b>L0.H0</b> sink" in page and "<b>L0.H1</b> finds the object" in page and "L1.H1</b>" not in page
    assert "366 pictures of boxes of photos" in page and page.count('class="vx-dot"') == 4
    assert "[CLS]" not in page, "not every model answers from it"
    assert roles_panels(SimpleNamespace(loaded=SimpleNamespace(roles=None))) == ""
