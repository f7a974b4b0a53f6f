"""Latents kept beside a take: what they hold, who uses them, and what becomes of those that belong to nothing."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from acestep_cli.audio import decode
from acestep_cli.audio import encode as formats
from acestep_cli.audio import sound as audio
from acestep_cli.audio.regular_file import file_hash
from acestep_cli.cli.app import app
from acestep_cli.engine import codec, denoise
from acestep_cli.errors import SourceError
from acestep_cli.machine.fallbacks import TILE_FRAMES
from acestep_cli.models import checkpoints, latents_file, tensor_file
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete
from acestep_cli.song.request import Request
from support import tiny
from support.command import Run
from support.places import RESULT_SCHEMA
from support.rendering import FLOAT32
from support.sounds import recording
from support.watching import Given, coded

RATE, HOP = 48_000, 1920
FINISH = formats.Finish(formats.resolve_encoding("wav"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: tiny.Oracle) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(base.root))
    return tmp_path


def run(*arguments: str) -> Result:
    flags = ["-m", "base", "--dtype", "fp32", "--steps", "2", "--seed", "7"]
    return CliRunner().invoke(app, [*arguments, *flags], catch_exceptions=False)


def made(*arguments: str) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def kept(file: str) -> np.ndarray:
    """The latents beside a file [T, C]."""
    frames: np.ndarray = load_file(latents_file.latents_path(Path(file)))[latents_file.TENSOR]
    return frames


def gain(file: str) -> float:
    header = latents_file.read_header(latents_file.latents_path(Path(file)))
    assert header is not None
    return header.gain


@torch.inference_mode()
def decoded(oracle: tiny.Oracle, file: str) -> np.ndarray:
    """What diffusers' autoencoder makes of the latents beside a file, at its level."""
    sound: np.ndarray = oracle.vae.decode(torch.from_numpy(kept(file)).T[None]).sample[0].numpy()
    return gain(file) * sound


def samples(file: str) -> np.ndarray:
    return decode.read_audio(Path(file)).samples


@pytest.fixture
def song(base: tiny.Oracle) -> str:
    """A take of ten seconds with its latents, which are not at the level of the file."""
    made("generate", "-c", "a", "-d", "10", "--bit-depth", "32f", "--keep-latents", "-o", "song.wav")
    assert gain("song.wav") != 1
    return "song.wav"


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever encodes fails."""

    def encode(*arguments: Any) -> Any:
        raise AssertionError("encoded")

    monkeypatch.setattr(codec, "encode_waveform", encode)


# What they hold


@pytest.mark.parametrize("loudness", ["peak:-1", "lufs:-20", "none"])
def test_they_decode_to_their_file_at_its_level(base: tiny.Oracle, loudness: str) -> None:
    made("generate", "-c", "a", "-d", "10.03", "--loudness", loudness, "--keep-latents", "-o", "a.flac")
    assert kept("a.flac").shape == (250, tiny.LATENT_CHANNELS)
    assert np.abs(decoded(base, "a.flac") - samples("a.flac")).max() < 1e-5


def test_a_stem_has_its_own_and_what_is_beside_stems_has_none(base: tiny.Oracle) -> None:
    recording("take.wav", 6)
    made("extract", "take.wav", "--track", "bass", "--track", "drums", "--keep-latents", "-o", "stems/")
    assert sorted(file.name for file in Path("stems").glob("*.safetensors")) == [
        f"take-{track}.flac.latents.safetensors" for track in ("bass", "drums")
    ]
    assert np.abs(decoded(base, "stems/take-bass.flac") - samples("stems/take-bass.flac")).max() < 1e-5


def test_those_of_a_repaint_are_the_source_around_its_region(base: tiny.Oracle, song: str) -> None:
    made("repaint", song, "-c", "b", "--start", "4", "--end", "6", "--bit-depth", "32f", "--keep-latents",
         "--repaint-mode", "aggressive", "-o", "next.wav")  # fmt: skip
    before, after = kept(song), kept("next.wav")
    assert np.array_equal(after[:100], before[:100])
    assert np.array_equal(after[150:], before[150:])
    assert not np.allclose(after[100:150], before[100:150])
    assert gain("next.wav") == gain(song)
    inside = slice(4 * RATE, 6 * RATE)
    assert np.abs(decoded(base, "next.wav") - samples("next.wav"))[:, inside].max() < 1e-5


def test_those_of_a_stem_for_a_region_are_silence_around_it(base: tiny.Oracle, song: str) -> None:
    made("lego", song, "--track", "bass", "--start", "4", "--end", "6", "--keep-latents", "-o", "bass.wav")
    silence = base.silence[0].T.numpy()
    assert np.array_equal(kept("bass.wav")[:100], silence[:100])
    assert np.array_equal(kept("bass.wav")[150:], silence[150:250])
    assert not np.allclose(kept("bass.wav")[100:150], silence[100:150])


def test_the_same_take_has_the_same_latents(song: str) -> None:
    first = latents_file.latents_path(Path(song)).read_bytes()
    made("generate", "-c", "a", "-d", "10", "--bit-depth", "32f", "--keep-latents", "-o", song, "--force")
    assert latents_file.latents_path(Path(song)).read_bytes() == first
    assert latents_file.latents_path(Path(song)).stat().st_mode == Path(song).stat().st_mode


# Who uses them

MODES = {
    "cover": ["-c", "b", "--close"],
    "repaint": ["-c", "b", "--start", "4", "--end", "6"],
    "lego": ["--track", "bass"],
    "extract": ["--track", "bass"],
    "complete": [],
}


@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_works_along_them_and_encodes_nothing(song: str, given: Given, mode: str) -> None:
    result = made(mode, song, *MODES[mode], "-o", "out/")
    assert f"{Path(song).absolute()} is not encoded: song.wav.latents.safetensors beside it is used" in result.stderr
    source = given.context[0][0, :, : tiny.LATENT_CHANNELS].numpy()
    around = slice(0, 100) if mode == "repaint" else slice(None)
    assert np.array_equal(source[around], kept(song)[around])
    [sidecar, *_] = Path("out").glob("*.yaml")
    beside = latents_file.latents_path(Path(song))
    header = latents_file.read_header(beside)
    assert header is not None
    fingerprint = latents_file.latents_hash(beside, header)
    assert f"source_latents: {fingerprint}" in sidecar.read_text().replace("'", "")


def test_their_fingerprint_is_of_what_sounds(song: str) -> None:
    beside = latents_file.latents_path(Path(song))
    header = latents_file.read_header(beside)
    assert header is not None
    before = latents_file.latents_hash(beside, header)
    for change, is_same in (({"audio": "0123"}, True), ({"gain": 0.5}, False), ({"vae": "0123"}, False)):
        other = header.model_copy(update=change)
        Path("other").unlink(missing_ok=True)
        latents_file.rewrite_latents(beside, other, Path("other"))
        assert (latents_file.latents_hash(Path("other"), other) == before) is is_same
    frames = latents_file.Latents(latents_file.read_latents(beside) * 2, header.hop)
    latents_file.write_latents(Path("louder"), frames, header)
    assert latents_file.latents_hash(Path("louder"), header) != before


@pytest.mark.usefixtures("deaf")
def test_a_cover_goes_by_way_of_their_codes(base: tiny.Oracle, song: str, given: Given) -> None:
    made("cover", song, "-c", "b", "-o", "b.wav")
    expected = coded(base, torch.from_numpy(kept(song))[None])
    torch.testing.assert_close(given.context[0][..., : tiny.LATENT_CHANNELS], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("deaf")
def test_what_a_repaint_leaves_as_it_was_comes_back_sample_for_sample(
    base: tiny.Oracle, song: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made goes through the autoencoder at the level of the latents, in tiles as large as the song's, and
    into the song at the level of the file.
    """
    monkeypatch.setattr(denoise, "denoise", lambda *args, hold, **options: hold.clean)
    found = checkpoints.find_checkpoint("base", base.root)
    asked = Request(mode="repaint", source=song, caption="b", start=4, end=6, repaint_mode="aggressive", seed=1)
    request = complete.complete(asked, found)
    (take,) = Pipeline(found, FLOAT32.model_copy(update={"tile_frames": TILE_FRAMES})).run(
        [request], lambda stage, done, total: None
    )
    assert np.array_equal(take.audio.samples, samples(song))
    assert take.problem == "The repaint changed nothing between 4 and 6 s, so no file was written."


@pytest.mark.usefixtures("deaf")
def test_a_song_is_extended_along_them(base: tiny.Oracle, song: str, given: Given) -> None:
    made("repaint", song, "-c", "b", "--start", "-2", "--end", "12", "--repaint-mode", "aggressive", "-o", "longer.wav")
    source, silence = given.context[0][0, :, : tiny.LATENT_CHANNELS].numpy(), base.silence[0].T.numpy()
    assert np.array_equal(source[50:300], kept(song))
    assert np.array_equal(source[:50], silence[:50])
    assert np.array_equal(samples("longer.wav")[:, 2 * RATE : 12 * RATE], samples_at(song, "24"))


def samples_at(file: str, bit_depth: str) -> np.ndarray:
    """A file as it would be at another bit depth."""
    other = Path(f"{file}.{bit_depth}.wav")
    formats.write_audio(
        other, decode.read_audio(Path(file)), formats.Finish(formats.resolve_encoding("wav", bit_depth))
    )
    return samples(str(other))


@pytest.mark.usefixtures("deaf")
def test_what_an_encoder_adds_at_the_end_is_silence(base: tiny.Oracle, song: str, given: Given) -> None:
    file = latents_file.latents_path(Path(song))
    header, frames = latents_file.read_header(file), kept(song)
    assert header is not None
    formats.write_audio(Path("x.wav"), audio.Audio(np.pad(samples(song), ((0, 0), (0, 512))), RATE), FINISH)
    Path("x.wav").replace(song)
    belonging = header.model_copy(update={"audio": file_hash(Path(song))})
    latents_file.write_latents(file, latents_file.Latents(frames, HOP), belonging)
    made("complete", song, "-o", "b.wav")
    source = given.context[0][0, :, : tiny.LATENT_CHANNELS].numpy()
    assert np.array_equal(source, np.concatenate((frames, base.silence[0].T.numpy()[:1])))


def test_a_full_disk_is_told_as_the_system_tells_it(song: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = latents_file.latents_path(Path(song))
    header, frames = latents_file.read_header(file), load_file(file)[latents_file.TENSOR]
    assert header is not None

    def full(*_: Any, **_more: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tensor_file, "dump", full)
    with pytest.raises(OSError, match=re.escape(os.strerror(28))) as error:
        latents_file.write_latents(Path("new"), latents_file.Latents(frames, HOP), header)
    assert error.value.errno == 28


# What belongs to nothing


def spoiled(song: str, how: str) -> None:
    file = latents_file.latents_path(Path(song))
    header = latents_file.read_header(file)
    assert header is not None
    kept = latents_file.Latents(load_file(file)[latents_file.TENSOR], HOP)
    if how == "edited":
        formats.write_audio(Path("x.wav"), audio.Audio(samples(song) * 0.5, RATE), FINISH)
        Path("x.wav").replace(song)
    elif how == "other tensors":
        save_file({"a": np.ones(3)}, file)
    elif how == "version":
        file.write_bytes(file.read_bytes().replace(b"acestep-latents/1", b"acestep-latents/2"))
    elif how == "zeros":  # the last KiB but one
        data = file.read_bytes()
        file.write_bytes(data[:-2048] + bytes(1024) + data[-1024:])
    elif how == "one bit":
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif how == "gain":  # of the header, which is not what was written any more
        file.write_bytes(re.sub(rb"(gain\W+)(\d)", lambda found: found[1] + b"7", file.read_bytes(), count=1))
    elif how == "autoencoder":
        latents_file.write_latents(file, kept, header.model_copy(update={"vae": "other"}))
    elif how == "length":
        latents_file.write_latents(file, kept, header.model_copy(update={"samples": header.samples - HOP}))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("edited", "these are of another song.wav than is there now"),
        ("other tensors", "this is not what --keep-latents writes"),
        ("version", "this is of another version of this program"),
        ("autoencoder", "these are of another autoencoder"),
        ("length", "these are of 9.96 s, and 10 s can be read"),
    ],
)
def test_what_does_not_belong_to_the_source_is_told_and_not_used(song: str, how: str, sentence: str) -> None:
    spoiled(song, how)
    repaint = ["repaint", song, "-c", "b", "--start", "4", "--end", "6"]
    with_it = made(*repaint, "-o", "with.flac")
    file = latents_file.latents_path(Path(song))
    warning = f"{file.absolute()}: {sentence}; the source is encoded anew."
    assert with_it.stderr.count(warning) == 1
    assert "is not encoded" not in with_it.stderr
    dry = made(*repaint, "-o", "dry.flac", "--dry-run")
    assert warning in dry.stderr
    file.unlink()
    without = made(*repaint, "-o", "without.flac")
    assert "latents" not in without.stderr
    assert Path("with.flac").read_bytes() == Path("without.flac").read_bytes()


@pytest.mark.parametrize("how", ["zeros", "one bit", "gain"])
@pytest.mark.parametrize("flags", [[], ["--dry-run"]], ids=["render", "dry"])
def test_damaged_ones_are_refused_until_they_are_deleted(song: str, how: str, flags: list[str]) -> None:
    spoiled(song, how)
    repaint = ["repaint", song, "-c", "b", "--start", "4", "--end", "6", "-o", "a.flac"]
    result = run(*repaint, *flags)
    file = latents_file.latents_path(Path(song)).absolute()
    assert result.exit_code == 5
    assert f"{file} is damaged, as its checksum tells." in " ".join(result.stderr.split())
    assert "Delete it; the source is encoded instead." in " ".join(result.stderr.split())
    assert file.exists()
    assert not Path("a.flac").exists()
    file.unlink()
    made(*repaint, *flags)


def damage_header(song: str, how: str) -> None:
    file = latents_file.latents_path(Path(song))
    frames = load_file(file)[latents_file.TENSOR]
    with safe_open(file, framework="np") as opened:
        notes = {latents_file.METADATA: opened.metadata()[latents_file.METADATA]}
    if how == "words":
        file.write_text("la la")
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif how == "header cut":
        file.write_bytes(file.read_bytes()[:60])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "zeros in front":
        file.write_bytes(bytes(4096) + file.read_bytes()[4096:])
    elif how == "offsets":
        file.write_bytes(re.sub(rb"(data_offsets...)0,", rb"\g<1>4,", file.read_bytes(), count=1))
    elif how == "frames":
        save_file({latents_file.TENSOR: frames[:-9].copy()}, file, notes)
    elif how == "flat":
        save_file({latents_file.TENSOR: frames.reshape(-1)}, file, notes)
    elif how == "half":
        save_file({latents_file.TENSOR: frames.astype(np.float16)}, file, notes)
    elif how == "another name":
        save_file({"x": frames}, file, notes)
    elif how == "no samples":
        file.write_bytes(re.sub(rb"(samples\W+)\d", rb"\g<1>-", file.read_bytes(), count=1))
    elif how == "no json":
        save_file({latents_file.TENSOR: frames}, file, {latents_file.METADATA: "{"})


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("words", "it is not a safetensors file"),
        ("empty", "it is not a safetensors file"),
        ("cut", "it is cut short"),
        ("header cut", "it is not a safetensors file"),
        ("zeros in front", "it is not a safetensors file"),
        ("offsets", "it has a header that contradicts itself: latents"),
        ("frames", "latents is [241, 8] in F32, and its header says [250, channels] in F32"),
        ("flat", "latents is [2000] in F32"),
        ("half", "latents is [250, 8] in F16"),
        ("another name", "it holds no tensor latents"),
        ("no samples", "its header has no usable"),
        ("no json", "its header has no usable all"),
    ],
)
def test_a_damaged_header_is_refused_too(song: str, how: str, why: str) -> None:
    damage_header(song, how)
    file = latents_file.latents_path(Path(song)).absolute()
    result = run("repaint", song, "-c", "b", "--start", "4", "--end", "6", "-o", "a.flac")
    said = " ".join(result.stderr.split())
    assert result.exit_code == 5, said
    assert f"{file} is damaged: {why}" in said
    assert not Path("a.flac").exists()


def test_those_of_an_earlier_version_are_used_with_a_remark(song: str) -> None:
    file = latents_file.latents_path(Path(song))
    with safe_open(file, framework="np") as opened:
        notes = {latents_file.METADATA: opened.metadata()[latents_file.METADATA]}
    save_file({latents_file.TENSOR: load_file(file)[latents_file.TENSOR]}, file, notes)
    result = made("repaint", song, "-c", "b", "--start", "4", "--end", "6", "-o", "a.flac")
    assert result.stderr.count("has no checksum, as an earlier version wrote it") == 1
    assert "is not encoded: song.wav.latents.safetensors beside it is used" in result.stderr


def test_damage_between_plan_and_render_is_told(song: str) -> None:
    spoiled(song, "zeros")
    with pytest.raises(SourceError, match="is damaged, as its checksum tells"):
        latents_file.read_latents(latents_file.latents_path(Path(song)))


def test_other_tags_give_damaged_latents_no_new_checksum(song: str) -> None:
    spoiled(song, "zeros")
    file = latents_file.latents_path(Path(song))
    assert not latents_file.latents_belong(file, Path(song))
    header = latents_file.read_header(file)
    assert header is not None
    with pytest.raises(SourceError):
        latents_file.rewrite_latents(file, header, Path("new"))
    assert not Path("new").exists()


def test_they_cannot_be_moved_by_part_of_a_frame(song: str) -> None:
    result = made("repaint", song, "-c", "b", "--start", "-1.01", "--end", "0", "-o", "a.flac")
    assert "they cannot be moved by 1.01 s, which is not a multiple of 0.04 s; the source is encoded" in result.stderr


def test_a_take_made_along_them_is_not_the_take_made_without(song: str) -> None:
    repaint = ["repaint", song, "-c", "b", "--start", "4", "--end", "6", "-o", "a.flac", "--json"]
    assert statuses(made(*repaint)) == ["written"]
    assert statuses(made(*repaint)) == ["skipped"]
    latents_file.latents_path(Path(song)).unlink()
    assert run(*repaint).exit_code == 9


def replayed(*words: str) -> Result:
    return CliRunner().invoke(app, ["replay", *words], catch_exceptions=False)


def test_a_replay_says_that_they_are_gone_or_came_since(song: str) -> None:
    beside = latents_file.latents_path(Path(song))
    repaint = ["repaint", song, "-c", "b", "--start", "4", "--end", "6"]
    made(*repaint, "-o", "along.wav")
    assert replayed("along.wav").exit_code == 0
    away = beside.rename("away")
    made(*repaint, "-o", "without.wav")
    for words in (["along.wav"], ["along.wav", "--tags"]):
        result = replayed(*words)
        assert result.exit_code == 6, result.stderr
        assert "song.wav.latents.safetensors is gone or another." in result.stderr
    away.rename(beside)
    assert "because song.wav.latents.safetensors was not there then." in replayed("without.wav").stderr
    beside.unlink()
    text = Path("along.wav.yaml").read_text()
    Path("along.wav.yaml").write_text(text.replace("caption: b", "caption: c"))
    assert "somebody changed caption in it." in replayed("along.wav").stderr


# Files


def statuses(result: Result) -> list[str]:
    content = json.loads(result.stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    return [entry["status"] for entry in content["outputs"]]


def test_they_are_reported_and_numbered_as_their_takes(acestep: Run) -> None:
    song = ["generate", "-c", "song", "-d", "10", "--keep-latents", "--json"]
    for first in (1, 3):
        result = acestep(*song, "-n", "2")
        names = [f"song-{number}.flac" for number in (first, first + 1)]
        assert [entry["latents"] for entry in json.loads(result.stdout)["outputs"]] == [
            f"{name}.latents.safetensors" for name in names
        ]
        assert all(latents_file.latents_belong(latents_file.latents_path(Path(name)), Path(name)) for name in names)
    plain = json.loads(acestep("generate", "-c", "song", "-d", "10", "--json").stdout)
    assert plain["outputs"][0]["latents"] is None


def test_a_take_without_its_latents_is_not_what_was_asked_for(acestep: Run) -> None:
    song = ["generate", "-c", "a", "-d", "10", "-o", "a.flac"]
    acestep(*song, "--seed", "3")
    refusal = acestep(*song, "--keep-latents")
    assert (refusal.exit_code, refusal.stdout) == (9, "")
    assert "a.flac exists already without its latents." in refusal.stderr
    assert "--seed 3 --force makes both again." in refusal.stderr
    assert statuses(acestep(*song, "--keep-latents", "--seed", "3", "--force", "--json")) == ["written"]
    assert statuses(acestep(*song, "--keep-latents", "--json")) == ["skipped"]
    Path("a.flac.latents.safetensors").write_text("la")
    assert acestep(*song, "--keep-latents").exit_code == 9


def test_a_take_that_is_kept_is_touched_with_its_latents(acestep: Run) -> None:
    song = ["generate", "-c", "a", "-d", "10", "-o", "a.flac", "--keep-latents"]
    acestep(*song)
    file = Path("a.flac.latents.safetensors")
    before = file.stat().st_mtime_ns
    acestep(*song)
    assert file.stat().st_mtime_ns > before


def test_latents_without_their_take_make_room(acestep: Run) -> None:
    song = ["generate", "-c", "a", "-d", "10", "-o", "a.flac", "--keep-latents"]
    acestep(*song)
    Path("a.flac").unlink()
    assert acestep(*song).exit_code == 0
    assert latents_file.latents_belong(Path("a.flac.latents.safetensors"), Path("a.flac"))
    for file in ("a.flac", "a.flac.yaml"):
        Path(file).unlink()
    assert acestep(*song).exit_code == 0
    for file in ("a.flac", "a.flac.yaml"):
        Path(file).unlink()
    Path("a.flac.latents.safetensors").write_text("mine")
    refusal = acestep(*song)
    assert refusal.exit_code == 9
    assert "a.flac.latents.safetensors exists already." in refusal.stderr
    assert Path("a.flac.latents.safetensors").read_text() == "mine"


def test_a_new_take_without_latents_leaves_none_of_the_old_one(acestep: Run) -> None:
    song = ["generate", "-c", "a", "-d", "10", "-o", "a.flac"]
    acestep(*song, "--keep-latents")
    acestep(*song, "--force", "--seed", "5")
    assert not Path("a.flac.latents.safetensors").exists()
    Path("a.flac.latents.safetensors").write_text("mine")
    acestep(*song, "--force", "--seed", "6")
    assert Path("a.flac.latents.safetensors").read_text() == "mine"


@pytest.mark.parametrize("how", ["zeros", "cut", "header cut"])
def test_damaged_ones_of_an_old_take_are_replaced_or_removed_with_it(acestep: Run, how: str) -> None:
    song = ["generate", "-c", "a", "-d", "10", "-o", "a.flac"]
    kept = Path("a.flac.latents.safetensors")
    acestep(*song, "--keep-latents")
    whole = kept.read_bytes()
    damaged = {"zeros": whole[:-2048] + bytes(2048), "cut": whole[:-100], "header cut": whole[:60]}[how]
    kept.write_bytes(damaged)
    assert latents_file.is_ours(kept)
    assert acestep(*song, "--keep-latents").exit_code == 9
    assert kept.read_bytes() == damaged
    assert acestep(*song, "--keep-latents", "--force").exit_code == 0
    assert latents_file.latents_belong(kept, Path("a.flac"))
    kept.write_bytes(damaged)
    assert acestep(*song, "--force", "--seed", "5").exit_code == 0
    assert not kept.exists()
    kept.write_bytes(damaged)
    for file in ("a.flac", "a.flac.yaml"):
        Path(file).unlink()
    assert acestep(*song, "--keep-latents").exit_code == 0
    assert latents_file.latents_belong(kept, Path("a.flac"))


@pytest.mark.parametrize("content", [b"", bytes(4096), b"mine", None], ids=["empty", "zeros", "text", "folder"])
def test_what_another_program_may_have_written_is_not_ours(content: bytes | None) -> None:
    file = Path("a.flac.latents.safetensors")
    file.mkdir() if content is None else file.write_bytes(content)
    assert not latents_file.is_ours(file)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["-o", "-"], "--output - leaves no file beside which --keep-latents could keep them."),
        (["--fade-out", "2"], "--keep-latents: the latents of a faded song would not match it."),
    ],
    ids=str,
)
def test_where_they_cannot_be_kept_is_refused(acestep: Run, flags: list[str], sentence: str) -> None:
    refusal = acestep("generate", "-c", "a", "-d", "10", "--keep-latents", *flags)
    assert (refusal.exit_code, refusal.stdout) == (2, "")
    assert sentence in refusal.stderr
    assert not list(Path().iterdir())


def test_a_song_that_fails_its_check_leaves_no_latents(acestep: Run) -> None:
    assert acestep("generate", "-c", "all silent", "-d", "10", "--keep-latents", "-o", "a.flac").exit_code == 6
    assert not list(Path().iterdir())


def test_a_dry_run_says_that_they_will_be_used(song: str) -> None:
    result = made("repaint", song, "-c", "b", "--start", "4", "--end", "6", "-o", "a.flac", "--dry-run")
    assert "is not encoded: song.wav.latents.safetensors beside it is used" in result.stderr
