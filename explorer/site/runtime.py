"""onnxruntime-web, the program that runs the model in a browser: one exact version from the npm registry.

Fetched once and kept; `--runtime FILE.tgz` takes the package from a disk instead (`npm pack` makes it on a
machine with a network). What does not have the hash below is refused.
"""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import urllib.request
from base64 import b64encode
from contextlib import suppress
from pathlib import Path

from vit.checkpoint import write_atomically

PACKAGE, RELEASE = "onnxruntime-web", "1.30.0"  # MIT licence
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
# the same with WebGPU: 6.7 MB instead of 3.7, so that it only comes along where it was asked for
GPU_SCRIPT, GPU_WASM = "ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"
MAX_BYTES = 128 * 2**20  # of the package


class SiteError(ValueError):
    """The folder cannot be written; the message says why and what to do, in one sentence."""


def runtime_files(package: Path | None = None, webgpu: bool = False) -> dict[str, bytes]:
    """{file name: content} of the runtime, with webgpu of the one for graphics chips, too; the compiled parts
    gzip'd, a quarter of their size.

    Raises SiteError.
    """
    make = f"make it with `npm pack {PACKAGE}@{RELEASE}`"
    try:
        content = package.read_bytes() if package else kept_or_fetched()
    except OSError as error:
        raise SiteError(f"{package or PACKAGE} cannot be read: {make}, and name that file.") from error
    if not is_right(content):
        raise SiteError(f"{package or PACKAGE} is not {PACKAGE} {RELEASE}: {make}.")
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        names = (SCRIPT, WASM, *((GPU_SCRIPT, GPU_WASM) if webgpu else ()))
        files = {name: archive.extractfile(f"package/dist/{name}") for name in names}
        read = {name: file.read() for name, file in files.items() if file}
    scripts = {name: content for name, content in read.items() if name.endswith(".mjs")}
    compiled = {name: content for name, content in read.items() if name.endswith(".wasm")}
    return scripts | {f"{name}.gz": gzip.compress(content, 9, mtime=0) for name, content in compiled.items()}


def is_right(content: bytes) -> bool:
    """Is this the package, whole and of the one version?"""
    return b64encode(hashlib.sha512(content).digest()).decode() == SHA512


def kept_or_fetched() -> bytes:
    """The package from this user's cache, else from the registry; only the right one is kept. Raises
    SiteError."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vit-explorer"
    file = root / f"{PACKAGE}-{RELEASE}.tgz"
    if file.is_file() and is_right(content := file.read_bytes()):
        return content
    address = f"{registry()}/{PACKAGE}/-/{PACKAGE}-{RELEASE}.tgz"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            content = answer.read(MAX_BYTES)
    except OSError as error:
        raise SiteError(
            f"{PACKAGE} {RELEASE} could not be fetched from the npm registry: connect once, or make it "
            f"elsewhere with `npm pack {PACKAGE}@{RELEASE}` and name the file with --runtime."
        ) from error
    if is_right(content):
        with suppress(OSError):  # a home that cannot be written to: it is fetched again next time
            root.mkdir(parents=True, exist_ok=True)
            write_atomically(file, content)
    return content


def registry() -> str:
    """The npm registry that this machine is set up for."""
    npm = shutil.which("npm")
    if npm:
        told = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True, check=False)
        if told.stdout.startswith("http"):
            return told.stdout.strip().rstrip("/")
    return "https://registry.npmjs.org"
