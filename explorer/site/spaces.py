"""Folders that are Hugging Face Spaces as they stand: what would be uploaded, written and checked here.

static    the explorer without a server: free for everybody, never sleeps, has no quota
zerogpu   the app; a free account may host two, once its address is verified and it is 30 days old
cpu       the app on two cores and 16 GB; since July 2026 for paying accounts

https://huggingface.co/docs/hub/spaces-config-reference, spaces-zerogpu, spaces-sdks-static; as read in
November 2026.
"""

import ast
import re
import shlex
import shutil
from pathlib import Path

from explorer.site.runtime import SiteError

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("static", "zerogpu", "cpu")
PYTHON = {"zerogpu": "3.12.12", "cpu": "3.12"}
# what ZeroGPU's documentation allows: torch 2.8.0, 2.9.1, 2.10.0 or 2.11.0, and the torchvision made for it
PINNED = {"torch": "torch==2.11.0", "torchvision": "torchvision==0.26.0"}
COPIED = (
    "app.py",
    "train.py",
    "requirements.txt",
    "constraints.txt",
    "LICENSE",
    "vit",
    "explorer",
    "checkpoints",
)
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")
MOST = 10**9  # bytes of a Space's repository
SHORT = 60  # letters of its description


def write_app_space(folder: Path, kind: str) -> None:
    """Write the app as a Space of this kind, "zerogpu" or "cpu". Raises SiteError where it is not whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source, to = ROOT / name, folder / name
        if not source.exists():
            raise SiteError(f"{name} is missing: write a Space from a checkout of the project.")
        if source.is_dir():
            shutil.copytree(source, to, ignore=LEFT_OUT, dirs_exist_ok=True)
        else:
            shutil.copy2(source, to)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = re.sub(r"^python_version: .*$", f'python_version: "{PYTHON[kind]}"', readme, count=1, flags=re.M)
    (folder / "README.md").write_text(readme, encoding="utf-8")
    if kind == "zerogpu":
        requirements = folder / "requirements.txt"
        lines = requirements.read_text(encoding="utf-8").splitlines()
        lines = [PINNED.get(re.split(r"[<>=!~ ]", line, maxsplit=1)[0], line) for line in lines]
        requirements.write_text("\n".join([*lines, "spaces"]) + "\n", encoding="utf-8")
        (folder / "constraints.txt").unlink()  # of other releases


def front_matter(folder: Path) -> dict[str, str]:
    """The settings at the top of a Space's README.md. Raises SiteError where there are none."""
    readme = folder / "README.md"
    found = readme.is_file() and re.match(r"---\n(.*?)\n---\n", readme.read_text(encoding="utf-8"), re.DOTALL)
    if not found:
        raise SiteError("README.md does not begin with the settings of a Space.")
    pairs = (line.partition(":") for line in found[1].splitlines() if not line.startswith(" "))
    return {key: value.strip().strip('"') for key, _, value in pairs}


def check_space(folder: Path, kind: str) -> list[str]:
    """What was found right, a line each. Raises SiteError, in one sentence, for what would not run there."""
    settings = front_matter(folder)
    sdk = "static" if kind == "static" else "gradio"
    if settings.get("sdk") != sdk:
        raise SiteError(f"README.md says sdk: {settings.get('sdk')}, a Space of this kind needs {sdk}.")
    entry = folder / settings.get("app_file", "")
    if not entry.is_file():
        raise SiteError(f"README.md names {entry.name or 'no app_file'}, which is not in the folder.")
    if len(settings.get("short_description", "")) > SHORT:
        raise SiteError(f"The short description has more than {SHORT} letters.")
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    if size > MOST:
        raise SiteError(f"The folder holds {size / 1e9:.1f} GB, a Space {MOST / 1e9:.0f} GB.")
    told = [f"sdk {sdk}, entry {entry.name}", f"{len(files)} files, {size / 1e6:.0f} MB"]
    if kind == "static":
        return told
    for path in files:
        if path.suffix == ".py":
            ast.parse(path.read_text(encoding="utf-8"), path.name)
    requirements = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = f"gradio=={settings['sdk_version']}"
    if not any(line.split()[:1] == [pinned] for line in requirements):
        raise SiteError(f"requirements.txt and README.md name different releases of gradio: {pinned}.")
    told.append(f"Python {settings['python_version']}, {pinned}")
    if kind == "zerogpu":
        missing = [line for line in (*PINNED.values(), "spaces") if line not in requirements]
        if missing:
            raise SiteError(f"requirements.txt lacks {', '.join(missing)}: ZeroGPU runs no other release.")
        told.append(f"{PINNED['torch']}, and a function that borrows a GPU (explorer/zero.py)")
    return told


def next_step(folder: Path, kind: str) -> str:
    """How the folder becomes a Space."""
    hardware = {"static": "", "zerogpu": ", hardware ZeroGPU", "cpu": ", hardware CPU basic"}[kind]
    sdk = "static" if kind == "static" else "Gradio"
    upload = f"hf upload YOU/NAME {shlex.quote(str(folder))} . --repo-type space"
    return f"Make a Space (SDK {sdk}{hardware}), then: {upload}"
