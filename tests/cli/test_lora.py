"""Adapters on the command line: how they are named, what is refused, `acestep lora`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner, Result

from acestep_cli.audio import decode, distance, encode
from acestep_cli.audio.sound import Audio
from acestep_cli.cli.app import app
from acestep_cli.errors import UsageError
from acestep_cli.song import document, schema, spec, spec_layers
from acestep_cli.song.file_values import Lora, Loras
from support import adapter_files, tiny
from support.command import Run, loaded
from support.places import RESULT_SCHEMA


@pytest.fixture(autouse=True)
def here(here: Path) -> Path:
    """Each test starts in a folder with two adapters, and a tiny turbo checkpoint as the only one installed."""
    notes = {"base": "turbo", "trigger_word": "harbour"}
    adapter_files.peft(Path("my-sound"), adapter_files.pairs(tiny.TWO_B), notes=notes)
    adapter_files.kohya(Path("jazz.safetensors"), adapter_files.pairs(tiny.TWO_B, seed=1))
    return here


def generate(acestep: Run, *arguments: str) -> Result:
    return acestep("generate", "-c", "harbour at dusk", "-d", "10", *arguments)


def real(*arguments: str) -> Result:
    """The command with the true pipeline."""
    return CliRunner().invoke(app, [*arguments], catch_exceptions=False)


def meant(*values: str) -> list[tuple[str, float]]:
    return [(lora.path, lora.scale) for lora in Loras().read(list(values))]


def test_a_scale_stands_behind_the_last_at_sign() -> None:
    assert meant("a", "b@0.4", "c@60%", "d@-1.5", "e@2e1", "f@.5", "g@ 60 %") == [
        ("a", 1), ("b", 0.4), ("c", 0.6), ("d", -1.5), ("e", 20), ("f", 0.5), ("g", 0.6),
    ]  # fmt: skip
    assert meant("me@home/sound", "v@2@0.5", "x@y", "z@") == [
        ("me@home/sound", 1), ("v@2", 0.5), ("x@y", 1), ("z@", 1),
    ]  # fmt: skip
    assert Loras().read("a@0.5") == Loras().read([{"path": "a", "scale": "50%"}]) == (Lora("a", 0.5),)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([{"path": "a", "scale": "loud"}], "'loud' is not a scale such as 0.6, 60% or -1"),
        ([{"path": "a", "scale": "1e999"}], "is not a scale"),
        ([{"path": "a", "weight": "1"}], "'weight' is not a key of an adapter, which has a path and a scale"),
        ([{"scale": "1"}], "an adapter has a path, and this one has none"),
        ("@0.5", "is empty"),
        (["a", "a@2"], "'a' is given twice"),
        ([], "is an empty list"),
    ],
)
def test_what_is_no_list_of_adapters(value: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Loras().read(value)


def test_paths_in_a_spec_are_relative_to_its_folder(here: Path) -> None:
    Path("songs").mkdir()
    file = Path("songs/a.yaml")
    file.write_text("caption: x\nloras:\n  - path: ../my-sound\n    scale: 60%\n  - ../jazz.safetensors@-1\n")
    request = spec.load(file)
    assert [lora.scale for lora in request.loras or ()] == [0.6, -1]
    assert [Path(lora.path).resolve() for lora in request.loras or ()] == [here / "my-sound", here / "jazz.safetensors"]
    content = [{"path": lora.path, "scale": lora.scale} for lora in request.loras or ()]
    assert document.parse_document(spec.dump_spec(request), markdown=False).problems == ()
    Path("b.yaml").write_text(spec.dump_spec(request))
    assert spec.load(Path("b.yaml")) == request
    jsonschema.validate({"loras": content}, schema.song_schema())
    jsonschema.validate({"loras": "my-sound@60%"}, schema.song_schema())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- path: a\n    path: b", "has an item with a key that is there twice"),
        ("- path: [a]\n    scale: {b: c}", "scale is neither text, a number nor a list of them"),
        ("- a\n  - [b]\n  - c: d", "a list is not text"),
        ("- path: a\n    scale: loud", "'loud' is not a scale such as 0.6, 60% or -1"),
        ("- path: a\n    weight: 1", "'weight' is not a key of an adapter"),
        ("- a: !!x b", "'!!x b' begins with !, which YAML takes for the type of a value"),
    ],
)
def test_a_list_of_maps_that_is_none(text: str, why: str) -> None:
    Path("a.yaml").write_text(f"caption: x\nloras:\n  {text}\n")
    with pytest.raises(UsageError) as caught:
        spec.load(Path("a.yaml"))
    assert caught.value.message.startswith("a.yaml:2: loras: ")
    assert why in caught.value.message


def test_flags_replace_the_adapters_of_a_spec_and_how_they_are_stacked() -> None:
    Path("a.yaml").write_text("loras: [my-sound, jazz.safetensors]\nlora_mode: blend\n")
    found = spec.resolve(
        *spec_layers.read_layers(Path("a.yaml")), spec_layers.from_flags({"loras": ["my-sound@2"]})
    ).request
    assert [lora.scale for lora in found.loras or ()] == [2]
    assert found.lora_mode is None


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--lora", "nowhere"], 3, "--lora: The adapter"),
        (["--lora", "my-sound@much"], 3, "my-sound@much does not exist"),
        (["--lora", "my-sound", "--lora", "my-sound@2"], 2, "is given twice"),
        (["--lora-mode", "sum"], 2, "--lora-mode: there are no adapters to put together; name them in loras (--lora)."),
        (["--lora", "my-sound", "--lora-mode", "blend"], 2, "--lora-mode: blend makes shares of the scales of several"),
        (["--lora", "xl"], 3, "xl was made for another model than turbo: it adapts 32 of the matrices in other sizes"),
        (["--lora", "nan"], 3, "holds 1 weights that are not finite numbers"),
        (["--lora", "empty.safetensors"], 3, "holds no tensors"),
    ],
    ids=str,
)
def test_refused_before_weights_load(
    acestep: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", None)
    adapter_files.peft(Path("xl"), adapter_files.pairs(tiny.XL))
    broken = adapter_files.pairs(tiny.TWO_B)
    next(iter(broken.values()))[0][0, 0] = torch.nan
    adapter_files.peft(Path("nan"), broken)
    adapter_files.save(Path("empty.safetensors"), {})
    result = generate(acestep, *arguments)
    assert result.exit_code == code, result.stderr
    assert said in result.stderr
    assert not list(Path().glob("*.flac"))


def test_a_spec_names_the_line_of_an_adapter_that_does_not_fit(acestep: Run) -> None:
    adapter_files.peft(Path("xl"), adapter_files.pairs(tiny.XL))
    Path("a.yaml").write_text("caption: x\nduration: 10\nloras: xl\n")
    for command in ("generate", "spec check"):
        result = acestep(*command.split(), "a.yaml")
        assert "a.yaml:3: loras: " in result.stderr
        assert "was made for another model than turbo" in result.stderr
    assert acestep("generate", "a.yaml").exit_code == 3


def test_what_fits_in_part_and_what_the_caption_lacks_are_warnings(acestep: Run) -> None:
    weights = dict(adapter_files.pairs(tiny.TWO_B))
    weights["layers.77.self_attn.q_proj"] = weights["layers.0.self_attn.q_proj"]
    adapter_files.peft(Path("more"), weights, notes={"trigger_word": "lighthouse"})
    Path("a.yaml").write_text("caption: harbour\nduration: 10\nloras: more\n")
    for arguments in (["spec", "check", "a.yaml"], ["generate", "a.yaml", "--dry-run"]):
        result = acestep(*arguments)
        assert result.exit_code == 0, result.stderr
        assert "96 % of its tensors fit turbo, the rest is left out: layers.77.self_attn.q_proj." in result.stderr
        assert "was trained with the trigger word 'lighthouse', which the caption does not have" in result.stderr


def test_the_plan_counts_adapters(acestep: Run) -> None:
    result = generate(acestep, "--lora", "my-sound", "--dry-run", "--json")
    stages = json.loads(result.stdout)["outputs"][0]["plan"]["stages"]
    assert all(("adapters" in stage["resident"]) is ("dit" in stage["resident"]) for stage in stages)
    assert "diffusion transformer, adapters" in result.stderr


def test_a_sidecar_has_the_hashes_and_a_changed_adapter_is_another_recipe(acestep: Run) -> None:
    arguments = ["--lora", "my-sound@60%", "--seed", "7", "-o", "a.flac"]
    assert generate(acestep, *arguments).exit_code == 0
    written = Path("a.flac.yaml").read_text()
    assert "lora_mode: sum" in written
    assert re.search(r"^  adapters: \[[0-9a-f]{16}\]$", written, re.MULTILINE)
    assert "kept, for it has the same recipe" in generate(acestep, *arguments).stderr
    assert "kept, for it has the same recipe" in acestep("generate", "a.flac.yaml", "-o", "a.flac").stderr
    assert generate(acestep, *arguments, "--lora", "jazz.safetensors").exit_code == 9
    adapter_files.peft(Path("my-sound"), adapter_files.pairs(tiny.TWO_B, seed=9))
    result = generate(acestep, *arguments)
    assert result.exit_code == 9
    assert "a.flac exists already with another recipe" in result.stderr


def test_a_take_with_an_adapter_is_replayed_and_with_another_one_refused() -> None:
    arguments = ("generate", "-c", "harbour", "-d", "10", "--no-think", "--seed", "7", "--lora", "my-sound@60%")
    made = real(*arguments, "--cache", "-n", "2", "-o", "a/")
    assert made.exit_code == 0, made.stderr
    assert made.stderr.count("my-sound at 0.6: 32 matrices, merged into the weights\n") == 1
    applied = [{"name": "my-sound", "strength": 0.6, "matrices": 32, "merged": 32}]
    assert yaml.safe_load(Path("a/harbour-1.flac.yaml").read_text())["render"]["applied"] == applied
    again = real(*arguments, "--cache", "-o", "a.flac")  # from what was kept
    assert again.exit_code == 0, again.stderr
    assert yaml.safe_load(Path("a.flac.yaml").read_text())["render"]["applied"] == applied
    result = real("replay", "a.flac")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "a.flac: identical\n"
    assert real("replay", "a.flac", "--tags").stdout == "a.flac: identical\n"  # the adapter lies beside it
    adapter_files.peft(Path("my-sound"), adapter_files.pairs(tiny.TWO_B, seed=9))
    result = real("replay", "a.flac")
    assert result.exit_code == 2
    assert "a.flac was made: somebody changed it, or a recording or adapter that it names" in result.stderr


def test_an_album_says_which_adapters_have_changed(acestep: Run) -> None:
    song = "{{id: one, caption: harbour, duration: 10, instrumental: true, seed: 1, loras: my-sound@{}}}"
    album = f"tracks:\n- {song}\n"
    Path("album.yaml").write_text(album.format(1))
    result = acestep("album", "render", "album.yaml", "-o", "out")
    assert result.exit_code == 0, result.stderr
    Path("album.yaml").write_text(album.format(0.5))
    result = acestep("album", "plan", "album.yaml", "-o", "out")
    assert "one: stale: loras: [my-sound@1] -> [my-sound@0.5]" in result.stderr


def test_inspect_says_what_an_adapter_is_and_loads_no_torch(acestep: Run, two_b: tiny.Oracle) -> None:
    result = acestep("lora", "inspect", "my-sound", "jazz.safetensors")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("my-sound: LoRA, named as by PEFT, 14,336 weights, ")
    for line in (
        "rank 4, alpha 8: its product is multiplied by 2",
        "adapts 32 matrices: 4 ",
        "made for turbo\n  trigger word: harbour\n  fits turbo: all of its tensors",
        "jazz.safetensors: LoRA, named as by kohya",
        "made for a model it does not name\n  fits turbo: all",
    ):
        assert line in result.stdout
    assert loaded("lora", "inspect", "my-sound", "--models-dir", str(two_b.root)) == (0, [])


def test_inspect_as_json(acestep: Run) -> None:
    result = acestep("lora", "inspect", "my-sound", "--json")
    content = json.loads(result.stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    [found] = content["adapters"]
    assert (found["kind"], found["ranks"], found["alphas"], found["factors"]) == ("LoRA", [4], [8], [2])
    assert (found["base"], found["trigger_word"], found["matrices"]) == ("turbo", "harbour", 32)
    assert found["targets"]["cross_attn.o_proj"] == 4
    assert found["fits"]["turbo"] == 1
    assert found["fits"]["xl-turbo"] == found["fits"]["pocket"] == 0


def test_inspect_refuses_what_is_broken_or_does_not_fit(acestep: Run) -> None:
    adapter_files.peft(Path("xl"), adapter_files.pairs(tiny.XL))
    assert acestep("lora", "inspect", "xl").exit_code == 0
    assert "fits no checkpoint of the table" in acestep("lora", "inspect", "xl").stdout
    for path, said in (("xl", "was made for another model than turbo"), ("nowhere", "does not exist")):
        result = acestep("lora", "inspect", path, "-m", "turbo")
        assert result.exit_code == 3
        assert said in result.stderr


COMPARE = ("lora", "compare", "my-sound", "-c", "harbour", "-d", "10", "--seed", "7", "--no-think", "-o", "ab/")


def test_compare_renders_one_seed_with_and_without() -> None:
    result = real(*COMPARE, "jazz.safetensors", "--scales", "0,0.1,1", "--json")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    found = content["comparison"]["with"]
    assert [(one["adapter"], one["scale"]) for one in found] == [
        (adapter, scale) for adapter in ("my-sound", "jazz.safetensors") for scale in (0.1, 1)
    ]
    names = ["without", "my-sound@0.1", "my-sound@1", "jazz@0.1", "jazz@1"]
    assert [output["path"] for output in content["outputs"]] == [f"ab/{name}.flac" for name in names]
    assert {output["seed"] for output in content["outputs"]} == {7}
    for weak, strong in (found[:2], found[2:]):
        assert 0 < weak["distance_db"] < strong["distance_db"]
    alone = real("generate", "-c", "harbour", "-d", "10", "--seed", "7", "--no-think", "-o", "alone.flac")
    assert alone.exit_code == 0, alone.stderr
    plain, without = decode.read_audio(Path("alone.flac")), decode.read_audio(Path("ab/without.flac"))
    assert np.array_equal(plain.samples, without.samples)


def test_compare_tells_events_and_never_collides(acestep: Run) -> None:
    words = ("lora", "compare", "my-sound", "-c", "harbour", "-d", "10", "--scales", "1", "--events", "e.ndjson")
    for number in (1, 2):
        result = acestep(*words)  # the band plays the same with and without
        assert (result.exit_code, result.stdout) == (6, f"without-{number}.flac\nmy-sound@1-{number}.flac\n")
        lines = [json.loads(line) for line in Path("e.ndjson").read_text().splitlines()]
        took = [line["path"] for line in lines if line["event"] == "take"]
        assert took == [f"without-{number}.flac", f"my-sound@1-{number}.flac"]
        assert (lines[-1]["event"], lines[-1]["exit_code"]) == ("end", 6)


@pytest.mark.parametrize("flag", ["--smoke", "--auto", "--rank", "--pull", "--explain", "--takes"])
def test_compare_has_no_flag_without_a_meaning(acestep: Run, flag: str) -> None:
    said = acestep(*COMPARE, flag).stderr
    assert f"No such option: {flag}" in said
    assert f": {flag})" not in said


def test_compare_says_so_where_nothing_changes() -> None:
    weights = {name: (down, up * 0) for name, (down, up) in adapter_files.pairs(tiny.TWO_B).items()}
    adapter_files.peft(Path("my-sound"), weights)
    result = real(*COMPARE, "--scales", "1")
    assert result.exit_code == 6
    assert "my-sound at 1 changes nothing: every sample is as without it." in result.stderr
    assert "my-sound at 1: 0.00 dB from without.flac" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--scales", "loud"], 2, "--scales: 'loud' is not a scale such as 0.6, 60% or -1."),
        (["--scales", "0"], 2, "--scales: 0 alone compares nothing."),
        (["--scales", "0,0%,-0"], 2, "--scales: 0 alone compares nothing."),
        (["--scales", ""], 2, "--scales: '' is not a scale such as 0.6, 60% or -1."),
        (["--scales", "1,nan"], 2, "--scales: 'nan' is not a scale"),
        (["--scales", "1e400"], 2, "--scales: '1e400' is not a scale"),
        (["-o", "ab.flac"], 2, "--output ab.flac is one file, and a comparison makes several."),
        (["-o", "-"], 2, "--output - is one file"),
        (["-o", "song.wav/"], 9, "song.wav cannot be written: not a directory."),
        (["nowhere"], 3, "PATH: The adapter"),
        (["song.wav"], 3, "song.wav is not an adapter, which is a folder or a .safetensors file."),
        (["folder"], 3, "folder holds no adapter"),
        (["xl"], 3, "xl was made for another model than turbo"),
        (["nan"], 3, "nan is broken"),
        (["junk.safetensors"], 3, "junk.safetensors is not a safetensors file"),
        ([""], 2, "PATH: the name of an adapter is empty."),
        (["my-sound"], 2, "PATH: my-sound and my-sound are one adapter."),
        (["./my-sound"], 2, "PATH: my-sound and ./my-sound are one adapter."),
        (["my-sound/adapter_model.safetensors"], 2, "are one adapter."),
        (["linked"], 2, "PATH: my-sound and linked are one adapter."),
        (
            ["--set", "loras=jazz.safetensors"],
            2,
            "--set loras: has no meaning for a comparison: PATH names the adapters.",
        ),
        (["--set", "takes=4"], 2, "--set takes: has no meaning for a comparison: it makes one take of each."),
        (["--lora", "jazz.safetensors"], 2, "No such option: --lora"),
        (["--spec", "nosuch.yaml"], 2, "nosuch.yaml: cannot be read: no such file or directory"),
        (["--bpm", "fast"], 2, "--bpm: 'fast' is not a whole number from 30 to 300"),
    ],
    ids=str,
)
def test_compare_refuses(acestep: Run, arguments: list[str], code: int, said: str) -> None:
    write_what_is_no_adapter()
    result = acestep(*COMPARE, *arguments)
    assert result.exit_code == code, result.stderr
    assert said in result.stderr
    assert not Path("ab").exists()


def write_what_is_no_adapter() -> None:
    for name in ("song.wav", "junk.safetensors"):
        Path(name).write_bytes(b"no adapter")
    Path("folder").mkdir()
    Path("linked").symlink_to("my-sound")
    adapter_files.peft(Path("xl"), adapter_files.pairs(tiny.XL))
    broken = adapter_files.pairs(tiny.TWO_B)
    next(iter(broken.values()))[0][0, 0] = torch.nan
    adapter_files.peft(Path("nan"), broken)


def test_compare_tells_all_that_is_wrong(acestep: Run) -> None:
    write_what_is_no_adapter()
    words = ("nowhere", "nan", "./my-sound", "--scales", "loud", "-o", "a.flac", "--bpm", "fast")
    result = acestep("lora", "compare", "my-sound", "-c", "x", "-d", "10", *words)
    assert result.exit_code == 2
    for said in ("are one adapter", "--scales: 'loud'", "--output a.flac is one file", "--bpm: 'fast'"):
        assert said in result.stderr
    result = acestep("lora", "compare", "my-sound", "-c", "x", "-d", "10", "nowhere", "nan")
    assert result.exit_code == 3
    assert "nowhere does not exist" in result.stderr
    assert "nan is broken" in result.stderr


def test_compare_replaces_no_file(acestep: Run) -> None:
    Path("ab").mkdir()
    Path("ab/my-sound@1.flac").write_bytes(b"mine")
    result = acestep(*COMPARE)
    assert result.exit_code == 9
    assert "ab/my-sound@1.flac exists already" in result.stderr
    assert [path.name for path in Path("ab").iterdir()] == ["my-sound@1.flac"]
    assert Path("ab/my-sound@1.flac").read_bytes() == b"mine"


def test_compare_leaves_out_the_adapters_of_a_spec_and_says_so(acestep: Run) -> None:
    Path("song.yaml").write_text(
        "caption: x\nduration: 10\nseed: 7\nloras: [jazz.safetensors, my-sound]\nlora_mode: blend\n"
    )
    result = acestep("lora", "compare", "my-sound", "--spec", "song.yaml", "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    [warning] = [one for one in content["warnings"] if "of its own" in one]
    assert warning.startswith("song.yaml names adapters of its own, which are left out of the comparison: ")
    assert "jazz.safetensors" in warning
    asked = [[lora["path"] for lora in output["request"].get("loras") or ()] for output in content["outputs"]]
    assert [len(loras) for loras in asked] == [0, 1, 1]
    assert "blend" not in [output["request"].get("lora_mode") for output in content["outputs"]]


def test_scales_that_are_close_are_two(acestep: Run) -> None:
    result = acestep(*COMPARE, "--scales", "0.3,0.30000001,30%", "--dry-run")
    assert result.stdout.splitlines() == [
        "ab/without.flac", "ab/my-sound@0.3.flac", "ab/my-sound@0.30000001.flac",
    ]  # fmt: skip


def test_compare_is_of_songs_in_one_file(acestep: Run, base: tiny.Oracle) -> None:
    sound = Audio(np.random.default_rng(0).normal(size=(2, 96_000)).astype(np.float32) * 0.1, 48_000)
    encode.write_audio(Path("song.wav"), sound, encode.Finish(encode.resolve_encoding("wav"), "none"))
    Path("stems.yaml").write_text("mode: extract\nsource: song.wav\ntrack: vocals\n")
    result = acestep("lora", "compare", "my-sound", "--spec", "stems.yaml", "--models-dir", str(base.root))
    assert result.exit_code == 2
    assert "extract makes several files of a take, and only takes of one file are compared." in result.stderr


def test_the_distance_of_spectra() -> None:
    noise = np.random.default_rng(0).normal(size=(2, 60_000)).astype(np.float32) * 0.1
    sound = Audio(noise, 48_000)
    assert distance.spectral_distance(sound, sound) == 0
    assert distance.spectral_distance(sound, Audio(noise * 0.5, 48_000)) < 1e-3
    other = Audio(noise + 0.01 * np.random.default_rng(1).normal(size=noise.shape).astype(np.float32), 48_000)
    muffled = Audio(np.cumsum(noise, axis=1, dtype=np.float32) * 0.1, 48_000)
    assert 0.1 < distance.spectral_distance(sound, other) < 3 < distance.spectral_distance(sound, muffled)
