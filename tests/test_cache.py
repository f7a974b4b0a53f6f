"""The cache of stages: what is made once, and what becomes of it when runs are killed, disks fill and bits rot."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from acestep_cli.cache import FORMAT, Cache
from acestep_cli.cli.app import app
from acestep_cli.engine import codec, denoise
from acestep_cli.engine.songwriter import SongwriterModel
from acestep_cli.models import checkpoint_files, checkpoints, tensor_file
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete
from acestep_cli.song.request import Request
from acestep_cli.take import Take
from support import sounds, tiny
from support.command import Run, flat, loaded, said
from support.lyrics import HEADS
from support.lyrics import SONG as SUNG
from support.rendering import FLOAT32

SONG = ("generate", "-c", "a", "-d", "10", "--seed", "7", "--cache")


@pytest.fixture(autouse=True)
def here(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test starts in an empty folder, with a tiny turbo checkpoint and an empty cache."""
    monkeypatch.setenv("ACESTEP_CACHE_DIR", str(here / "cache"))
    return here


@pytest.fixture
def pocket_cache() -> Run:
    """`acestep …` with the real pipeline, and a recording, a.wav."""
    sounds.recording("a.wav", seconds=2)
    return lambda *words: CliRunner().invoke(app, list(words), catch_exceptions=False)


def dumps(arrays: dict[str, np.ndarray]) -> bytes:
    """A file of tensors."""
    return tensor_file.dumps({name: tensor_file.block(array) for name, array in arrays.items()})


# Finished takes


@pytest.mark.parametrize("flags", [["--genre", "Dub"], ["--loudness", "lufs:-14"], ["--fade-out", "2"]])
def test_a_file_that_is_finished_otherwise_is_not_rendered_again(
    acestep: Run, rendered: list[str], flags: list[str]
) -> None:
    assert acestep(*SONG, "-o", "a.flac").exit_code == 0
    result = acestep(*SONG, *flags, "-o", "b.wav", "--lyrics", "[Verse]\nla")  # another song
    assert rendered == ["a", "a"]
    result = acestep(*SONG, *flags, "-o", "c.wav")
    assert result.exit_code == 0, result.stderr
    assert "c.wav: made before; encoded again" in result.stderr
    assert len(rendered) == 2
    without = [word for word in SONG if word != "--cache"]
    assert acestep(*without, *flags, "-o", "d.wav").exit_code == 0
    assert Path("c.wav").read_bytes() == Path("d.wav").read_bytes()


@pytest.mark.parametrize("flags", [["--seed", "8"], ["--steps", "4"], ["--bpm", "90"], ["--dtype", "fp32"]])
def test_another_song_is_rendered(acestep: Run, rendered: list[str], flags: list[str]) -> None:
    acestep(*SONG, "-o", "a.flac")
    acestep(*(word for word in SONG if flags[0] != "--seed" or word not in ("--seed", "7")), *flags, "-o", "b.flac")
    assert len(rendered) == 2


def test_stems_and_their_mix_come_back_together(
    acestep: Run, rendered: list[str], monkeypatch: pytest.MonkeyPatch, base: tiny.Oracle
) -> None:
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(base.root))
    soundfile.write("song.wav", 0.1 * np.ones((96_000, 2)), 48_000)
    words = ("extract", "song.wav", "--track", "bass", "--track", "drums", "--cache")
    assert acestep(*words, "--seed", "7", "-o", "a/").exit_code == 0
    result = acestep(*words, "--seed", "7", "-o", "b/", "--format", "wav")
    assert result.exit_code == 0, result.stderr
    assert len(rendered) == 1
    assert len(list(Path("b").glob("*.wav"))) == 3


@pytest.mark.parametrize(
    ("flags", "finished"),
    [(("-d", "3"), ()), (("-d", "4.3"), ("--fade-out", "1")), (("-d", "7"), ("--format", "wav"))],
    ids=["again", "faded", "another format"],
)
def test_both_channels_of_a_kept_take_are_those_of_the_render(
    acestep: Run, flags: tuple[str, ...], finished: tuple[str, ...]
) -> None:
    """The built-in model, whose takes of these lengths are slices of what was decoded."""
    words = ("generate", "-m", "pocket", "-c", "slow piano", "--instrumental", "--seed", "1", "--steps", "2", *flags)
    assert acestep(*words, "--cache", "-o", "a.flac").exit_code == 0
    kept = acestep(*words, *finished, "--cache", "-o", "kept/")
    assert "made before; encoded again" in kept.stderr
    assert acestep(*words, *finished, "-o", "rendered/").exit_code == 0
    [ours], [theirs] = (list(Path(folder).glob("*.[wf]*[vc]")) for folder in ("kept", "rendered"))
    assert np.array_equal(soundfile.read(ours)[0], soundfile.read(theirs)[0])


def test_what_failed_its_checks_is_not_kept(acestep: Run, rendered: list[str]) -> None:
    words = ("generate", "-c", "silent all", "-d", "10", "--seed", "7", "--cache")
    assert acestep(*words, "-o", "a.flac").exit_code == 6
    assert acestep(*words, "-o", "b.flac").exit_code == 6
    assert len(rendered) == 2


def test_without_the_flag_nothing_is_kept(acestep: Run) -> None:
    acestep(*(word for word in SONG if word != "--cache"), "-o", "a.flac")
    assert not Path("cache").exists()


def test_what_is_spoilt_is_made_again_and_said_once(acestep: Run, rendered: list[str]) -> None:
    acestep(*SONG, "-o", "a.flac")
    [entry] = Path("cache/takes").iterdir()
    entry.write_bytes(entry.read_bytes()[:-1] + b"x")
    result = acestep(*SONG, "-o", "b.wav")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("is damaged; it is made again.") == 1
    assert len(rendered) == 2
    assert "spoilt" not in acestep(*SONG, "-o", "c.mp3").stderr
    assert len(rendered) == 2


def test_what_has_a_checksum_and_is_no_entry_is_made_again_too(acestep: Run, rendered: list[str]) -> None:
    """Another program has written it, or another version of this one."""
    for number, content in enumerate((b"", b"{}", b"\xff" * 99, dumps({}), dumps({"samples": np.zeros(3)})), start=2):
        assert acestep(*SONG, "--force", "-o", "a.flac").exit_code == 0
        [entry] = Path("cache/takes").iterdir()
        entry.write_bytes(hashlib.sha256(content).digest() + content)
        result = acestep(*SONG, "-o", f"b{number}.wav")
        assert result.exit_code == 0, result.stderr
        assert result.stderr.count("is damaged; it is made again.") == 1
        assert len(rendered) == number


@pytest.mark.parametrize("stage", ["latents", "sources"])
def test_latents_that_are_none_are_made_again(pocket_cache: Run, stage: str) -> None:
    words = ("cover", "a.wav", "-m", "pocket", "-c", "x", "--seed", "1", "--steps", "2", "--cache", "--no-sidecar")
    assert pocket_cache(*words, "-o", "b.wav").exit_code == 0
    shutil.rmtree("cache/takes")
    for content in (b"{}", dumps({"other": np.zeros(3)})):
        for entry in Path("cache", stage).iterdir():
            entry.write_bytes(hashlib.sha256(content).digest() + content)
        result = pocket_cache(*words, "-o", f"{stage}{len(content)}.wav")
        assert result.exit_code == 0, result.stderr
        assert "is damaged; it is made again." in flat(result)
        assert np.array_equal(soundfile.read("b.wav")[0], soundfile.read(f"{stage}{len(content)}.wav")[0])
        shutil.rmtree("cache/takes")


def test_a_folder_that_cannot_be_written_is_said_once_and_stops_nothing(acestep: Run) -> None:
    Path("cache").write_text("")
    result = acestep(*SONG, "-n", "3", "-o", "a/")
    assert result.exit_code == 0, result.stderr
    assert flat(result).count("The cache") == 1
    assert "cannot be written: not a directory; what is made is not kept in it." in flat(result)


def test_a_full_disk_stops_nothing(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    rename = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (full if "cache" in str(to) else rename)(self, to))
    result = acestep(*SONG, "-o", "a.flac")
    assert result.exit_code == 0, result.stderr
    assert "no space left on device; what is made is not kept in it." in flat(result)
    assert not list(Path("cache/takes").iterdir())


# The folder


def test_what_was_not_of_use_for_longest_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 350, pytest.fail)
    for number, name in enumerate("abc"):
        cache.write("takes", name, bytes(100 - 32))
        os.utime(tmp_path / "c" / "takes" / f"{name}-{FORMAT}", (number, number))
    assert cache.read("takes", "a", bytes) is not None  # and so of use just now
    cache.write("takes", "d", bytes(100 - 32))
    assert sorted(entry.path.name for entry in cache.entries()) == [f"{name}-{FORMAT}" for name in "acd"]
    cache.write("takes", "e", bytes(400))
    assert cache.read("takes", "e", bytes) is None


def test_an_entry_stays_where_memory_runs_out_while_it_is_read(tmp_path: Path) -> None:
    def exhausted(_data: bytes) -> bytes:
        raise MemoryError

    cache = Cache(tmp_path / "c", 1000, pytest.fail)
    cache.write("takes", "a", b"x")
    with pytest.raises(MemoryError):
        cache.read("takes", "a", exhausted)
    assert cache.read("takes", "a", bytes) == b"x"


def test_what_a_killed_run_has_left_goes_after_an_hour(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 1000, pytest.fail)
    cache.write("takes", "a", b"x")
    for name, age in ((".young.part", 60), (".old.part", 7200)):
        file = tmp_path / "c" / "takes" / name
        file.write_bytes(b"half of it")
        os.utime(file, (time.time() - age,) * 2)
    assert [entry.path.name for entry in cache.prune(1000)] == [".old.part"]
    assert sorted(entry.path.name for entry in cache.entries()) == [".young.part", f"a-{FORMAT}"]


def test_several_runs_may_write_read_and_prune_at_once(tmp_path: Path) -> None:
    wrong: list[str] = []
    data = {f"{number}": bytes([number]) * 5000 for number in range(20)}

    def work() -> None:
        cache = Cache(tmp_path / "c", 30_000, wrong.append)
        for _ in range(5):
            for key, content in data.items():
                cache.write("takes", key, content)
                wrong.extend(["other content"] if cache.read("takes", key, bytes) not in (content, None) else [])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert wrong == []
    assert sum(entry.bytes for entry in Cache(tmp_path / "c", 0, wrong.append).entries()) <= 40_000


def test_du_and_prune(acestep: Run) -> None:
    acestep(*SONG, "-o", "a.flac")
    report = said(acestep("cache", "du", "--json"))["cache"]
    assert report["path"] == str(Path("cache").absolute())
    assert report["stages"]["takes"]["entries"] == 1
    assert report["stages"]["takes"]["bytes"] > 480_000 * 2 * 4
    assert acestep("cache", "du").stdout.splitlines()[3].split()[:2] == ["takes", "1"]
    assert acestep("cache", "prune", "--to", "1G").stdout == ""
    pruned = acestep("cache", "prune")
    assert len(pruned.stdout.splitlines()) == 1
    assert said(acestep("cache", "du", "--json"))["cache"]["stages"]["takes"]["entries"] == 0


def test_a_limit_that_is_no_size_is_refused(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACESTEP_CACHE_LIMIT", "much")
    result = acestep("cache", "du")
    assert result.exit_code == 2
    assert "ACESTEP_CACHE_LIMIT: 'much' is not a size such as 8G or 7.5GiB." in flat(result)


def test_cache_commands_load_no_torch() -> None:
    assert loaded("cache", "du") == (0, [])
    assert loaded("cache", "prune") == (0, [])


# Stages of the pipeline


def render(models_dir: Path, songwriter: checkpoint_files.Songwriter | None = None, **asked: Any) -> list[Take]:
    found = checkpoints.find_checkpoint("turbo", models_dir)
    request = complete.complete(Request(**{"caption": "a song", "seed": 7, **asked}), found, songwriter)
    cache = Cache(Path("cache").absolute(), 10**9, pytest.fail)
    return list(Pipeline(found, FLOAT32, songwriter, cache=cache).run([request], lambda *_: None))


def test_a_recording_is_encoded_once(two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    soundfile.write("a.wav", 0.2 * rng.standard_normal((96_000, 2)).clip(-1, 1), 48_000)
    calls: list[int] = []
    encode = codec.encode_waveform
    monkeypatch.setattr(codec, "encode_waveform", lambda *given: calls.append(1) or encode(*given))
    (first,) = render(two_b.root, mode="cover", source=str(Path("a.wav").absolute()), steps=2)
    (again,) = render(two_b.root, mode="cover", source=str(Path("a.wav").absolute()), steps=2)
    assert len(calls) == 1
    assert np.array_equal(first.audio.samples, again.audio.samples)
    render(two_b.root, mode="cover", source=str(Path("a.wav").absolute()), steps=3)
    assert len(calls) == 1


def test_other_steps_need_no_songwriter(two_b: tiny.Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.build_songwriter(tmp_path / "acestep-5Hz-lm-0.6B")
    helper = checkpoint_files.Songwriter("0.6B", tmp_path / "acestep-5Hz-lm-0.6B")
    calls: list[int] = []
    takes = SongwriterModel.write_takes
    monkeypatch.setattr(SongwriterModel, "write_takes", lambda *given: calls.append(1) or takes(*given))
    first = render(two_b.root, helper, steps=2, takes=2, duration=10)
    again = render(two_b.root, helper, steps=2, takes=2, duration=10)
    other = render(two_b.root, helper, steps=3, takes=2, duration=10, title="Tide")
    assert len(calls) == 1
    for one, two in zip(first, again, strict=True):
        assert one.request == two.request
        assert np.array_equal(one.audio.samples, two.audio.samples)
    assert [take.request.codes for take in other] == [take.request.codes for take in first]
    assert {(take.request.steps, take.request.title) for take in other} == {(3, "Tide")}
    render(two_b.root, helper, steps=2, takes=2, duration=10, temperature=0.5)
    assert len(calls) == 2


@pytest.fixture
def diffused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the takes that were carried from noise to latents."""
    seeds: list[int] = []
    whole = denoise.denoise

    def noted(*given: Any, **settings: Any) -> Any:
        seeds.extend(settings["seeds"])
        return whole(*given, **settings)

    monkeypatch.setattr(denoise, "denoise", noted)
    return seeds


def test_a_take_that_was_not_decoded_is_not_diffused_again(
    two_b: tiny.Oracle, diffused: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> None:
        raise OSError("the lights went out")

    with monkeypatch.context() as night:
        night.setattr(codec, "decode_latents", broken)
        with pytest.raises(OSError, match="lights"):
            render(two_b.root, steps=2, duration=10)
    assert diffused == [7]
    (again,) = render(two_b.root, steps=2, duration=10)
    assert diffused == [7]
    assert "diffuse" not in again.timings
    found = checkpoints.find_checkpoint("turbo", two_b.root)
    request = complete.complete(Request(caption="a song", seed=7, steps=2, duration=10), found)
    (alone,) = Pipeline(found, FLOAT32).run([request], lambda *_: None)
    assert np.array_equal(again.audio.samples, alone.audio.samples)
    assert again.latents is not None
    assert alone.latents is not None
    assert np.array_equal(again.latents.frames, alone.latents.frames)


@pytest.mark.parametrize(
    "other",
    [
        *({"seed": 8}, {"steps": 3}, {"caption": "another"}, {"solver": "heun"}, {"duration": 11}, {"shift": 2.0}),
        *({"lyrics": "la"}, {"mode": "cover"}, {"mode": "cover", "strength": 0.5}, {"reference": ("a.wav",)}),
        {"mode": "repaint", "start": 0.5, "end": 1.0},
    ],
    ids=str,
)
def test_another_take_is_diffused(two_b: tiny.Oracle, diffused: list[int], other: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    soundfile.write("a.wav", 0.2 * rng.standard_normal((96_000, 2)).clip(-1, 1), 48_000)
    render(two_b.root, steps=2, duration=10)
    asked = {"steps": 2, **({"source": "a.wav"} if "mode" in other else {"duration": 10}), **other}
    render(two_b.root, **asked)
    render(two_b.root, **asked)
    assert len(diffused) == 2


@pytest.mark.usefixtures("followed")
def test_words_are_timed_later_without_a_step(tmp_path: Path, diffused: list[int]) -> None:
    tiny.build(tmp_path / "models", {**tiny.TWO_B, "lyric_alignment_layers_config": HEADS})
    asked = {"steps": 2, "duration": 10, "lyrics": SUNG, "language": "en"}
    (plain,) = render(tmp_path / "models", **asked)
    (timed,) = render(tmp_path / "models", **asked, lrc=True)
    assert diffused == [7]
    assert not plain.lines
    assert timed.lines
    assert np.array_equal(plain.audio.samples, timed.audio.samples)
