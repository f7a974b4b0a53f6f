"""`models pull --hub modelscope`: by the library of ModelScope, against a server of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from acestep_cli.cli.app import app
from acestep_cli.models import checkpoint_table, model_scope
from support.command import Run, flat
from support.hub_server import FETCHED, WEIGHTS, main_repo
from support.modelscope_server import ModelScopeServer


@pytest.fixture
def scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelScopeServer]:
    """A ModelScope that publishes the main repository, and nothing else on the network."""
    made = ModelScopeServer({checkpoint_table.MAIN_REPO: main_repo()})
    server = made.start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", made.url)
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody is there
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0)
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def models() -> Run:
    return lambda *words: CliRunner().invoke(app, ["models", *words])


PULL = ("pull", "turbo", "--hub", "modelscope")


@pytest.mark.parametrize("where", [(), ("--models-dir", "m")], ids=["cache", "folder"])
def test_a_model_is_fetched_verified_and_found(scope: ModelScopeServer, models: Run, where: tuple[str, ...]) -> None:
    run = models(*PULL, *where)
    assert run.exit_code == 0, run.stderr
    assert {name for name, _ in scope.sent} == FETCHED  # no code of others, and nothing twice
    assert len(scope.sent) == len(FETCHED)
    assert models("verify", "turbo", *where).exit_code == 0
    folder = Path(models("path", "turbo", *where).stdout.splitlines()[0])
    assert (folder / "model.safetensors").read_bytes() == main_repo()[WEIGHTS]
    again = models(*PULL, *where)
    assert "there already" in again.stderr
    assert len(scope.sent) == len(FETCHED)
    assert not [path for path in Path().rglob("*.incomplete*") if "modelscope" not in path.parts]


def test_a_newer_state_fetches_what_changed(scope: ModelScopeServer, models: Run) -> None:
    assert models(*PULL, "--models-dir", "m").exit_code == 0
    scope.repos[checkpoint_table.MAIN_REPO] = main_repo(seed=9)
    del scope.sent[:]
    assert models(*PULL, "--models-dir", "m").exit_code == 0
    assert [name for name, _ in scope.sent] == [WEIGHTS]


def test_a_cut_download_goes_on(scope: ModelScopeServer, models: Run) -> None:
    scope.cuts[WEIGHTS] = [6000]
    run = models(*PULL, "--models-dir", "m")
    assert run.exit_code == 0, run.stderr
    assert [span for name, span in scope.sent if name == WEIGHTS][-1] == "bytes=6000-"
    assert models("verify", "turbo", "--models-dir", "m").exit_code == 0


def test_what_has_another_hash_is_fetched_again_and_then_refused(scope: ModelScopeServer, models: Run) -> None:
    content = bytes(len(main_repo()[WEIGHTS]))
    scope.wrong[WEIGHTS] = [content]
    assert models(*PULL, "--models-dir", "m").exit_code == 0
    assert models("verify", "turbo", "--models-dir", "m").exit_code == 0
    scope.wrong[WEIGHTS] = [content] * 9
    run = models(*PULL, "--models-dir", "other")
    assert (run.exit_code, run.stdout) == (3, "")
    assert "has another hash than it names, twice" in flat(run)
    assert not Path("other", WEIGHTS).exists()


def test_what_is_longer_than_it_is_said_to_be_is_refused(scope: ModelScopeServer, models: Run) -> None:
    scope.wrong[WEIGHTS] = [main_repo()[WEIGHTS] + b"more"] * 20
    run = models(*PULL, "--models-dir", "m")
    assert run.exit_code == 8, run.stderr
    assert "MODELSCOPE_ENDPOINT" in run.stderr
    assert not Path("m", WEIGHTS).exists()


@pytest.mark.parametrize(
    ("flags", "refusals", "page", "said"),
    [
        (("--revision", "v9"), [], None, "ModelScope has no such thing"),
        ((), [403] * 9, None, "MODELSCOPE_API_TOKEN"),
        ((), [], "<html>sign in</html>", "ModelScope"),
    ],
    ids=["revision", "token", "page"],
)
def test_what_the_hub_refuses_is_said(
    scope: ModelScopeServer, models: Run, flags: tuple[str, ...], refusals: list[int], page: str | None, said: str
) -> None:
    scope.refusals, scope.page = refusals, page
    run = models(*PULL, *flags, "--models-dir", "m")
    assert (run.exit_code, run.stdout) in ((8, ""), (3, "")), run.stderr
    assert said in flat(run)
    assert "Traceback" not in run.stderr


@pytest.mark.usefixtures("scope")
def test_where_nobody_answers_the_system_s_reason_is_said(models: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the library's tries
    run = models(*PULL, "--models-dir", "m")
    assert (run.exit_code, run.stdout) == (8, "")
    assert "ModelScope cannot be reached: connection refused." in run.stderr


def test_a_token_is_sent(scope: ModelScopeServer, models: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-secret")
    assert models(*PULL, "--models-dir", "m").exit_code == 0
    assert "Bearer ms-secret" in scope.tokens


def test_without_its_library_the_command_that_installs_it_is_named(
    models: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == model_scope.LIBRARY else find(name))
    run = models(*PULL, "--models-dir", "m")
    assert run.exit_code == 8
    assert "pip install 'acestep-cli[modelscope]'" in flat(run)
    unknown = models("pull", "turbo", "--hub", "elsewhere")
    assert unknown.exit_code == 2
    assert "'elsewhere' is not one of huggingface, modelscope" in flat(unknown)
