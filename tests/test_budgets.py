"""Rooms that one person can know: every source file and function within its budget, no circles, views apart.

`pytest tests/test_budgets.py -s` prints what stands.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from test_layers import MODULES, ROOT, imports_of, module_name

PYTHON, JAVASCRIPT, FUNCTION, BUILD = 600, 350, 60, 100  # lines; BUILD: of one that puts a page together
SMALLER = {"vit/model.py": 400, "train.py": 550}
BUILDERS = ("build", "mount")
SCRIPTS = [path for path in ROOT.glob("explorer/**/*.js") if "node_modules" not in path.parts]


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, lines) of every function of a Python file, its decorators not counted."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def script_functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, lines) of the functions and methods that a script begins at most one step in: where the closing
    brace stands under the line that opened it."""
    begun: dict[int, tuple[str, int]] = {}
    opens = re.compile(
        r"^( {0,2})(?:export )?(?:default )?(?:async )?"
        r"(?:function\*? )?(?:static |get |set )?#?(\w+)\s*\(.*\{$"
    )
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if (match := opens.match(line)) and match[2] not in ("if", "for", "while", "switch"):
            begun[len(match[1])] = (match[2], number)
        elif match := re.match(r"^( {0,2})\}[,;)]*$", line):
            name, start = begun.pop(len(match[1]), ("", 0))
            if name:
                yield name, number - start + 1


def allowed(name: str) -> int:
    return BUILD if name in BUILDERS else FUNCTION


def test_files_and_functions_keep_to_their_budgets() -> None:
    over = []
    for path in [*MODULES, *SCRIPTS]:
        name, count = str(path.relative_to(ROOT)), lines(path)
        most = SMALLER.get(name, JAVASCRIPT if path.suffix == ".js" else PYTHON)
        found = list((script_functions if path.suffix == ".js" else functions)(path))
        longest = max(found, key=lambda each: each[1], default=("", 0))
        print(f"{count:5} of {most}  {name}  (longest: {longest[0]} {longest[1]})")
        over += [f"{name}: {count} lines of {most}"] if count > most else []
        over += [f"{name}: {f} has {n} lines of {allowed(f)}" for f, n in found if n > allowed(f)]
    assert not over, "\n".join(over)


def test_functions_of_scripts_are_found(tmp_path: Path) -> None:
    file = tmp_path / "x.js"
    file.write_text("export function one(a) {\n  if (a) {\n  }\n}\nclass A {\n  two() {\n    b();\n  }\n}\n")
    assert sorted(script_functions(file)) == [("one", 4), ("two", 3)]


def graph() -> dict[str, set[str]]:
    """Who imports whom among our modules, inside functions too."""
    names = {module_name(path) for path in MODULES}

    def ours(name: str) -> str:
        while name and name not in names:
            name = name.rpartition(".")[0]
        return name

    arrows = {module_name(path): {ours(name) for name in imports_of(path)} - {""} for path in MODULES}
    return {name: to - {name} for name, to in arrows.items()}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Every way that comes back to where it began, once."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> None:
        if name in way:
            found.append([*way[way.index(name) :], name])
            return
        if name in done:
            return
        for other in sorted(arrows.get(name, ())):
            walk(other, [*way, name])
        done.add(name)

    for name in sorted(arrows):
        walk(name, [])
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    packages = {name for name in graph() if (ROOT / Path(*name.split("."))).is_dir()}
    arrows = {name: to - packages for name, to in graph().items()}  # a package's names are its modules' names
    assert not circles(arrows), "\n".join(" -> ".join(way) for way in circles(arrows))


def test_circles_are_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c", "a"]]
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_no_view_imports_a_view() -> None:
    pages = {name for name in graph() if name.startswith("explorer.views.")}
    shared = {f"explorer.views.{name}" for name in ("page", "parts", "prose")}  # what pages are made of
    wrong = {(name, other) for name in pages - shared for other in graph()[name] if other in pages - shared}
    assert not wrong
