"""Random documents and arguments: never a traceback, always a documented exit code."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from acestep_cli.cli.app import app
from acestep_cli.errors import UsageError
from acestep_cli.song import document, modes, spec, spec_keys
from support import band, tiny
from support.places import ROOT

SCRIPTING = (ROOT / "docs" / "scripting.md").read_text(encoding="utf-8")
DOCUMENTED = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", SCRIPTING, re.MULTILINE) for code in row.split(",")}
#: Examples of the default suite and of the whole one, 10,000; documents are cheap, a run of the program is not.
DOCUMENTS = pytest.mark.parametrize("examples", [1_000, pytest.param(9_000, marks=pytest.mark.slow)])
ARGUMENT_LISTS = pytest.mark.parametrize("examples", [200, pytest.param(1_000, marks=pytest.mark.slow)])
FUZZ: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
    "database": None,
}

KEYS = st.sampled_from([*spec_keys.KEYS, *spec_keys.OTHER_NAMES, "render", "<<", "? a", "- b", "[c]", "bpm ", "'key'"])
SCALARS = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["~", "no", "1:30", "6/8", "A minor", "A #m", "[Verse]", "|", ">-", "&a x", "*a", "!!int 3", "- a", "{a: b}",
         "[1, 2", "'", '"', "- - - a", "|\n  la\n  la", "[1, 0.5]", "peak:-1", "lufs:-14", "-", "@", "`", "%", "\t"]
    ),
)  # fmt: skip
LINES = st.builds(lambda key, value: f"{key}: {value}", KEYS, SCALARS)
YAML = st.one_of(
    st.lists(LINES, max_size=8).map("\n".join),
    st.text(max_size=200),
    st.builds("---\n{}\n---\n{}".format, st.lists(LINES, max_size=4).map("\n".join), st.text(max_size=60)),
)  # fmt: skip
BYTES = st.one_of(YAML.map(lambda text: text.encode(errors="surrogatepass")), st.binary(max_size=200))


@DOCUMENTS
def test_a_document_is_read_or_refused_with_its_place(tmp_path: Path, examples: int) -> None:
    @settings(max_examples=examples, **FUZZ)
    @given(data=BYTES, suffix=st.sampled_from([".yaml", ".md"]))
    def check(data: bytes, suffix: str) -> None:
        check_document(tmp_path / f"fuzz{suffix}", data)

    check()


def check_document(path: Path, data: bytes) -> None:
    """Read a document, or see that its refusal names it; write what was read, and read it again."""
    path.write_bytes(data)
    try:
        request = spec.load(path)
    except UsageError as error:
        found = error
    else:
        found = None
    if found is not None:
        assert str(path) in found.message or "exclude each other" in found.message
        return
    again = path.with_name("again.yaml")
    again.write_bytes(spec.dump_spec(request).encode())
    assert spec.load(again) == request


FLAGS = st.sampled_from([spec_keys.flag_of(name) for name, key in spec_keys.KEYS.items() if key.flag])
WORDS = st.one_of(
    st.builds(lambda flag, value: [flag, value], FLAGS, SCALARS),
    st.builds(lambda key, value: ["--set", f"{key}={value}"], KEYS, SCALARS),
    st.builds(lambda to: ["-o", to], st.one_of(st.sampled_from(["-", "a.wav", "out/", "x.xyz", "", "/"]), SCALARS)),
    st.sampled_from(
        [["-c", "a"], ["-c", "silent"], ["-d", "10"], ["--json"], ["--dry-run"], ["--explain"], ["-q"], ["-v"],
         ["--force"], ["--no-sidecar"], ["--instrumental"], ["-n", "2"], ["song.yaml"], ["song.md"], ["-"],
         ["--device", "tpu"], ["--dtype", "fp16"], ["--progress", "none"], ["--no-input"], ["-m", "base"],
         ["--models-dir", "nowhere"]]
    ),
    st.text(max_size=12).map(lambda word: [word]),
)  # fmt: skip
COMMANDS = st.sampled_from(
    [*modes.MODES, "render", "spec check", "spec show", "spec new", "spec schema", "spec languages", "spec", "nonsense"]
)


@pytest.fixture(scope="module")
def models(two_b: tiny.Oracle) -> str:
    return str(two_b.root)


@ARGUMENT_LISTS
def test_a_command_line_ends_with_a_documented_code(
    tmp_path_factory: pytest.TempPathFactory, models: str, examples: int
) -> None:
    @settings(max_examples=examples, **FUZZ)
    @given(command=COMMANDS, words=st.lists(WORDS, max_size=5), document=YAML, stdin=YAML)
    def check(command: str, words: list[list[str]], document: str, stdin: str) -> None:
        check_command(tmp_path_factory.mktemp("fuzz"), models, command, words, document=document, stdin=stdin)

    check()


def check_command(
    folder: Path, models: str, command: str, words: list[list[str]], *, document: str, stdin: str
) -> None:
    """Run a command in a folder with documents, and see how it ends."""
    for name in ("song.yaml", "song.md"):
        (folder / name).write_bytes(document.encode(errors="surrogatepass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ACESTEP_MODELS_DIR", models)
        patch.setitem(sys.modules, "acestep_cli.pipeline", band.module())
        # No system passes NUL in an argument.
        arguments = [*command.split(), *(word.replace("\0", "") for group in words for word in group)]
        result = CliRunner().invoke(app, arguments, input=stdin.encode(errors="surrogatepass"), catch_exceptions=False)
    assert result.exit_code in DOCUMENTED - {1}, (arguments, result.stderr)
    assert "Traceback" not in result.stderr
    assert result.exit_code == 0 or result.stderr.strip() or not words  # `acestep spec` shows its help


def test_the_readme_documents_all_codes_that_the_fuzz_allows() -> None:
    assert {0, 2, 3, 6, 7, 9} <= DOCUMENTED


def test_a_document_s_lines_are_counted_from_its_top() -> None:
    found: dict[str, Any] = {
        entry.name: entry.line
        for entry in document.parse_document("---\na: b\n\nc: d\n---\n\nla", markdown=True).entries
    }
    assert found == {"a": 2, "c": 4, "lyrics": 7}
