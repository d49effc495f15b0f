"""The viewer's ES modules as one script: what a page gets, without a bundler to install.

Every module keeps a scope of its own, and stands behind those that it imports. It understands what the house
writes:

    import { a, b as c } from "./x.js";    import * as x from "./x.js";
    export function f ...    export const c ...    export { a, b } from "./x.js";
"""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent
JS = FOLDER / "js"
INDEX = JS / "index.js"

COMMENT = re.compile(r"^ *(?://.*|/\*(?:(?!\*/).|\n)*\*/)\n", re.MULTILINE)
IMPORT = re.compile(r'^import (?:\{([^}]*)\}|\* as (\w+)) from "([^"]+)";$', re.MULTILINE)
PASSED_ON = re.compile(r'^export \{([^}]*)\} from "([^"]+)";$', re.MULTILINE)
EXPORTED = re.compile(r"^export (?=(?:async )?(?:function\*?|const|let|class) (\w+))", re.MULTILINE)


@functools.cache
def viewer_script() -> str:
    """All of the viewer, as the global `ViTViewer`: see js/index.js. Running it twice makes it once."""
    return joined([INDEX], "ViTViewer")


def joined(entries: Iterable[Path], name: str) -> str:
    """One script of the entries and all that they import; the global `name` has what the entries export.

    Raises ValueError for modules that import each other, and for a form of import or export that it does not
    know.
    """
    order: dict[Path, str] = {}  # path -> its name in the script, in the order in which they stand
    texts: list[str] = []
    entries = [path.resolve() for path in entries]

    def add(path: Path, above: tuple[Path, ...]) -> str:
        if path in above:
            circle = " -> ".join(one.name for one in (*above[above.index(path) :], path))
            raise ValueError(f"These modules import each other: {circle}.")
        if path not in order:
            found = COMMENT.sub("", path.read_text(encoding="utf-8"))  # which stay here: they are a tenth
            needed = [match[3] for match in IMPORT.finditer(found)]
            needed += [match[2] for match in PASSED_ON.finditer(found)]
            names = {one: add((path.parent / one).resolve(), (*above, path)) for one in needed}
            order[path] = f"{path.stem}_{len(order)}"
            texts.append(f"const {order[path]} = (() => {{\n{scoped(path.name, found, names)}}})();\n")
        return order[path]

    given = ", ".join(f"...{add(path, ())}" for path in entries)
    body = "\n".join(texts)
    return f'globalThis.{name} ??= (() => {{\n"use strict";\n{body}return {{ {given} }};\n}})();\n'


def scoped(module: str, found: str, names: dict[str, str]) -> str:
    """The text of a module as the body of a function that returns its exports."""
    exported = {match[1]: match[1] for match in EXPORTED.finditer(found)}

    def bind(match: re.Match[str]) -> str:
        return f"const {match[2] or '{' + match[1].replace(' as ', ': ') + '}'} = {names[match[3]]};"

    def pass_on(match: re.Match[str]) -> str:
        for name in filter(None, map(str.strip, match[1].split(","))):
            exported[name] = f"{names[match[2]]}.{name}"
        return ""

    found = EXPORTED.sub("", PASSED_ON.sub(pass_on, IMPORT.sub(bind, found)))
    if wrong := re.search(r"^(?:import|export)\b.*", found, re.MULTILINE):
        raise ValueError(f"{module} has a form of import or export that is not understood: {wrong[0]}")
    returned = ", ".join(f"{name}: {value}" if name != value else name for name, value in exported.items())
    return f"{found}return {{ {returned} }};\n"


@functools.cache
def state_names() -> tuple[str, ...]:
    """What the viewer's state has, in the order of `START` in js/state.js."""
    start = (JS / "state.js").read_text(encoding="utf-8").partition("const START = {")[2].partition("\n};")[0]
    return tuple(re.findall(r"^  (\w+):", start, re.MULTILINE))
