"""The viewer's modules under node, on what Python writes; how they become one script."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CI, randomised, tiny_config

from explorer import pairs
from explorer.payload import SCHEMA, exact_payload, maps_payload, payloads, unpack
from explorer.render import COLORMAPS, OPACITY, Scale, paint, percent
from explorer.viewer.script import JS, joined, state_names, viewer_script
from vit import ViT, trace
from vit.card import Card

ROOT = Path(__file__).resolve().parent.parent


def node(*arguments: str, **environment: str) -> str:
    """What node prints. A machine without it skips, except in CI."""
    program = shutil.which("node")
    if program is None:
        reason = "install node (20 or newer) to run this test"
        pytest.fail(reason) if CI else pytest.skip(reason)
    done = subprocess.run(
        [program, *arguments], env=os.environ | environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_fixtures(folder: Path) -> None:
    """Messages of a small model with registers, and the numbers that they were made of."""
    model = randomised(ViT(tiny_config(num_registers=2)))
    found = trace(model, torch.rand(3, 12, 20) * 2 - 1)
    card = Card(name="tiny", class_names=tuple("abcdefg"))
    head, embeddings, *layers = payloads(found, card, model)
    maps = maps_payload({"one": torch.rand(3, 5)}, card, 2)
    exact = exact_payload(found.attn[0], 0)
    for name, message in {
        "head": head,
        "embeddings": embeddings,
        "layer0": layers[0],
        "maps": maps,
        "exact0": exact,
    }.items():
        (folder / f"{name}.bin").write_bytes(message)
    other = trace(model, torch.rand(3, 16, 12) * 2 - 1)
    pair = {"pair": pairs.pair_payload(found, other, card)}
    pair["pair_depth"] = pairs.pair_depth_payload(found, other, 2)
    cosines = pairs.similarity(found, other, 2)
    matches = pairs.matches(cosines)
    for name, message in pair.items():
        (folder / f"{name}.bin").write_bytes(message)
    arrays, meta = unpack(head)
    filters = unpack(embeddings)[0]["filters"]
    tokens = meta["num_tokens"]
    truth = {
        "letters": {"L": 3, "H": 4, "T": tokens, "P": 15, "h": 3, "w": 5, "t": 1, "F": 1, "Q": tokens, "K": 7}
        | {"C": len(COLORMAPS), "N": len(filters), "p": filters.shape[1], "q": filters.shape[2]}
        | {"P2": 12, "h2": 4, "w2": 3, "M": len(matches.cosine)},
        "grid": [3, 5],
        "pair": {"similarity": cosines.tolist(), "matches": matches.pairs.tolist()},
        "head": {name: array.flatten().tolist() for name, array in arrays.items()},
        "attn": found.attn[0].flatten().tolist(),
        "viridis": COLORMAPS["viridis"].tolist(),
        "percent": [
            (share, percent(share)) for share in (0, 3e-5, 0.00123, 0.0123, 0.0994, 0.0996, 0.456, 1)
        ],
    }
    assert truth["letters"].keys() | {"B", "B2", "grid"} == SCHEMA["letters"].keys()
    (folder / "truth.json").write_text(json.dumps(truth), encoding="utf-8")


def test_the_modules_do_what_they_say(tmp_path: Path):
    write_fixtures(tmp_path)
    files = sorted(str(path) for path in (ROOT / "tests" / "js").glob("*.test.mjs"))
    assert files
    node("--test", "--test-reporter=dot", *files, VIT_FIXTURES=str(tmp_path))


def test_one_script_exports_what_the_modules_export(tmp_path: Path):
    script = tmp_path / "viewer.cjs"
    script.write_text(viewer_script() * 2 + "console.log(Object.keys(ViTViewer).sort().join())")
    index = json.dumps((JS / "index.js").as_uri())
    alone = f"import({index}).then((m) => console.log(Object.keys(m).sort().join()))"
    assert node(str(script)) == node("-e", alone)
    assert "mount" in node(str(script)) and "query" in state_names()


def test_modules_keep_names_of_their_own(tmp_path: Path):
    (tmp_path / "a.js").write_text("const x = 1;\nexport const a = () => x;\nexport class C {}\n")
    (tmp_path / "b.js").write_text(
        'import {\n  a as other, C,\n} from "./a.js";\nimport * as all from "./a.js";\n'
        "const x = 2;\n"
        "export async function b() { return [other(), all.a(), x, new C() instanceof all.C]; }\n"
    )
    (tmp_path / "index.js").write_text('export { b } from "./b.js";\nexport { a } from "./a.js";\n')
    script = joined([tmp_path / "index.js", tmp_path / "b.js"], "Thing")
    assert script.count("const x = 1") == 1
    (tmp_path / "run.cjs").write_text(
        script + "Thing.b().then((found) => console.log(found.join(), Thing.a()));"
    )
    assert node(str(tmp_path / "run.cjs")).strip() == "1,1,2,true 1"


@pytest.mark.parametrize(
    "text, complaint",
    [
        ('import { a } from "./index.js";', r"import each other: index\.js -> index\.js"),
        ("export default 1;", "not understood: export default"),
        ('import a from "./a.js";', "not understood: import a"),
    ],
)
def test_what_cannot_be_joined_is_named(tmp_path: Path, text: str, complaint: str):
    (tmp_path / "index.js").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        joined([tmp_path / "index.js"], "Thing")


@pytest.mark.parametrize("signed", [False, True])
def test_the_browser_lays_a_map_over_a_picture_as_figures_do(signed: bool) -> None:
    values = torch.linspace(-1.0 if signed else 0.0, 1.2, 23).double().numpy()[None]
    scale = Scale(np.ones((1, 1)), signed, "")
    colours, cover = paint(values, scale)
    tools = (ROOT / "explorer" / "lesson" / "js" / "tools.js").as_uri()
    script = f"""import {{ place, strength }} from "{tools}";
    const values = {json.dumps(values[0].tolist())}, signed = {json.dumps(signed)};
    const found = values.map((value) => [place(value, 1, signed), strength(value, 1, signed)]);
    console.log(JSON.stringify(found));"""
    places, strengths = zip(*json.loads(node("--input-type=module", "-e", script)))
    table = COLORMAPS[scale.colormap]
    assert np.array_equal(table[list(places)], colours[0])
    np.testing.assert_allclose(np.array(strengths) * OPACITY, cover[0, :, 0], atol=1e-12)
    viewer = (JS / "state.js").read_text(encoding="utf-8")
    assert f"  opacity: {OPACITY}," in viewer, "the viewer begins with what figures have"
