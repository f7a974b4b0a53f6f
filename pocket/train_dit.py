"""Train the diffusion transformer, the condition encoder and the text encoder, all together, on every task.

    python pocket/train_dit.py --minutes 45 --processes 2
    python pocket/train_dit.py --minutes 15 --processes 2 --scale 0.1 --distill 2 --release

Flow matching: x_t = t * noise + (1 - t) * x0, and the network learns v = noise - x0 for a prompt. Songs of equal
length share a batch, so nothing is ever padded but words. The audio codes come finished from `train_codes.py`. Saves
`pocket/work/dit.pt` every two minutes and goes on from it (`sitting.py`).

Turbo sampling is never guided, so guidance is trained into the weights at the end: with `--distill`, the finished
weights are the teacher, and a copy of them learns what the teacher says when it is guided (Meng et al.,
arXiv:2210.03142); it is kept in a file of its own. The target does not hold the noise of one draw, as that of flow
matching does, so a few hundred steps are enough.

Shapes: B songs, T latent frames, C latent channels, L tokens of words, E encoder width.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache

import band
import corpus
import numpy as np
import sitting
import tokenizer
import torch
from encode import CLOCK, FOLDER, WET_FOLDER, Heard, clock, cover_of
from sounds import FRAME
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pad_sequence
from train_vae import CONFIG as VAE
from train_vae import WORK
from transformers import Qwen3Config, Qwen3Model

from acestep_cli import solvers
from acestep_cli.engine.dit import AceStep, Condition
from acestep_cli.models.configs import DiTConfig
from acestep_cli.song import modes

CHECKPOINT, DISTILLED = WORK / "dit.pt", WORK / "dit-distilled.pt"
CHANNELS = VAE.decoder_input_channels
WIDTH, LAYERS, TEXT_WIDTH = 256, 6, 192
# Rotary angles fall from 1 to 1/200 per token of 80 ms. Beats are 4 to 13 tokens long and bars up to 50, so a third
# of the 32 angles lie where tempo is heard; with the published base of a million it would be four.
ROPE_THETA = 200.0
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 64}
CONFIG = {
    "architectures": ["AceStepConditionGenerationModel"], "model_type": "acestep", "model_version": "turbo",
    "is_turbo": True, "hidden_size": WIDTH, "intermediate_size": 384, "num_hidden_layers": LAYERS, **ATTENTION,
    "encoder_hidden_size": WIDTH, "encoder_intermediate_size": 256, "encoder_num_attention_heads": 4,
    "encoder_num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 128,
    "layer_types": ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(LAYERS)],
    "in_channels": 3 * CHANNELS, "audio_acoustic_hidden_dim": CHANNELS, "timbre_hidden_dim": CHANNELS,
    "patch_size": 2, "text_hidden_dim": TEXT_WIDTH, "timbre_fix_frame": 750, "num_lyric_encoder_hidden_layers": 1,
    "num_timbre_encoder_hidden_layers": 2, "num_attention_pooler_hidden_layers": 1,
    "num_audio_decoder_hidden_layers": LAYERS, "pool_window_size": 5, "fsq_dim": WIDTH,
    "fsq_input_levels": [8, 8, 8, 5], "fsq_input_num_quantizers": 1, "rope_theta": ROPE_THETA,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_bias": False,
    "attention_dropout": 0.0, "data_proportion": 0.5, "timestep_mu": -0.4, "timestep_sigma": 1.0,
    "initializer_range": 0.02, "tie_word_embeddings": True, "dtype": "bfloat16",
    "vocab_size": math.prod([8, 8, 8, 5]) + 3,
}  # fmt: skip
TEXT_CONFIG = {
    "architectures": ["Qwen3Model"], "model_type": "qwen3", "hidden_size": TEXT_WIDTH, "intermediate_size": 384,
    "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 64,
    "hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0, "attention_bias": False, "tie_word_embeddings": True, "use_sliding_window": False,
    "dtype": "bfloat16",
}  # fmt: skip
SHIFT = 3.0
TURBO_STEPS = solvers.timestep_schedule(8, SHIFT)[:-1]
# What a song in a batch is trained to do: from nothing, from audio codes, with a hole to fill; the same of songs that
# have a cover; and, where stems are at hand, `STEMS` of the time, to take one out, to add one, to accompany one.
WHOLE_TASKS = {"generate": 0.64, "cover": 0.22, "repaint": 0.14}
COVERED_TASKS = {"generate": 0.36, "cover": 0.5, "repaint": 0.14}
STEM_TASKS = {"extract": 0.44, "lego": 0.26, "complete": 0.3}
STEMS = 0.8
PARTED_WEIGHT, COVERED_WEIGHT = 3.0, 2.0  # how much oftener than others a song with stems, or a cover, is drawn
COVERS = 0.75  # of songs that have a cover and are to be covered are turned into it, or it into them
NO_CAPTION = 0.5  # of stems are taken out, and of references heard, without a caption that would give them away
PLAIN_CAPTION = "music"
REFERENCES = 0.2  # of batches hear their own songs as references
NO_CONDITION = 0.10  # of songs see the null condition
NO_META = 0.05  # of each metadata line is left out
# Which beat it is and what is being played, is asked of the DiT half-way up. Without being asked, it had not found the
# hand of the clock that a prompt's tempo means after 600 steps; the flow alone rewards it only once everything above
# the hand is in place. Of the beat: how often in a bar the asked angles turn, as a power of the pulses in it and a
# factor. Of the score: which of the twelve pitch classes sound in bass, chords and melody, and which drums are struck.
HARMONICS = ((0, 0.25), (0, 0.5), (0, 1), (1, 1), (1, 2))
VOICES = {"bass": 0, "chords": 12, "lead": 24, "voice": 24, "backing": 24,
          "low": 36, "back": 37, "tick": 38, "crash": 39}  # fmt: skip
SCORE_ROWS = 40
ASKED_LAYER, BEAT_WEIGHT, SCORE_WEIGHT = 3, 0.5, 2.0
ASKED_TIME = 0.75  # only above it: below, all this can be heard in the noisy latents


def number_curve(numbers: list[int], width: int = TEXT_WIDTH) -> Tensor:
    """Unit-RMS embeddings [N, width] of numbers, close together where the numbers are, on a scale of octaves.

    A tempo seen in four songs is then learned from its neighbours too; with random starts each of the 121 tempi had
    to be learned alone, and after 700 steps none was.
    """
    octaves = torch.tensor(numbers, dtype=torch.float32).log2()[:, None]
    angles = 2 * math.pi * octaves * torch.logspace(-3, 2, width // 2, base=2)  # an eighth to four turns an octave
    return math.sqrt(2) * torch.cat([angles.cos(), angles.sin()], dim=1)


class Pocket(nn.Module):
    """The DiT folder and the text encoder folder, trained as one."""

    def __init__(self, tokens: Tokenizer, silence: Tensor) -> None:
        super().__init__()
        self.dit = AceStep(DiTConfig.from_dict(CONFIG))
        self.text = Qwen3Model(Qwen3Config(vocab_size=tokens.get_vocab_size(), **TEXT_CONFIG))
        self.silence = silence  # [1, F, C], with the clock; and without
        self.quiet = silence - CLOCK * clock(silence.shape[1]).T
        self.asked = nn.Linear(WIDTH, 2 * len(HARMONICS) + SCORE_ROWS)  # of the middle of the DiT; never exported
        self.middle: Tensor | None = None
        self.dit.decoder.layers[ASKED_LAYER].register_forward_hook(self.remember_middle)
        decoder = self.dit.decoder
        with torch.no_grad():
            for embed in (decoder.time_embed, decoder.time_embed_r):  # time starts out without a say
                embed.time_proj.weight.zero_()
                embed.time_proj.bias.zero_()
            for layer in decoder.layers:  # gates are the third and the sixth row
                layer.scale_shift_table[:, [2, 5]] = 0.3
            decoder.proj_out["1"].weight.mul_(0.1)
            nn.init.normal_(decoder.proj_in["1"].weight[:, :CHANNELS], std=0.5)  # the source: its clock is faint
            for module in self.dit.modules():
                for name in ("special_token", "special_tokens"):
                    if hasattr(module, name):
                        nn.init.normal_(getattr(module, name), std=0.5)
            nn.init.normal_(self.dit.null_condition_emb, std=0.5)
            nn.init.normal_(self.text.embed_tokens.weight, std=0.3)
            ids = tokenizer.number_ids(tokens)
            self.text.embed_tokens.weight[list(ids.values())] = 0.3 * number_curve(list(ids))

        for conv in (decoder.proj_in["1"], decoder.proj_out["1"]):
            conv.forward = in_float32(conv.forward)

    def remember_middle(self, _layer: nn.Module, _inputs: object, output: Tensor) -> None:
        self.middle = output

    def condition(self, texts: Tensor, text_keep: Tensor, lyrics: Tensor, lyric_keep: Tensor, dropped: Tensor,
                  reference: Tensor) -> Condition:  # fmt: skip
        """Words [B, L] and one reference [1 or B, 750, C] -> what the DiT listens to.

        The same parts as the engine's condition encoder, laid side by side instead of packed: cross-attention has
        no positions, so their order is free.
        """
        encoder = self.dit.encoder
        words = encoder.text_projector(self.text(input_ids=texts, use_cache=False).last_hidden_state)
        sung = encoder.lyric_encoder(self.text.embed_tokens(lyrics), lyric_keep)
        timbre = encoder.timbre_encoder(reference)[:, None].expand(len(texts), -1, -1)
        states = torch.cat([sung, timbre, words], dim=1)
        states = torch.where(dropped[:, None, None], self.dit.null_condition_emb.to(states.dtype), states)
        return Condition(states, torch.cat([lyric_keep, lyric_keep.new_ones(len(texts), 1), text_keep], dim=1))

    def velocity(self, noisy: Tensor, t: Tensor, context: Tensor, condition: Condition) -> Tensor:
        """The velocity [B, T, C] at times [B] in float32."""
        decoder = self.dit.decoder
        return decoder(noisy, t, context, decoder.project_condition(condition)).float()

    @torch.no_grad()
    def codes_and_back(self, latents: Tensor) -> Tensor:
        """Latents [T, C] through the audio codes: what cover and the Songwriter give the DiT to start from."""
        frames = len(latents)
        tail = self.silence[0, : -frames % CONFIG["pool_window_size"]]
        _, codes = self.dit.tokenizer(torch.cat([latents, tail])[None])
        return self.dit.latents_from_codes(codes)[0, :frames]


@dataclass(frozen=True)
class Teacher:
    """Weights that stay, whose guided velocity is learned: unconditional + scale * (conditional - unconditional)."""

    model: Pocket
    scale: float

    @torch.no_grad()
    def velocity(
        self, noisy: Tensor, t: Tensor, context: Tensor, prompts: tuple[Tensor, ...], guided: Tensor
    ) -> Tensor:
        """The velocity [B, T, C]; guided only where `guided` [B]: where a source says what is to come, the mean is
        wanted. Songs that see the null condition have nothing to be guided by, and are not.
        """
        conditional = self.model.velocity(noisy, t, context, self.model.condition(*prompts))
        if self.scale == 1 or not guided.any():
            return conditional
        alone = self.model.velocity(noisy, t, context, self.model.dit.null_condition())
        scale = torch.where(guided, self.scale, 1.0)[:, None, None]
        return alone + scale * (conditional - alone)


def finished() -> dict[str, Tensor]:
    """The weights to be used or shipped: the distilled, where there are some."""
    return sitting.finished(DISTILLED if DISTILLED.exists() or sitting.released(DISTILLED).exists() else CHECKPOINT)


def fresh(tokens: Tokenizer) -> Pocket:
    """An untrained one, which knows the silence of `encode.py`."""
    return Pocket(tokens, torch.load(WORK / "silence.pt", weights_only=True).float().transpose(1, 2))


def in_float32(forward):
    """Run a layer outside autocast: the bfloat16 backward of the two-tap convolutions takes 50 ms, this one 3."""

    def wide(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float())

    return wide


@lru_cache(maxsize=4096)
def score_of(piece: corpus.Song, frames: int) -> dict[str, Tensor]:
    """Of each track, what of it sounds when, as `SCORE_ROWS` says: uint8 [tokens, SCORE_ROWS]."""
    patch = CONFIG["patch_size"]
    tokens, samples = -(-frames // patch), patch * FRAME
    found: dict[str, Tensor] = defaultdict(lambda: torch.zeros(tokens, SCORE_ROWS, dtype=torch.uint8))
    for event in band.score(piece):
        row = VOICES[event.part] + (event.pitch % 12 if event.pitch else 0)
        begin = event.start // samples
        found[event.track][begin : max(begin + 1, (event.start + event.length) // samples), row] = 1
    return dict(found)


class Songs:
    """The encoded corpus by length, growing while `encode.py` writes on."""

    def __init__(self) -> None:
        self.shards: set[str] = set()
        self.pieces: list[corpus.Song] = []
        self.heard: list[Heard] = []
        self.wet: list[Heard] = []  # the same with their rooms, where those were encoded
        self.by_length: dict[int, list[int]] = defaultdict(list)

    def refresh(self) -> None:
        for path in sorted(FOLDER.glob("*.pt")):
            if path.name in self.shards:
                continue
            self.shards.add(path.name)
            wet_path = WET_FOLDER / path.name
            wet = torch.load(wet_path, weights_only=True) if wet_path.exists() else {}
            for seed, song in torch.load(path, weights_only=True).items():
                heard = Heard(*song)
                self.wet.append(Heard(*wet.get(seed, song)))
                self.by_length[len(heard.mix)].append(len(self.pieces))
                self.pieces.append(corpus.song(seed))
                self.heard.append(heard)

    def weight(self, i: int) -> float:
        """How often a song is drawn, against one that is a mix alone."""
        heard = self.heard[i]
        return PARTED_WEIGHT if heard.stems else 1.0 if heard.cover is None else COVERED_WEIGHT

    def batch(self, frames: int, rng: np.random.Generator) -> list[int]:
        """Songs of one length that together hold about `frames`."""
        length = len(self.heard[rng.integers(len(self.heard))].mix)
        same = self.by_length[length]
        weights = np.array([self.weight(i) for i in same])
        count = min(len(same), max(2, round(frames / length)))
        return list(rng.choice(same, count, replace=False, p=weights / weights.sum()))


@dataclass(frozen=True)
class Lesson:
    """What one song of a batch is there to teach: source and target [T, C], and where [T, C] is to be made (1).

    `piece` is the song that the target is, or is the `tracks` of.
    """

    task: str
    instruction: str
    piece: corpus.Song
    source: Tensor
    mask: Tensor
    target: Tensor
    captioned: bool = True
    tracks: tuple[str, ...] | None = None  # None: all


def lesson(
    model: Pocket, piece: corpus.Song, heard: Heard, wet: Heard, rng: np.random.Generator, task: str | None = None
) -> Lesson:
    """`task`, or one that the song can serve. What is made is dry, since the decoder adds the room; a source is wet."""
    mix, frames, given = heard.mix.float(), len(heard.mix), wet.mix.float()
    silence = model.silence[0, :frames]
    everywhere = torch.ones_like(mix)
    if task is None:
        tasks = WHOLE_TASKS if heard.cover is None else COVERED_TASKS
        if heard.stems and rng.random() < STEMS:
            tasks = STEM_TASKS
        task = str(rng.choice(list(tasks), p=list(tasks.values())))
    match task:
        case "generate":
            return Lesson(task, modes.FILL_MASK, piece, silence, everywhere, mix)
        case "cover":
            if heard.cover is None or rng.random() > COVERS:
                captioned = rng.random() > NO_CAPTION
                return Lesson(task, modes.FOLLOW_CODES, piece, model.codes_and_back(given), everywhere, mix, captioned)
            cover, other = heard.cover.float(), wet.cover.float()
            if rng.random() < 0.5:
                return Lesson(task, modes.FOLLOW_CODES, piece, model.codes_and_back(other), everywhere, mix)
            return Lesson(task, modes.FOLLOW_CODES, cover_of(piece), model.codes_and_back(given), everywhere, cover)
        case "repaint":
            mask = torch.zeros_like(mix)
            start, end = sorted(rng.integers(0, frames + 1, 2))
            mask[start:end] = 1
            return Lesson(task, modes.REPAINT, piece, torch.where(mask > 0, silence, given), mask, mix)
    stems = {track: latents.float() for track, latents in wet.stems.items()}
    quiet = model.quiet[0, :frames]
    [(absent, rest)] = wet.without.items()

    def together(tracks: list[str]) -> Tensor:
        """Some of the band, as it was encoded or as the sum of its stems."""
        if len(tracks) == len(stems):
            return given
        if set(stems) - set(tracks) == {absent}:
            return rest.float()
        return quiet + sum(stems[track] - quiet for track in tracks)

    track = str(rng.choice(sorted(stems)))
    others = sorted(set(stems) - {track})
    some = [str(other) for other in rng.permutation(others)[: rng.integers(1, len(others) + 1)]]
    if task == "extract":  # from the band, or from some of it
        source = given if rng.random() < 0.5 else together(sorted([track, *some]))
        captioned = rng.random() > NO_CAPTION
        return Lesson(task, modes.EXTRACT.format(track.upper()), piece, source, everywhere,
                      heard.stems[track].float(), captioned, (track,))  # fmt: skip
    if rng.random() < 0.5:  # as the evaluation, and most users, would: to all the others
        track, some = absent, sorted(set(stems) - {absent})
    if task == "lego":
        return Lesson(task, modes.LEGO.format(track.upper()), piece, together(sorted(some)), everywhere,
                      heard.stems[track].float(), True, (track,))  # fmt: skip
    added = sorted(set(stems) - set(some))
    named = f" with {' | '.join(added).upper()}" if rng.random() < 0.8 else ""
    return Lesson(task, modes.COMPLETE.format(named), piece, together(sorted(some)), everywhere, mix)


def words(taught: Lesson, tokens, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Token ids of a freshly phrased prompt, now and then with metadata missing."""
    piece = corpus.describe(taught.piece, rng)
    if not taught.captioned:
        piece = replace(piece, caption=PLAIN_CAPTION if rng.random() < 0.5 else "")
    prompt, lyrics = tokenizer.prompts_of(piece, taught.instruction)
    without = NO_META if taught.captioned or taught.task == "generate" else NO_CAPTION
    for line in ("bpm", "timesignature", "keyscale"):
        if rng.random() < without:
            start = prompt.index(f"- {line}: ") + len(f"- {line}: ")
            prompt = f"{prompt[:start]}N/A{prompt[prompt.index(chr(10), start) :]}"
    return torch.tensor(tokens.encode(prompt).ids), torch.tensor(tokens.encode(lyrics).ids)


def padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Ids [B, L] padded with the closing token (0), and which are real."""
    keep = pad_sequence([torch.ones(len(r), dtype=torch.bool) for r in rows], batch_first=True)
    return pad_sequence(rows, batch_first=True), keep


def times(count: int, rng: np.random.Generator) -> Tensor:
    """Diffusion times [B]: half of them the eight that turbo sampling visits, half spread evenly before the shift."""
    spread = (rng.permutation(count) + rng.random(count)) / count
    shifted = SHIFT * spread / (1 + (SHIFT - 1) * spread)
    grid = np.array(TURBO_STEPS)[(spread * len(TURBO_STEPS)).astype(int)]
    return torch.from_numpy(np.where(rng.random(count) < 0.5, grid, shifted)).float()


def losses(
    model: Pocket, songs: Songs, chosen: list[int], tokens, rng: np.random.Generator, teacher: Teacher | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The flow-matching loss and those of the beat and of the score on one batch; a teacher's velocity is the target
    where there is one.
    """
    taught = [lesson(model, songs.pieces[i], songs.heard[i], songs.wet[i], rng) for i in chosen]

    reference = model.silence[:, : CONFIG["timbre_fix_frame"]]
    if rng.random() < REFERENCES:  # from a random place
        # A third of the window says as much, at a third of the cost; now and then it is the whole.
        window = CONFIG["timbre_fix_frame"] // (1 if rng.random() < 0.25 else 3)
        turned = [own.target.roll(-int(rng.integers(len(own.target))), 0) for own in taught]
        reference = torch.stack([t.repeat(-(-window // len(t)), 1)[:window] for t in turned])
        taught = [replace(own, captioned=own.captioned and rng.random() > NO_CAPTION) for own in taught]
    texts, lyrics = zip(*(words(own, tokens, rng) for own in taught), strict=True)
    (texts, text_keep), (lyrics, lyric_keep) = padded(list(texts)), padded(list(lyrics))
    source, mask, clean = (torch.stack([getattr(own, part) for own in taught]) for part in ("source", "mask", "target"))
    size, frames, _ = clean.shape
    dropped = torch.from_numpy(rng.random(size) < NO_CONDITION)
    prompts = (texts, text_keep, lyrics, lyric_keep, dropped, reference)

    t, noise = times(size, rng), torch.randn_like(clean)
    mixed = solvers.add_noise(clean, noise, t)
    context = torch.cat([source, mask], dim=-1)
    velocity = model.velocity(mixed, t, context, model.condition(*prompts))
    beat_loss, score_loss = asked_losses(model, taught, ~dropped & (t > ASKED_TIME), frames)
    target = noise - clean
    if teacher:
        guided = torch.tensor([own.task == "generate" for own in taught])
        target = teacher.velocity(mixed, t, context, prompts, guided)
    return F.mse_loss(velocity, target), beat_loss, score_loss


def asked_losses(model: Pocket, taught: list[Lesson], blind: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """How far the middle of the DiT is from knowing beat and score, in the songs [B] that are `blind`."""
    # Normalised: the stream is twenty times as large as what is asked for, and its answers would shake all below.
    told = model.asked(F.rms_norm(model.middle.float(), (WIDTH,))).float()
    if not blind.any():
        return 0 * told.sum(), 0 * told.sum()
    beat, score = told[blind].split([2 * len(HARMONICS), SCORE_ROWS], dim=-1)
    asked = [own for own, is_blind in zip(taught, blind.tolist(), strict=True) if is_blind]
    angles = torch.stack([beat_angles(own.piece, told.shape[1]) for own in asked])
    played = []
    for own in asked:
        tracks = score_of(own.piece, frames)
        heard = [roll for track, roll in tracks.items() if own.tracks is None or track in own.tracks]
        played.append(torch.stack(heard).amax(0).float() if heard else torch.zeros(told.shape[1], SCORE_ROWS))
    return F.mse_loss(beat, angles), F.mse_loss(score, torch.stack(played))


def denoised(
    model: Pocket, piece: corpus.Song, clean: Tensor, t: float, noise: Tensor, tokens, rng: np.random.Generator
) -> Tensor:
    """What one step from time `t` makes of a song [T, C] in noise, given its prompt."""
    alone = Heard(clean, {}, {})
    taught = lesson(model, piece, alone, alone, rng, "generate")
    texts, lyrics = (ids[None] for ids in words(taught, tokens, rng))
    keep = [torch.ones_like(ids, dtype=torch.bool) for ids in (texts, lyrics)]
    reference = model.silence[:, : CONFIG["timbre_fix_frame"]]
    condition = model.condition(texts, keep[0], lyrics, keep[1], torch.zeros(1, dtype=torch.bool), reference)
    mixed = t * noise + (1 - t) * clean
    context = torch.cat([taught.source, taught.mask], dim=-1)[None]
    decoder = model.dit.decoder
    return (mixed - t * decoder(mixed[None], torch.tensor([t]), context, decoder.project_condition(condition)).float())[
        0
    ]


def beat_angles(piece: corpus.Song, tokens: int) -> Tensor:
    """Cosines and sines of four bars, of two, of a bar, of its pulse and of half its pulse [tokens, 10]."""
    bars = torch.arange(tokens) * CONFIG["patch_size"] / corpus.bar_frames(piece.bpm, piece.pulses)
    angles = 2 * math.pi * torch.stack([bars * piece.pulses**power * factor for power, factor in HARMONICS], dim=1)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def train(rank: int, asked: argparse.Namespace) -> None:
    """One process of the training."""
    rng = sitting.join(rank, asked)
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # of the processor too; in float32 steps take 1.4 x
    tokens = tokenizer.trained()
    model = fresh(tokens)
    for name, codes in torch.load(WORK / "codes.pt", weights_only=True).items():
        model.dit.get_parameter(name).requires_grad_(False).copy_(codes)
    songs, teacher = Songs(), None
    if asked.distill:
        teacher = Teacher(fresh(tokens).eval(), asked.distill)
        for each in (teacher.model, model):
            each.load_state_dict(sitting.finished(CHECKPOINT))

    def lost(step: int) -> tuple[Tensor, dict[str, float]]:
        if step % 100 == 0 or not songs.pieces:
            songs.refresh()
        # Attention by plain products: PyTorch's fused backward on CPUs took twice as long at these lengths.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            flow, beat, score = losses(model, songs, songs.batch(asked.frames, rng), tokens, rng, teacher)
        figures = {"flow": flow.item(), "beat": beat.item(), "score": score.item(), "songs": len(songs.pieces)}
        return flow + BEAT_WEIGHT * beat + SCORE_WEIGHT * score, figures

    sitting.sit(model, DISTILLED if teacher else CHECKPOINT, asked, lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2400, help="latent frames in a process's batch")
    parser.add_argument("--distill", type=float, help="scale of the guidance that a last sitting trains in")
    sitting.begin(train, parser)


if __name__ == "__main__":
    main()
