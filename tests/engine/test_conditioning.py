"""What the diffusion is given in each mode, and what comes of it, on tiny random checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from diffusers.models.autoencoders.autoencoder_oobleck import OobleckDiagonalGaussianDistribution
from torch import Tensor

from acestep_cli import solvers
from acestep_cli.audio import decode, splice
from acestep_cli.audio.sound import Audio, one_second_blocks
from acestep_cli.audio.splice import SplicedParts
from acestep_cli.engine import codec, conditioning, denoise
from acestep_cli.models import checkpoints
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete, modes
from acestep_cli.song.request import Request
from acestep_cli.take import Take
from support import diffusers_run, tiny
from support.rendering import FLOAT32
from support.watching import Given, coded

RATE, HOP, CHANNELS = 48_000, 1920, tiny.LATENT_CHANNELS


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise [2, N] that swells and falls, not in step."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * RATE)
    swell = 0.5 + 0.4 * np.sin(np.arange(samples) / RATE * 2 + seed)
    return (0.3 * swell * rng.standard_normal((2, samples))).clip(-0.9, 0.9).astype(np.float32)


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., str]:
    """Writes a recording of so many seconds in 24 bits, and gives its path."""

    def write(seconds: float = 6.0, seed: int = 0) -> str:
        file = tmp_path / f"take-{seconds:g}-{seed}.wav"
        soundfile.write(file, sound(seconds, seed).T, RATE, subtype="PCM_24")
        return str(file)

    return write


def render(oracle: tiny.Oracle, model: str = "base", **asked: Any) -> list[Take]:
    found = checkpoints.find_checkpoint(model, oracle.root)
    request = complete.complete(Request(**{"seed": 7, "steps": 4, **asked}), found)
    return list(Pipeline(found, FLOAT32).run([request], lambda stage, done, total: None))


@torch.inference_mode()
def raw(oracle: tiny.Oracle, file: str) -> Tensor:
    """The mean latents of a recording [1, T, C], by diffusers."""
    samples, _ = soundfile.read(file, dtype="float32")
    return oracle.vae.encode(torch.from_numpy(samples.T)[None]).latent_dist.mode().transpose(1, 2)


def close(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and bool((ours - theirs).norm() / theirs.norm() < 1e-4)


@pytest.mark.parametrize(
    ("asked", "instruction", "latents", "region"),
    [
        ({"mode": "cover"}, "Generate audio semantic tokens based on the given conditions:", "coded", None),
        (
            {"mode": "cover", "close": True},
            "Generate audio semantic tokens based on the given conditions:",
            "raw",
            None,
        ),
        (
            {"mode": "repaint", "start": 2, "end": 4},
            "Repaint the mask area based on the given conditions:",
            "erased",
            (50, 100),
        ),
        (
            {"mode": "lego", "track": "bass"},
            "Generate the BASS track based on the audio context:",
            "raw",
            None,
        ),
        (
            {"mode": "lego", "track": "backing vocals", "start": 2, "end": 4},
            "Generate the BACKING_VOCALS track based on the audio context:",
            "raw",
            (50, 100),
        ),
        ({"mode": "extract", "track": "vocals"}, "Extract the VOCALS track from the audio:", "raw", None),
        (
            {"mode": "complete", "track": ["drums", "bass"]},
            "Complete the input track with DRUMS | BASS:",
            "raw",
            None,
        ),
        ({"mode": "complete"}, "Complete the input track:", "raw", None),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_source_mask_and_instruction(
    base: tiny.Oracle,
    take: Callable[..., str],
    given: Given,
    asked: dict[str, Any],
    instruction: str,
    latents: str,
    region: tuple[int, int] | None,
) -> None:
    """The table of `docs/specification.md` 8.1, each row against what diffusers' networks make of the source."""
    file = take(6)
    render(base, caption="a", source=file, **asked)
    heard, silence = raw(base, file), base.silence.transpose(1, 2)
    mask = torch.ones(1, 150, CHANNELS)
    if region is not None:
        mask[:, : region[0]] = mask[:, region[1] :] = 0
    expected = {
        "raw": heard,
        "coded": coded(base, heard),
        "erased": torch.cat((heard[:, :50], silence[:, 50:100], heard[:, 100:]), dim=1),
    }[latents]
    assert given.prompts == [instruction]
    assert close(given.context[0][..., :CHANNELS], expected)
    assert torch.equal(given.context[0][..., CHANNELS:], mask)


def test_a_short_source_is_filled_up_with_silence_and_comes_out_as_long_as_it_was(
    base: tiny.Oracle, take: Callable[..., str], given: Given
) -> None:
    file = take(2.51)
    (made,) = render(base, caption="a", mode="complete", source=file)
    assert made.audio.samples.shape == (2, round(2.51 * RATE))
    latents = given.context[0][..., :CHANNELS]
    assert latents.shape[1] == 128
    # The 63rd frame is not whole, and the encoder looks seven frames ahead.
    assert close(latents[:, :55], raw(base, file)[:, :55])
    assert torch.equal(latents[:, 63:], base.silence.transpose(1, 2)[:, : 128 - 63])


# Cover


@pytest.mark.parametrize(
    ("seconds", "samples"),
    [(10, 10 * RATE), (10.0213, 10 * RATE), (10.0399, 10 * RATE), (10.28, 257 * HOP), (1.0137, round(1.0137 * RATE))],
)
def test_a_cover_at_strength_0_is_text_to_music(
    two_b: tiny.Oracle, take: Callable[..., str], seconds: float, samples: int
) -> None:
    """Whatever the length of the source, also where the model would make no song as short."""
    found = checkpoints.find_checkpoint("turbo", two_b.root)
    asked = {"caption": "a", "takes": 2, "seed": 7, "steps": 4}
    cover = complete.complete(Request(mode="cover", source=take(seconds), strength=0, **asked), found)
    plain = complete.complete(Request(**asked), found).model_copy(update={"duration": cover.duration})
    made = list(Pipeline(found, FLOAT32).run([plain, cover], lambda stage, done, total: None))
    assert len(made) == 4
    for one, other in zip(made[:2], made[2:], strict=True):
        assert other.audio.samples.shape == (2, samples)
        assert np.array_equal(one.audio.samples, other.audio.samples)


@pytest.mark.parametrize(("strength", "turn"), [("40%", 3), ("50%", 4), (0.99, 7), (1, None)])
def test_a_cover_goes_over_to_text_to_music_at_its_strength(
    two_b: tiny.Oracle,
    take: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    given: Given,
    strength: Any,
    turn: int | None,
) -> None:
    from acestep_cli.engine.dit import DiT

    contexts: list[Tensor] = []
    forward = DiT.forward
    monkeypatch.setattr(
        DiT,
        "forward",
        lambda self, x, t, context, memory: contexts.append(context) or forward(self, x, t, context, memory),
    )
    file = take(6)
    render(two_b, "turbo", caption="a", mode="cover", source=file, strength=strength, steps=8)
    silent = [bool(torch.equal(one[..., :CHANNELS], two_b.silence.transpose(1, 2)[:, :150])) for one in contexts]
    assert silent == [turn is not None and step >= turn for step in range(8)]
    assert all((one[..., CHANNELS:] == 1).all() for one in contexts)
    filled = ["Fill the audio semantic mask based on the given conditions:"] * (turn is not None)
    assert given.prompts == ["Generate audio semantic tokens based on the given conditions:", *filled]


def test_a_cover_may_start_from_the_source(two_b: tiny.Oracle, take: Callable[..., str], given: Given) -> None:
    file = take(6)
    whole = solvers.timestep_schedule(8, 3.0)
    for kept, times in ((0.1, whole[2:]), (0.5, whole[6:]), (1, whole[7:])):
        render(two_b, "turbo", caption="a", mode="cover", source=file, noise_strength=kept, steps=8)
        assert given.schedule[-1] == times  # from the time nearest to what is left of the noise
        assert close(given.options[-1]["start"], raw(two_b, file))  # the sound itself, not its codes
    render(two_b, "turbo", caption="a", mode="cover", source=file)
    assert given.options[-1]["start"] is None


# Repaint


def outside(made: Take, file: str, *regions: tuple[float, float], fade: float) -> np.ndarray:
    """The difference to the source outside of regions and crossfades, in seconds."""
    original = decode.read_audio(Path(file)).samples
    difference = np.abs(made.audio.samples - original)
    for start, end in regions:
        difference[:, max(round((start - fade) * RATE), 0) : round((end + fade) * RATE)] = 0
    return difference


def measured(song: Audio, parts: SplicedParts | None) -> dict[str, float]:
    """The checks of a spliced song."""
    assert parts is not None
    meter = splice.SpliceMeter(song, parts, song.sample_rate)
    for block in one_second_blocks(song):
        meter.add(block)
    return meter.checks()


@pytest.mark.parametrize(
    ("how", "fade"),
    [({"repaint_mode": "aggressive"}, 0), ({"repaint_mode": "conservative"}, 0.05), ({}, 0.025),
     ({"repaint_strength": 0.8}, 0.01)],
    ids=str,
)  # fmt: skip
def test_a_repaint_leaves_what_is_outside_alone(
    two_b: tiny.Oracle, take: Callable[..., str], how: dict[str, Any], fade: float
) -> None:
    file = take(6)
    (made,) = render(two_b, "turbo", caption="a", mode="repaint", source=file, start=2.001, end=4, **how)
    difference = outside(made, file, (2.001, 4), fade=fade)
    assert difference.max() == 0
    original = decode.read_audio(Path(file)).samples
    region = slice(round(2.001 * RATE), 4 * RATE)
    assert np.abs(made.audio.samples - original)[:, region].max() > 0.01
    changed = np.flatnonzero((made.audio.samples != original).any(axis=0)) / RATE
    assert changed.min() == pytest.approx(2.001 - fade, abs=0.001)
    assert changed.max() == pytest.approx(4 + fade, abs=0.001)
    checks = measured(made.audio, made.splice)
    assert checks["outside_difference"] == 0
    assert checks["inside_change_db"] > -40
    assert {"seam_1_db", "seam_2_db"} < set(checks)
    assert made.problem is None


def test_how_a_repaint_holds_on_to_its_source(two_b: tiny.Oracle, take: Callable[..., str], given: Given) -> None:
    for how, held in (
        ({"repaint_mode": "aggressive"}, 0),
        ({"repaint_mode": "conservative"}, 1),
        ({}, 0.5),
        ({"repaint_strength": 0.25}, 0.75),
        ({"repaint_strength": 1}, 0),
    ):
        render(two_b, "turbo", caption="a", mode="repaint", source=take(6), start=2, end=4, **how)
        hold = given.options[-1]["hold"]
        assert hold.share == held
        around = (hold.blend > 0).sum() - 50  # frames, on both sides
        assert around == 2 * round(25 * held)
    inside = given.options[-1]["hold"].inside[0, :, 0]
    assert inside.nonzero().flatten().tolist() == list(range(50, 100))


@pytest.mark.parametrize(("checkpoint", "model", "puts_back"), [("two_b", "turbo", False), ("base", "base", True)])
@pytest.mark.parametrize("how", [{"repaint_mode": "conservative"}, {"repaint_strength": 0}], ids=str)
def test_only_a_checkpoint_that_is_no_turbo_has_the_source_put_back_after_the_last_step(
    request: pytest.FixtureRequest,
    take: Callable[..., str],
    given: Given,
    checkpoint: str,
    model: str,
    puts_back: bool,
    how: dict[str, Any],
) -> None:
    oracle = request.getfixturevalue(checkpoint)
    (made,) = render(oracle, model, caption="a", mode="repaint", source=take(6), start=2, end=4, **how)
    hold, latents = given.options[-1]["hold"], given.latents[-1]
    outside = hold.inside[0, :, 0] == 0
    clean = hold.clean.to(latents)
    assert torch.equal(latents[:, outside], clean[:, outside]) == puts_back
    # What the crossfade mixes with the source beside the region, a second on both sides, is something else on turbo.
    assert made.latents is not None
    settled = torch.from_numpy(made.latents.frames)
    beside = slice(40, 50)
    assert torch.allclose(settled[beside], clean[0, beside], atol=1e-5) == puts_back
    assert torch.equal(settled[:20], clean[0, :20])


@pytest.mark.parametrize("schedule", [(1.0, 0.5, 0.0), (1.0, 0.7, 0.3, 0.0)], ids=str)
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_source_is_put_back_after_a_share_of_the_steps(schedule: tuple[float, ...], share: float) -> None:
    noise, clean = torch.randn(1, 8, 3), torch.zeros(1, 8, 3)
    inside = torch.zeros(1, 8, 1)
    seen = []

    def dit(x: Tensor, times: Tensor, context: Tensor, memory: Any) -> Tensor:
        seen.append(x)
        return torch.ones_like(x)

    def run(*, last_step: bool) -> Tensor:
        hold = denoise.SourceHold(share, clean, inside, inside, last_step)
        return denoise.denoise(
            dit, noise, denoise.DiffusionCondition(torch.zeros(1, 8, 4), None), denoise.SamplerSettings(schedule),
            seeds=[0], progress=lambda done, total: None, hold=hold,
        )  # fmt: skip

    turbo, other = run(last_step=False), run(last_step=True)
    held = round((len(schedule) - 1) * share)
    assert torch.equal(seen[1], schedule[1] * noise)  # on the way from the clean latents to the noise
    assert torch.equal(turbo, other) == (held < len(schedule) - 1)
    assert torch.equal(other, clean) == (held == len(schedule) - 1)
    assert not torch.equal(turbo, clean)


def test_latents_are_blended_around_a_region() -> None:
    layout = conditioning.SourceLayout(150, 150 * HOP, HOP, RATE, ((50 * HOP, 100 * HOP),))
    made, heard = torch.ones(1, 150, 3), torch.zeros(1, 150, 3)
    hold = denoise.SourceHold(1, heard, layout.mask(), layout.frame_weights(4), last_step=False)
    weight = conditioning.crossfade_latents(made, hold)[0, :, 0]
    ramp = torch.tensor([0.2, 0.4, 0.6, 0.8])  # linspace(0, 1, 6) without its ends
    assert torch.equal(weight[50:100], torch.ones(50))
    torch.testing.assert_close(weight[46:50], ramp)
    torch.testing.assert_close(weight[100:104], ramp.flip(0))
    assert weight.sum() == pytest.approx(54)
    edge = conditioning.SourceLayout(150, 150 * HOP, HOP, RATE, ((2 * HOP, 150 * HOP),))
    torch.testing.assert_close(edge.frame_weights(4)[0, :3, 0], torch.tensor([0.6, 0.8, 1]))


@pytest.mark.parametrize(
    ("asked", "regions", "frames"),
    [
        ({"start": -2, "end": 0}, [(0, 2)], 200),
        ({"start": -2}, [(0, 2)], 200),
        ({"start": -2, "end": 3}, [(0, 5)], 200),
        ({"start": 6, "end": 8}, [(6, 8)], 200),
        ({"end": 8}, [(6, 8)], 200),
        ({"start": 5, "end": 8}, [(5, 8)], 200),
        ({"start": -2, "end": 8}, [(0, 2), (8, 10)], 250),
        ({"start": 4}, [(4, 6)], 150),
        ({"end": 1}, [(0, 1)], 150),
    ],
    ids=str,
)
def test_a_song_is_extended_at_its_ends(
    two_b: tiny.Oracle,
    take: Callable[..., str],
    given: Given,
    asked: dict[str, Any],
    regions: list[tuple[int, int]],
    frames: int,
) -> None:
    file = take(6)
    (made,) = render(two_b, "turbo", caption="a", mode="repaint", source=file, repaint_mode="aggressive", **asked)
    assert made.audio.samples.shape == (2, frames * HOP)
    assert made.request.duration == frames / 25
    mask = given.context[0][0, :, -1]
    wanted = [any(start <= frame / 25 < end for start, end in regions) for frame in range(frames)]
    assert mask.tolist() == wanted
    before = max(0, -asked.get("start", 0))
    original = np.zeros((2, frames * HOP), np.float32)
    original[:, before * RATE : before * RATE + 6 * RATE] = decode.read_audio(Path(file)).samples
    same = np.ones(frames * HOP, bool)
    for start, end in regions:
        same[start * RATE : end * RATE] = False
    assert np.array_equal(made.audio.samples[:, same], original[:, same])
    assert np.abs(made.audio.samples[:, ~same]).max() > 0.01
    checks = measured(made.audio, made.splice)
    assert len([name for name in checks if name.startswith("seam")]) == len(regions) + (
        regions[0][0] > 0 and regions[0][1] < frames / 25
    )


def test_a_repaint_that_changes_nothing_is_a_problem(
    two_b: tiny.Oracle, take: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = take(6)
    monkeypatch.setattr(
        "acestep_cli.engine.stages.decode", lambda *args: torch.from_numpy(decode.read_audio(Path(file)).samples)
    )
    (made,) = render(two_b, "turbo", caption="a", mode="repaint", source=file, start=2, end=4)
    assert made.problem == "The repaint changed nothing between 2 and 4 s, so no file was written."


def test_peaks_are_brought_down_in_the_region_alone() -> None:
    quiet = torch.full((2, 10 * HOP), 0.9)
    layout = conditioning.SourceLayout(10, 10 * HOP, HOP, RATE, ((2 * HOP, 4 * HOP),), quiet)
    song = conditioning.splice_waveform(layout, torch.full((2, 10 * HOP), 3.0), modes.Splice("source"))
    assert torch.equal(song[:, : 2 * HOP], quiet[:, : 2 * HOP])
    assert torch.equal(song[:, 4 * HOP :], quiet[:, 4 * HOP :])
    assert torch.equal(song[:, 2 * HOP : 4 * HOP], torch.ones(2, 2 * HOP))


def test_a_click_stands_out_in_the_checks() -> None:
    wave = 0.5 * torch.sin(torch.arange(10 * HOP) / 40).expand(2, -1)
    layout = conditioning.SourceLayout(10, 10 * HOP, HOP, RATE, ((4 * HOP, 10 * HOP),), wave)
    other = 0.5 * torch.sin(torch.arange(10 * HOP) / 40 + 3).expand(2, -1)

    def seam(how: modes.Splice) -> float:
        song = Audio(conditioning.splice_waveform(layout, other, how).numpy(), RATE)
        return measured(song, conditioning.spliced_parts(layout, how))["seam_1_db"]

    hard, soft = seam(modes.Splice("source")), seam(modes.Splice("source", fade=0.02))
    assert hard > -5 > -20 > soft


# Tracks


def test_a_track_for_a_region_is_silent_elsewhere_and_in_the_mix_with_its_source(
    base: tiny.Oracle, take: Callable[..., str]
) -> None:
    file = take(6)
    asked = {"mode": "lego", "track": "bass", "source": file, "mix": True}
    stem, mix = render(base, start=2, end=4, **asked)
    assert [(made.kind, made.track) for made in (stem, mix)] == [("stem", "bass"), ("mix", None)]
    assert not stem.audio.samples[:, : round(1.99 * RATE) - 1].any()
    assert not stem.audio.samples[:, round(4.01 * RATE) + 1 :].any()
    assert np.abs(stem.audio.samples[:, 2 * RATE : 4 * RATE]).max() > 0.01
    original = decode.read_audio(Path(file)).samples
    assert np.array_equal(mix.audio.samples, original + stem.audio.samples)
    whole, _ = render(base, **asked)
    assert np.abs(whole.audio.samples[:, : 2 * RATE]).max() > 0.01


def test_stems_and_residual_add_up_to_the_source(base: tiny.Oracle, take: Callable[..., str]) -> None:
    file = take(6)
    made = render(base, mode="extract", track=["vocals", "drums"], source=file, takes=2)
    labels = [(one.kind, one.track, one.number) for one in made]
    assert sorted(labels, key=str) == sorted(
        [(kind, track, number) for number in (1, 2)
         for kind, track in (("stem", "vocals"), ("stem", "drums"), ("residual", None))], key=str
    )  # fmt: skip
    original = decode.read_audio(Path(file)).samples
    for number in (1, 2):
        of_take = [one for one in made if one.number == number]
        total = sum(one.audio.samples for one in of_take)
        assert np.abs(total - original).max() < 1e-5
        [residual] = [one for one in of_take if one.kind == "residual"]
        assert residual.residual_of == pytest.approx(np.sqrt((original.astype(np.float64) ** 2).mean()))
        assert {one.request.seed for one in of_take} == {6 + number}
    (alone, _) = render(base, mode="extract", track="drums", source=file)
    [batched] = [one for one in made if one.track == "drums" and one.number == 1]
    assert np.array_equal(alone.audio.samples, batched.audio.samples)
    assert alone.request == batched.request.model_copy(update={"takes": 1})


# All of them

ALL = {
    "generate": {"duration": 10},
    "cover": {"strength": 0.5, "noise_strength": 0.2},
    "repaint": {"start": 1, "end": 2},
    "lego": {"track": "bass"},
    "extract": {"track": "vocals"},
    "complete": {"track": ["bass", "drums"]},
}


@pytest.mark.parametrize("mode", ALL)
@pytest.mark.parametrize("solver", ["euler", "sde"])
def test_a_take_alone_equals_the_take_in_a_batch(
    base: tiny.Oracle, take: Callable[..., str], mode: str, solver: str
) -> None:
    about = {"source": take(6)} if modes.MODES[mode].has_source else {}
    asked = {"mode": mode, "caption": "a", "reference": take(2, seed=2), "solver": solver, "steps": 2, **about}
    asked |= ALL[mode]
    batch = [made for made in render(base, takes=2, **asked) if made.kind in ("take", "stem")]
    assert [made.request.seed for made in batch] == [7, 8]
    for made in batch:
        alone = render(base, **{**asked, "seed": made.request.seed})[0]
        assert np.array_equal(alone.audio.samples, made.audio.samples)
        replayed = render(base, **made.request.model_dump())[0]
        assert np.array_equal(replayed.audio.samples, made.audio.samples)
    assert not np.array_equal(batch[0].audio.samples, batch[1].audio.samples)


def test_requests_of_several_modes_share_a_run(base: tiny.Oracle, take: Callable[..., str]) -> None:
    found = checkpoints.find_checkpoint("base", base.root)
    about = {"caption": "a", "seed": 7, "steps": 2}
    requests = [
        complete.complete(
            Request(mode=mode, **about, **more, **({} if mode == "generate" else {"source": take(6)})), found
        )
        for mode, more in ALL.items()
    ]
    made = list(Pipeline(found, FLOAT32).run(requests, lambda stage, done, total: None))
    assert [one.request.mode for one in made] == [*list(ALL)[:4], "extract", "extract", "complete"]
    (alone,) = Pipeline(found, FLOAT32).run([requests[-1]], lambda stage, done, total: None)
    assert np.array_equal(alone.audio.samples, made[-1].audio.samples)


# Where diffusers does as we do


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> tiny.Oracle:
    """A base checkpoint that listens to all of the tiny silence where there is no reference, as diffusers does."""
    return tiny.build(
        tmp_path_factory.mktemp("peer") / "models",
        {**tiny.BASE, "timbre_fix_frame": 400},
        name="acestep-v15-base",
    )


@pytest.mark.parametrize(
    ("asked", "theirs"),
    [
        ({"mode": "cover"}, {"task_type": "cover"}),
        ({"mode": "extract", "track": "vocals"}, {"task_type": "extract", "track_name": "vocals"}),
        ({"mode": "lego", "track": "bass"}, {"task_type": "lego", "track_name": "bass"}),
        (
            {"mode": "complete", "track": ["drums", "bass"]},
            {"task_type": "complete", "complete_track_classes": ["drums", "bass"]},
        ),
        (
            {"mode": "repaint", "start": 2, "end": 4, "repaint_mode": "aggressive"},
            {"task_type": "repaint", "repainting_start": 2.0, "repainting_end": 4.0},
        ),
    ],
    ids=lambda value: value.get("mode", ""),
)
def test_diffusers_pipeline_makes_the_same_latents(
    peer: tiny.Oracle,
    take: Callable[..., str],
    given: Given,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
    theirs: dict[str, Any],
) -> None:
    """From prompt and recording to the latents as they leave the loop, before any blend or splice. Their autoencoder is
    made to give the mean, where it draws unseeded.
    """
    monkeypatch.setattr(OobleckDiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    file = take(6)
    song = {"caption": diffusers_run.PROMPT["prompt"], "lyrics": diffusers_run.PROMPT["lyrics"], "language": "fr"}
    song |= {"bpm": 84, "key": "A minor", "time_signature": "3/4", "shift": 3, "guidance": 7}
    render(peer, source=file, **song, **asked)
    samples, _ = soundfile.read(file, dtype="float32")
    with torch.inference_mode():
        sampled = diffusers_run.sample(
            peer,
            given.noise[0],
            src_audio=torch.from_numpy(samples.T),
            audio_duration=6.0,
            num_inference_steps=4,
            guidance_scale=7.0,
            shift=3.0,
            **theirs,
        )
    assert close(given.context[0], sampled.calls[0]["context_latents"][:1])
    assert diffusers_run.relative(given.latents[0], sampled.latents) < 1e-4


def test_memory_that_runs_out_in_the_references_is_met_by_fallbacks(
    two_b: tiny.Oracle, take: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checkpoints.find_checkpoint("turbo", two_b.root)
    request = complete.complete(
        Request(mode="repaint", caption="a", source=take(6), start=2, end=4, seed=7, steps=2), found
    )
    encode, tiles, said = codec.encode_waveform, [], []

    def fails_once(vae: Any, waveform: Tensor, tile_frames: int, progress: Any) -> Tensor:
        tiles.append(tile_frames)
        if len(tiles) == 1:
            raise MemoryError
        return encode(vae, waveform, tile_frames, progress)

    monkeypatch.setattr(codec, "encode_waveform", fails_once)
    (made,) = Pipeline(found, FLOAT32).run([request], lambda stage, done, total: None, said.append)
    assert tiles == [64, 32]
    assert said == ["Memory ran out on cpu; from here on sound is decoded in smaller tiles."]
    assert measured(made.audio, made.splice)["outside_difference"] == 0


@pytest.mark.parametrize("mode", ["cover", "repaint"])
def test_xl_hears_a_source_too(xl: tiny.Oracle, take: Callable[..., str], mode: str) -> None:
    (made,) = render(xl, "turbo", caption="a", mode=mode, source=take(2), reference=take(3), **ALL[mode])
    assert made.audio.samples.shape == (2, 2 * RATE)
    assert np.isfinite(made.audio.samples).all()


# References


def test_references_shape_the_sound_each_with_a_token(
    two_b: tiny.Oracle, take: Callable[..., str], given: Given
) -> None:
    one, other = take(3, seed=1), take(4, seed=2)
    asked = {"caption": "a", "duration": 10}
    plain, first, both = (
        render(two_b, "turbo", **asked, **more)[0].audio.samples
        for more in ({}, {"reference": one}, {"reference": [one, other]})
    )
    assert not np.allclose(plain, first)
    assert not np.allclose(first, both)
    tokens = [given_to["cross_kv"].layers[0].keys.shape[-2] for given_to in given.options]
    assert tokens[0] == tokens[1] == tokens[2] - 1


def test_the_windows_of_a_reference(take: Callable[..., str]) -> None:
    ramp = torch.arange(900).float().expand(2, -1)  # each sample says where it was
    first, again, other = (conditioning.window_per_third(ramp, 90, seed, "reference 0") for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for third, window in enumerate(first[0].split(30)):
        assert torch.equal(window.diff(), torch.ones(29))
        assert 300 * third <= window[0]
        assert window[-1] < 300 * (third + 1)
    assert torch.equal(
        conditioning.window_per_third(ramp[:, :90], 90, 5, "reference 0"), ramp[:, :90]
    )  # exactly as long: all of it
    short = conditioning.window_per_third(ramp[:, :20], 90, 5, "reference 0")
    assert short.shape == (2, 90)
    assert set(short[0].tolist()) <= set(range(20))
    assert not torch.equal(first, conditioning.window_per_third(ramp, 90, 1, "reference 1"))


def test_references_are_heard_anew_in_each_take(
    two_b: tiny.Oracle, take: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    real = conditioning.window_per_third
    monkeypatch.setattr(conditioning, "window_per_third", lambda *args: drawn.append(args[1:]) or real(*args))
    render(two_b, "turbo", caption="a", duration=10, takes=2, reference=[take(3), take(4)])
    samples = two_b.config["timbre_fix_frame"] * HOP
    assert drawn == [(samples, seed, f"reference {n}") for seed in (7, 8) for n in (0, 1)]


def test_the_frames_of_a_reference_reach_the_timbre_encoder(
    two_b: tiny.Oracle, take: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from acestep_cli.engine.dit import TimbreEncoder

    heard = []
    forward = TimbreEncoder.forward
    monkeypatch.setattr(TimbreEncoder, "forward", lambda self, x: heard.append(x) or forward(self, x))
    seconds = two_b.config["timbre_fix_frame"] * HOP / RATE
    file = take(seconds)
    render(two_b, "turbo", caption="a", duration=10, reference=file)
    assert close(heard[0], raw(two_b, file))
