"""`acestep models`, against a small hub of our own; no network, no torch, files of a few kilobytes."""

from __future__ import annotations

import errno
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import jsonschema
import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.errors import CheckpointError
from acestep_cli.models import checkpoint_table, checkpoints, hugging_face, model_store
from acestep_cli.models.manifest import LOCK, RemoteFile, read_manifest
from support import hub_server
from support.command import LIMIT, Run, finish, limited, read_to, started
from support.hub_server import BLOCK, FETCHED, TURBO, WEIGHTS, Hub, blob_id, main_repo, sha256, weights
from support.places import RESULT_SCHEMA

#: `acestep` with the blocks of a download made as small as these files; `{}` may change more.
PROGRAM = f"""
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = {BLOCK}
from acestep_cli.cli.app import main
main()
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def models() -> Run:
    return lambda *words: CliRunner().invoke(app, ["models", *words], catch_exceptions=False)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def refused(run: Result, code: int, *said: str) -> None:
    assert run.exit_code == code, run.stderr
    assert "Traceback" not in run.stderr
    for words in said:
        assert words in run.stderr


@pytest.fixture
def in_a_process() -> Iterator[Start]:
    """`acestep models …` in a process of its own, which is ended with the test."""
    with ExitStack() as running:

        def start(*words: str, program: str = PROGRAM) -> subprocess.Popen[str]:
            return running.enter_context(started([sys.executable, "-c", program, "models", *words]))

        yield start


# Pulling


def test_a_pull_into_a_models_folder(hub: Hub, models: Run) -> None:
    run = models("pull", "turbo", "--models-dir", "m")
    assert run.exit_code == 0, run.stderr
    folders = [f"m/{TURBO}", "m/vae", "m/Qwen3-Embedding-0.6B"]
    assert run.stdout.splitlines() == folders
    assert files_in(Path("m")) == {*FETCHED, *(f"{f[2:]}/{LOCK}" for f in folders), ".acestep/pull.lock"}
    assert checkpoints.find_checkpoint("turbo", Path("m")).dit == Path("m") / TURBO
    assert "100 %" in run.stderr


def test_the_size_of_a_model_is_that_of_all_that_was_fetched(hub: Hub, models: Run) -> None:
    models("pull", "turbo", "--models-dir", "m")
    listed = {one["name"]: one for one in json.loads(models("list", "--models-dir", "m", "--json").stdout)["models"]}
    fetched = [path for path in Path("m").glob("*/*") if path.parent.name != ".acestep"]
    assert listed["turbo"]["bytes"] == sum(path.stat().st_size for path in fetched)
    assert listed["pocket"]["bytes"] > 31e6  # of four networks


def test_a_lock_file_says_what_a_folder_is(hub: Hub, models: Run) -> None:
    models("pull", "turbo", "--models-dir", "m")
    content = json.loads(Path("m", TURBO, "acestep.lock.json").read_text())  # the name that other programs know
    files, published = content.pop("files"), main_repo()
    commit = hub.refs[checkpoint_table.MAIN_REPO]["main"]
    assert content == {
        "schema": "acestep-lock/1", "repo": checkpoint_table.MAIN_REPO, "revision": "main", "commit": commit
    }  # fmt: skip
    assert files["model.safetensors"] == {"size": len(published[WEIGHTS]), "sha256": sha256(published[WEIGHTS])}
    assert files["config.json"] == {"size": 2, "blob_id": blob_id(b"{}")}


def test_a_pull_into_the_cache(hub: Hub, models: Run) -> None:
    run = models("pull", "turbo")
    assert run.exit_code == 0, run.stderr
    found = checkpoints.find_checkpoint("turbo")
    assert str(found.dit) == run.stdout.splitlines()[0]
    commit = hub.refs[checkpoint_table.MAIN_REPO]["main"]
    snapshot = checkpoints.cache_folder(checkpoint_table.MAIN_REPO) / "snapshots" / commit
    assert found.dit == snapshot / TURBO
    assert {name for name in files_in(snapshot) if not name.endswith(LOCK)} == FETCHED
    if os.name != "nt":
        assert (found.dit / "model.safetensors").readlink().name == sha256(main_repo()[WEIGHTS])
    assert not (snapshot.parent.parent / "refs" / "main").exists()  # that is other tools' to say


@pytest.mark.parametrize("where", [(), ("--models-dir", "m")], ids=["cache", "folder"])
def test_a_second_pull_fetches_nothing_and_writes_nothing(hub: Hub, models: Run, where: tuple[str, ...]) -> None:
    first = models("pull", "turbo", *where)
    before = {path: path.lstat().st_mtime_ns for path in Path().rglob("*")}
    hub.asked.clear()
    second = models("pull", "turbo", *where)
    assert second.stdout == first.stdout
    assert "there already" in second.stderr
    assert [one.path.partition("?")[0] for one in hub.asked] == [f"/api/models/{checkpoint_table.MAIN_REPO}"]
    assert before == {path: path.lstat().st_mtime_ns for path in Path().rglob("*")}


def test_what_is_shared_is_fetched_once(hub: Hub, models: Run) -> None:
    run = models("pull", "turbo", "base", "--songwriter", "1.7B", "--models-dir", "m")
    assert run.stdout.splitlines() == [
        f"m/{TURBO}", "m/vae", "m/Qwen3-Embedding-0.6B", "m/acestep-v15-base", "m/acestep-5Hz-lm-1.7B"
    ]  # fmt: skip
    paths = [one.path for one in hub.sends()]
    assert len(paths) == len(set(paths)) == len(FETCHED) + 3 + 3
    assert checkpoints.find_checkpoint("base", Path("m")).name == "base"
    assert models("path", "1.7B", "--models-dir", "m").stdout == "m/acestep-5Hz-lm-1.7B\n"


def test_json_is_one_object(hub: Hub, models: Run) -> None:
    run = models("pull", "turbo", "--json")
    content = json.loads(run.stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    [model] = content["models"]
    assert model["status"] == "installed"
    assert model["commit"] == hub.refs[checkpoint_table.MAIN_REPO]["main"]


def test_a_token_goes_to_the_hub_and_no_further(hub: Hub, models: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert models("pull", "turbo").exit_code == 0
    assert {one.token for one in hub.asked if "/content/" in one.path} == {None}
    assert {one.token for one in hub.asked if "/content/" not in one.path} == {"hf_secret"}


def test_the_built_in_model_needs_no_pull(hub: Hub, models: Run) -> None:
    run = models("pull", "pocket")
    assert run.stdout.strip() == str(checkpoints.find_checkpoint("pocket").dit)
    assert not hub.asked


def test_a_revision_pins(hub: Hub, models: Run) -> None:
    old = hub.refs[checkpoint_table.MAIN_REPO]["main"]
    hub.publish(checkpoint_table.MAIN_REPO, main_repo(seed=9))
    assert models("pull", "turbo", "--revision", old).exit_code == 0
    assert checkpoints.find_checkpoint("turbo").dit.parent.name == old
    assert (checkpoints.find_checkpoint("turbo").dit / "model.safetensors").read_bytes() == main_repo()[WEIGHTS]


@pytest.mark.parametrize("where", [(), ("--models-dir", "m")], ids=["cache", "folder"])
def test_a_new_state_on_the_hub_is_fetched_and_the_old_one_kept(hub: Hub, models: Run, where: tuple[str, ...]) -> None:
    models("pull", "turbo", *where)
    hub.publish(checkpoint_table.MAIN_REPO, main_repo(seed=9))
    hub.asked.clear()
    run = models("pull", "turbo", *where)
    assert [one.path.partition("/resolve/")[2].partition("/")[2] for one in hub.sends()] == [WEIGHTS]
    new = Path(run.stdout.splitlines()[0])
    assert (new / "model.safetensors").read_bytes() == main_repo(seed=9)[WEIGHTS]
    assert models("verify", "turbo", *where).exit_code == 0
    kept = {sha256(path.read_bytes()) for path in Path().rglob("*") if path.is_file()}
    assert sha256(main_repo()[WEIGHTS]) in kept


def test_what_another_tool_has_put_there_is_taken_over_if_it_is_the_same(hub: Hub, models: Run) -> None:
    for name in FETCHED:
        Path("m", name).parent.mkdir(parents=True, exist_ok=True)
        Path("m", name).write_bytes(main_repo()[name])
    Path("m", TURBO, "config.json").write_bytes(b"[]")
    run = models("pull", "turbo", "--models-dir", "m")
    assert run.exit_code == 0, run.stderr
    assert [one.path.rpartition("/")[2] for one in hub.sends()] == ["config.json"]
    assert Path("m", TURBO, "config.json").read_bytes() == b"{}"
    assert Path("m", TURBO, "config.json.aside").read_bytes() == b"[]"


def test_a_cache_that_another_tool_has_filled(hub: Hub, models: Run) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(checkpoint_table.MAIN_REPO)
    assert checkpoints.find_checkpoint("turbo").name == "turbo"
    assert models("verify", "turbo").exit_code == 0  # there, names are hashes
    hub.asked.clear()
    assert models("pull", "turbo").exit_code == 0
    assert not hub.sends()


def test_a_cache_on_a_disk_without_links(hub: Hub, models: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    assert models("pull", "turbo").exit_code == 0
    dit = checkpoints.find_checkpoint("turbo").dit
    assert not (dit / "model.safetensors").is_symlink()
    large = [path for path in Path().rglob("*") if path.is_file() and path.stat().st_size > 5000]
    assert [path.name for path in large] == ["model.safetensors"]  # once
    hub.asked.clear()
    assert models("pull", "turbo").exit_code == 0
    assert not hub.sends()
    assert models("verify", "turbo").exit_code == 0
    assert models("prune").stdout == ""


# What goes wrong on the way


@pytest.mark.parametrize("where", [(), ("--models-dir", "m")], ids=["cache", "folder"])
def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub, models: Run, where: tuple[str, ...]) -> None:
    hub.cuts[WEIGHTS] = [2500, 3500]
    run = models("pull", "turbo", *where)
    assert run.exit_code == 0, run.stderr
    assert [one.range for one in hub.sends() if WEIGHTS in one.path] == [None, "bytes=2000-", "bytes=5000-"]
    assert "The connection broke" in run.stderr
    assert models("verify", "turbo", *where).exit_code == 0


def test_a_connection_that_hangs(hub: Hub, models: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1.0)
    hub.hangs[WEIGHTS] = 4200
    assert models("pull", "turbo").exit_code == 0
    assert [one.range for one in hub.sends() if WEIGHTS in one.path] == [None, "bytes=4000-"]


def test_a_server_that_knows_no_ranges(hub: Hub, models: Run) -> None:
    hub.cuts[WEIGHTS], hub.ignore_ranges = [2500], True
    assert models("pull", "turbo").exit_code == 0
    assert models("verify", "turbo").exit_code == 0


def test_a_server_that_knows_no_ranges_and_always_breaks_off(hub: Hub, models: Run) -> None:
    hub.cuts[WEIGHTS], hub.ignore_ranges = [2500] * 50, True
    refused(models("pull", "turbo"), 8, "breaks off again and again", "begins each time with the first byte")
    assert len([one for one in hub.sends() if WEIGHTS in one.path]) < 6
    del hub.cuts[WEIGHTS]
    assert models("pull", "turbo").exit_code == 0


def test_a_broken_connection_is_told_in_one_line(hub: Hub, in_a_process: Start) -> None:
    hub.cuts[WEIGHTS] = [2500]
    stderr = in_a_process("pull", "turbo").communicate(timeout=LIMIT)[1]
    assert "The connection broke; going on from there." in stderr
    assert "Error while downloading" not in stderr  # the library's own words, with the whole address


def test_what_the_hub_named_and_sent_is_not_asked_for_again(hub: Hub, models: Run) -> None:
    assert models("pull", "turbo").exit_code == 0
    files = [one for one in hub.asked if "/resolve/" in one.path]
    assert len(files) == len(FETCHED)
    assert {one.method for one in files} == {"GET"}


@pytest.mark.skipif(os.name == "nt", reason="signals as Unix has them")
@pytest.mark.parametrize("where", [(), ("--models-dir", "m")], ids=["cache", "folder"])
def test_a_killed_pull_is_taken_up_by_the_next(
    hub: Hub, models: Run, where: tuple[str, ...], in_a_process: Start
) -> None:
    hub.hangs[WEIGHTS] = 4200
    first = in_a_process("pull", "turbo", *where)
    assert hub.hanging.wait(LIMIT)
    read_to(first.stderr, "40 %")  # of all: four of its blocks have come
    first.send_signal(signal.SIGINT)
    assert first.communicate(timeout=LIMIT)[1].splitlines()[-1] == "Interrupted."
    assert first.returncode == 130
    folder = Path("m") if where else None
    with pytest.raises(CheckpointError):
        checkpoints.find_checkpoint("turbo", folder)
    listed = json.loads(models("list", "--json", *where).stdout)["models"][0]
    assert (listed["name"], listed["status"]) == ("turbo", "partial")
    hub.asked.clear()
    second = models("pull", "turbo", *where)
    assert second.exit_code == 0, second.stderr
    [resumed] = [one.range for one in hub.sends() if WEIGHTS in one.path]
    assert resumed in ("bytes=3000-", "bytes=4000-")  # a block is told of before it is written
    assert models("verify", "turbo", *where).exit_code == 0


@pytest.mark.parametrize("where", [(), ("--models-dir", "m")], ids=["cache", "folder"])
def test_two_pulls_at_a_time(hub: Hub, models: Run, where: tuple[str, ...], in_a_process: Start) -> None:
    hub.hangs[WEIGHTS] = 4200
    first = in_a_process("pull", "turbo", *where)
    assert hub.hanging.wait(LIMIT)
    second = in_a_process("pull", "turbo", "--songwriter", "1.7B", *where)
    read_to(second.stderr, "Another pull is at work")
    hub.go_on.set()
    for pull in (first, second):
        said = pull.communicate(timeout=LIMIT)[1]
        assert pull.returncode == 0, said
    paths = [one.path for one in hub.sends() if one.range is None]
    assert len(paths) == len(set(paths)) == len(FETCHED) + 3
    assert models("verify", "turbo", "1.7B", *where).exit_code == 0


@pytest.mark.parametrize("where", [(), ("--models-dir", "m")], ids=["cache", "folder"])
def test_a_file_that_changed_while_it_came(
    hub: Hub, models: Run, monkeypatch: pytest.MonkeyPatch, where: tuple[str, ...]
) -> None:
    """Half of the old file is no beginning of the new one."""
    hub.cuts[WEIGHTS] = [2500, *[0] * 9]
    refused(models("pull", "turbo", *where), 8, "goes on from where")
    del hub.cuts[WEIGHTS]
    hub.publish(checkpoint_table.MAIN_REPO, main_repo(seed=9))
    hub.asked.clear()
    run = models("pull", "turbo", *where)
    assert run.exit_code == 0, run.stderr
    assert [one.range for one in hub.sends() if WEIGHTS in one.path] == [None]
    assert Path(run.stdout.splitlines()[0], "model.safetensors").read_bytes() == main_repo(seed=9)[WEIGHTS]
    assert models("verify", "turbo", *where).exit_code == 0
    [left] = [path for path in models("prune", *where).stdout.splitlines() if path.endswith(model_store.UNFINISHED)]
    assert Path(left).stat().st_size < len(main_repo()[WEIGHTS])


def test_wrong_content_is_fetched_again(hub: Hub, models: Run) -> None:
    hub.wrong[WEIGHTS] = [weights(666)]
    assert models("pull", "turbo", "--models-dir", "m").exit_code == 0
    assert models("verify", "turbo", "--models-dir", "m").exit_code == 0


@pytest.mark.parametrize("name", [WEIGHTS, f"{TURBO}/config.json"])
def test_wrong_content_twice_is_refused(hub: Hub, models: Run, name: str) -> None:
    hub.wrong[name] = [b"?" * len(main_repo()[name])] * 2
    run = models("pull", "turbo", "--models-dir", "m")
    refused(run, 3, name, "has another hash than it names")
    assert run.stdout == ""
    assert not Path("m", name).exists()
    assert models("pull", "turbo", "--models-dir", "m").exit_code == 0


def test_content_of_another_length(hub: Hub, models: Run) -> None:
    hub.wrong[WEIGHTS] = [b"<html>sign in</html>"]
    refused(models("pull", "turbo"), 8, "broke off", "goes on from where")
    assert models("pull", "turbo").exit_code == 0


@pytest.mark.parametrize(
    ("part", "codes", "said"),
    [
        ("/api/", [401], "HF_TOKEN"),
        ("/api/", [403], "HF_TOKEN"),
        ("/api/", [404], "HF_ENDPOINT"),
        ("/api/", [429], "Wait 1 s"),
        ("/api/", [503], "failed"),
        ("/resolve/", [404], "HF_ENDPOINT"),
        ("/content/", [403], "HF_TOKEN"),
        ("/resolve/", [429], "too many requests"),
    ],
)
def test_what_the_hub_refuses(hub: Hub, models: Run, part: str, codes: list[int], said: str) -> None:
    hub.refusals[part] = codes * 9  # a client may ask again over a new connection
    run = models("pull", "turbo", "--json")
    refused(run, 8, hub.url, said)
    content = json.loads(run.stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    assert content["error"]["name"] == "network"


def test_a_pause_that_the_hub_asks_for_is_kept_and_told(hub: Hub, models: Run) -> None:
    hub.refusals["/content/"] = [429, 429]
    run = models("pull", "turbo")
    assert run.exit_code == 0
    assert "wants a pause" in run.stderr


def test_a_wrong_token_repository_and_revision(hub: Hub, models: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(models("pull", "turbo", "--revision", "v9"), 8, "no such revision", "--revision")
    refused(models("pull", "sft"), 8, "ACE-Step/acestep-v15-sft")
    hub.token = "hf_secret"
    refused(models("pull", "turbo"), 8, "refuses access to ACE-Step/Ace-Step1.5", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    run = models("pull", "turbo")
    refused(run, 8, "refuses access to ACE-Step/Ace-Step1.5", "Is the token right?")
    assert {one.token for one in hub.asked} >= {"hf_wrong"}
    assert "hf_wrong" not in run.stderr


def test_a_page_to_sign_in_where_the_hub_should_be(hub: Hub, models: Run) -> None:
    hub.page = "<html>Welcome to the hotel</html>"
    refused(models("pull", "turbo"), 8, "does not answer as a hub does")


@pytest.mark.parametrize("hash", ["../../../outside", None])
def test_hashes_that_are_none(hub: Hub, models: Run, monkeypatch: pytest.MonkeyPatch, hash: str | None) -> None:
    monkeypatch.setattr(hub_server, "sha256", lambda content: hash)
    monkeypatch.setattr(hub_server, "blob_id", lambda content: hash)
    refused(models("pull", "turbo"), 8, "does not answer as a hub does")
    assert not Path("hf").exists()


def test_a_state_that_lacks_what_a_model_needs(hub: Hub, models: Run) -> None:
    hub.publish(checkpoint_table.MAIN_REPO, {**main_repo(), f"{TURBO}/silence_latent.pt": b""}, "v1")
    del hub.repos[checkpoint_table.MAIN_REPO][hub.refs[checkpoint_table.MAIN_REPO]["v1"]][f"{TURBO}/silence_latent.pt"]
    refused(models("pull", "turbo", "--revision", "v1"), 3, f"{TURBO}/silence_latent.pt")


def test_nobody_at_home(hub: Hub, models: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    models("pull", "turbo", "--models-dir", "m")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refused(models("pull", "turbo", "--models-dir", "n"), 8, "http://127.0.0.1:9 cannot be reached")
    kept = models("pull", "turbo", "--models-dir", "m")  # what is whole by its lock file is as good as asked for
    assert kept.exit_code == 0
    assert "stays as it is" in kept.stderr


def test_the_environment_is_obeyed(hub: Hub, monkeypatch: pytest.MonkeyPatch, in_a_process: Start) -> None:
    """Read by the library itself, so in a process of its own: where to ask, where to keep, whether to ask at all."""
    pulled = in_a_process("pull", "turbo", "--quiet")
    out, said = pulled.communicate(timeout=LIMIT)
    assert (pulled.returncode, said) == (0, "")
    assert Path(out.splitlines()[0]).is_relative_to(Path(os.environ["HF_HOME"]) / "hub")
    asked = len(hub.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = in_a_process("pull", "base")
    assert "HF_HUB_OFFLINE is set" in offline.communicate(timeout=LIMIT)[1]
    assert (offline.returncode, len(hub.asked)) == (8, asked)


def test_a_proxy_is_left_to_the_library(hub: Hub, monkeypatch: pytest.MonkeyPatch, in_a_process: Start) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    pull = in_a_process("pull", "turbo")
    assert "cannot be reached" in pull.communicate(timeout=LIMIT)[1]
    assert (pull.returncode, hub.asked) == (8, [])


# The disk


def test_a_full_disk_is_seen_before_the_first_byte(hub: Hub, models: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "free_bytes", lambda folder: 5_000)
    refused(models("pull", "turbo"), 9, "9.86 kB are still", "5 kB free", "--models-dir")
    assert not hub.sends()


@pytest.mark.skipif(os.name == "nt", reason="limits as Unix has them")
def test_a_disk_that_fills_on_the_way(hub: Hub, models: Run, in_a_process: Start) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))"
    pull = in_a_process("pull", "turbo", "--models-dir", "m", program=limit + PROGRAM)
    out, said = pull.communicate(timeout=LIMIT)
    assert (pull.returncode, out) == (9, "")
    assert "too large" in said
    hub.asked.clear()
    assert models("pull", "turbo", "--models-dir", "m").exit_code == 0
    assert [one.range for one in hub.sends() if WEIGHTS in one.path] == ["bytes=6000-"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("where", [(), ("--models-dir", "m")], ids=["cache", "folder"])
def test_a_disk_that_is_full_by_then(
    hub: Hub, models: Run, monkeypatch: pytest.MonkeyPatch, where: tuple[str, ...]
) -> None:
    """Others write to it too: what fitted before the first byte no longer does."""

    def full(self: object, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(hugging_face._Bounded, "write", full)
        run = models("pull", "turbo", *where)
    refused(run, 9, "cannot be written: no space left on device", "What was fetched is kept")
    assert run.stdout == ""
    assert models("pull", "turbo", *where).exit_code == 0
    assert models("verify", "turbo", *where).exit_code == 0


def _published(name: str) -> RemoteFile:
    """A small file of the main repository as the hub describes it."""
    content = main_repo()[name]
    return RemoteFile(name.rpartition("/")[2], len(content), None, blob_id(content))


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("where", [(), ("--models-dir", "m")], ids=["cache", "folder"])
def test_a_cache_that_may_only_be_read(
    hub: Hub, models: Run, monkeypatch: pytest.MonkeyPatch, where: tuple[str, ...], error: int
) -> None:
    """What is whole in it is used, and what is missing cannot be put there."""
    models("pull", "turbo", *where)

    def refuse(self: Path, mode: str = "r", *more: object, **named: object) -> object:
        if set(mode) & set("wax+"):
            raise OSError(error, os.strerror(error), str(self))
        return opened(self, mode, *more, **named)

    def refuse_folder(self: Path, *more: object, **named: object) -> None:
        if not self.is_dir():
            raise OSError(error, os.strerror(error), str(self))

    opened = Path.open
    monkeypatch.setattr(Path, "open", refuse)  # whoever runs the tests may be allowed everything
    monkeypatch.setattr(Path, "mkdir", refuse_folder)
    for words in (("pull", "turbo"), ("list",), ("verify", "turbo"), ("path", "turbo")):
        assert models(*words, *where).exit_code == 0
    hub.publish(checkpoint_table.MAIN_REPO, main_repo(seed=9))
    refused(models("pull", "turbo", *where), 9, os.strerror(error).lower(), "HF_HOME")


@pytest.mark.skipif(os.name == "nt", reason="permissions as Unix has them")
def test_a_folder_that_cannot_be_written(hub: Hub, models: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    refused(models("pull", "turbo", "--models-dir", "file/m"), 9, "cannot be written")

    def refuse(self: Path, *args: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)  # whoever runs the tests may be allowed everything
    refused(models("pull", "turbo"), 9, "permission denied", "HF_HOME")


def test_a_name_that_no_folder_can_have(hub: Hub, models: Run) -> None:
    folder = "m" * 300
    refused(models("pull", "turbo", "--models-dir", folder), 9, "cannot be written: file name too long")
    assert not hub.sends()
    assert "does not exist" in models("list", "--models-dir", folder).stderr
    assert models("prune", "--models-dir", folder).exit_code == 0
    for words in (("path", "turbo"), ("verify", "turbo")):
        refused(models(*words, "--models-dir", folder), 3, "does not exist")


# What is there


def test_list_before_and_after(hub: Hub, models: Run) -> None:
    before = models("list").stdout.splitlines()
    assert [line.split()[:2] for line in before][:2] == [["turbo", "absent"], ["turbo-shift1", "absent"]]
    assert before[0].split()[2:4] == ["~6.34", "GB"]  # what a pull fetches, the autoencoder and text encoder included
    assert len(before) == len(checkpoint_table.CHECKPOINTS) + len(checkpoint_table.SONGWRITERS)
    models("pull", "turbo")
    run = models("list", "--json")
    content = json.loads(run.stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    found = {model["name"]: model["status"] for model in content["models"]}
    assert {name for name, status in found.items() if status == "installed"} == {"turbo", "pocket"}
    assert str(checkpoints.find_checkpoint("turbo").dit) in models("list").stdout


def test_a_partial_folder_is_never_taken_for_whole(hub: Hub, models: Run) -> None:
    models("pull", "turbo", "--models-dir", "m")
    for name in sorted(FETCHED - {"Qwen3-Embedding-0.6B/merges.txt"}):
        kept = Path("m", name).read_bytes()
        Path("m", name).unlink()
        with pytest.raises(CheckpointError):
            checkpoints.find_checkpoint("turbo", Path("m"))
        assert models("path", "turbo", "--models-dir", "m").exit_code == 3
        listed = models("list", "--models-dir", "m").stdout.splitlines()[0]
        assert listed.split()[1] == "partial"
        Path("m", name).write_bytes(kept)
    checkpoints.find_checkpoint("turbo", Path("m"))


def test_a_folder_whose_pull_was_cut_is_mended_by_the_next(hub: Hub, models: Run) -> None:
    models("pull", "turbo", "--models-dir", "m")
    Path("m", WEIGHTS).write_bytes(main_repo()[WEIGHTS][:100])
    assert models("pull", "turbo", "--models-dir", "m").exit_code == 0
    assert models("verify", "turbo", "--models-dir", "m").exit_code == 0


def test_a_missing_checkpoint_names_the_pull(hub: Hub) -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.find_checkpoint("turbo")
    assert "`acestep models pull turbo`" in (caught.value.hint or "")


@pytest.mark.parametrize("where", [(), ("--models-dir", "m")], ids=["cache", "folder"])
def test_verify_names_what_differs(hub: Hub, models: Run, where: tuple[str, ...]) -> None:
    models("pull", "turbo", *where)
    dit = Path(models("path", "turbo", *where).stdout.strip())
    run = models("verify", "turbo", *where)
    assert (run.exit_code, run.stdout.strip()) == (0, str(dit))
    content = bytearray((dit / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (dit / "model.safetensors").write_bytes(content)
    refused(models("verify", "turbo", *where), 3, str(dit / "model.safetensors"), "acestep models pull turbo")
    assert models("pull", "turbo", "--force", *where).exit_code == 0
    assert models("verify", "turbo", *where).exit_code == 0
    [aside] = models("prune", *where).stdout.splitlines()
    assert Path(aside).read_bytes() == content


def test_verify_without_a_lock_file(hub: Hub, models: Run) -> None:
    models("pull", "turbo", "--models-dir", "m")
    Path("m", "vae", LOCK).unlink()
    refused(models("verify", "turbo", "--models-dir", "m"), 3, "m/vae", "acestep models pull")
    Path("m", "vae", LOCK).write_text("{}")
    refused(models("verify", "turbo", "--models-dir", "m"), 3, "not a lock file")
    assert models("pull", "turbo", "--models-dir", "m").exit_code == 0
    assert models("verify", "turbo", "--models-dir", "m").exit_code == 0


def test_prune_of_the_cache(hub: Hub, models: Run) -> None:
    assert "Nothing is left over" in models("prune").stderr
    models("pull", "turbo")
    assert models("prune").stdout == ""
    old = checkpoints.find_checkpoint("turbo").dit.parent
    hub.publish(checkpoint_table.MAIN_REPO, main_repo(seed=9))
    models("pull", "turbo")
    blobs = checkpoints.cache_folder(checkpoint_table.MAIN_REPO) / "blobs"
    (blobs / f"{'0' * 64}.12345678.incomplete").write_bytes(b"half")
    os.utime(blobs / f"{'0' * 64}.12345678.incomplete", (0, 0))
    (blobs / f"{'1' * 64}.12345678.incomplete").write_bytes(b"another tool is at it")
    shown = models("prune")
    expected = {str(old), str(blobs / f"{'0' * 64}.12345678.incomplete"), str(blobs / sha256(main_repo()[WEIGHTS]))}
    assert set(shown.stdout.splitlines()) == expected
    assert "Nothing was deleted" in shown.stderr
    assert all(os.path.lexists(path) for path in expected)
    run = models("prune", "--yes", "--json")
    assert {entry["path"] for entry in json.loads(run.stdout)["leftovers"]} == expected
    assert not any(os.path.lexists(path) for path in expected)
    assert models("verify", "turbo").exit_code == 0
    assert models("prune").stdout == ""


def test_prune_of_a_models_folder(hub: Hub, models: Run) -> None:
    models("pull", "turbo", "--models-dir", "m")
    hub.publish(checkpoint_table.MAIN_REPO, main_repo(seed=9))
    models("pull", "turbo", "--models-dir", "m")
    Path("m", ".acestep", f"x{model_store.UNFINISHED}").touch()
    Path("m", "mine.txt").touch()
    expected = [f"m/.acestep/x{model_store.UNFINISHED}", f"m/{WEIGHTS}.aside"]
    assert models("prune", "--models-dir", "m").stdout.splitlines() == expected
    assert models("prune", "--models-dir", "m", "--yes").stdout.splitlines() == expected
    assert Path("m", "mine.txt").exists()
    assert models("prune", "--models-dir", "m").stdout == ""
    assert models("verify", "turbo", "--models-dir", "m").exit_code == 0


@pytest.mark.parametrize("words", [("pull", "turob"), ("path", "trubo"), ("verify", "turboo"), ("pull",)])
def test_names_that_are_none(hub: Hub, models: Run, words: tuple[str, ...]) -> None:
    run = models(*words)
    refused(run, 2, "did you mean 'turbo'?" if len(words) > 1 else "no model to pull")
    assert not hub.asked


def test_no_models_folder(models: Run, tmp_path: Path) -> None:
    folder = str(tmp_path / "nowhere")
    assert "does not exist" in models("list", "--models-dir", folder).stderr
    refused(models("path", "turbo", "--models-dir", folder), 3, "does not exist")


@pytest.mark.parametrize("words", [("list",), ("path", "pocket")])
def test_looking_needs_neither_torch_nor_the_web_client(
    hub: Hub, models: Run, words: tuple[str, ...], in_a_process: Start
) -> None:
    models("pull", "turbo")
    program = PROGRAM.replace("main()", "").partition("constants.DOWN")[0] + (
        "import sys\nfrom acestep_cli.cli.app import main\ntry:\n    main()\nfinally:\n"
        "    print([name for name in ('torch', 'transformers', 'httpx', 'httpx2', 'requests') if name in sys.modules],"
        " file=sys.stderr)\n"
    )
    looking = in_a_process(*words, program=program)
    assert looking.communicate(timeout=LIMIT)[1].splitlines()[-1] == "[]"


# Bodies, names, pauses and settings that are not as they should be


@pytest.fixture
def endless(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The hub answers requests for weights with chunks until the client hangs up; how many bytes went out each time."""
    sent: list[int] = []

    def stream(self: hub_server.Answer, name: str, content: bytes, headers: dict[str, str]) -> None:
        if name != WEIGHTS:
            return plain(self, name, content, headers)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent.append(0)
        self.close_connection = True
        while sent[-1] < 200_000_000:
            self.wfile.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            sent[-1] += 65_536
        return None

    plain = hub_server.Answer.send_bytes
    monkeypatch.setattr(hub_server.Answer, "send_bytes", stream)
    return sent


@pytest.mark.parametrize("where", [(), ("--models-dir", "m")], ids=["cache", "folder"])
def test_a_body_without_end_is_cut_off_at_the_size_of_the_file(
    models: Run, endless: list[int], where: tuple[str, ...]
) -> None:
    said = f"is longer than the {len(main_repo()[WEIGHTS]):,} bytes"
    with limited(60):
        run = models("pull", "turbo", *where)
    refused(run, 8, said, "Some networks answer everything")
    assert len(endless) == 2
    left = list(Path().rglob(f"*{model_store.UNFINISHED}"))
    assert all(path.stat().st_size == 0 for path in left)
    assert max(endless) < 200_000_000


@pytest.mark.parametrize("extra", [1, 5000])
@pytest.mark.parametrize("begun", [0, 3000])
def test_a_longer_body_spoils_nothing_for_the_next_pull(hub: Hub, models: Run, extra: int, begun: int) -> None:
    content = main_repo()[WEIGHTS]
    unfinished = Path("m/.acestep", f"{sha256(content)}{model_store.UNFINISHED}")
    unfinished.parent.mkdir(parents=True)
    unfinished.write_bytes(content[:begun])
    hub.wrong[WEIGHTS] = [content + b"?" * extra] * 2
    with limited(60):
        run = models("pull", "turbo", "--models-dir", "m")
    refused(run, 8, "is longer than the")
    assert unfinished.read_bytes() == content[:begun]  # what was there before is kept
    assert models("pull", "turbo", "--models-dir", "m").exit_code == 0
    assert models("verify", "turbo", "--models-dir", "m").exit_code == 0


def test_an_unfinished_file_that_is_too_long_begins_anew(hub: Hub, models: Run) -> None:
    content = main_repo()[WEIGHTS]
    unfinished = Path("m/.acestep", f"{sha256(content)}{model_store.UNFINISHED}")
    unfinished.parent.mkdir(parents=True)
    unfinished.write_bytes(content + b"more")
    run = models("pull", "turbo", "--models-dir", "m")
    assert run.exit_code == 0, run.stderr
    assert [one.range for one in hub.sends() if WEIGHTS in one.path] == [None]


@pytest.mark.skipif(os.name == "nt", reason="links as Unix has them")
@pytest.mark.parametrize("kind", ["symlink", "broken symlink", "hard link"])
def test_an_unfinished_file_is_never_followed_through_a_link(hub: Hub, models: Run, kind: str) -> None:
    unfinished = Path("m/.acestep", f"{sha256(main_repo()[WEIGHTS])}{model_store.UNFINISHED}")
    unfinished.parent.mkdir(parents=True)
    Path("mine").write_bytes(b"precious")
    if kind == "hard link":
        unfinished.hardlink_to("mine")
    else:
        unfinished.symlink_to(Path("mine" if kind == "symlink" else "nowhere").absolute())
    run = models("pull", "turbo", "--models-dir", "m")
    assert run.exit_code == 0, run.stderr
    assert Path("mine").read_bytes() == b"precious"
    assert not Path("nowhere").exists()
    assert not Path("m", WEIGHTS).is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="Windows opens links")
def test_a_link_that_comes_after_the_check_is_not_followed_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_bytes(b"precious")
    (tmp_path / "unfinished").symlink_to(tmp_path / "mine")
    monkeypatch.setattr(Path, "is_symlink", lambda path: False)
    with pytest.raises(OSError, match="symbolic links"), hugging_face._unfinished(tmp_path / "unfinished", 2):
        raise AssertionError("opened")
    assert (tmp_path / "mine").read_bytes() == b"precious"


@pytest.mark.skipif(os.name == "nt", reason="pipes as Unix has them")
def test_what_is_no_file_in_the_place_of_an_unfinished_one_is_said(hub: Hub, models: Run) -> None:
    unfinished = Path("m/.acestep", f"{sha256(main_repo()[WEIGHTS])}{model_store.UNFINISHED}")
    unfinished.parent.mkdir(parents=True)
    os.mkfifo(unfinished)
    refused(models("pull", "turbo", "--models-dir", "m"), 9, "is not an ordinary file")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("..\\..\\evil.json", "'..\\\\..\\\\evil.json'"),
        ("a\x1b[31mred.json", "'a\\x1b[31mred.json'"),
        ("C:evil.safetensors", "'C:evil.safetensors'"),
        ("two\nlines.json", "'two\\nlines.json'"),
        ("gnp\u202ecod.json", "'gnp\\u202ecod.json'"),
    ],
    ids=["path", "escape", "drive", "newline", "backwards"],
)
def test_names_that_no_file_can_have_are_refused(hub: Hub, models: Run, name: str, shown: str) -> None:
    hub.publish("ACE-Step/acestep-v15-base", {**hub_server.dit("", 5), name: b"{}"})
    run = models("pull", "base", "--models-dir", "m")
    refused(run, 8, "allowed as a file name here")
    assert shown in run.stderr.replace("\n", "")
    assert "\x1b" not in run.stderr
    assert "\u202e" not in run.stderr
    assert not list(Path("m").rglob("*.json"))


def test_a_lock_file_with_such_names_is_refused(hub: Hub, models: Run) -> None:
    models("pull", "turbo", "--models-dir", "m")
    lock = Path("m", TURBO, LOCK)
    content = json.loads(lock.read_text())
    content["files"]["..\\x\x1b"] = content["files"]["config.json"]
    lock.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"it names '\.\.\\\\x\\x1b'"):
        read_manifest(lock.parent)


@pytest.mark.parametrize(
    "damage",
    [
        {"schema": "acestep-manifest/2"},
        {"commit": 7},
        {"repo": None},
        {"files": []},
        {"files": {"model.safetensors": 7}},
        {"files": {"model.safetensors": {"size": math.inf, "sha256": "0" * 64}}},
        {"files": {"model.safetensors": {"size": -1, "sha256": "0" * 64}}},
        {"files": {"model.safetensors": {"size": 2, "sha256": 7}}},
        {"files": {"model.safetensors": {"size": 2}}},
    ],
    ids=str,
)
def test_a_lock_file_of_other_content_is_refused_and_written_anew(
    hub: Hub, models: Run, damage: dict[str, object]
) -> None:
    models("pull", "turbo", "--models-dir", "m")
    lock = Path("m", TURBO, LOCK)
    content = lock.read_text()
    lock.write_text(json.dumps({**json.loads(content), **damage}))
    refused(models("verify", "turbo", "--models-dir", "m"), 3, f"{lock} is not a lock file of this program")
    assert models("list", "--models-dir", "m").exit_code == 0
    assert models("pull", "turbo", "--models-dir", "m").exit_code == 0
    assert lock.read_text() == content


@pytest.mark.parametrize(
    ("header", "value", "said"),
    [
        ("Retry-After", "86400", "24 hours"),
        ("Retry-After", "3600", "60 minutes"),
        ("Retry-After", "9" * 5000, "more than a year"),
        ("Retry-After", "Wed, 21 Oct 2150 07:28:00 GMT", "more than a year"),
        ("RateLimit", '"api";r=0;t=7200', "2 hours"),
        ("RateLimit", f'"api";r=0;t={"9" * 400}', "more than a year"),
    ],
    ids=["a day", "an hour", "for ever", "a date", "a limit", "an endless limit"],
)
@pytest.mark.parametrize("part", ["/api/", "/content/"])
def test_a_long_pause_is_not_slept(
    hub: Hub, models: Run, monkeypatch: pytest.MonkeyPatch, part: str, header: str, value: str, said: str
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr(
        hub_server.Answer, "refuse", lambda self, code, name="": self.answer(code, b"no", {header: value})
    )
    hub.refusals[part] = [429] * 3
    run = models("pull", "turbo")
    refused(run, 8, f"asks for a pause of {said}")
    assert max(slept, default=0) < 1
    assert ("Try again after" in run.stderr) == ("year" not in said)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, ["ALL_PROXY names a SOCKS proxy", "pip install socksio"]),
        ({"https_proxy": "socks5h://127.0.0.1:9"}, ["https_proxy names a SOCKS proxy", "pip install socksio"]),
        ({"http_proxy": "http://[::1"}, ["http_proxy names a proxy that cannot be used"]),
        ({"HTTPS_PROXY": "ftp://x", "http_proxy": "http://a:1"}, ["HTTPS_PROXY names a proxy that cannot be used"]),
        ({"SSL_CERT_FILE": "/nonexistent"}, ["The certificates that SSL_CERT_FILE names cannot be read"]),
        ({"HF_ENDPOINT": "http://[::1"}, ["HF_ENDPOINT is 'http://[::1', which is not an address"]),
    ],
    ids=["socks", "socks5h", "bracket", "scheme", "certificates", "endpoint"],
)
def test_settings_that_cannot_be_used_are_named(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, in_a_process: Start, settings: dict[str, str], said: list[str]
) -> None:
    if "socks" in str(settings) and importlib.util.find_spec("socksio"):
        pytest.skip("SOCKS proxies work here")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    pull = in_a_process("pull", "turbo", program="from acestep_cli.cli.app import main; main()")
    told = " ".join(pull.communicate(timeout=LIMIT)[1].split())
    assert pull.returncode == 8, told
    assert "Traceback" not in told
    for words in said:
        assert words in told
    assert not hub.asked


@pytest.mark.parametrize("command", ["models list", "models pull turbo", "models path turbo", "doctor"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("HF_HUB_DOWNLOAD_TIMEOUT", "10s"), ("HF_HUB_ETAG_TIMEOUT", "1.5"), ("HF_ENDPOINT", "http://[::1")],
)
def test_settings_with_which_the_library_cannot_be_imported_are_named(
    name: str, value: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.delenv("ACESTEP_MODELS_DIR", raising=False)
    result = finish([sys.executable, "-m", "acestep_cli", *command.split()], text=True)
    assert result.returncode == (8 if (name, command) == ("HF_ENDPOINT", "models pull turbo") else 2), result.stderr
    assert result.stderr.startswith(name)
    assert "unset it" in result.stderr


ODD: dict[str, object] = {
    "list": [],
    "text": "hello",
    "number": 1,
    "nothing": None,
    "siblings are text": {"siblings": "abc"},
    "siblings are numbers": {"siblings": [1, 2]},
    "name is none": {"siblings": [{"rfilename": None, "size": 1}]},
    "name is a number": {"siblings": [{"rfilename": 7}]},
    "size is text": {"siblings": [{"rfilename": f"{TURBO}/config.json", "size": "2", "blobId": "0" * 40}]},
    "size is negative": {"siblings": [{"rfilename": f"{TURBO}/config.json", "size": -2, "blobId": "0" * 40}]},
    "hash is a number": {"siblings": [{"rfilename": f"{TURBO}/config.json", "size": 2, "blobId": 7}]},
    "weights are a number": {"siblings": [{"rfilename": WEIGHTS, "size": 2, "lfs": 7}]},
    "commit is a number": {"sha": 7},
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_answers_are_no_hub_s(hub: Hub, models: Run, odd: str) -> None:
    answer = ODD[odd]
    whole = {"id": checkpoint_table.MAIN_REPO, "modelId": checkpoint_table.MAIN_REPO, "sha": "0" * 40, "siblings": []}
    hub.page = json.dumps({**whole, **answer} if isinstance(answer, dict) else answer)
    refused(models("pull", "turbo"), 8, "does not answer as a hub does")


def test_an_answer_of_a_hundred_thousand_brackets(hub: Hub, models: Run) -> None:
    hub.page = "[" * 100_000
    refused(models("pull", "turbo"), 8, "does not answer as a hub does")
