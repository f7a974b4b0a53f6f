"""Words of other programs, typed as a command or a flag, and what does the same here.

A word that is near in spelling and far in meaning is no suggestion: nobody who types `play` wants `replay`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from acestep_cli.song import spec_keys


def _by_word(table: Mapping[str, str]) -> dict[str, str]:
    """Return the hints of a table by single words."""
    return {word.strip(): hint for words, hint in table.items() for word in words.split(",")}


#: Sentences by the words that are typed in the place of a command; two words are a command of a group.
COMMANDS = _by_word({
    "play, hear, audition, preview":
        "acestep listen takes/ makes a page to hear takes side by side; any player plays a file.",
    "sing, make, create, compose, gen, song, music, prompt, text2music, run, start":
        'acestep generate "warm lo-fi beat, rhodes" makes a song; acestep render song.yaml renders a spec.',
    "roll, reroll, again, retry, batch": "acestep generate song.yaml -n 4 --again makes four more takes.",
    "vary, variation, variations":
        "acestep generate take.flac.yaml --variation 15% makes a take that is a little different.",
    "rank, score, best": "acestep generate song.yaml -n 4 --rank makes takes and names the best first.",
    "new, init, template":
        "acestep spec new > song.yaml begins a song; acestep examples list names those to begin from.",
    "idea, lyrics, songwriter, inspire": 'acestep write "a soft love song" -o song.yaml turns an idea into a spec.',
    "inpaint, fix, retake, redo, regenerate":
        'acestep repaint song.flac --start 8 --end 16 -c "…" makes a part anew.',
    "outpaint, lengthen, continue, prolong": "acestep extend song.flac --after 0:30 adds half a minute.",
    "remix, restyle, style, audio2audio": 'acestep cover song.flac -c "…" plays a recording again in another style.',
    "relyric, rewrite": "acestep edit song.flac --lyrics-file words.txt puts other words to its melody.",
    "stems, stem, split, separate, isolate, karaoke":
        "acestep extract song.flac --all -o stems/ takes the tracks out.",
    "accompany, arrange, layer, add": "acestep lego drums.wav --track bass adds a track, acestep complete several.",
    "convert, transcode, mp3, encode":
        "acestep render take.flac.yaml --format mp3 renders a take into another format.",
    "master, normalize, loudness": "acestep render take.flac.yaml --loudness lufs:-14 -o louder.flac sets the level.",
    "daw, reaper, midi":
        "acestep export take.flac --daw -o for-the-daw/ writes tracks, markers, a tempo map and a project.",
    "train, finetune, fine-tune, lora-train, teach": "acestep train-lora my-songs/ -o my-sound/ trains a LoRA.",
    "transcribe, caption, understand, tag": "acestep describe song.flac -o song.yaml turns a recording into a spec.",
    "compare, diff": "acestep show a.flac b.flac compares takes.",
    "info, inspect, view, waveform, analyze, analyse, open":
        "acestep show take.flac shows a take, acestep spec show song.yaml a spec.",
    "validate, lint":
        "acestep spec check song.yaml looks for mistakes in a spec, acestep check take.flac for faults in a file.",
    "test, verify, measure": "acestep check take.flac looks for faults in a file.",
    "pull, download, fetch, install, model":
        "acestep models pull turbo fetches a model; acestep models list names them.",
    "list, ls": "acestep show takes/ lists takes, acestep models list models, acestep examples list songs.",
    "plan": "acestep generate song.yaml --dry-run plans a render, acestep album plan album.yaml an album.",
    "build": "acestep album render album.yaml makes an album.",
    "clean, clear, prune": "acestep cache prune empties the cache; files of yours are never deleted.",
    "undo, delete, remove, rm": "Nothing is ever replaced without --force, and no command deletes a take.",
    "device, devices, gpu, hardware, status": "acestep doctor says what this machine has, and what fits it.",
    "serve, server, ui, gui, web, webui, app, api":
        "There is no server and no window; acestep help scripting tells how other programs use the commands.",
    "version": "acestep --version prints it.",
    "models download, models fetch, models get, models install, models add":
        "acestep models pull turbo fetches a model.",
    "models ls, models show, models status": "acestep models list names the models, and says which are here.",
    "album make, album build, album run, album generate": "acestep album render album.yaml -o out makes it.",
    "spec create, spec init": "acestep spec new > song.yaml begins a song.",
    "spec validate, spec lint, spec test": "acestep spec check song.yaml looks for mistakes.",
    "cache clear, cache clean, cache rm, cache delete": "acestep cache prune empties the cache.",
    "cache list, cache ls, cache size, cache show": "acestep cache du says what it holds.",
    "examples ls": "acestep examples list names the songs.",
    "lora train": "acestep train-lora my-songs/ -o my-sound/ trains a LoRA.",
})  # fmt: skip

#: Flags by the names that other programs have for them, besides those of keys (`spec_keys.OTHER_NAMES`).
FLAGS = _by_word({
    "text, description, caption-text": "--caption",
    "seconds, secs, time, audio-length, len": "--duration",
    "output-dir, outdir, out-dir, output-path, output-folder, out, save, save-path, save-to": "--output",
    "num-steps, num-inference-steps, infer-steps, sampling-steps, diffusion-steps, n-steps": "--steps",
    "cfg, guidance-strength, cfg-strength": "--guidance",
    "batch, num, count, num-takes, n-takes, samples, num-samples, variations, rolls": "--takes",
    "checkpoint, ckpt, model-name, model-path, config-path, checkpoint-path": "--model",
    "random-seed, manual-seed": "--seed",
    "no-vocals, no-lyrics, no-singing, no-voice": "--instrumental",
    "lora-path, lora-name, adapter, adapters": "--lora",
    "lang": "--language",
    "meter, time-sig": "--time-signature",
    "negative": "--negative-prompt",
    "gpu, cuda, cpu, mps, use-cpu": "--device",
    "precision, half, fp16, bf16, bfloat16, float16": "--dtype",
    "lowvram, low-vram, vram, memory, cpu-offload": "--max-vram",
    "overwrite, replace": "--force",
    "start-time, begin": "--start",
    "end-time, until": "--end",
    "add-before, prepend": "--before",
    "add-after, append": "--after",
    "cover-strength, audio-cover-strength, denoising-strength": "--strength",
    "ref-audio, reference-audio": "--reference",
    "sr, samplerate": "--sample-rate",
    "mp3, wav, flac, ogg, output-format": "--format",
    "lr": "--learning-rate",
    "epochs, max-steps, max-train-steps, iterations": "--steps",
    "plan, preview, simulate": "--dry-run",
    "silent": "--quiet",
    "parallel": "--together",
    "download": "--pull",
})  # fmt: skip
#: Sentences on names that are no flag, and for which there is another way.
SENTENCES = _by_word({
    "voice, singer, gender, vocals, vocal, male, female":
        "the voice is said in the caption: -c 'folk ballad, warm female voice'",
    "genre-tags, mood, instruments, instrument": "that is said in the caption: -c 'sad folk, fiddle'",
    "audio, input, input-audio, src-audio, src, source, file":
        "a recording is named without a flag: acestep cover song.flac",
    "lora-scale, lora-weight, lora-strength": "the strength stands behind the adapter: --lora my-sound/@80%",
    "yes, assume-yes": "nothing is ever asked: leave it out",
    "threads, num-threads": "OMP_NUM_THREADS=2 in the environment sets the threads",
})  # fmt: skip
#: Flags that do harm where somebody means another, so that only their own other names lead to them.
GRAVE = ("--force", "--pull")
#: The least likeness of two names, from 0 to 1, of which one may be a misspelling of the other: bmp, bpm. Their first
#: letters are the same: voice is no device.
ALIKE = 0.65


def command_hint(*words: str) -> str | None:
    """Return the command that does what `words` would, which are no command: one word, or a group and a word."""
    return COMMANDS.get(" ".join(words).casefold())


def flags_like(typed: str, known: Collection[str]) -> list[str]:
    """Return the flags among `known` that an unknown one, with its dashes, may mean: by its name elsewhere, or by its
    spelling.
    """
    name = typed.removeprefix("--").replace("_", "-")
    if (meant := _flag_elsewhere(name)) is not None:
        return [meant] if meant in known else []
    names = {flag.removeprefix("--"): flag for flag in known if flag.startswith(f"--{name[:1]}") and flag not in GRAVE}
    return [names[near] for near in difflib.get_close_matches(name, sorted(names), n=2, cutoff=ALIKE)]


def flag_sentence(typed: str) -> str | None:
    """Return a sentence on an unknown flag for which there is another way than a flag."""
    return SENTENCES.get(typed.removeprefix("--").replace("_", "-"))


def _flag_elsewhere(name: str) -> str | None:
    """Return the flag that is called `name` in other programs."""
    if (key := spec_keys.OTHER_NAMES.get(name.replace("-", "_"))) is not None:
        return spec_keys.flag_of(key)
    return FLAGS.get(name)
