"""The wheel: built, installed in a clean environment, and played from there."""

from __future__ import annotations

import os
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import soundfile

import acestep_cli
from acestep_cli import __version__
from support.command import LONG_LIMIT, finish
from support.places import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    finish(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        timeout=LONG_LIMIT,
    )
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `acestep` of a new environment that holds the wheel; what it depends on is seen, not installed again."""
    folder = tmp_path_factory.mktemp("clean")
    finish([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    scheme = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    # The folder joins the path; its own .pth files, the editable checkout's among them, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    binaries = Path(sysconfig.get_path("scripts", "venv", scheme))
    finish(
        [sys.executable, "-m", "pip", "--python", folder, "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True,
    )
    return binaries / "acestep"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    source = Path(acestep_cli.__file__).parent
    files = {path.relative_to(source.parent).as_posix() for path in source.rglob("*") if path.is_file()}
    wanted = {name for name in files if "__pycache__" not in name}
    data = [file for folder in ("songs", "docs") for file in (ROOT / folder).rglob("*") if file.is_file()]
    wanted |= {f"acestep_cli/{file.relative_to(ROOT).as_posix()}" for file in data}
    packed = set(zipfile.ZipFile(wheel).namelist())
    info = f"acestep_cli-{__version__}.dist-info/"
    assert {name for name in packed if not name.startswith(info)} == wanted
    assert f"{info}licenses/LICENSE" in packed


def test_the_source_distribution_holds_what_its_tests_read(tmp_path: Path) -> None:
    finish(
        [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        timeout=LONG_LIMIT,
    )
    [path] = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    data = {file.relative_to(ROOT).as_posix() for file in (ROOT / "tests" / "data").rglob("*") if file.is_file()}
    assert data
    assert data <= packed


def test_the_wheel_plays(installed: Path, tmp_path: Path) -> None:
    """With the built-in checkpoint, and nothing of this checkout or the user's home in sight."""
    environment = {**os.environ, "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment.pop("ACESTEP_MODELS_DIR", None)

    def run(*command: str | Path) -> tuple[str, str]:
        done = finish(command, cwd=tmp_path, env=environment, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    where, _ = run(installed.with_name("python"), "-c", "import acestep_cli; print(acestep_cli.__file__)")
    assert Path(where).is_relative_to(installed.parent.parent)
    assert run(installed, "--version")[0] == f"acestep {__version__}\n"
    stdout, stderr = run(installed, "generate", "-c", "synthwave", "-d", "5", "-o", "a.flac")
    assert stdout == "a.flac\n"
    assert "so pocket plays" in stderr
    assert soundfile.info(tmp_path / "a.flac").duration == pytest.approx(5, abs=0.04)
    template, _ = run(installed, "spec", "new", "ballad")
    (tmp_path / "ballad.yaml").write_text(template, encoding="utf-8")
    assert "No errors in ballad.yaml" in run(installed, "spec", "check", "ballad.yaml", "--strict")[1]
