"""`acestep doctor`: the machine, what it can do with each checkpoint, and a selftest of real weights."""

from __future__ import annotations

import platform
import shutil
import subprocess
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from acestep_cli import __version__
from acestep_cli.audio import encode
from acestep_cli.cli import console, help_format, options
from acestep_cli.cli.console import Console, Stdout
from acestep_cli.disk import format_size
from acestep_cli.errors import MemoryLimitError, UsageError
from acestep_cli.machine import hardware, history, plan_text
from acestep_cli.machine import pretend as pretend_device
from acestep_cli.machine.fallbacks import LADDER
from acestep_cli.machine.hardware import OWN_MEMORY, Device, Hardware
from acestep_cli.machine.plan import MachineRequest, plan_render
from acestep_cli.machine.tiers import bare_song, tier_of
from acestep_cli.models import checkpoint_table, checkpoints, local, model_store
from acestep_cli.models.sizes import Sizes
from acestep_cli.models.songwriters import find_songwriters
from acestep_cli.render.result import RunReport
from acestep_cli.song import complete
from acestep_cli.song.request import Request

app = help_format.App()

#: The song of the selftest, the same for everybody.
SONG = Request(
    caption="acoustic folk song with fingerpicked guitar, warm female voice",
    lyrics="[Verse]\nMorning comes over the hill\nAnd the river is still",
    language="en",
    bpm=100,
    key="C major",
    time_signature="4/4",
    duration=10,
    seed=7,
)


SelfTest = Annotated[
    str | None,
    typer.Option(
        "--selftest",
        metavar="MODEL",
        help="Load every weight of a checkpoint, count and check them, and render ten seconds of a known seed.",
        autocompletion=options.complete_from(checkpoint_table.CHECKPOINTS),
    ),
]


Pretend = Annotated[
    str | None,
    typer.Option(
        "--pretend",
        metavar="BACKEND:SIZE",
        help="Say what each model could do on another device, such as cuda:8G: for how long a song, with how many "
        f"takes, and by which memory fallbacks. Backends: {', '.join(pretend_device.BACKENDS)}.",
        show_default=False,
    ),
]


@app.command(
    help="Say what this machine has, which device and number format renders use and why, and what fits.\n\n"
    "acestep doctor --json\n\nacestep doctor --selftest turbo\n\nacestep doctor --pretend cuda:8G"
)
def doctor(
    ctx: typer.Context,
    selftest: SelfTest = None,
    pretend: Pretend = None,
    models_dir: options.ModelsDir = None,
    device: options.DeviceName = None,
    dtype: options.DTypeName = None,
    max_vram: options.MaxVRAM = None,
    json_wanted: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    terminal, run_report = console.begin(ctx, quiet=quiet, wants_json=json_wanted)
    machine, asked = hardware.detect(), MachineRequest(device, dtype, max_vram)
    if pretend is not None:
        for flag, given in (("--selftest", selftest), ("--device", device)):
            if given is not None:
                raise UsageError(f"--pretend excludes {flag}, which is of this machine; leave one of them out.")
    with terminal.results() as stdout:
        if pretend is not None:
            found = foresee(pretend, asked, models_dir)
            run_report.more["doctor"] = found
            for line in foreseen_lines(found):
                stdout.path(line)
            return
        if selftest is not None:
            run_selftest(selftest, machine, asked, models_dir, run_report, terminal, stdout)
            return
        found = examine(machine, asked, models_dir)
        run_report.more["doctor"] = found
        for line in lines(found):
            stdout.path(line)


def examine(machine: Hardware, asked: MachineRequest, models_dir: Path | None) -> dict[str, Any]:
    """Return all findings, as `--json` prints them."""
    chosen, tier = choice(machine, asked)
    return {
        "acestep": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "torch": {"version": version_of("torch"), "built_for": machine.torch_backend or "processors"},
        "devices": [describe_device(one) for one in machine.devices],
        "chosen": chosen,
        "tier": tier,
        "ladder": [fallback.sentence for fallback in LADDER],
        "checkpoints": [
            plan_text.model_capacity(local.model_state(name, models_dir), machine, asked, models_dir)
            for name in checkpoint_table.CHECKPOINTS
        ],
        "songwriters": [local.model_state(name, models_dir).report() for name in checkpoint_table.SONGWRITERS],
        "encoders": encoders(),
        "models": str(model_store.find_store(models_dir).root),
        "logbook": str(history.history_file()),
    }


def foresee(pretend: str, asked: MachineRequest, models_dir: Path | None) -> dict[str, Any]:
    """Return what each checkpoint could do on a pretended device, as `--json` prints it."""
    machine = pretend_device.pretended_machine(pretend)
    chosen, tier = choice(machine, asked)
    entries = [
        plan_text.with_what_fits(
            plan_text.model_capacity(local.model_state(name, models_dir), machine, asked, models_dir),
            machine,
            asked,
            Sizes.known(name, models_dir),
        )
        for name in checkpoint_table.CHECKPOINTS
    ]
    return {
        "acestep": __version__,
        "pretend": pretend,
        "devices": [describe_device(one) for one in machine.devices],
        "chosen": chosen,
        "tier": tier,
        "ladder": [fallback.sentence for fallback in LADDER],
        "checkpoints": entries,
    }


def foreseen_lines(found: dict[str, Any]) -> list[str]:
    """Return the lines that are printed for the findings of `foresee`. Models that can do the same share a line."""
    [device] = found["devices"]
    kind = f"{found['chosen']['dtype']} ({found['chosen']['reasons']['dtype']})" if found["chosen"]["device"] else ""
    own = "; main memory is taken to be enough" if device["backend"] in OWN_MEMORY else ""
    rows = [f"What fits on {device['title']}, all of it free{', in ' if kind else ''}{kind}{own}"]
    alike: dict[str, list[str]] = {}
    for one in found["checkpoints"]:
        alike.setdefault(plan_text.fitting_text(one), []).append(one["name"])
    for text, names in alike.items():
        rows += ["", f"  {', '.join(names)}:", *(f"    {line}" for line in text.splitlines())]
    return rows


def choice(machine: Hardware, asked: MachineRequest) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the device and dtype of a small render with the reasons, or the problem, and the promise of its tier."""
    try:
        smallest = bare_song(checkpoint_table.BUILT_IN, 3.0)  # where it does not fit, nothing does
        plan = plan_render(machine, smallest, asked, Sizes.of(checkpoints.find_checkpoint(checkpoint_table.BUILT_IN)))
    except MemoryLimitError as error:
        return {"device": None, "problem": error.message}, None
    reasons = {name: plan.reasons[name] for name in ("device", "dtype")}
    device = next(one for one in machine.devices if one.name == plan.device)
    return {"device": plan.device, "dtype": plan.dtype, "reasons": reasons}, tier_promise(device)


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe_device(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "backend": device.backend,
        "title": device.title,
        "total_bytes": device.total_bytes,
        "free_bytes": device.free_bytes,
        "capability": device.capability,
        "dtypes": list(device.dtypes),
        "dtype_reason": device.dtype_reason,
    }


def tier_promise(device: Device) -> dict[str, Any] | None:
    """Return the promise for a card; None for a processor, which main memory limits."""
    tier = tier_of(device)
    if tier is None:
        return None
    return {"memory_gb": tier.memory_gb, "minutes": tier.minutes, "takes": tier.takes, "songwriter": tier.songwriter}


def encoders() -> dict[str, str | None]:
    """Return the encoder of each format: a library, a program with its version, or None where it is missing."""
    import soundfile

    library = f"libsndfile {soundfile.__libsndfile_version__}"
    return {
        name: library if format.program is None else program_version(format.program)
        for name, format in encode.FORMATS.items()
    }


def program_version(program: str) -> str | None:
    """Return the first three words of a program's `-version`; None where the program is missing."""
    found = shutil.which(program)
    if found is None:
        return None
    try:
        output = subprocess.run(
            [found, "-version"], capture_output=True, errors="replace", timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program}, which does not answer ({type(error).__name__})"
    return " ".join(output.split()[:3]) or program


def lines(found: dict[str, Any]) -> list[str]:
    """Return the lines that are printed for the findings of `examine`."""
    torch = found["torch"]
    rows = [
        f"acestep {found['acestep']}, Python {found['python']}, {found['system']}",
        f"torch {torch['version']}, built for {torch['built_for']}",
        "",
        "Devices",
    ]
    for one in found["devices"]:
        free = f"{format_size(one['free_bytes'])} of {format_size(one['total_bytes'])} free"
        rows.append(f"  {one['name']}: {one['title']}, {free}; {', '.join(one['dtypes'])} ({one['dtype_reason']})")
    chosen = found["chosen"]
    if chosen["device"] is None:
        rows.append(f"  Nothing can be rendered: {chosen['problem']}")
    else:
        why = chosen["reasons"]
        rows.append(f"  Renders use {chosen['device']} ({why['device']}) in {chosen['dtype']} ({why['dtype']}).")
    if (tier := found["tier"]) is not None:
        takes = f"{tier['takes']} take{'s' * (tier['takes'] > 1)}"
        songwriter = f"the {tier['songwriter']} Songwriter" if tier["songwriter"] else "no Songwriter"
        rows.append(
            f"  Cards from {tier['memory_gb']} GB on: at least {tier['minutes']} minutes, {takes}, {songwriter}."
        )
    rows += ["", "Checkpoints, and what fits here"]
    width = max(len(one["name"]) for one in found["checkpoints"])
    rows += [
        f"  {one['name']:<{width}}  {one['status']:<9}  {plan_text.capacity_text(one)}" for one in found["checkpoints"]
    ]
    songwriters = [f"{one['name']} {one['status']}" for one in found["songwriters"]]
    songwriters.append(f"{checkpoint_table.BUILT_IN} comes with the program")
    rows += [f"  Songwriters: {', '.join(songwriters)}", "", "Where memory is short, in this order"]
    rows += [f"  {number}. {sentence}" for number, sentence in enumerate(found["ladder"], start=1)]
    rows += ["", "Encoders"]
    by_encoder: dict[str, list[str]] = {}
    for format, encoder in found["encoders"].items():
        by_encoder.setdefault(encoder or "missing, install ffmpeg", []).append(format)
    rows += [f"  {' '.join(names)}: {encoder}" for encoder, names in by_encoder.items()]
    return [*rows, "", f"Models: {found['models']}", f"History of renders: {found['logbook']}"]


def run_selftest(
    name: str,
    machine: Hardware,
    asked: MachineRequest,
    models_dir: Path | None,
    run_report: RunReport,
    terminal: Console,
    stdout: Stdout,
) -> None:
    """Run the checks of a checkpoint, and print a line for each. Raises the first problem."""
    if name in ("", "auto"):
        raise UsageError(
            f"--selftest {name}: name one checkpoint.", f"Names: {', '.join(checkpoint_table.CHECKPOINTS)}."
        )
    checkpoint = checkpoints.find_checkpoint(name, models_dir)
    song = complete.complete(SONG.model_copy(update={"model": checkpoint.name}), checkpoint)
    plan = plan_render(machine, song, asked, Sizes.of(checkpoint))
    terminal.say(f"{checkpoint.name} on {plan.device} in {plan.dtype}: {checkpoint.dit}")
    done: list[dict[str, Any]] = []
    run_report.more["selftest"] = {"model": checkpoint.name, "plan": plan.model_dump(mode="json"), "checks": done}
    with terminal.progress(partial(hardware.used_bytes, plan.device)) as report:
        from acestep_cli.render import selftest  # loads torch

        asked_songwriter = checkpoint_table.BUILT_IN if checkpoint.name == checkpoint_table.BUILT_IN else "auto"
        songwriters = [one for one in find_songwriters(asked_songwriter, checkpoint, models_dir) if one is not None]
        for check in selftest.run_checks(checkpoint, song, plan, report, terminal.warn, songwriters):
            done.append({"name": check.name, "finding": check.finding, "ok": check.problem is None})
            stdout.path(f"{'ok' if check.problem is None else 'FAILED'}  {check.name}: {check.finding}")
            if check.problem is not None:
                raise check.problem
