"""The recordings that a song is made from: their place in the song, their latents, and the splice of what was made onto
them.

Rules: docs/specification.md, 3.5 Length of a song and 8 Modes.

Shapes: A audio channels, N samples, C latent channels, T latent frames, R references.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from acestep_cli import solvers
from acestep_cli.audio import decode
from acestep_cli.audio.sound import resample
from acestep_cli.audio.splice import SplicedParts
from acestep_cli.engine import codec, denoise
from acestep_cli.engine.dit import AceStep
from acestep_cli.errors import SourceError
from acestep_cli.models import latents_file
from acestep_cli.models.configs import VAEConfig
from acestep_cli.models.latents_file import Latents, StoredLatents
from acestep_cli.models.sizes import Sizes
from acestep_cli.song import inputs, modes
from acestep_cli.song.complete import Completed
from acestep_cli.song.modes import Prepared, Splice

#: A repaint that changes no sample by more than this, one step of 16 bits, counts as unchanged.
UNCHANGED_BELOW = 2**-15
#: An edit that changes its latents by less than this, relative to their size, counts as unchanged: so much may be
#: rounding of bfloat16.
UNEDITED_BELOW = 2**-8


@dataclass(frozen=True)
class SourceLayout:
    """The length of a song, or of the part of it that is in view, the source within it, and the regions of it that are
    to be made.
    """

    frames: int
    samples: int
    hop: int
    rate: int
    #: In samples.
    regions: tuple[tuple[int, int], ...]
    #: The source [A, N] with silence where the song extends it, filled up to whole frames.
    waveform: Tensor | None = None
    #: Samples of the song before the source.
    before: int = 0
    #: A factor that brings the decoded waveform to the level of the source.
    gain: float = 1.0
    #: The song before and after the part in view, each [A, N]; None where all of it is in view.
    around: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, request: Completed, prepared: Prepared, vae: VAEConfig) -> SourceLayout:
        """Lay out a request. Raises `SourceError` where the source changed after the request was completed."""
        rate, hop = vae.sampling_rate, vae.hop
        frames = vae.latent_frames(request.duration)
        samples = vae.samples(request.duration)
        if request.source is None:
            return cls(frames, samples, hop, rate, ((0, frames * hop),))
        assert request.region is not None
        source = load_waveform(request.source, rate, keeps_overs=True)
        require_length(source, rate, request)
        before = round(request.region.seconds_before * rate)
        extended = max(round(request.region.song_seconds * rate), before + source.shape[1])
        # The last frame is filled up with silence: a song is as long as its source, to the sample.
        whole = math.ceil(extended / hop)
        waveform = torch.zeros(source.shape[0], whole * hop)
        waveform[:, before : before + source.shape[1]] = source
        if not prepared.whole_frames:
            frames, samples = max(whole, solvers.SHORTEST_FRAMES), extended
        stored = request.source_latents
        gain = stored.header.gain if stored is not None and modes.mode_of(request).keeps_level else 1.0
        if prepared.regions is None:
            return cls(frames, samples, hop, rate, ((0, frames * hop),), waveform, before, gain)
        spans = tuple((round(start * rate), min(round(end * rate), samples)) for start, end in prepared.regions)
        whole_song = cls(frames, samples, hop, rate, spans, waveform, before, gain)
        if request.region.context is None:
            return whole_song
        return whole_song.in_view(*(round(seconds * rate) for seconds in request.region.view))

    def in_view(self, start: int, end: int) -> SourceLayout:
        """Return the layout of the part from `start` to `end`, in samples, which begins and ends with whole frames."""
        assert self.waveform is not None
        start, whole_end = start // self.hop * self.hop, math.ceil(end / self.hop) * self.hop
        end = min(whole_end, self.samples)
        return replace(
            self,
            frames=max((whole_end - start) // self.hop, solvers.SHORTEST_FRAMES),
            samples=end - start,
            regions=tuple((one - start, other - start) for one, other in self.regions),
            waveform=self.waveform[:, start:whole_end],
            around=(self.source[:, :start], self.source[:, end:]),
        )

    @property
    def first(self) -> int:
        """The samples of the song before the part in view."""
        return 0 if self.around is None else self.around[0].shape[1]

    def whole_song(self, waveform: Tensor) -> Tensor:
        """Return the song [A, N] with `waveform` [A, samples] as the part in view."""
        return waveform if self.around is None else torch.cat((self.around[0], waveform, self.around[1]), dim=1)

    @property
    def waveforms(self) -> tuple[Tensor, ...]:
        """The source within the song, in whole frames: one waveform [A, N], or none."""
        return () if self.waveform is None else (self.waveform,)

    @property
    def source(self) -> Tensor:
        """The source within the song, as long as the song: [A, N]."""
        assert self.waveform is not None
        return self.waveform[:, : self.samples]

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """The regions in latent frames, those they touch in part included."""
        return tuple((start // self.hop, math.ceil(end / self.hop)) for start, end in self.regions)

    def mask(self) -> Tensor:
        """Return a mask [1, T, 1]: 1 in the latent frames that are to be made, 0 elsewhere."""
        return self.frame_weights(0)

    def frame_weights(self, blend: int) -> Tensor:
        """Return the weights [1, T, 1] of the new latents: 1 in the regions, falling over `blend` frames around."""
        return ramp_mask(self.frames, self.spans, blend)[None, :, None]

    def sample_weights(self, splice: Splice) -> Tensor:
        """Return the weights [N] of the new samples: 1 in the regions, falling over the splice's fade around them."""
        return ramp_mask(self.samples, self.regions, round(splice.fade * self.rate))


def load_waveform(file: str, rate: int, *, keeps_overs: bool = False) -> Tensor:
    """Read an audio file as [A, N] at `rate`, clipped at full scale unless `keeps_overs`."""
    audio = decode.read_audio(Path(file), inputs.LONGEST_REFERENCE, keeps_overs=keeps_overs)
    return torch.from_numpy(resample(audio, rate).samples)


def require_length(source: Tensor, rate: int, request: Completed) -> None:
    """Raise `SourceError` where the source [A, N] has another length than when the request was completed."""
    assert request.region is not None
    seconds = source.shape[1] / rate
    if abs(seconds - request.region.source_seconds) > 1 / min(rate, decode.READ_RATE):
        raise SourceError(
            f"source: {request.source} is {seconds:.2f} s long now, and was {request.region.source_seconds:.2f} s when "
            "this render was planned.",
            "Start the render again.",
        )


def place_stored_latents(stored: StoredLatents, layout: SourceLayout, silence: Tensor) -> Tensor:
    """Return the stored latents of the source at its place in the song, with silence [1, F, C] before, from the part in
    view on: [1, T, C].

    `SourceLatents` fills up the rest of the song.
    """
    front = codec.repeat_silence(silence, layout.before // layout.hop)
    song = torch.cat((front, torch.from_numpy(latents_file.read_latents(stored.path))[None]), dim=1)
    return song[:, layout.first // layout.hop :]


@dataclass(frozen=True)
class SourceLatents:
    """The source latents that a mode can choose from; see `modes.LatentSources`."""

    layout: SourceLayout
    model: AceStep
    silence_latent: Tensor  # [1, F, C], on the device
    source: Tensor | None  # the latents of the source within the song, [1, T, C]

    def silence(self) -> Tensor:
        return codec.repeat_silence(self.silence_latent, self.layout.frames)

    def from_codes(self, codes: Sequence[int]) -> Tensor:
        ids = torch.tensor([codes], device=self.silence_latent.device)
        return self._filled(self.model.latents_from_codes(ids), self.layout.frames)

    def original(self) -> Tensor:
        assert self.source is not None, "only a mode with a source asks for it"
        return self._filled(self.source.to(self.silence_latent), self.layout.frames)

    def through_codes(self) -> Tensor:
        frames, window = self.layout.frames, self.model.config.pool_window_size
        _, codes = self.model.tokenizer(self._filled(self.original(), math.ceil(frames / window) * window))
        return self.model.latents_from_codes(codes)[:, :frames]

    def with_silent_regions(self) -> Tensor:
        return torch.where(self.layout.mask().to(self.silence_latent) > 0, self.silence(), self.original())

    def _filled(self, latents: Tensor, frames: int) -> Tensor:
        """Return `latents` cut to `frames`, or filled up with the silence latent from its beginning."""
        rest = frames - latents.shape[1]
        if rest <= 0:
            return latents[:, :frames]
        return torch.cat((latents, codec.repeat_silence(self.silence_latent, rest)), dim=1)


def context_latents(prepared: Prepared, sources: SourceLatents) -> Tensor:
    """Return source latents and mask, [1, T, in_channels - C]."""
    latents = prepared.source(sources)
    return torch.cat((latents, sources.layout.mask().to(latents).expand_as(latents)), dim=-1)


def source_hold(sources: SourceLatents, splice: Splice | None, *, turbo: bool) -> denoise.SourceHold | None:
    """Return the hold on the source around the regions; None where the splice is not onto the source.

    A `turbo` checkpoint never has the source put back at the last step, the others do:
    docs/specification.md, 8.5 Repaint.
    """
    layout = sources.layout
    if splice is None or splice.onto != "source":
        return None
    frames = splice.blend * layout.rate / layout.hop
    return denoise.SourceHold(
        share=splice.held,
        clean=sources.original(),
        inside=layout.mask(),
        blend=layout.frame_weights(round(frames)),
        last_step=not turbo,
    )


def reference_windows(references: Sequence[Tensor], sizes: Sizes, seed: int) -> list[Tensor]:
    """Return the part of each reference [A, N] that one take gets: as many samples as the timbre encoder takes."""
    samples = sizes.dit.timbre_fix_frame * sizes.vae.hop
    return [
        window_per_third(waveform, samples, seed, f"reference {number}") for number, waveform in enumerate(references)
    ]


def window_per_third(waveform: Tensor, samples: int, seed: int, name: str) -> Tensor:
    """Return `samples` of a reference [A, N]: a window from each third of it, drawn by `seed`. A short reference is
    repeated.
    """
    waveform = waveform.repeat(1, math.ceil(samples / waveform.shape[1]))
    generator = denoise.stage_generator(seed, name)
    third, window = waveform.shape[1] // 3, math.ceil(samples / 3)
    windows = []
    for part in range(3):
        start = part * third
        latest = (waveform.shape[1] if part == 2 else start + third) - window
        start += int(torch.randint(max(latest - start, 0) + 1, (1,), generator=generator))
        windows.append(waveform[:, start : start + window])
    return torch.cat(windows, dim=1)[:, :samples]


def ramp_mask(length: int, spans: Sequence[tuple[int, int]], width: int) -> Tensor:
    """Return a mask [length]: 1 in the spans, rising over `width` before each and falling over as much after it."""
    ramp = torch.linspace(0, 1, width + 2)[1:-1]
    mask = torch.zeros(length)
    for start, end in spans:
        before, after = min(width, start), min(width, max(length - end, 0))
        mask[start:end] = 1
        mask[start - before : start] = mask[start - before : start].maximum(ramp[width - before :])
        mask[end : end + after] = mask[end : end + after].maximum(ramp.flip(0)[:after])
    return mask


def crossfade_latents(latents: Tensor, hold: denoise.SourceHold | None) -> Tensor:
    """Crossfade latents [1, T, C] into the clean ones of `hold`."""
    if hold is None:
        return latents
    weight = hold.blend.to(latents)
    return hold.clean.to(latents) * (1 - weight) + latents * weight


def finished_latents(layout: SourceLayout, made: Tensor, splice: Splice | None, silence: Tensor) -> Latents:
    """Return the latents of a finished song: those made, [T, C], which `crossfade_latents` has joined to a source
    already, or where the splice is onto silence, with `silence` [1, F, C] around.
    """
    if splice is not None and splice.onto == "silence":
        made = torch.where(layout.mask()[0] > 0, made, codec.repeat_silence(silence, layout.frames)[0])
    return Latents(made.numpy(), layout.hop, layout.gain)


def splice_waveform(layout: SourceLayout, made: Tensor, splice: Splice | None) -> Tensor:
    """Return the decoded waveform [A, N] at the level of the source, with the source or silence around its regions, as
    the splice says.

    Peaks over full scale are scaled down in the regions alone.
    """
    if layout.gain != 1:
        made = made * layout.gain
    if splice is None:
        return made
    around = layout.source if splice.onto == "source" else torch.zeros_like(made)
    weight = layout.sample_weights(splice)
    made = made / made[:, weight > 0].abs().max().clamp(min=1)
    return torch.where(weight > 0, around * (1 - weight) + made * weight, around)


def unchanged_problem(layout: SourceLayout, song: Tensor, splice: Splice | None) -> str | None:
    """Return the reason not to keep a song [A, N] that was spliced onto its source and equals it in all regions."""
    if splice is None or splice.onto != "source" or not is_unchanged(layout, song):
        return None
    regions = [(layout.first + start, layout.first + end) for start, end in layout.regions]
    spans = " and ".join(f"{start / layout.rate:g} and {end / layout.rate:g} s" for start, end in regions)
    return f"The repaint changed nothing between {spans}, so no file was written."


def relative_distance(source: Tensor, latents: Tensor) -> float:
    """Return the distance of latents [T, C] from those of their source [T, C], relative to its size."""
    before = source.float()
    return float((latents.float() - before).norm() / before.norm().clamp(min=1e-12))


def unedited_problem(change: float | None) -> str | None:
    """Return the reason not to keep an edit with this distance from its source; None where it is kept, or no edit."""
    if change is None or change >= UNEDITED_BELOW:
        return None
    return "The edit changed nothing, so no file was written."


def mix_stems(layout: SourceLayout, stems: Tensor, kind: str) -> Tensor:
    """Add the sum of stems [A, N] to the source, or subtract it, as `modes.BESIDE` says for this kind of output."""
    return layout.source + modes.BESIDE[kind] * stems


def source_rms(layout: SourceLayout) -> float:
    """Return the root mean square of the source, summed up in double precision a second at a time."""
    squares = (float(block.double().square().sum()) for block in torch.split(layout.source, layout.rate, dim=1))
    return math.sqrt(sum(squares) / layout.source.numel())


def spliced_parts(layout: SourceLayout, splice: Splice | None) -> SplicedParts | None:
    """Return the parts of a song that was spliced onto its source; None for another song."""
    if splice is None or splice.onto != "source":
        return None
    before, after = (0, 0) if layout.around is None else (part.shape[1] for part in layout.around)
    kept = (torch.ones(before), (layout.sample_weights(splice) == 0).float(), torch.ones(after))
    bounds = torch.cat((torch.zeros(1), *kept, torch.zeros(1))).diff().nonzero().flatten().tolist()
    return SplicedParts(
        untouched=tuple(zip(bounds[::2], bounds[1::2], strict=True)),
        crossfades=tuple((before + start, before + end) for start, end in crossfade_spans(layout, splice)),
        replaced=tuple((before + start, layout.source[:, start:end].numpy()) for start, end in layout.regions),
    )


def crossfade_spans(layout: SourceLayout, splice: Splice) -> Iterator[tuple[int, int]]:
    """Yield start and end of each crossfade, in samples."""
    fade = round(splice.fade * layout.rate)
    for start, end in layout.regions:
        if start > 0:
            yield max(start - fade, 0), start
        if end < layout.samples:
            yield end, min(end + fade, layout.samples)


def is_unchanged(layout: SourceLayout, song: Tensor) -> bool:
    """Tell whether a song [A, N] equals its source in all regions."""
    return all(
        bool((song - layout.source)[:, start:end].abs().max() < UNCHANGED_BELOW) for start, end in layout.regions
    )
