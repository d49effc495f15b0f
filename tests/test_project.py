"""What the project promises about itself: a true file tree, small files, a reason for every requirement."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks import attacks

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def tracked() -> list[Path]:
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    return [ROOT / name for name in files.split("\0") if name]


def tree() -> set[str]:
    """The paths that the README's file tree draws, by their indentation."""
    block = README.split("<!-- tree -->")[1].split("```")[1]
    paths, folders = set(), []
    for line in block.strip("\n").splitlines():
        name = line.split()[0]
        level = (len(line) - len(line.lstrip())) // 2
        folders[level:] = [name]
        paths.add("".join(folders))
    return paths


def test_the_readmes_tree_is_true() -> None:
    missing = [path for path in tree() if not (ROOT / path).exists()]
    assert not missing


def test_every_module_is_in_the_readmes_tree() -> None:
    drawn = tree()
    modules = {str(path.relative_to(ROOT)) for path in tracked() if path.suffix in (".py", ".js", ".css")}
    inner = {
        m for m in modules if not m.startswith(("tests/", "benchmarks/")) and not m.endswith("__init__.py")
    }
    assert not sorted(inner - drawn)


def test_files_are_small() -> None:
    sizes = {path: path.stat().st_size for path in tracked() if path.exists()}
    assert max(sizes.values()) < 16_000_000, max(sizes, key=lambda path: sizes[path])
    assert sum(sizes.values()) < 150_000_000


def test_no_pickle_is_committed() -> None:
    assert not [path for path in tracked() if path.suffix in (".pt", ".pth", ".bin", ".pkl", ".ckpt")]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_says_what_it_is_for(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    assert lines and all(re.fullmatch(r"[\w-]+(==[\d.]+|>=[\d.]+,<\d+) +# .+", line) for line in lines)


def test_the_space_and_the_requirements_name_the_same_gradio() -> None:
    space = re.search(r"^sdk_version: (\S+)$", README, re.MULTILINE)
    needed = re.search(r"^gradio==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert space and needed and space[1] == needed[1]


def test_every_package_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for path in ROOT.glob("*/**/*.py") if path.parts}
    ours = {".".join(folder.parts) for folder in folders if folder.parts[0] in ("vit", "explorer")}
    assert set(settings["packages"]) == ours | {"vit_explorer", "vit.checkpoints"}
    carried = {
        path
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for path in (ROOT / settings["package-dir"].get(package, package.replace(".", "/"))).glob(pattern)
    }
    data = {path for path in tracked() if path.suffix in (".css", ".js", ".json") and path.exists()}
    assert not {path for path in data - carried if path.parts[len(ROOT.parts)] in ("vit", "explorer")}


def headings(text: str) -> set[str]:
    """Under which names a page's headings are linked to."""
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).strip().replace(" ", "-") for each in found}


def test_make_bench_runs_every_benchmark_that_needs_no_arguments() -> None:
    listed = re.search(r"for name in (.+?); do \$\(PYTHON\) benchmarks/", (ROOT / "Makefile").read_text())
    texts = {path.stem: path.read_text() for path in (ROOT / "benchmarks").glob("*.py")}
    run = {name for name, text in texts.items() if "__main__" in text}
    with_arguments = {name for name in run if re.search(r'add_argument\("\w', texts[name])}
    assert with_arguments == {"attacks", "gpu"}
    assert listed and sorted(listed[1].split()) == sorted(run - with_arguments)


def test_who_names_no_attack_is_told_of_all(capsys) -> None:
    for argv, code in ((["--help"], 0), ([], 2), (["nothing", "url", "checkpoint"], 2)):
        with pytest.raises(SystemExit) as ended:
            attacks.main(argv)
        said = "".join(capsys.readouterr())
        assert ended.value.code == code and all(name in said for name in attacks.ATTACKS)


def test_links_in_the_docs_lead_somewhere() -> None:
    lost = []
    for page in (path for path in tracked() if path.suffix == ".md"):
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s:]+)\)", prose):
            path, _, anchor = link.partition("#")
            other = page.parent / path if path else page
            if not other.exists() or (anchor and anchor not in headings(other.read_text())):
                lost.append(f"{page.name}: {link}")
    assert not lost


def test_ci_installs_versions_that_the_requirements_allow() -> None:
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"
    )
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith("#"):
                needed = Requirement(line.partition("#")[0].strip())
                assert needed.specifier.contains(pinned[canonicalize_name(needed.name)]), line
