"""Who may import whom (README, file tree): the arrows point one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = [*ROOT.glob("vit/**/*.py"), *ROOT.glob("explorer/**/*.py"), *ROOT.glob("*.py")]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Every dotted name a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


GRADIO_HOUSE = ("explorer.views", "explorer.ui", "explorer.viewer.host", "app")
PURE = tuple(
    f"explorer.{name}"
    for name in (
        "maps",
        "probes",
        "totals",
        "objects",
        "roles",
        "methods",
        "stats",
        "ledger",
        "ablation",
        "pairs",
        "patching",
        "controls",
        "measures",
        "faithfulness",
        "record",
        "payload",
    )
)
# (who, must not import, except these)
RULES = [
    (("vit",), ("explorer", "app", "train", "gradio", "matplotlib", "timm"), ("vit.pretrained",)),
    (("vit.model", "vit.trace"), ("numpy", "cv2", "PIL", "torchvision", "vit.data", "vit.checkpoint"), ()),
    (("vit.card",), ("vit.checkpoint", "vit.pretrained", "vit.hub", "vit.library"), ()),
    (("vit.checkpoint",), ("vit.pretrained", "vit.hub", "vit.library"), ()),
    (("vit.pretrained",), ("vit.hub", "vit.library"), ()),
    (("vit.hub",), ("vit.library",), ()),
    (("explorer",), ("app", "train"), ()),
    (("explorer",), ("gradio",), GRADIO_HOUSE),
    (
        PURE,
        (
            "explorer.session",
            "explorer.views",
            "explorer.ui",
            "explorer.export",
            "explorer.films",
            "explorer.viewer",
        ),
        (),
    ),
    (("explorer.render",), ("torch", "torchvision", "vit", "explorer"), ()),
    (("explorer.session",), ("explorer.views", "explorer.ui"), ()),
    (("explorer.viewer",), ("explorer.views", "explorer.ui", "explorer.session"), ()),
    (("explorer.views",), ("explorer.ui",), ()),
    (("train",), ("explorer.ui", "explorer.views", "explorer.session", "app"), ()),
]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    me = module_name(path)
    for who, forbidden, exceptions in RULES:
        if within(me, *who) and not within(me, *exceptions):
            others = (name for name in imports_of(path) if not within(name, *who))
            wrong = sorted(name for name in others if within(name, *forbidden))
            assert not wrong, f"{me} must not import {', '.join(wrong)}"


def test_the_rules_see_imports(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from explorer.views import explore\n    import gradio.themes\n")
    assert imports_of(file) == {"explorer.views.explore", "gradio.themes"}
