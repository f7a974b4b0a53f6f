"""Plans as text: memory by stage, expected time and the reason of each choice; and the longest song that fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from acestep_cli.disk import format_size
from acestep_cli.machine.hardware import Device, Hardware
from acestep_cli.machine.memory import RUNTIME_BYTES
from acestep_cli.machine.plan import MachineRequest, Plan, fallbacks_of, plan_render
from acestep_cli.machine.tiers import LONGEST_LYRICS, bare_song, longest_song
from acestep_cli.models import checkpoint_table
from acestep_cli.models.local import ModelState
from acestep_cli.models.sizes import PUBLISHED_SONGWRITERS, Sizes
from acestep_cli.song.request import MOST_TOGETHER

#: Names of the networks in text.
NETWORKS = {
    "text": "text encoder",
    "songwriter": "Songwriter",
    "dit": "diffusion transformer",
    "vae": "autoencoder",
    "adapters": "adapters",
}
#: A note on each setting that is not as fast as it goes.
SETTINGS = {
    "one_network": "The diffusion transformer is unloaded before the autoencoder is loaded",
    "int8": "The weights of the diffusion transformer are int8",
    "int8_arithmetic": "The diffusion transformer multiplies in int8, which changes the sound a little",
    "streamed": "The layers of the diffusion transformer come from main memory one by one",
    "vae_on_cpu": "The autoencoder runs on the processor",
}


def plan_lines(plan: Plan, device: Device) -> Iterator[str]:
    """Yield the plan, a line for each stage and each choice."""
    runtime = RUNTIME_BYTES[plan.backend]
    free = format_size((plan.budget_bytes or 0) + runtime)
    yield f"Memory of {plan.device} ({device.title}): about {format_size(plan.peak_bytes)} of {free} at most."
    rows = [(stage.name, ", ".join(NETWORKS[name] for name in stage.resident) or "none: it runs on the processor",
             format_size(runtime + stage.total)) for stage in plan.stages]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for stage, networks, size in rows:
        yield f"  {stage.ljust(widths[0])}  {networks.ljust(widths[1])}  {size.rjust(widths[2])}"
    if plan.longest_seconds is not None:
        yield (
            "That is for the estimated length. The Songwriter decides on the length, up to "
            f"{plan.longest_seconds} s, which fit too."
        )
    yield f"Decoding {plan.tile_frames} frames at a time: {plan.reasons['tile_frames']}."
    if plan.together > 1:
        yield f"Takes that share a forward pass: {plan.together}, {plan.reasons['together']}."
    if plan.threads is not None:
        yield f"Threads of the processor: {plan.threads}, {plan.reasons['threads']}."
    for name, sentence in SETTINGS.items():
        if getattr(plan, name):
            yield f"{sentence}: {plan.reasons[name]}."


def time_line(seconds: float | None, startup: float | None, takes: int) -> str:
    """Return a sentence on the time of a render: of its takes, and of its start, as far as either is known."""
    what = "" if takes == 1 else f" for {takes} takes"
    if seconds is None:
        return "Time: not known before the first such render on this machine."
    if startup is None:
        return (
            f"Time: about {format_seconds(seconds)}{what} and the loading of weights, by the speed of renders before."
        )
    return f"Time: about {format_seconds(seconds + startup)}{what}, {format_seconds(startup)} of it to start."


def length_note(guessed: Sequence[float]) -> str:
    """Return a sentence, to follow another, on the lengths that a time assumes and the Songwriter decides."""
    if not guessed:
        return ""
    lengths = f"a song of {guessed[0]:g} s" if len(set(guessed)) == 1 else "songs of the estimated lengths"
    return f" That is for {lengths}; the Songwriter decides the length."


def model_capacity(
    state: ModelState, machine: Hardware, asked: MachineRequest, models_dir: Path | None
) -> dict[str, Any]:
    """Return the state of a checkpoint and the longest song that it makes on `machine`.

    Its sizes come from its config, or are the published ones where it has none.
    """
    longest = longest_song(machine, state.name, Sizes.known(state.name, models_dir), asked)
    entry = state.report() | {"longest_seconds": None if longest is None else longest[0]}
    if longest is None:
        return entry
    plan = longest[1]
    return entry | {
        "device": plan.device,
        "peak_bytes": plan.peak_bytes,
        **{setting: True for setting in SETTINGS if getattr(plan, setting)},
    }


def with_what_fits(entry: dict[str, Any], machine: Hardware, asked: MachineRequest, sizes: Sizes) -> dict[str, Any]:
    """Return an `entry` of `model_capacity` with the memory fallbacks of its longest song, in the order of the ladder,
    the takes of it that share a forward pass, and the largest Songwriter that fits a song of that length.
    """
    longest = longest_song(machine, entry["name"], sizes, asked)
    if longest is None:
        return entry | {"takes_at_once": 0, "songwriter": None, "fallbacks": []}
    seconds, plan = longest
    device = next(one for one in machine.devices if one.name == plan.device)
    helper = None
    for name, config in PUBLISHED_SONGWRITERS.items() if entry["name"] != checkpoint_table.BUILT_IN else ():
        beside = longest_song(machine, entry["name"], replace(sizes, songwriter=config), asked)
        if beside is not None and beside[0] >= seconds:
            helper = name
    song = bare_song(entry["name"], seconds, LONGEST_LYRICS, takes=MOST_TOGETHER)
    several = plan_render(machine, song, asked, sizes)
    found = {"takes_at_once": several.together, "peak_bytes": several.peak_bytes}
    return entry | found | {"songwriter": helper, "fallbacks": fallbacks_of(plan, device)}


def fitting_text(entry: dict[str, Any]) -> str:
    """Return an entry of `with_what_fits` as text: length, takes, Songwriter and fallbacks."""
    if entry["longest_seconds"] is None:
        return "does not fit"
    seconds, peak = entry["longest_seconds"], format_size(entry["peak_bytes"])
    helper = f"Songwriters up to {entry['songwriter']}" if entry["songwriter"] else "no published Songwriter"
    how = "".join(f"\n  - {sentence}" for sentence in entry["fallbacks"])
    takes = f"{entry['takes_at_once']} takes at once" if entry["takes_at_once"] > 1 else "takes one by one"
    return f"songs up to {seconds // 60}:{seconds % 60:02}, {takes}, {helper}; {peak} at most{how}"


def format_seconds(seconds: float) -> str:
    """Return a duration as text: `4.2 s`, `42 s` or `1:05 min`."""
    whole = round(seconds)
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02} min"


def capacity_text(entry: dict[str, Any]) -> str:
    """Return the longest song of an `entry` of `model_capacity` as text, with the settings that make it fit."""
    if entry["longest_seconds"] is None:
        return "does not fit"
    seconds, device = entry["longest_seconds"], entry["device"]
    words = {"int8": "int8", "streamed": "layers from main memory", "vae_on_cpu": "autoencoder on the processor"}
    how = ", ".join(word for setting, word in words.items() if entry.get(setting))
    return f"up to {seconds // 60}:{seconds % 60:02} on {device} with {format_size(entry['peak_bytes'])}" + (
        f" ({how})" if how else ""
    )
