"""The recording that a song is made from: laid out on the clock of the song, heard as latents, and put back around
what was made.

Rules: `dit.md` 4.3, 4.5 and 5.6 of the specification, and the rulings.

Shapes: A audio channels, N samples, C latent channels, T latent frames, R references.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from acestep_cli import solvers
from acestep_cli.audio import decode, sound
from acestep_cli.engine import codec, denoise
from acestep_cli.engine.dit import AceStep
from acestep_cli.models import latents_file
from acestep_cli.models.configs import VAEConfig
from acestep_cli.models.latents_file import Latents, StoredLatents
from acestep_cli.models.sizes import Sizes
from acestep_cli.song import complete, modes, regions
from acestep_cli.song.complete import Completed
from acestep_cli.song.modes import Prepared, Splice

#: A repaint that moves no sample further than this (one step of 16 bits) has changed nothing.
UNCHANGED_BELOW = 2**-15
#: Around a seam, in seconds: where a click would be, and what its loudness is compared with.
CLICK_REACH, CLICK_SURROUNDINGS = 0.001, 0.05
#: What silence measures, in decibels.
SILENCE_DB = -200.0


@dataclass(frozen=True)
class SourceLayout:
    """How long a song is, what lies on it already, and which parts of it are to be made.

    `waveform` [A, N] is the source, with silence where the song goes on beyond it, filled up to whole frames; it begins
    `before` samples after the song. `regions` are in samples. What is decoded is as loud as the source times `gain`.
    """

    frames: int
    samples: int
    hop: int
    rate: int
    regions: tuple[tuple[int, int], ...]
    waveform: Tensor | None = None
    before: int = 0
    gain: float = 1.0

    @classmethod
    def of(cls, request: Completed, prepared: Prepared, vae: VAEConfig) -> SourceLayout:
        """Raises `SourceError` where the source is not what it was when the request was completed."""
        rate, hop = vae.sampling_rate, vae.hop
        frames = vae.latent_frames(request.duration)
        samples = vae.samples(request.duration)
        if request.source is None:
            return cls(frames, samples, hop, rate, ((0, frames * hop),))
        source = load_waveform(request.source, rate, keeps_overs=True)
        seconds = source.shape[1] / rate
        before = round(regions.seconds_before(request, seconds) * rate)
        extended = round(regions.extended_seconds(request, seconds) * rate)
        # The last frame is filled up with silence: a song is as long as its source, to the sample.
        whole = math.ceil(extended / hop)
        waveform = torch.zeros(source.shape[0], whole * hop)
        waveform[:, before : before + source.shape[1]] = source
        if not prepared.whole_frames:
            frames, samples = max(whole, solvers.SHORTEST_FRAMES), extended
        gain = request.kept.header.gain if request.kept and modes.mode_of(request).keeps_level else 1.0
        if prepared.regions is None:
            return cls(frames, samples, hop, rate, ((0, frames * hop),), waveform, before, gain)
        parts = prepared.regions(seconds)
        spans = tuple((round(start * rate), min(round(end * rate), samples)) for start, end in parts)
        return cls(frames, samples, hop, rate, spans, waveform, before, gain)

    @property
    def waveforms(self) -> tuple[Tensor, ...]:
        """What lies on it, in whole frames: one waveform, or none."""
        return () if self.waveform is None else (self.waveform,)

    @property
    def source(self) -> Tensor:
        """What lies on it, as long as the song: [A, N]."""
        assert self.waveform is not None
        return self.waveform[:, : self.samples]

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """The latent frames that a region touches."""
        return tuple((start // self.hop, math.ceil(end / self.hop)) for start, end in self.regions)

    def mask(self) -> Tensor:
        """1 in the latent frames that are to be made, 0 elsewhere, [1, T, 1]."""
        return self.frame_weights(0)

    def frame_weights(self, blend: int) -> Tensor:
        """How much of each latent frame is what was made, [1, T, 1]: less and less over `blend` frames around."""
        return ramp_mask(self.frames, self.spans, blend)[None, :, None]

    def sample_weights(self, splice: Splice) -> Tensor:
        """How much of each sample is what was made, [N]: less and less around a region."""
        return ramp_mask(self.samples, self.regions, round(splice.fade * self.rate))


def load_waveform(file: str, rate: int, *, keeps_overs: bool = False) -> Tensor:
    """An audio file as [A, N] at `rate`; what is over full scale in it is clipped, unless it is kept."""
    read = decode.read_audio(Path(file), complete.LONGEST_REFERENCE, keeps_overs=keeps_overs)
    return torch.from_numpy(sound.resample(read, rate).samples)


def place_stored_latents(kept: StoredLatents, layout: SourceLayout, silence: Tensor) -> Tensor:
    """The latents that were kept of the source, where it lies on the canvas, with silence [1, F, C] before: [1, T, C].

    Nothing follows them: `Sources` fills up what is short.
    """
    front = codec.repeat_silence(silence, layout.before // layout.hop)
    return torch.cat((front, torch.from_numpy(latents_file.read_latents(kept.path))[None]), dim=1)


@dataclass(frozen=True)
class SourceLatents:
    """What a mode draws its source latents from; see `modes.Studio`."""

    layout: SourceLayout
    model: AceStep
    silence_latent: Tensor  # the silence latent of the checkpoint, [1, F, C], on the device
    source: Tensor | None  # the latents of what lies on the canvas, [1, T, C]

    def silence(self) -> Tensor:
        return codec.repeat_silence(self.silence_latent, self.layout.frames)

    def from_codes(self, codes: Sequence[int]) -> Tensor:
        numbers = torch.tensor([codes], device=self.silence_latent.device)
        return self._filled(self.model.latents_from_codes(numbers), self.layout.frames)

    def original(self) -> Tensor:
        assert self.source is not None, "only a mode with a source asks for it"
        return self._filled(self.source.to(self.silence_latent), self.layout.frames)

    def through_codes(self) -> Tensor:
        frames, window = self.layout.frames, self.model.config.pool_window_size
        _, codes = self.model.tokenizer(self._filled(self.original(), math.ceil(frames / window) * window))
        return self.model.latents_from_codes(codes)[:, :frames]

    def erased(self) -> Tensor:
        return torch.where(self.layout.mask().to(self.silence_latent) > 0, self.silence(), self.original())

    def _filled(self, latents: Tensor, frames: int) -> Tensor:
        """`latents` cut to `frames`, or filled up with silence from its beginning."""
        rest = frames - latents.shape[1]
        if rest <= 0:
            return latents[:, :frames]
        return torch.cat((latents, codec.repeat_silence(self.silence_latent, rest)), dim=1)


def context_latents(prepared: Prepared, sources: SourceLatents) -> Tensor:
    """Source latents and mask, [1, T, in_channels - C]."""
    latents = prepared.source(sources)
    return torch.cat((latents, sources.layout.mask().to(latents).expand_as(latents)), dim=-1)


def source_hold(sources: SourceLatents, splice: Splice | None, *, turbo: bool) -> denoise.SourceHold | None:
    """What the diffusion holds on to around the regions; nothing where the splice is not onto the source.

    A `turbo` checkpoint never has the source put back at the last step, the others do: `dit.md` 5.6 of the
    specification.
    """
    layout = sources.layout
    if splice is None or splice.onto != "source":
        return None
    frames = splice.blend * layout.rate / layout.hop
    return denoise.SourceHold(
        splice.held, sources.original(), layout.mask(), layout.frame_weights(round(frames)), not turbo
    )


def reference_windows(references: Sequence[Tensor], sizes: Sizes, seed: int) -> list[Tensor]:
    """What one take hears of each reference [A, N]: as much as the timbre encoder takes."""
    samples = sizes.dit.timbre_fix_frame * sizes.vae.hop
    return [
        window_per_third(waveform, samples, seed, f"reference {number}") for number, waveform in enumerate(references)
    ]


def window_per_third(waveform: Tensor, samples: int, seed: int, name: str) -> Tensor:
    """`samples` of a reference [A, N]: a window from each third of it, drawn by `seed`. A short one is repeated."""
    waveform = waveform.repeat(1, math.ceil(samples / waveform.shape[1]))
    generator = denoise.stage_generator(seed, name)
    third, window = waveform.shape[1] // 3, math.ceil(samples / 3)
    found = []
    for part in range(3):
        start = part * third
        latest = (waveform.shape[1] if part == 2 else start + third) - window
        start += int(torch.randint(max(latest - start, 0) + 1, (1,), generator=generator))
        found.append(waveform[:, start : start + window])
    return torch.cat(found, dim=1)[:, :samples]


def ramp_mask(length: int, spans: Sequence[tuple[int, int]], width: int) -> Tensor:
    """1 in the spans; it rises over `width` before each and falls over as much after it."""
    ramp = torch.linspace(0, 1, width + 2)[1:-1]
    found = torch.zeros(length)
    for start, end in spans:
        before, after = min(width, start), min(width, max(length - end, 0))
        found[start:end] = 1
        found[start - before : start] = found[start - before : start].maximum(ramp[width - before :])
        found[end : end + after] = found[end : end + after].maximum(ramp.flip(0)[:after])
    return found


def crossfade_latents(latents: Tensor, hold: denoise.SourceHold | None) -> Tensor:
    """Latents [1, T, C] that go over into those that are held on to."""
    if hold is None:
        return latents
    weight = hold.blend.to(latents)
    return hold.clean.to(latents) * (1 - weight) + latents * weight


def finished_latents(layout: SourceLayout, made: Tensor, splice: Splice | None, silence: Tensor) -> Latents:
    """The latents of a finished song: what was made [T, C], which `blended` has joined to a source already, or with
    `silence` [1, F, C] around, where the splice puts that.
    """
    if splice is not None and splice.onto == "silence":
        made = torch.where(layout.mask()[0] > 0, made, codec.repeat_silence(silence, layout.frames)[0])
    return Latents(made.numpy(), layout.hop, layout.gain)


def splice_waveform(layout: SourceLayout, made: Tensor, splice: Splice | None) -> Tensor:
    """What was made [A, N], at the level of the source, in its regions, and what the splice puts around them.

    Peaks over full scale are brought down in the regions alone.
    """
    if layout.gain != 1:
        made = made * layout.gain
    if splice is None:
        return made
    around = layout.source if splice.onto == "source" else torch.zeros_like(made)
    weight = layout.sample_weights(splice)
    made = made / made[:, weight > 0].abs().max().clamp(min=1)
    return torch.where(weight > 0, around * (1 - weight) + made * weight, around)


class SpliceReport(NamedTuple):
    """What was measured of a song, in words, and why it is not fit to be kept, if it is not."""

    checks: dict[str, float]
    remarks: tuple[str, ...] = ()
    problem: str | None = None


def check_splice(layout: SourceLayout, song: Tensor, splice: Splice | None) -> SpliceReport:
    """Look at a song [A, N] that was spliced onto its source: did the rest stay, and did the region change?"""
    if splice is None or splice.onto != "source":
        return SpliceReport({})
    checks = measure_splice(layout, song, splice)
    spans = " and ".join(f"{start / layout.rate:g} and {end / layout.rate:g} s" for start, end in layout.regions)
    unchanged = f"The repaint changed nothing between {spans}, so no file was written."
    return SpliceReport(checks, (regions.remark(checks),), unchanged if is_unchanged(layout, song) else None)


def mix_stems(layout: SourceLayout, stems: Tensor, kind: str) -> tuple[Tensor, SpliceReport]:
    """The source with the sum of stems [A, N], as `modes.BESIDE` says it."""
    sign = modes.BESIDE[kind]
    made = layout.source + sign * stems
    if sign > 0:
        return made, SpliceReport({})
    left = decibels(made.square().mean().sqrt()) - decibels(layout.source.square().mean().sqrt())
    remark = (
        f"what the stems leave of the source is {left:+.1f} dB of it; stems are generated, not cut out, "
        "so they never add up exactly"
    )
    return made, SpliceReport({"residual_db": round(left, 2)}, (remark,))


def measure_splice(layout: SourceLayout, song: Tensor, splice: Splice) -> dict[str, float]:
    """What a splice onto the source did: the largest difference outside of the regions and their crossfades, the change
    inside and the step at each seam, in decibels.

    A seam is where the source and what was made meet. Its step is the largest from a sample to the next within a
    millisecond of its crossfade, against the root mean square of the twentieth of a second around.
    """
    weight = layout.sample_weights(splice)
    difference = (song - layout.source).abs()
    outside = difference[:, weight == 0]
    found = {
        "outside_difference": float(outside.max()) if outside.numel() else 0.0,
        "inside_change_db": decibels(difference[:, weight == 1].square().mean().sqrt()),
    }
    for number, (start, end) in enumerate(crossfade_spans(layout, splice), start=1):
        reach, around = round(CLICK_REACH * layout.rate), round(CLICK_SURROUNDINGS * layout.rate)
        near = song[:, max(start - reach, 0) : end + reach]
        level = song[:, max(start - around, 0) : end + around].square().mean().sqrt()
        step = near.diff(dim=1).abs().max()
        found[f"seam_{number}_db"] = decibels(step) - decibels(level)
    return {name: round(value, 6 if name == "outside_difference" else 2) for name, value in found.items()}


def untouched_spans(layout: SourceLayout, splice: Splice | None) -> tuple[tuple[int, int], ...]:
    """From where to where, in samples, a song that was spliced onto its source is the source."""
    if splice is None or splice.onto != "source":
        return ()
    outside = torch.cat((torch.zeros(1), (layout.sample_weights(splice) == 0).float(), torch.zeros(1))).diff().nonzero()
    bounds = outside.flatten().tolist()
    return tuple(zip(bounds[::2], bounds[1::2], strict=True))


def crossfade_spans(layout: SourceLayout, splice: Splice) -> Iterator[tuple[int, int]]:
    """From where to where each crossfade goes, in samples."""
    fade = round(splice.fade * layout.rate)
    for start, end in layout.regions:
        if start > 0:
            yield max(start - fade, 0), start
        if end < layout.samples:
            yield end, min(end + fade, layout.samples)


def is_unchanged(layout: SourceLayout, song: Tensor) -> bool:
    """Whether the regions of a song hold what the source held there."""
    return all(
        bool((song - layout.source)[:, start:end].abs().max() < UNCHANGED_BELOW) for start, end in layout.regions
    )


def decibels(value: Tensor) -> float:
    return max(20 * math.log10(max(float(value), 1e-30)), SILENCE_DB)
