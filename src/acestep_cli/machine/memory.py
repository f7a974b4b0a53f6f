"""Memory of a render, stage by stage, from the sizes of the networks, the length, and the resident networks.

Weights and caches are counted exactly. Activations are estimated by the numbers per token or sample at the peak of each
stage; `benchmarks/memory_model.py` compares the sums with measured renders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from acestep_cli.machine import hardware
from acestep_cli.machine.hardware import GIB, Backend, DType
from acestep_cli.models.configs import WINDOWS_AT_ONCE, QwenConfig, VAEConfig, decoder_reach, encoder_reach
from acestep_cli.models.sizes import Sizes
from acestep_cli.song import musical_values, prompts

#: Memory that a device's own runtime takes before the first weight: libraries, kernels, workspaces.
RUNTIME_BYTES: dict[Backend, int] = {
    "cuda": GIB // 2,
    "rocm": GIB // 2,
    "xpu": GIB // 2,
    "mps": GIB // 4,
    "cpu": GIB // 2,
}
#: Share of the free memory that is not planned for: allocators never fill it to the last byte.
MARGIN = 0.05
# Tensors alive at the peak of a layer: the residual stream and its normalised copy, queries with the intermediates of
# their norm and rotary embedding, keys and values; or, in the MLP, its two inner activations.
STREAMS_IN_ATTENTION, QUERIES_IN_ATTENTION, KEYS_IN_ATTENTION = 3, 14, 4
STREAMS_IN_MLP, INNER_IN_MLP = 6, 2
#: The same in a step of the diffusion transformer on a card, where nothing is freed late, as counted by
#: `benchmarks/card_memory.py`; int8 has one more inner activation, before its scale.
CARD_STREAMS_IN_ATTENTION, CARD_QUERIES_IN_ATTENTION, CARD_KEYS_IN_ATTENTION = 2, 4, 4
CARD_STREAMS_IN_MLP, CARD_INNER_IN_MLP = 3, 2
#: Copies of the widest activation in the last stage of the autoencoder's decoder on a card.
COPIES_IN_DECODER = 9
#: Copies of the widest activation in the first stage of its encoder on a card.
COPIES_IN_ENCODER = 10
#: Copies in either on a processor, where these stages go through in chunks. `benchmarks/vae_decode.py` finds 3.1.
COPIES_IN_CHUNKS = 4
#: Copies of the waveform, in float32, while its level is set, and it is measured and encoded.
COPIES_IN_FINISH = 5
#: More copies while it is spliced into a source and compared with it.
COPIES_IN_SPLICE = 2
#: Copies of a matrix, in float32, while adapters are merged into it and the rounding loss is measured.
COPIES_IN_MERGING = 5
FLOAT32 = 4
#: Page-locked memory comes in powers of two: the matrices of the published sizes take a third more.
PAGE_LOCKED = 4 / 3
#: A byte of text is at most one token; of the tokenizers published, most words take one for three or four.
BYTES_PER_TOKEN = 2
#: Tokens of a prompt besides the user's words.
TEMPLATE_TOKENS = 80
#: Guidance of the Songwriter runs two rows.
SONGWRITER_ROWS = 2
#: Tokens of its prompt besides the user's words, and the least that is planned for: what it writes is read again.
SONGWRITER_TEMPLATE_TOKENS, SONGWRITER_PROMPT_TOKENS = 300, 1500
#: The most tokens of a prompt that it reads in one pass, which has a mask of this many rows.
SONGWRITER_PASS_TOKENS = 512
LATENT_STATES = 8
#: Of an edit: momentum and the velocity of the step before, of both sides; and of each draw in a step: both noised
#: latents, and both velocities. As counted by `benchmarks/source_memory.py`.
EDIT_STATES, EDIT_STATES_PER_DRAW = 4, 4
#: Rows of the input that one product of int8 matrices takes: fewer cost time, more cost memory.
INT8_PRODUCT_ROWS = 1024


@dataclass(frozen=True)
class Workload:
    """Size of one render: latent frames, tokens of caption and lyrics, and its recordings.

    `source` tells whether there is a source, `encodes_source` whether it is encoded, `references` the number of
    references and `reference_seconds` their total length. `conditions` are held at once, and `edit_draws` is the number
    of draws in a step of an edit, 0 where there is none. `waveform_frames` is the length of a song of which only
    `frames` are in view.
    """

    frames: int
    text_tokens: int
    lyric_tokens: int
    source: bool = False
    encodes_source: bool = False
    references: int = 0
    reference_seconds: float = 0.0
    conditions: int = 1
    edit_draws: int = 0
    waveform_frames: int = 0

    @classmethod
    def of(cls, seconds: float, caption: str | None, lyrics: str | None, vae: VAEConfig) -> Workload:
        """Return the workload of one song. Tokens are estimated from above."""
        tokens = [-(-len((words or "").encode()) // BYTES_PER_TOKEN) for words in (caption, lyrics)]
        return cls(
            vae.latent_frames(seconds),
            min(prompts.TEXT_TOKENS, tokens[0] + TEMPLATE_TOKENS),
            min(prompts.LYRIC_TOKENS, tokens[1] + TEMPLATE_TOKENS),
        )


@dataclass(frozen=True)
class Arrangement:
    """Arrangement of the networks in the memory of one device. Each field but the first two may lower the need."""

    on_cpu: bool
    dtype: DType
    tile_frames: int
    one_network: bool = False
    int8: bool = False
    #: Products of the int8 weights are made in int8 too.
    int8_arithmetic: bool = False
    streamed: bool = False
    vae_on_cpu: bool = False
    #: Takes that share a forward pass.
    together: int = 1

    def settings(self) -> dict[str, Any]:
        """Return all fields but `on_cpu`, which the device decides."""
        return {name: value for name, value in vars(self).items() if name != "on_cpu"}

    @property
    def weight_storage(self) -> str:
        """Storage of the diffusion transformer's weights in words, such as `bfloat16 int8 streamed`."""
        words = {"int8": self.int8, "arithmetic": self.int8_arithmetic, "streamed": self.streamed}
        return " ".join([self.dtype, *(word for word, holds in words.items() if holds)])

    @property
    def speed_key(self) -> str:
        """The key of measured speeds: a take that shares its passes needs another time than one alone."""
        return self.weight_storage if self.together == 1 else f"{self.weight_storage}, {self.together} together"


@dataclass(frozen=True)
class StageMemory:
    """Memory of a stage in bytes: resident weights by network, and working memory."""

    name: str
    resident: dict[str, int]
    working: int

    @property
    def total(self) -> int:
        return sum(self.resident.values()) + self.working


@dataclass(frozen=True)
class MemoryModel:
    """Memory of one render of a `Workload` in an `Arrangement`, in bytes."""

    sizes: Sizes
    work: Workload
    arrangement: Arrangement

    @property
    def stages(self) -> tuple[StageMemory, ...]:
        """Memory of each stage that uses a network, in order."""
        dit, vae = {"dit": self.dit_bytes}, {} if self.arrangement.vae_on_cpu else {"vae": self.vae_bytes}
        if self.sizes.adapter_parameters:
            dit["adapters"] = self.adapter_bytes
        both = dit | vae
        diffusing, decoding = (dit, vae) if self.arrangement.one_network else (both, both)
        recordings = self.input_audio_bytes if self.arrangement.on_cpu else 0
        encoding, tile = self.encoding_bytes, self.tile_bytes
        if self.arrangement.vae_on_cpu:
            encoding, tile = 0, 0
        found = [
            StageMemory("text", {"text": self.text_bytes}, self.work.text_tokens * self._qwen_token(self.sizes.text))
        ]
        if self.encodes_audio:
            found.append(StageMemory("listen", decoding, recordings + encoding))
        found += [
            StageMemory("condition", diffusing, recordings + max(self.condition_bytes, self.merging_bytes)),
            StageMemory("diffuse", diffusing, recordings + self.diffusing_bytes),
            StageMemory("decode", decoding, recordings + self.kept_bytes + tile),
        ]
        if self.sizes.songwriter is not None:
            found.insert(0, StageMemory("write", {"songwriter": self.songwriter_bytes}, self.writing_bytes))
        if self.arrangement.on_cpu:
            found.append(StageMemory("finish", decoding, recordings + self.kept_bytes + self.finishing_bytes))
        return tuple(stage for stage in found if self.sizes.used.issuperset(stage.resident))

    @property
    def encodes_audio(self) -> bool:
        """True where recordings are encoded."""
        return self.work.encodes_source or self.work.references > 0

    @property
    def host_bytes(self) -> int:
        """Main memory beside that of a card: streamed layers, the autoencoder if it runs there, and the waveform."""
        if self.arrangement.on_cpu:
            return 0
        dit, vae = self.sizes.dit, self.sizes.vae
        found = self.finishing_bytes + self.input_audio_bytes
        if self.arrangement.streamed:
            layers = dit.num_hidden_layers * self.block_bytes + dit.encoder_blocks * dit.encoder_block_parameters * (
                self.element
            )
            found += int(layers * PAGE_LOCKED)
        if self.arrangement.vae_on_cpu:
            alone = MemoryModel(self.sizes, self.work, replace(self.arrangement, on_cpu=True, dtype="float32"))
            found += vae.parameters * FLOAT32 + max(alone.tile_bytes, alone.encoding_bytes if self.encodes_audio else 0)
        return found

    @property
    def peak(self) -> StageMemory:
        """The stage with the most memory."""
        return max(self.stages, key=lambda stage: stage.total)

    @cached_property
    def element(self) -> int:
        """Bytes of a number in the networks' dtype."""
        return hardware.BYTES[self.arrangement.dtype]

    @property
    def text_bytes(self) -> int:
        return self.sizes.text.parameters * self.element

    @property
    def vae_bytes(self) -> int:
        return self.sizes.vae.parameters * self.element

    @property
    def songwriter_bytes(self) -> int:
        return self.sizes.songwriter.parameters * self.element if self.sizes.songwriter else 0

    @property
    def block_bytes(self) -> int:
        """One decoder layer."""
        dit = self.sizes.dit
        matrices = dit.block_matrix_parameters
        rest = dit.block_parameters - matrices
        return matrices * (1 if self.arrangement.int8 else self.element) + rest * self.element

    @property
    def dit_bytes(self) -> int:
        """The diffusion transformer with its encoders; if streamed, the part that is on the device at once."""
        dit, encoder_block = self.sizes.dit, self.sizes.dit.encoder_block_parameters * self.element
        outside = dit.parameters_outside_blocks * self.element
        if self.arrangement.streamed:  # one layer at work, one on its way
            return outside + 2 * max(self.block_bytes, encoder_block)
        return outside + dit.num_hidden_layers * self.block_bytes + dit.encoder_blocks * encoder_block

    @property
    def adapter_bytes(self) -> int:
        """Weights of all adapters, none of them merged."""
        return self.sizes.adapter_parameters * self.element

    @property
    def merging_bytes(self) -> int:
        """Working memory for merging adapters into the largest matrix; 0 without adapters."""
        largest = max(map(math.prod, self.sizes.dit.decoder_matrices.values()))
        return COPIES_IN_MERGING * largest * FLOAT32 if self.sizes.adapter_parameters else 0

    @property
    def tokens(self) -> int:
        return -(-self.work.frames // self.sizes.dit.patch_size)

    @property
    def condition_tokens(self) -> int:
        return self.work.text_tokens + self.work.lyric_tokens + max(self.work.references, 1)

    @property
    def cross_kv_bytes(self) -> int:
        """Keys and values of the conditions in all cross-attentions; with references, each take has its own."""
        dit = self.sizes.dit
        keys = dit.num_key_value_heads * dit.head_dim
        conditions = self.work.conditions * (self.arrangement.together if self.work.references else 1)
        return conditions * dit.num_hidden_layers * 2 * keys * self.condition_tokens * self.element

    @property
    def held_condition_bytes(self) -> int:
        """Encoded conditions, and the prompts that they were encoded from, which stay until the last take."""
        work = self.work
        conditions = work.conditions * (self.arrangement.together if work.references else 1)
        states = conditions * self.condition_tokens * self.sizes.dit.encoder_hidden_size
        prompts_of_all = work.conditions * (work.text_tokens + work.lyric_tokens) * self.sizes.text.hidden_size
        return (states + prompts_of_all) * self.element

    @property
    def diffusing_bytes(self) -> int:
        """Working memory of the diffusion: conditions, their projections, and one pass."""
        return self.held_condition_bytes + self.cross_kv_bytes + self.step_bytes

    @property
    def condition_bytes(self) -> int:
        """Working memory for encoding lyrics, timbre and audio codes, and the stored result."""
        dit = self.sizes.dit
        voices = max(self.work.references, 1)
        windows = WINDOWS_AT_ONCE * (dit.pool_window_size + 1) * self.work.source
        tokens = max(self.condition_tokens, voices * dit.timbre_fix_frame, windows)
        numbers = self._layer_numbers(
            dit.encoder_hidden_size,
            dit.encoder_intermediate_size,
            dit.encoder_num_attention_heads * dit.head_dim,
            dit.encoder_num_key_value_heads * dit.head_dim,
        )
        return self.cross_kv_bytes + tokens * numbers * self.element + self.latent_bytes

    @property
    def step_bytes(self) -> int:
        """Working memory of one pass through the diffusion transformer, with the latents of its takes."""
        dit = self.sizes.dit
        queries, keys = dit.num_attention_heads * dit.head_dim, dit.num_key_value_heads * dit.head_dim
        if self.arrangement.on_cpu:
            numbers = self._layer_numbers(dit.hidden_size, dit.intermediate_size, queries, keys)
        else:
            inner = CARD_INNER_IN_MLP + self.arrangement.int8
            numbers = max(
                CARD_STREAMS_IN_ATTENTION * dit.hidden_size
                + CARD_QUERIES_IN_ATTENTION * queries
                + CARD_KEYS_IN_ATTENTION * keys,
                CARD_STREAMS_IN_MLP * dit.hidden_size + inner * dit.intermediate_size,
            )
        one_take = self.tokens * numbers * self.element + self.latent_bytes + self._draw_bytes
        shared = self.tokens * self._position_numbers * self.element + self._unpacked_bytes
        return self.arrangement.together * one_take + shared

    @property
    def step_operations(self) -> float:
        """Multiplications and additions for one take in one pass through the diffusion transformer."""
        dit, tokens = self.sizes.dit, self.tokens
        width = dit.num_attention_heads * dit.head_dim
        seen = [
            self.condition_tokens + (min(tokens, 3 * dit.sliding_window) if dit.is_banded(layer) else tokens)
            for layer in range(dit.num_hidden_layers)
        ]
        matrices = dit.num_hidden_layers * dit.block_matrix_parameters
        return 2.0 * tokens * (matrices + 2 * width * sum(seen))

    @property
    def _position_numbers(self) -> int:
        """Numbers of a token in the rotary table and in the mask of the band, which all layers and takes share."""
        dit = self.sizes.dit
        group = dit.num_attention_heads // dit.num_key_value_heads
        return 2 * dit.head_dim + group * 3 * dit.sliding_window

    @property
    def _draw_bytes(self) -> int:
        """Latents of the draws of an edit; 0 where there is none."""
        draws = self.work.edit_draws
        return (EDIT_STATES + EDIT_STATES_PER_DRAW * draws) * self._latent_state_bytes if draws else 0

    @property
    def _latent_state_bytes(self) -> int:
        return self.work.frames * self.sizes.dit.latent_channels * FLOAT32

    @property
    def _unpacked_bytes(self) -> int:
        """The one matrix that is dequantised from int8 at a time; of a product of integers its input, its sums, and
        these scaled, in four bytes each.
        """
        dit = self.sizes.dit
        if self.arrangement.int8_arithmetic:
            rows = min(self.arrangement.together * self.tokens, INT8_PRODUCT_ROWS)
            return rows * (dit.hidden_size + 2 * dit.intermediate_size) * FLOAT32
        return dit.hidden_size * dit.intermediate_size * self.element if self.arrangement.int8 else 0

    @property
    def latent_bytes(self) -> int:
        """Latents of one take: noise, source, mask and velocity."""
        return LATENT_STATES * self._latent_state_bytes

    @property
    def kept_bytes(self) -> int:
        """Memory held before decoding besides weights, with the latents of the takes that wait for it; on a processor,
        with the waveform to be filled, and the keys and values that its heap frees late.
        """
        late = self.cross_kv_bytes + self.waveform_bytes if self.arrangement.on_cpu else 0
        waiting = (self.arrangement.together - 1) * self._latent_state_bytes
        return self.held_condition_bytes + self.latent_bytes + waiting + late

    @property
    def tile_bytes(self) -> int:
        """Working memory for decoding the widest tile: with neighbours on both sides, if the song is long enough."""
        vae, tile = self.sizes.vae, self.arrangement.tile_frames
        neighbours = min(-(-self.work.frames // tile) - 1, 2)
        frames = min(tile + neighbours * decoder_reach(vae), self.work.frames)
        copies = COPIES_IN_CHUNKS if self.arrangement.on_cpu else COPIES_IN_DECODER
        return copies * vae.decoder_channels * frames * vae.hop * self.element

    @property
    def encoding_bytes(self) -> int:
        """Working memory for encoding the widest tile of a source, or of the windows of a reference."""
        vae, tile = self.sizes.vae, self.arrangement.tile_frames
        window = self.sizes.dit.timbre_fix_frame if self.work.references else 0
        encoded = max(self.work.frames if self.work.encodes_source else 0, window)
        neighbours = min(-(-encoded // tile) - 1, 2)
        frames = min(tile + neighbours * encoder_reach(vae), encoded)
        copies = COPIES_IN_CHUNKS if self.arrangement.on_cpu else COPIES_IN_ENCODER
        return copies * vae.encoder_hidden_size * frames * vae.hop * self.element

    @property
    def finishing_bytes(self) -> int:
        """Copies of the waveform on its way into a file."""
        return (COPIES_IN_FINISH + COPIES_IN_SPLICE * self.work.source) * self.waveform_bytes

    @property
    def input_audio_bytes(self) -> int:
        """Recordings, which stay in memory until the last take."""
        vae = self.sizes.vae
        references = vae.audio_channels * math.ceil(self.work.reference_seconds * vae.sampling_rate) * FLOAT32
        return references + self.work.source * self.waveform_bytes

    @property
    def waveform_bytes(self) -> int:
        frames = max(self.work.frames, self.work.waveform_frames)
        return self.sizes.vae.audio_channels * frames * self.sizes.vae.hop * FLOAT32

    @property
    def writing_bytes(self) -> int:
        """The Songwriter's KV cache, the activations of one piece of its prompt, and the logits of one token of each
        take.
        """
        qwen = self.sizes.songwriter
        if qwen is None:
            return 0
        seconds = self.work.frames * self.sizes.vae.hop / self.sizes.vae.sampling_rate
        prompt = self.work.text_tokens + self.work.lyric_tokens + SONGWRITER_TEMPLATE_TOKENS
        length = max(prompt, SONGWRITER_PROMPT_TOKENS) + math.ceil(seconds * musical_values.CODES_PER_SECOND)
        keys = qwen.num_hidden_layers * 2 * qwen.num_key_value_heads * qwen.head_dim * length * self.element
        prefill = SONGWRITER_PASS_TOKENS * self._qwen_token(qwen)
        return self.arrangement.together * SONGWRITER_ROWS * (keys + qwen.vocab_size * FLOAT32) + prefill

    def _qwen_token(self, qwen: QwenConfig) -> int:
        """Return the working memory of one token in a layer."""
        numbers = self._layer_numbers(
            qwen.hidden_size,
            qwen.intermediate_size,
            qwen.num_attention_heads * qwen.head_dim,
            qwen.num_key_value_heads * qwen.head_dim,
        )
        return numbers * self.element

    @staticmethod
    def _layer_numbers(width: int, inner: int, queries: int, keys: int) -> int:
        attention = STREAMS_IN_ATTENTION * width + QUERIES_IN_ATTENTION * queries + KEYS_IN_ATTENTION * keys
        return max(attention, STREAMS_IN_MLP * width + INNER_IN_MLP * inner)
