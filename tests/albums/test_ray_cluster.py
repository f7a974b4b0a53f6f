"""Albums on a Ray cluster: what comes of them, what is left out and what is lost; with a stand-in, and with Ray."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from typer.testing import Result

from acestep_cli.albums import ray_worker
from acestep_cli.albums.ray_worker import NodeInfo
from acestep_cli.errors import CheckpointError
from acestep_cli.machine import hardware
from acestep_cli.models import adapter_file, checkpoints
from acestep_cli.render import result
from acestep_cli.song import complete, document
from acestep_cli.song.request import Request
from support import adapter_files, fake_ray, ray_nodes, tiny
from support.albums import CHAIN, HARBOUR, harbour, machine
from support.command import HOT, LONG_LIMIT, finish, flat, in_time, loaded, said, started, until
from support.fake_ray import Node, Ray

Acestep = Callable[..., Result]
ON_RAY = ("album", "render", "harbour.yaml", "-o", "out", "--on", "ray")


@pytest.fixture(autouse=True)
def here(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test starts in an empty folder, with a tiny turbo checkpoint as the only one installed."""
    monkeypatch.setenv("ACESTEP_CACHE_DIR", str(here / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return here


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    """A cluster of two nodes, and a port that answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = Ray(f"127.0.0.1:{server.getsockname()[1]}", Node("one-11111"), Node("two-22222"))
        for name, module in there.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
        yield there


def files(folder: Path) -> dict[str, Any]:
    """The content of every audio file in a folder, and of every sidecar but for what time it took."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".yaml":
            content = yaml.safe_load(path.read_text())
            content["render"].pop("timings")
            found[str(path)] = content
        elif path.is_file() and path.suffix != ".lock":
            found[str(path)] = path.read_bytes()
    return found


# What comes of it


@pytest.mark.parametrize("text", [HARBOUR, CHAIN], ids=["songs", "edits"])
def test_a_cluster_makes_what_this_machine_makes(acestep: Acestep, ray: Ray, rendered: list[str], text: str) -> None:
    harbour(text)
    alone = acestep("album", "render", "harbour.yaml", "-o", "out", "--no-cache")
    assert alone.exit_code == 0, alone.stderr
    made = files(Path("out"))
    shutil.rmtree("out")
    result = acestep(*ON_RAY, "--no-cache", "--events", "e.ndjson")
    assert result.exit_code == 0, result.stderr
    assert files(Path("out")) == made
    assert sorted(result.stdout.splitlines()) == sorted(alone.stdout.splitlines())
    assert "On Ray: 10.0.0.1 (one-1111), 10.0.0.1 (two-2222); up to 2 tracks at a time\n" in result.stderr
    assert len(rendered) == 2 * len(set(rendered))
    events = [json.loads(line) for line in Path("e.ndjson").read_text().splitlines()]
    told = [event["status"] for event in events if event["event"] == "take"]
    assert told == ["written"] * len([path for path in made if path.endswith((".flac", ".wav"))])
    assert {"diffuse", "decode"} <= {event.get("stage") for event in events}
    assert not ray.is_up


@pytest.mark.parametrize("backend", [(), ("-j", "2"), ("--on", "ray")], ids=["here", "processes", "ray"])
def test_songs_adapters_and_folders_of_odd_names(acestep: Acestep, ray: Ray, backend: tuple[str, ...]) -> None:
    """Spaces, quotes, a line break, a dash in front, signs of shells and of make, bytes that are no UTF-8."""
    odd = ["a b", 'it\'s "so"', "new\nline", "-dash", "#per%cent$", os.fsdecode(b"caf\xe9")]
    try:
        for name in odd:
            Path("songs").mkdir(exist_ok=True)
            Path("songs", f"{name}.md").write_text(f"---\ncaption: {name.isprintable()}\ninstrumental: true\n---\n")
    except OSError:
        pytest.skip("the names of this disk are UTF-8")
    adapter = adapter_files.peft(Path(f"{odd[5]}\n'sound'"), adapter_files.pairs(tiny.TWO_B))
    album = {"defaults": {"duration": 10, "loras": [str(adapter)]}, "tracks": ["songs/*.md"]}
    Path(f"{odd[5]}.yaml").write_text(document.dump_yaml(album))
    words = ("album", "render", f"{odd[5]}.yaml", "-o", f"{odd[5]} öut")
    result = acestep(*words, *backend, "--json")
    assert result.exit_code == 0, result.stderr
    outputs = said(result)["outputs"]
    assert [output["status"] for output in outputs] == ["written"] * 6
    assert all(Path(output["path"]).is_file() and Path(output["sidecar"]).is_file() for output in outputs)
    assert {Path(output["request"]["loras"][0]["path"]).name for output in outputs} == {adapter.name}
    again = said(acestep(*words, *backend, "--json"))["outputs"]
    assert [output["status"] for output in again] == ["skipped"] * 6


def test_every_node_has_a_share_and_no_song_is_made_twice(acestep: Acestep, ray: Ray, rendered: list[str]) -> None:
    lines = "".join(f"  - {{id: t{number}, caption: song {number}}}\n" for number in range(10))
    harbour(f"defaults: {{duration: 10}}\ntracks:\n{lines}")
    result = acestep(*ON_RAY, "--json")
    assert result.exit_code == 0, result.stderr
    assert sorted(rendered) == [f"song {number}" for number in range(10)]
    assert [output["status"] for output in said(result)["outputs"]] == ["written"] * 10
    played = [[what for what, _ in node.sent].count("run_task") for node in ray.all]
    assert sum(played) == 3  # of four songs at most
    assert min(played) > 0
    assert all(options == {"num_cpus": 1} for node in ray.all for what, options in node.sent if what == "inspect_node")
    assert result.stderr.count("Making music\n") == 1


def test_a_second_render_makes_nothing(acestep: Acestep, ray: Ray, rendered: list[str]) -> None:
    harbour()
    first = acestep(*ON_RAY)
    assert first.exit_code == 0
    del rendered[:]
    again = acestep(*ON_RAY)
    assert (again.exit_code, rendered) == (0, [])
    assert sorted(again.stdout.splitlines()) == sorted(first.stdout.splitlines())


def test_finished_takes_come_from_the_cache(acestep: Acestep, ray: Ray, rendered: list[str]) -> None:
    harbour()
    assert acestep(*ON_RAY).exit_code == 0
    del rendered[:]
    result = acestep(*ON_RAY, "--loudness", "none")
    assert result.exit_code == 0, result.stderr
    assert "made before; encoded again" in result.stderr
    assert rendered == []


def test_a_dry_run_asks_the_nodes_and_writes_nothing(acestep: Acestep, ray: Ray) -> None:
    harbour()
    result = acestep(*ON_RAY, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert not Path("out").exists()
    assert "low-water: stale: it is not there yet\n" in result.stderr
    assert {what for node in ray.all for what, _ in node.sent} == {"inspect_node"}


def test_a_song_that_fails_fails_alone_and_once(acestep: Acestep, ray: Ray, rendered: list[str]) -> None:
    harbour(HARBOUR.replace("caption: low", "caption: breaks") + "  - {id: last, caption: last}\n")
    result = acestep(*ON_RAY, "--json", "--debug")
    assert result.exit_code == 7
    assert [output["status"] for output in said(result)["outputs"]] == ["written", "written", "failed", "written"]
    assert "RuntimeError: a string broke" in said(result)["error"]["message"]
    assert 'raise RuntimeError("a string broke")' in result.stderr
    assert rendered.count("breaks") == 1


def test_a_disk_that_takes_no_more_ends_the_run(acestep: Acestep, ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    harbour(HARBOUR + "  - {id: a, caption: x}\n  - {id: b, caption: y}\n")
    monkeypatch.setattr("acestep_cli.audio.encode.write_audio", full)
    result = acestep(*ON_RAY, "--json")
    assert result.exit_code == 9
    assert {output["error"]["exit_code"] for output in said(result)["outputs"]} == {9}
    assert sum(node.cancelled for node in ray.all) == 1


# What is lost


def test_what_a_lost_node_leaves_is_played_by_others(acestep: Acestep, ray: Ray, rendered: list[str]) -> None:
    harbour(HARBOUR + "".join(f"  - {{id: t{number}, caption: song {number}}}\n" for number in range(5)))
    ray.all[1].tells = 30  # some takes, and not all
    result = acestep(*ON_RAY, "--json")
    assert result.exit_code == 0, result.stderr
    assert [output["status"] for output in said(result)["outputs"]] == ["written"] * 8
    lost = "The node 10.0.0.1 (two-2222) was lost; rendered again elsewhere: "
    assert any(lost in warning for warning in said(result)["warnings"])
    assert len(set(rendered)) == 8


def test_where_no_node_is_left_the_rest_fails(acestep: Acestep, ray: Ray) -> None:
    harbour()
    for node in ray.all:
        node.tells = 2
    result = acestep(*ON_RAY)
    assert result.exit_code == 8
    assert "No node of the Ray cluster is left. Run the command again to go on." in flat(result)


def test_a_song_that_takes_its_workers_down_is_given_up(acestep: Acestep, ray: Ray) -> None:
    harbour("tracks:\n  - {id: a, caption: x, duration: 10}\n")
    for node in ray.all:
        node.crashes = 3
    result = acestep(*ON_RAY)
    assert result.exit_code == 1
    assert sum(what == "run_task" for node in ray.all for what, _ in node.sent) == 3
    assert "A worker of the node 10.0.0.1 (one-1111) was lost; rendered again elsewhere: a." in result.stderr
    assert "a crashed 3 workers and is given up." in flat(result)


def test_ctrl_c_stops_the_nodes_and_keeps_what_is_finished(acestep: Acestep, ray: Ray) -> None:
    harbour(HARBOUR + "".join(f"  - {{id: t{number}, caption: song {number}}}\n" for number in range(5)))
    ray.interrupts = 60
    result = acestep(*ON_RAY, "--json")
    assert result.exit_code == 130
    states = [output["status"] for output in said(result)["outputs"]]
    assert {"written", "failed"} == set(states)
    assert len(list(Path("out").rglob("*.flac"))) == states.count("written")
    assert sum(node.cancelled for node in ray.all) > 0
    assert not ray.is_up


# Who is left out


def look(**changes: Any) -> NodeInfo:
    return replace(ray_worker.inspect_node(False), **changes)


HALF = hardware.Hardware((replace(machine("cpu").devices[0], dtypes=("float16",), free_bytes=2**50),))


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        (
            {"inspect_node": look(versions={**ray_worker.versions(), "torch": "2.0.1"})},
            "10.0.0.1 (two-2222) has torch 2.0.1, and this machine "
            f"torch {ray_worker.versions()['torch']}: takes might",
        ),
        (
            {
                "inspect_node": fake_ray.RayTaskError(
                    ModuleNotFoundError("No module named 'acestep_cli.albums.ray_worker'")
                )
            },
            f"10.0.0.1 (two-2222) has no acestep-cli {ray_worker.versions()['acestep-cli']}. pip install acestep-cli==",
        ),
        (
            {"inspect_node": fake_ray.WorkerCrashedError("It fell over.")},
            "10.0.0.1 (two-2222) does not answer: It fell over.",
        ),
        ({"inspect_node": look(machine=HALF)}, "10.0.0.1 (two-2222) has no cpu that computes in"),
        (
            {
                "missing_weights": result.describe_error(
                    CheckpointError("The checkpoint turbo is not installed.", "Pull it.")
                )
            },
            "10.0.0.1 (two-2222): The checkpoint turbo is not installed. Pull it.",
        ),
    ],
    ids=["torch", "program", "crash", "device", "checkpoint"],
)
def test_a_node_that_cannot_take_part_is_left_out_with_a_word(
    acestep: Acestep, ray: Ray, answers: dict[str, Any], sentence: str
) -> None:
    harbour()
    ray.all[1].answers = answers
    result = acestep(*ON_RAY, "--json")
    assert result.exit_code == 0, result.stderr
    assert sentence in " ".join(said(result)["warnings"])
    assert "run_task" not in [what for what, _ in ray.all[1].sent]


@pytest.mark.parametrize(
    ("answers", "code", "sentence"),
    [
        (
            {"inspect_node": look(versions={**ray_worker.versions(), "torch": "2.0.1"})},
            2,
            "has torch 2.0.1, and this machine",
        ),
        (
            {
                "inspect_node": look(machine=machine("cpu")),
                "missing_weights": {"exit_code": 3, "name": "checkpoint", "message": "No."},
            },
            3,
            "10.0.0.1 (one-1111): No.",
        ),
    ],
    ids=["torch", "checkpoint"],
)
def test_where_no_node_can_take_part_that_is_why_it_fails(
    acestep: Acestep, ray: Ray, answers: dict[str, Any], code: int, sentence: str
) -> None:
    harbour("tracks:\n  - {id: a, caption: x, duration: 10}\n")
    for node in ray.all:
        node.answers = answers
    result = acestep(*ON_RAY)
    assert result.exit_code == code
    assert sentence in flat(result)


def test_a_node_with_other_weights_is_left_out(acestep: Acestep, xl: tiny.Oracle, two_b: tiny.Oracle) -> None:
    wanted = ray_worker.WeightsRef(
        "turbo", checkpoints.find_checkpoint("turbo", two_b.root).weights_hash, None, None, None
    )
    assert ray_worker.missing_weights(wanted) is None
    found = ray_worker.missing_weights(replace(wanted, models_dir=xl.root))
    assert found is not None
    assert (found["exit_code"], found["message"]) == (
        3,
        "The weights of turbo differ between that node and this machine.",
    )
    assert ray_worker.missing_weights(replace(wanted, models_dir=Path("nowhere"))) is None  # its own are taken
    unknown = ray_worker.missing_weights(replace(wanted, checkpoint="sft"))
    assert unknown is not None
    assert "The checkpoint sft is not installed" in unknown["message"]


def test_a_busy_node_is_not_waited_for_where_another_answers(acestep: Acestep, ray: Ray) -> None:
    harbour()
    ray.all[1].is_busy = True
    result = acestep(*ON_RAY)
    assert result.exit_code == 0, result.stderr
    assert "10.0.0.1 (two-2222) is busy with something else." in result.stderr
    assert ray.all[1].cancelled == 1


def test_a_render_has_a_card_of_a_node_to_itself(acestep: Acestep, ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    harbour()
    with_cards, without = ray.all
    with_cards.resources = {"CPU": 8.0, "GPU": 2.0}
    with_cards.answers = {"inspect_node": look(machine=machine("cuda:0", "cpu"))}
    monkeypatch.setattr(hardware, "used_bytes", lambda name: 0)
    result = acestep(*ON_RAY, "--json")
    assert result.exit_code == 0, result.stderr
    assert "up to 2 tracks at a time" in result.stderr
    assert {output["plan"]["device"] for output in said(result)["outputs"]} == {"cuda:0"}
    assert all(options["num_gpus"] == 1 and options["num_cpus"] == 0 for _, options in with_cards.sent)
    assert without.sent == []
    with_cards.answers = {"inspect_node": look(machine=machine("cpu"))}
    cpu_build = acestep(*ON_RAY)
    assert cpu_build.exit_code == 2
    assert "Ray counts a card there that torch does not find. --device cpu needs none." in flat(cpu_build)
    del with_cards.answers["inspect_node"]
    assert acestep(*ON_RAY, "--device", "cpu", "--force").exit_code == 0
    assert with_cards.sent[-1][1]["num_cpus"] == 1


# What goes along


def test_the_files_of_a_song_go_along_and_its_sentences_name_them_as_here(
    two_b: tiny.Oracle, base: tiny.Oracle, tmp_path: Path
) -> None:
    config = checkpoints.find_checkpoint("turbo", two_b.root).config
    adapter = adapter_files.peft(tmp_path / "my-sound", adapter_files.pairs(config))
    asked = Request(caption="x", duration=10, loras=({"path": str(adapter), "scale": 0.5},))
    song = complete.complete(asked, checkpoints.find_checkpoint("turbo", two_b.root))
    before = adapter_file.read_adapter(adapter)
    contents = {str(adapter): [(file.name, file.read_bytes()) for file in before.files]}
    fingerprint = before.fingerprint
    shutil.rmtree(adapter)
    (tmp_path / "there").mkdir()
    places = ray_worker.unpack_files(contents, tmp_path / "there")
    there = ray_worker.rename_files(song, places)
    assert there.loras is not None
    assert adapter_file.read_adapter(Path(there.loras[0].path)).fingerprint == fingerprint
    back = {place: name for name, place in places.items()}
    home, without = ray_worker.rename_files(there, back), {"adapters": ()}  # those of takes are the sender's own
    assert home.model_copy(update=without) == song.model_copy(update=without)
    assert there.adapters[0].adapter.file.read_bytes() == contents[str(adapter)][0][1]
    messages: list[Any] = []
    console = ray_worker.WorkerConsole(messages.append)
    console.names = back
    console.warn(f"{there.loras[0].path} is old.")
    assert messages == [ray_worker.TextMessage(f"{adapter} is old.", is_warning=True)]


# Refusals


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--on", "slurm"], "--on slurm: is an unknown backend; ray is known."),
        (["--on", "ray", "-j", "2"], "--jobs 2: is for this machine; with --on ray each node makes as many as"),
        (["--on", "ray", "--pull"], "--pull: fetches for this machine alone"),
        (["--on", "ray", "--device", "cuda:1"], "--device cuda:1: with --on ray, Ray says which card it is."),
    ],
)
def test_flags_are_refused(acestep: Acestep, ray: Ray, flags: list[str], sentence: str) -> None:
    harbour()
    result = acestep("album", "render", "harbour.yaml", *flags)
    assert result.exit_code == 2
    assert sentence in flat(result)


def test_without_ray_it_is_said_how_to_install_it(acestep: Acestep, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    harbour()
    result = acestep(*ON_RAY)
    assert result.exit_code == 2
    assert "--on ray: Ray is not installed. pip install 'acestep-cli[ray]'" in flat(result)
    assert not Path("out").exists()


def test_a_cluster_that_is_not_there_is_said_at_once(
    acestep: Acestep, ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    harbour()
    ray.all = []
    assert "no node of the cluster has a processor for it. ray start --head starts one" in flat(acestep(*ON_RAY))
    with socket.create_server(("127.0.0.1", 0)) as server:
        ray.address = f"127.0.0.1:{server.getsockname()[1]}"
    began = time.monotonic()
    silent = acestep(*ON_RAY)
    assert silent.exit_code == 8
    assert f"the Ray cluster at {ray.address} does not answer: connection refused. ray start --head" in flat(silent)
    ray.address = None
    nowhere = acestep(*ON_RAY)
    assert nowhere.exit_code == 8
    assert "no Ray cluster is found on this machine. ray start --head starts one" in flat(nowhere)
    monkeypatch.setenv("RAY_ADDRESS", "ray://there:10001")
    by_client = acestep(*ON_RAY)
    assert by_client.exit_code == 2
    assert "RAY_ADDRESS is ray://there:10001, and albums are made from a machine of the cluster" in flat(by_client)
    assert time.monotonic() - began < 30
    assert not Path("out").exists()


def test_a_cluster_that_does_not_take_this_machine_is_named(acestep: Acestep, ray: Ray) -> None:
    harbour()
    ray.refuses = True
    result = acestep(*ON_RAY)
    assert result.exit_code == 8
    assert f"the Ray cluster at {ray.address} does not take this machine: no such node. ray start" in flat(result)


def test_ray_loads_for_a_cluster_alone() -> None:
    harbour()
    assert loaded("album", "render", "harbour.yaml", "--dry-run", watched=(*HOT, "ray")) == (0, [])
    assert loaded("album", "render", "harbour.yaml", "--on", "slurm", watched=(*HOT, "ray")) == (2, [])
    assert loaded("album", "render", "--help", watched=(*HOT, "ray")) == (0, [])


# With Ray

POCKET = """\
defaults: {model: pocket, duration: 3}
tracks:
  - {id: a, caption: x}
  - {id: b, caption: y, takes: 2}
  - {id: c, caption: z}
  - {id: d, from: a, edits: [{repaint: {start: 1, end: 2, caption: bell}}]}
  - {id: e, caption: w}
"""


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ray_nodes.Node]]:
    """The nodes of a cluster that albums are made on."""
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.delenv("ACESTEP_MODELS_DIR")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with ray_nodes.cluster(2) as (address, nodes):
        monkeypatch.setenv("RAY_ADDRESS", address)
        yield nodes


def rendering(*arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    return started([sys.executable, "-m", "acestep_cli", *arguments, "--no-cache"])


@pytest.mark.slow
def test_an_album_is_whole_and_the_same_though_a_node_is_killed(two_nodes: list[ray_nodes.Node]) -> None:
    harbour(POCKET)
    alone = finish([sys.executable, "-m", "acestep_cli", "album", "render", "harbour.yaml", "-o", "out", "--no-cache"],
                   timeout=LONG_LIMIT)  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    made = files(Path("out"))
    assert len(made) == 2 * 6
    shutil.rmtree("out")
    with rendering(*ON_RAY) as run:
        first = in_time(run.stdout.readline, LONG_LIMIT)
        two_nodes[1].kill()
        stdout, stderr = run.communicate(timeout=LONG_LIMIT)
    assert run.returncode == 0, stderr
    assert files(Path("out")) == made
    assert len({first, *stdout.splitlines(keepends=True)}) == 6
    assert "was lost; rendered again elsewhere: " in stderr
    assert "raylet" not in stderr


@pytest.mark.slow
def test_ctrl_c_ends_the_work_of_the_nodes(two_nodes: list[ray_nodes.Node]) -> None:
    harbour(POCKET)
    with rendering(*ON_RAY) as run:
        first = in_time(run.stdout.readline, LONG_LIMIT).strip()
        run.send_signal(signal.SIGINT)
        stderr = run.communicate(timeout=LONG_LIMIT)[1]
    assert run.returncode == 130, stderr
    assert Path(first).is_file()
    assert not list(Path("out").rglob(".*.part"))

    def at_work() -> list[psutil.Process]:
        below = [one for node in two_nodes for one in psutil.Process(node.process.pid).children(recursive=True)]
        return [one for one in below if one.name().startswith("ray::run_task")]

    until(lambda: not at_work())


@pytest.mark.slow
def test_a_dead_cluster_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    harbour()
    run = finish([sys.executable, "-m", "acestep_cli", *ON_RAY], text=True)
    assert run.returncode == 8
    assert "does not answer: connection refused." in run.stderr
