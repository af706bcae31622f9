"""A virtual environment for each peer: installed into one, they would silently downgrade each other."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

INSTALL_S = 180
DEFAULT = Path(tempfile.gettempdir()) / "transport-bench-environments"


class NotInstalled(RuntimeError):
    """A peer's requirements could not be had; the message is the installer's last line."""


def environment(peer: str, requirements: Path, folder: Path) -> Path:
    """Return the peer's Python. Its environment is made when it is missing or its requirements have changed.

    Raises:
        NotInstalled: the installer failed.
    """
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    home = folder / f"{peer}-{digest}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(parents=True, exist_ok=True)
        try:
            _install(home, python, requirements)
        except subprocess.SubprocessError as error:
            output = getattr(error, "stderr", None) or str(error)
            raise NotInstalled(str(output).strip().splitlines()[-1]) from error
        (home / "complete").touch()
    return python


def _install(home: Path, python: Path, requirements: Path) -> None:
    # uv takes a tenth of pip's time, where it is there.
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    venv.create(home, with_pip=uv is None)
    installer = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
    subprocess.run(  # noqa: S603 - a package installer with our own file
        [*installer, "--quiet", "-r", str(requirements)], check=True, capture_output=True, text=True, timeout=INSTALL_S
    )
