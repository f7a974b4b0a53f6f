"""docs/specification.md has the sections that the code cites, and the words and numbers that the code uses."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from acestep_cli import solvers
from acestep_cli.models import checkpoint_table
from acestep_cli.models.sizes import PUBLISHED_2B, PUBLISHED_SONGWRITERS, PUBLISHED_TEXT, PUBLISHED_XL
from acestep_cli.song import modes, songwriter_prompts
from acestep_cli.song.languages import LANGUAGES
from acestep_cli.song.musical_values import TRACKS

ROOT = Path(__file__).parent.parent
DOCUMENT = "docs/specification.md"
HEADING = re.compile(r'^(#{2,3}) <a id="([\d.]+)"></a>([\d.]+) (.+)$')
#: Between two sections of one citation.
AND = re.compile(r",? and |, |; ")
DOCUMENT_NAME = re.compile(r"(?<![\w./*-])[\w./-]+\.md\b")
#: Sources that no reader of the repository has.
ELSEWHERE = re.compile(r"\bthe rulings?\b|\bof the specification\b", re.IGNORECASE)
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TEXT = (ROOT / DOCUMENT).read_text(encoding="utf-8")


def headings() -> list[tuple[str, str, str, str]]:
    """The level, anchor, number and title of each heading of the specification."""
    return [found.groups() for line in TEXT.splitlines() if (found := HEADING.match(line))]  # type: ignore[misc]


LABELS = sorted((f"{number} {title}" for _, _, number, title in headings()), key=len, reverse=True)


def comments(source: str) -> Iterator[str]:
    """The docstrings and comments of a module; each with its line breaks as spaces."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield " ".join((ast.get_docstring(node) or "").split())
    lines: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines.append(token.string.lstrip("#: "))
        elif token.type != tokenize.NL:
            yield " ".join(lines)
            lines = []


def cited(text: str) -> Iterator[str]:
    """The sections that a comment cites. `ValueError` where a section is not in the specification."""
    for place in re.finditer(re.escape(DOCUMENT), text):
        rest = text[place.end() :].removeprefix(", ")
        while True:
            label = next((label for label in LABELS if re.match(re.escape(label) + r"(?!\w)", rest)), None)
            if label is None:
                raise ValueError(f"{rest[:60]!r} is no section of {DOCUMENT}")
            yield label
            rest = rest[len(label) :]
            more = AND.match(rest)
            if more is None or not rest[more.end() :][:1].isdigit():
                break
            rest = rest[more.end() :]


def test_headings_are_numbered_in_order_and_have_their_anchors() -> None:
    lines, in_fence = [], False
    for line in TEXT.splitlines():
        in_fence ^= line.startswith("```")
        if not in_fence and line.startswith("##"):
            lines.append(line)
    found = headings()
    assert len(found) == len(lines), "a heading is not numbered"
    chapter = section = 0
    for level, anchor, number, _ in found:
        chapter, section = (chapter + 1, 0) if level == "##" else (chapter, section + 1)
        assert anchor == number == (str(chapter) if level == "##" else f"{chapter}.{section}")


def test_links_lead_to_anchors() -> None:
    anchors = {anchor for _, anchor, _, _ in headings()}
    for shown, target in re.findall(r"\[([\d.]+)\]\(#([^)]*)\)", TEXT):
        assert shown == target
        assert target in anchors


def test_every_section_has_its_sources() -> None:
    for section in re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]:
        body = re.split(r"^## ", section, flags=re.MULTILINE)[0]
        title = body.splitlines()[0]
        assert title.endswith("1.1 Sources") or re.search(r"^Source: ", body, re.MULTILINE), title


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(ROOT / "src").as_posix())
def test_citations_name_sections_and_documents_that_exist(file: Path) -> None:
    for comment in comments(file.read_text(encoding="utf-8")):
        list(cited(comment))
        absent = [name for name in DOCUMENT_NAME.findall(comment) if not (ROOT / name).is_file()]
        assert not absent, f"{comment!r} cites {absent}"
        assert not ELSEWHERE.search(comment), comment


def test_citations_are_found() -> None:
    found = [label for file in SOURCES for comment in comments(file.read_text(encoding="utf-8"))
             for label in cited(comment)]  # fmt: skip
    assert len(found) >= 25


@pytest.mark.parametrize(
    "comment",
    [f"Source: {DOCUMENT}.", f"Source: {DOCUMENT}, 5.2.", f"Source: {DOCUMENT}, 5.2 Time embeddings.",
     f"Source: {DOCUMENT}, 5.2 Time embedding and 99 Nothing."],
)  # fmt: skip
def test_a_citation_without_its_section_is_noticed(comment: str) -> None:
    with pytest.raises(ValueError, match="is no section"):
        list(cited(comment))


def test_a_citation_may_name_several_sections() -> None:
    comment = f"Rules: {DOCUMENT}, 5.2 Time embedding, 7 Sampling and 8.5 Repaint. More text and 5 words."
    assert list(cited(comment)) == ["5.2 Time embedding", "7 Sampling", "8.5 Repaint"]


def test_it_has_the_words_of_the_code() -> None:
    words = [modes.FILL_MASK, modes.FOLLOW_CODES, modes.REPAINT, modes.LEGO.format("{TRACK}"),
             modes.EXTRACT.format("{TRACK}"), modes.COMPLETE.format(" with {TRACKS}"), modes.COMPLETE.format(""),
             songwriter_prompts.EXPAND, songwriter_prompts.FORMAT, songwriter_prompts.UNDERSTAND, *TRACKS,
             " ".join(sorted(LANGUAGES, key=lambda code: (code == "unknown", code)))]  # fmt: skip
    assert [word for word in words if f"`{word}`" not in TEXT] == []


def test_it_has_the_numbers_of_the_code() -> None:
    for config in (PUBLISHED_2B, PUBLISHED_XL):
        assert f"{config.parameters:,}" in TEXT
        attention = [shape for name, shape in config.decoder_matrices.items() if name.endswith(("q_proj", "k_proj"))]
        assert f"r · {2 * sum(rows + columns for rows, columns in attention):,}" in TEXT
    for qwen in (PUBLISHED_TEXT, *PUBLISHED_SONGWRITERS.values()):
        sizes = (qwen.hidden_size, qwen.intermediate_size, qwen.num_hidden_layers)
        heads = f"{qwen.num_attention_heads} / {qwen.num_key_value_heads} | {qwen.head_dim} | {qwen.vocab_size:,}"
        assert f"| {' | '.join(map(str, sizes))} | {heads} |" in TEXT
    for heads_of, listed in (("2B", checkpoint_table.ALIGNMENT_HEADS_2B), ("XL", checkpoint_table.ALIGNMENT_HEADS_XL)):
        by_layer: dict[int, list[str]] = {}
        for layer, head in listed:
            by_layer.setdefault(layer, []).append(str(head))
        row = "; ".join(f"{layer}: {', '.join(own)}" for layer, own in by_layer.items())
        assert f"| {heads_of} | {row} |" in TEXT
    for shift in (1, 2, 3):
        times = ", ".join(f"{round(t, 4 if shift > 1 else 3):g}" for t in solvers.timestep_schedule(8, shift)[:-1])
        assert f"| {shift} | {times} |" in TEXT
