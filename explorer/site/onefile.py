"""The same page as one HTML file: runtime, models and pictures inside; it opens from a disk, offline."""

import base64
import html
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from explorer.site.folder import Progress, Shared, write_site
from explorer.site.pictures import Picture
from vit.checkpoint import write_atomically

# what a file cannot use: it has no address of its own
LEFT_OUT = {"README.md", "serve.py", "sw.js", "page.webmanifest", "site.js", "icon.svg"}


def write_one_file(
    file: Path,
    models: Sequence[Shared],
    pictures: Sequence[Picture],
    *,
    title: str = "ViT Explorer",
    runtime: Path | None = None,
    webgpu: bool = False,
    progress: Progress = lambda text: None,
) -> None:
    """Write all of it into one file. Raises SiteError as `write_site` does."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_site(folder, models, pictures, title=title, runtime=runtime, webgpu=webgpu, progress=progress)
        progress("one file")
        packed(folder, file)


def packed(folder: Path, file: Path) -> None:
    """A folder that `write_site` has written, as one file."""
    kept = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".html")
    inside = [path for path in kept if path.name not in LEFT_OUT and path.suffix not in (".css", ".png")]
    page = (folder / "index.html").read_text(encoding="utf-8")
    page = re.sub(r'<link rel="(?:icon|manifest)"[^>]*>\n', "", page)
    page = page.replace("<title>", '<link rel="icon" href="data:,">\n<title>', 1)
    for name in ("viewer.css", "lesson.css", "page.css"):
        style = (folder / name).read_text(encoding="utf-8")
        page = page.replace(f'<link rel="stylesheet" href="{name}">', f"<style>\n{style}</style>")
    parts = [element(path.relative_to(folder).as_posix(), path.read_bytes()) for path in inside]
    script = (folder / "site.js").read_text(encoding="utf-8")
    script = script.replace("</", "<\\/")  # the first such tag would end the script
    whole = "\n".join([*parts, f"<script>\n{script}</script>"])
    page = page.replace('<script src="site.js" defer></script>', whole)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, page.encode())


def element(name: str, content: bytes) -> str:
    """A file as an element that a script can read."""
    coded = base64.b64encode(content).decode()
    return f'<script type="text/plain" data-path="{html.escape(name)}">{coded}</script>'
