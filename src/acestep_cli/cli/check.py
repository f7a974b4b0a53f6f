"""`acestep check`: assertions about audio files."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from acestep_cli import disk
from acestep_cli.audio import measure
from acestep_cli.audio.analysis import Analyser
from acestep_cli.audio.checks import (
    FAULTS,
    Check,
    CheckedFile,
    Finding,
    MeasuredFile,
    Range,
    check_file,
    check_range,
    check_sameness,
    check_tempo,
    fault_checks,
    not_measurable,
)
from acestep_cli.cli import console, help_format, listen, options
from acestep_cli.cli.console import Console
from acestep_cli.errors import AceStepError, CheckError, UsageError, combine_errors
from acestep_cli.progress import ProgressCallback
from acestep_cli.render.result import describe_error
from acestep_cli.song import musical_values
from acestep_cli.song.values import quoted

app = help_format.App()

LEVELS, CONTENT, REPORT = "Level", "Content", "Report"
#: Characters that XML 1.0 cannot hold.
UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _range(text: str) -> Range:
    """Read a range such as `-18..-9`; either end may be left out."""
    low, dots, high = text.partition("..")
    try:
        found = Range(float(low or -math.inf), float(high or math.inf))
    except ValueError:
        found = Range(math.nan)
    if not dots or not (low or high) or not found.low <= found.high:
        raise typer.BadParameter(f"{text!r} is not a range such as 118..122, ..-9 or 30...")
    return found


def _key(text: str) -> str:
    try:
        return str(musical_values.MusicalKey().read(text))
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from error


def _ranged(flag: str, metavar: str, help: str, panel: str) -> Any:
    return typer.Option(flag, parser=_range, metavar=metavar, help=help, rich_help_panel=panel)


def _number(flag: str, metavar: str, help: str, panel: str) -> Any:
    return typer.Option(flag, callback=options.finite, metavar=metavar, help=help, rich_help_panel=panel)


Files = Annotated[
    list[Path],
    typer.Argument(metavar="AUDIO", readable=False, help="Audio files, up to an hour long each, or a folder of them."),
]
MinDuration = Annotated[float | None, _number("--min-duration", "SECONDS", "At least so long.", CONTENT)]
MaxDuration = Annotated[float | None, _number("--max-duration", "SECONDS", "At most so long.", CONTENT)]
MaxSilence = Annotated[
    float | None, _number("--max-silence", "SECONDS", "No longer silence, under -60 dBFS, anywhere.", CONTENT)
]
BPM = Annotated[
    Range | None,
    _ranged("--bpm", "118..122", "Tempo as librosa estimates it; half and double count as the same.", CONTENT),
]
MusicalKey = Annotated[
    str | None,
    typer.Option(
        "--key", parser=_key, metavar='"A minor"', help="Key as librosa estimates it.", rich_help_panel=CONTENT
    ),
]
SameAs = Annotated[
    Path | None,
    typer.Option(
        "--same-as", metavar="AUDIO", readable=False, help="The same samples as this file, or nearly: --within.",
        rich_help_panel=CONTENT,
    ),
]  # fmt: skip
Within = Annotated[
    float | None,
    _number("--within", "-60", "The most that --same-as may differ anywhere, in dBFS. Unset: not at all.", CONTENT),
]
TruePeak = Annotated[
    float | None,
    _number(
        "--true-peak",
        "-1",
        "Highest true peak in dB, which counts peaks between samples. A render with --loudness lufs: keeps it at -1; "
        "peak: looks at samples alone.",
        LEVELS,
    ),
]
Lufs = Annotated[Range | None, _ranged("--lufs", "-18..-9", "Integrated loudness in LUFS.", LEVELS)]
Skip = Annotated[
    list[str] | None,
    typer.Option(
        "--skip",
        metavar="|".join(FAULTS),
        help="A fault not to look for; repeatable.",
        autocompletion=options.complete_from(FAULTS),
        rich_help_panel=LEVELS,
    ),
]
JUnit = Annotated[
    Path | None,
    typer.Option("--junit", metavar="FILE.xml", readable=False, help="Also write a JUnit report, as CI reads it.",
                 rich_help_panel=REPORT),
]  # fmt: skip


@dataclass(frozen=True)
class Assertions:
    """The assertions that flags add to those about faults; None is a flag not given."""

    min_duration: MinDuration = None
    max_duration: MaxDuration = None
    max_silence: MaxSilence = None
    true_peak: TruePeak = None
    lufs: Lufs = None
    bpm: BPM = None
    key: MusicalKey = None
    same_as: SameAs = None
    within: Within = None
    skip: Skip = None


@app.command(
    help="Assert properties of audio files: never silent, clipped, off centre or dead on one side, and what flags ask."
    "\n\nacestep check out/*.flac --min-duration 30 --max-silence 2 --true-peak -1 --lufs -18..-9"
    "\n\nacestep check take.flac --bpm 118..122 --key 'A minor' --junit report.xml"
)
@options.grouped(Assertions, "asserted")
def check(
    ctx: typer.Context,
    files: Files,
    asserted: Assertions,
    junit: JUnit = None,
    json_wanted: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    terminal, run_report = console.begin(ctx, quiet=quiet, wants_json=json_wanted)
    require_consistent(asserted)
    files = listen.expand_takes(files)
    if junit is not None:
        refuse_report(junit, [*files, *([asserted.same_as] if asserted.same_as is not None else ())])
    with terminal.results() as stdout:
        done = list(checked_files(files, asserted, terminal))
        run_report.more["checked"] = [report_of(one) for one in done]
        for one in done:
            stdout.path(result_line(one))
        if junit is not None:
            with disk.write_whole(junit, replace=[junit]) as [part]:
                part.write_bytes(junit_xml(done))
    raise_problems(done)


def checked_files(files: Sequence[Path], asserted: Assertions, terminal: Console) -> Iterator[CheckedFile]:
    """Yield the files with their findings, and report which is at hand."""
    with terminal.progress(in_lines=False) as report:
        checks = [*measured_checks(asserted), *compared_checks(asserted, terminal, report)]
        for number, file in enumerate(files):
            report("check", number, len(files))
            yield check_file(file, checks, terminal.warn)


def require_consistent(asserted: Assertions) -> None:
    """Raise `UsageError` for flags that contradict each other, or that need a library that is not installed."""
    for name in asserted.skip or ():
        if name not in FAULTS:
            raise UsageError(f"--skip: {quoted(name)} is not one of {', '.join(FAULTS)}.")
    if asserted.within is not None and asserted.same_as is None:
        raise UsageError("--within says how far from --same-as, which is not given.", "Add --same-as FILE.")
    if asserted.bpm is not None or asserted.key is not None:
        measure.require_analyser()


def measured_checks(asserted: Assertions) -> Iterator[Check]:
    """Yield the checks of faults, lengths and levels."""
    yield from (fault for name, fault in fault_checks().items() if name not in (asserted.skip or ()))
    shortest, longest = asserted.min_duration, asserted.max_duration
    if shortest is not None or longest is not None:
        lengths = Range(low=-math.inf if shortest is None else shortest, high=math.inf if longest is None else longest)
        yield lambda file: check_range("duration", file.measures.seconds, lengths, "s")
    if asserted.max_silence is not None:
        silence = Range(high=asserted.max_silence)
        yield lambda file: check_range("silence", file.measures.silence, silence, "s")
    if asserted.true_peak is not None:
        peak = Range(high=asserted.true_peak)
        yield lambda file: check_range("true peak", file.measures.true_peak_db, peak, "dB")
    if asserted.lufs is not None:
        loudness = asserted.lufs
        yield lambda file: check_range("loudness", file.measures.lufs, loudness, "LUFS")


def compared_checks(asserted: Assertions, terminal: Console, report: ProgressCallback) -> Iterator[Check]:
    """Yield the checks of tempo, key and sameness. Reads the file of `--same-as`."""
    if asserted.bpm is not None:
        yield partial(check_tempo, wanted=asserted.bpm, analyser=console.analyser(terminal, report))
    if asserted.key is not None:
        yield partial(in_key, wanted=asserted.key, analyser=console.analyser(terminal, report))
    if asserted.same_as is not None:
        yield partial(
            check_sameness,
            reference=asserted.same_as,
            extent=measure.read_through(asserted.same_as, terminal.warn),
            within=asserted.within,
        )


def refuse_report(junit: Path, files: Iterable[Path]) -> None:
    """Refuse a report that cannot be written, or that would replace one of the checked files."""
    if junit.suffix.lower() != ".xml" or os.path.realpath(junit) in map(os.path.realpath, files):
        raise UsageError(f"--junit {junit}: the report must be an .xml file of its own.")
    disk.require_folder(junit.parent)


def in_key(file: MeasuredFile, wanted: str, analyser: Analyser) -> Finding:
    """Compare the key of a file with the wanted one."""
    measured = analyser.key(file.sound)
    if measured is None:
        return not_measurable("key", wanted)
    pitch = musical_values.MusicalKey.pitch
    return Finding("key", wanted, measured, pitch(measured) == pitch(wanted))


def report_of(one: CheckedFile) -> dict[str, Any]:
    """Return the entry of one file in `checked` of the `--json` object."""
    entry: dict[str, Any] = {
        "path": str(one.path),
        "status": "error" if one.problem else "failed" if one.failed else "passed",
        "measures": one.measures.report() if one.measures else None,
        "checks": [vars(finding) for finding in one.findings],
    }
    if one.problem is not None:
        entry["error"] = describe_error(one.problem)
    return entry


def result_line(one: CheckedFile) -> str:
    """Return the line that is printed for a file."""
    if one.measures is None:
        return f"{one.path}: cannot be read"
    found = one.measures
    values_found = [f"{found.seconds:.2f} s", "silent" if found.is_silent else f"{found.true_peak_db:.1f} dBTP"]
    if found.lufs is not None:
        values_found.append(f"{found.lufs:.1f} LUFS")
    return f"{one.path}: {'failed' if one.failed else 'passed'} ({', '.join(values_found)})"


def junit_xml(done: Sequence[CheckedFile]) -> bytes:
    """Return a JUnit report: a case for each check of each file."""
    from xml.etree import ElementTree as Tree

    def plain(text: object) -> str:
        return UNPRINTABLE.sub("?", str(text))

    failed = sum(len(one.failed) for one in done)
    broken = sum(one.problem is not None for one in done)
    cases = sum(len(one.findings) for one in done) + broken
    counts = {"tests": str(cases), "failures": str(failed), "errors": str(broken)}
    root = Tree.Element("testsuites", counts)
    suite = Tree.SubElement(root, "testsuite", {"name": "acestep check", **counts})
    for one in done:
        for finding in one.findings:
            case = Tree.SubElement(suite, "testcase", {"classname": plain(one.path), "name": finding.name})
            if not finding.passed:
                Tree.SubElement(case, "failure", {"message": plain(finding.sentence)})
        if one.problem is not None:
            case = Tree.SubElement(suite, "testcase", {"classname": plain(one.path), "name": "readable"})
            Tree.SubElement(case, "error", {"message": plain(one.problem.message)})
    Tree.indent(root)
    made: bytes = Tree.tostring(root, encoding="utf-8", xml_declaration=True)
    return made + b"\n"


def raise_problems(done: Sequence[CheckedFile]) -> None:
    """Raise `CheckError` with all failed checks and unreadable files; else the errors of reading, if any."""
    failed = [f"{one.path}: {finding.sentence}." for one in done for finding in one.failed]
    broken = [one.problem for one in done if one.problem is not None]
    if failed:
        raise CheckError("\n".join([*failed, *map(str, broken)]))
    if broken:
        raise combine_errors(list[AceStepError](broken))
