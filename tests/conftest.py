"""Fixtures that several test files share."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import acestep_cli.engine.load_libraries  # noqa: F401  # isort: skip - before torch
import pytest
import torch
from huggingface_hub import constants
from torch import Tensor
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.engine import denoise
from acestep_cli.engine.denoise import DiffusionCondition, SamplerSettings
from acestep_cli.models import checkpoint_table
from acestep_cli.song import prompts
from support import band, tiny
from support.hub_server import BLOCK, Hub, dit, main_repo
from support.watching import Given

# A background job of a shell starts with SIGINT ignored, and what it starts inherits that; other callers ignore or
# block other signals.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
if hasattr(signal, "pthread_sigmask"):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})

# What renders teach goes into a history of the tests' own, never into the user's.
STATE = tempfile.TemporaryDirectory(prefix="acestep-state-")
atexit.register(STATE.cleanup)
os.environ["XDG_STATE_HOME"] = STATE.name
os.environ["ACESTEP_CACHE_DIR"] = f"{STATE.name}/cache"
# Threads gain nothing on tiny tensors, and wait for each other where tests share the cores.
os.environ["OMP_NUM_THREADS"] = "1"
# Where it is set, each of some hundred processes compiles the program anew, a fifth of its time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Threads gain nothing on tiny tensors, and wait for each other where tests share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def two_b(tmp_path_factory: pytest.TempPathFactory) -> tiny.Oracle:
    """A tiny turbo checkpoint of the 2B shape, beside diffusers' modules with the same weights."""
    return tiny.build(tmp_path_factory.mktemp("2b") / "models", tiny.TWO_B)


@pytest.fixture(scope="session")
def xl(tmp_path_factory: pytest.TempPathFactory) -> tiny.Oracle:
    """The same of the XL shape: an encoder narrower than the decoder, timbre read from a prepended token."""
    return tiny.build(tmp_path_factory.mktemp("xl") / "models", tiny.XL)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> tiny.Oracle:
    """The same of the 2B shape, guided rather than distilled."""
    return tiny.build(tmp_path_factory.mktemp("base") / "models", tiny.BASE, name="acestep-v15-base")


@pytest.fixture
def acestep(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`acestep …` in this process, with the band for a pipeline."""
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", band.module())

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, catch_exceptions=False)

    return run


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads look at one word after another, as those of a trained checkpoint do; random ones look at nothing."""

    def attention(
        self: Any, x: torch.Tensor, t: Any, context: Any, memory: Any, heads: Any, tokens: slice
    ) -> torch.Tensor:
        words, times = tokens.stop - tokens.start, x.shape[1] // 2
        found = torch.zeros(len(heads), words, times)
        for time in range(times):
            found[:, time * words // times, time] = 1
        return found

    monkeypatch.setattr("acestep_cli.engine.dit.DiT.attention_to_words", attention)


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The captions that the band has played, in their order."""
    played: list[str] = []
    play = band.Pipeline.play

    def noted(self: Any, request: Any, report: Any) -> Any:
        played.append(request.caption)
        yield from play(self, request, report)

    monkeypatch.setattr(band.Pipeline, "play", noted)
    return played


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub that this process and its children see, and an empty cache."""
    there = Hub()
    server = there.start()
    there.publish(checkpoint_table.MAIN_REPO, main_repo())
    there.publish("ACE-Step/acestep-v15-base", dit("", 5))
    home = tmp_path / "hf"
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "ACESTEP_MODELS_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HF_HOME": str(home), "HF_ENDPOINT": there.url, "NO_PROXY": "*", "no_proxy": "*"}.items():
        monkeypatch.setenv(name, value)
    # What the library has read from the environment when this process imported it.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
    monkeypatch.setattr(constants, "ENDPOINT", there.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", there.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", BLOCK)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library rests before it tries again
    monkeypatch.chdir(tmp_path)
    yield there
    there.go_on.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_b: tiny.Oracle) -> Path:
    """An empty current folder, with a tiny turbo checkpoint as the only one installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))
    return tmp_path


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    """Record what `denoise.denoise` is given and returns."""
    seen = Given()
    real, text_prompt = denoise.denoise, prompts.text_prompt

    def watched(
        dit: Any, noise: Tensor, condition: DiffusionCondition, settings: SamplerSettings, **options: Any
    ) -> Tensor:
        seen.noise.append(noise)
        seen.context.append(condition.context)
        seen.schedule.append(settings.schedule)
        seen.options.append({**options, "cross_kv": condition.cross_kv})
        seen.latents.append(real(dit, noise, condition, settings, **options))
        return seen.latents[-1]

    def read(instruction: str, *rest: str) -> str:
        seen.prompts.append(instruction)
        return text_prompt(instruction, *rest)

    monkeypatch.setattr(denoise, "denoise", watched)
    monkeypatch.setattr(prompts, "text_prompt", read)
    return seen
