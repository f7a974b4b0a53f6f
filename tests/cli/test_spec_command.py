"""`acestep spec`: templates that load, a schema that agrees with the program, checks that name the line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.errors import UsageError
from acestep_cli.song import document, schema, spec, spec_keys
from acestep_cli.song import examples as songbook
from acestep_cli.song.request import GROUPS, KEYS, Request
from support import pictures, tiny
from support.command import finish
from support.places import RESULT_SCHEMA, ROOT

pytestmark = pytest.mark.usefixtures("here")

SCHEMA = schema.song_schema()


def acestep(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["spec", *arguments], input=stdin, catch_exceptions=False)


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return name


# new


@pytest.mark.parametrize("name", songbook.example_files())
def test_every_song_is_a_template_that_loads_as_the_song(name: str) -> None:
    result = acestep("new", name)
    file = songbook.example_files()[name]
    first, second = result.stdout.splitlines()[:2]
    assert schema.EDITOR_LINE in (first, second)
    assert "songs/" not in result.stdout
    made = write(f"mine{file.suffix}", result.stdout)
    assert spec.load(Path(made)) == spec.load(file)


def test_a_blank_spec_names_every_key_and_loads() -> None:
    text = acestep("new").stdout
    assert text.startswith(schema.EDITOR_LINE)
    for name, key in spec_keys.KEYS.items():
        assert re.search(rf"^(# )?(  )?{name}:(?: |$)", text, re.MULTILINE)
        assert key.help in text
    assert spec.load(Path(write("a.yaml", text))).caption


@pytest.mark.parametrize("name", spec_keys.KEYS)
def test_what_a_blank_spec_shows_for_a_key_may_be_uncommented(name: str) -> None:
    text = acestep("new").stdout
    [block] = [part for part in text.split("\n\n") if re.search(rf"^(# )?(  )?{name}:(?: |$)", part, re.MULTILINE)]
    lines = [line.removeprefix("# ") for line in block.splitlines()[1:]]
    write("words.txt", "la\n")
    write("other.yaml", "bpm: 90\n")
    Path("cover.jpg").write_bytes(pictures.png())
    content = "\n".join(lines).replace("extends: words.txt", "extends: other.yaml")
    found = spec.load(Path(write("b.yaml", content)))
    assert name in ("lyrics_file", "from_lyrics_file", "before", "after", "extends") or getattr(found, name) is not None


def test_an_unknown_template_names_the_nearest() -> None:
    result = acestep("new", "balad")
    assert result.exit_code == 2
    assert "did you mean 'ballad'?" in result.stderr
    assert "night-drive" in result.stderr


# schema


class Core(yaml.SafeLoader):
    """The core schema of YAML 1.2, which editors read: `no` is text there, and 6:8 as well."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for tag, pattern, first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"null|~|", ["n", "~", ""]),
):
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first))


def typed(text: str) -> Any:
    """A document as an editor hands it to the schema."""
    return yaml.load(text, Loader=Core)


def test_the_committed_schema_is_the_program_s() -> None:
    committed = (ROOT / "schemas" / "song.schema.json").read_text(encoding="utf-8")
    assert committed == acestep("schema").stdout, "acestep spec schema > schemas/song.schema.json"


def described() -> dict[str, Any]:
    """What the schema says of each key, of those in maps as well."""
    found = dict(SCHEMA["properties"])
    for group in GROUPS:
        found |= found.pop(group)["properties"]
    return found


def test_the_schema_is_draft_7_and_says_something_of_every_key() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert set(described()) == {*spec_keys.KEYS, *spec_keys.SYNONYMS, spec_keys.RENDER}
    for name in spec_keys.KEYS:
        entry = described()[name]
        assert entry["description"] == spec_keys.KEYS[name].help
        assert entry["examples"]
    for name, key in KEYS.items():
        for example in described()[name]["examples"]:
            assert key.kind.read(example) is not None
            jsonschema.validate(example, described()[name])


@pytest.mark.parametrize("name", songbook.example_files())
def test_songs_keep_to_the_schema(name: str) -> None:
    file = songbook.example_files()[name]
    text = file.read_text(encoding="utf-8")
    jsonschema.validate(typed(document.split_front_matter(text)[0] if file.suffix == ".md" else text), SCHEMA)


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        ("bpm: 120", True), ("bpm: 20", False), ("bpm: 120.5", False), ("bmp: 90", False), ("key: F# minor", True),
        ("key: H minor", False), ("key: h-moll", True), ("key: Fis-Dur", True), ("key: la mineur", True),
        ("key: B-dur", False), ("key: Bb-dur", True), ("key: Fa dièse majeur", True), ("key: Am", True),
        ("time_signature: 6/8", True), ("time_signature: 3", True),
        ("time_signature: 5", False),
        ("duration: 90", True), ("duration: '1:30'", True), ("duration: 601", False), ("duration: 9h", False),
        ("language: ja", True), ("language: Japanese", True), ("language: klingon", False), ("seed: 7", True),
        ("seed: -1", False), ("seed: 4294967296", False), ("takes: 0", False), ("format: xyz", False),
        ("lyrics: [Verse]", False), ("loudness: lufs:-14", True), ("loudness: loud", False), ("codes: [1, 2]", True),
        ("codes: [-1]", False), ("timesteps: [1, 0.5]", True), ("timesteps: [2]", False), ("bitrate: 192k", True),
        ("bit_depth: 24", True), ("bit_depth: 12", False), ("model: turbo", True), ("model: ./mine", True),
        ("model: trubo", False), ("mode: generate", True), ("mode: cove", False), ("instrumental: true", True),
        ("instrumental: 3", False), ("guidance: 7.5", True), ("guidance: 0", False), ("render: {a: 1}", True),
        ("artist: The Tide Tables", True), (f"artist: {'x' * 501}", False), ("track_number: 0", False),
        ("year: 2026", True), ("year: 26", False), ("sample_rate: 44100", True), ("sample_rate: 22050", False),
        ("fade_in: 2s", True), ("fade_out: 61", False), ("songwriter: 1.7B", True), ("songwriter: 3B", False),
        ("songwriter_options: {top_k: 5}", True), ("songwriter_options: {top_q: 5}", False),
        ("songwriter_options: {temperature: -1}", False), ("songwriter_options: 5", False), ("top_k: 5", False),
    ],
)  # fmt: skip
def test_the_schema_and_the_program_agree(line: str, fits: bool) -> None:
    write("a.yaml", line)
    try:
        spec.load(Path("a.yaml"))
        accepted = True
    except UsageError:
        accepted = False
    assert accepted == fits
    assert jsonschema.Draft7Validator(SCHEMA).is_valid(typed(line)) == fits


# show


def test_show_folds_in_what_is_extended_with_the_origin_of_each_value() -> None:
    write("base.yaml", "caption: a\nbpm: 90\nlyrics: |\n  [Verse]\n  la\nkey: A minor\n")
    write("song.yaml", "extends: base.yaml\n# slower\nbpm: 80\ninstrumental: true\n")
    result = acestep("show", "song.yaml", "--origin", "--set", "key=C major")
    assert result.stdout == (
        "caption: a  # base.yaml:1\ninstrumental: true  # song.yaml:4\nbpm: 80  # song.yaml:3\n"
        "key: C major  # --set key\n"
    )


def test_what_is_shown_loads_as_the_same_request() -> None:
    write(
        "a.yaml", "caption: 'a: b # c'\nlyrics: |\n  [Verse]\n  la: la # la\nduration: 10\ncodes: " + str([1, 2] * 25)
    )
    for flags in ([], ["--origin"]):
        write("b.yaml", acestep("show", "a.yaml", *flags).stdout)
        assert spec.load(Path("b.yaml")) == spec.load(Path("a.yaml"))
    write("c.yaml", acestep("show", "a.yaml", "--resolved", "--origin").stdout)
    resolved = spec.load(Path("c.yaml"))
    assert (resolved.steps, resolved.model, resolved.takes) == (8, "turbo", 1)


def test_the_origin_of_a_deeper_base_names_its_file() -> None:
    write("low/base.yaml", "caption: a\nlyrics_file: words.txt\n")
    write("low/words.txt", "la\n")
    write("low/middle.yaml", "extends: base.yaml\nbpm: 90\n")
    write("song.md", "---\nextends: low/middle.yaml\n---\n\n[Verse]\nlo\n")
    result = acestep("show", "song.md", "--origin")
    assert f"bpm: 90  # {Path('low/middle.yaml')}:2" in result.stdout
    assert "lyrics: |  # song.md:5\n  [Verse]\n  lo\n" in result.stdout
    assert f"lyrics: |  # {Path('low/base.yaml')}:2, " in acestep("show", "low/middle.yaml", "--origin").stdout


def test_show_refuses_what_a_render_would() -> None:
    write("a.yaml", "caption: a\nguidance: 7\n")
    assert acestep("show", "a.yaml").exit_code == 0
    result = acestep("show", "a.yaml", "--resolved")
    assert result.exit_code == 2
    assert "a.yaml:2: guidance: 7 cannot be applied" in result.stderr


# check


def test_check_names_every_problem_of_every_spec() -> None:
    write("a.yaml", "caption: a\nbpm: 20\nbmp: 1\n")
    write("b.yaml", "caption: b\nguidance: 7\nsteps: 99\n")
    write("good.yaml", "caption: dusty slow blues\n")
    result = acestep("check", "a.yaml", "good.yaml", "b.yaml", "missing.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    for sentence in (
        "a.yaml:2: bpm: 20",
        "a.yaml:3: bmp",
        "b.yaml:2: guidance: 7",
        "b.yaml:3: steps",
        "missing.yaml: cannot",
    ):
        assert sentence in result.stderr
    assert "good" not in result.stderr


def test_check_says_when_all_is_well() -> None:
    write("a.yaml", "caption: dusty slow blues\n")
    assert acestep("check", "a.yaml").stderr == "No errors in a.yaml.\n"
    assert acestep("check", "a.yaml", "-q").stderr == ""
    assert acestep("check", "-", stdin="caption: dusty slow blues\n").exit_code == 0


LYRICS = "caption: dusty slow blues\nduration: 30\nlyrics: |\n  [Vrese]\n  la la la\n"


def test_check_warns_with_the_line_and_strict_makes_it_an_error() -> None:
    write("a.yaml", LYRICS)
    result = acestep("check", "a.yaml")
    assert result.exit_code == 0
    assert "Warning: a.yaml:4: lyrics: " in result.stderr
    strict = acestep("check", "a.yaml", "--strict", "--json")
    assert strict.exit_code == 2
    content = json.loads(strict.stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    assert "a.yaml:4" in content["warnings"][0]
    assert content["error"]["name"] == "usage"


def test_lines_of_markdown_and_of_flags_are_found_too() -> None:
    write("a.md", "---\ncaption: dusty slow blues\nduration: 30\n---\n\n[Vrese]\nla la la\n")
    assert "Warning: a.md:6: lyrics: " in acestep("check", "a.md").stderr
    write("words.txt", "[Vrese]\nla la la\n")
    write("b.yaml", "caption: dusty slow blues\nduration: 30\nlyrics_file: words.txt\n")
    assert "Warning: " + str(Path("words.txt").absolute()) + ":1: lyrics" in acestep("check", "b.yaml").stderr


def test_check_says_what_the_model_would_not_read() -> None:
    write("a.yaml", f"caption: {'warm dusty slow blues ' * 60}\n")
    assert "is cut off: " in acestep("check", "a.yaml").stderr


def test_a_model_that_is_not_installed_is_a_warning() -> None:
    write("a.yaml", "caption: dusty slow blues\nmodel: base\nguidance: 7\n")
    result = acestep("check", "a.yaml")
    assert result.exit_code == 0
    assert "The checkpoint base is not installed" in result.stderr
    write("b.yaml", "caption: dusty slow blues\nmodel: xl-turbo\nguidance: 7\n")
    assert "b.yaml:3: guidance: 7 cannot be applied" in acestep("check", "b.yaml").stderr


def test_the_bundled_songs_pass_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACESTEP_MODELS_DIR")  # the tiny checkpoint's tokenizer knows letters only
    files = [str(file) for file in songbook.example_files().values()]
    assert acestep("check", *files, "--strict").stderr == f"No errors in {len(files)} specs.\n"


def test_no_torch_is_loaded(two_b: tiny.Oracle) -> None:
    write("a.yaml", LYRICS)
    program = (
        "import sys; from acestep_cli.cli.app import app\n"
        "try: app(sys.argv[1:])\n"
        "finally: print(*(m for m in ('torch', 'transformers', 'tokenizers.x') if m in sys.modules), file=sys.stderr)"
    )
    for arguments in (["spec", "check", "a.yaml"], ["spec", "show", "a.yaml", "--resolved"], ["spec", "new"],
                      ["spec", "schema"], ["generate", "a.yaml", "--dry-run", "--explain"]):  # fmt: skip
        run = finish([sys.executable, "-c", program, *arguments], text=True, check=True)
        assert run.stderr.splitlines()[-1] == ""


def test_a_request_of_the_schema_s_examples_can_be_made() -> None:
    examples = {name: described()[name]["examples"][0] for name in KEYS if name not in ("codes", "instrumental")}
    assert Request(**examples).bpm == 96
