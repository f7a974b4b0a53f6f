"""A completed request decides seeds, region and adapters; a render reads them and decides none of them again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import acestep_cli
from acestep_cli.errors import AdapterError, SourceError
from acestep_cli.machine import hardware
from acestep_cli.machine.plan import MachineRequest, plan_render
from acestep_cli.models import adapter_file, checkpoints
from acestep_cli.models.sizes import Sizes
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete, inputs, take_parts
from acestep_cli.song.complete import Completed
from acestep_cli.song.regions import Region
from acestep_cli.song.request import Request
from acestep_cli.take import Take
from support import adapter_files

POCKET = checkpoints.find_checkpoint("pocket")
SOURCE = Path(acestep_cli.__file__).parent


def repaint(folder: Path, **more: Any) -> Completed:
    """Complete a repaint of the last of two seconds, with an adapter at half of its strength and one at none."""
    write_source(folder, 2.0)
    pairs = adapter_files.pairs(POCKET.config, rank=2)
    loras = [f"{adapter_files.comfyui(folder / name, pairs)}@{scale}" for name, scale in
             (("one.safetensors", 0.5), ("none.safetensors", 0))]  # fmt: skip
    asked = {"caption": "x", "mode": "repaint", "source": str(folder / "a.wav"), "start": 1, "seed": 2**32 - 1}
    return complete.complete(Request(**asked, takes=2, loras=loras, steps=1, **more), POCKET)


def write_source(folder: Path, seconds: float) -> None:
    tone = 0.3 * np.sin(np.arange(round(48_000 * seconds)) * 0.03)
    soundfile.write(folder / "a.wav", np.stack([tone, tone], axis=1), 48_000)


def render(request: Completed) -> list[Take]:
    plan = plan_render(hardware.detect(), request, MachineRequest("cpu", "fp32"), Sizes.of(POCKET))
    return list(Pipeline(POCKET, plan).run([request], lambda stage, done, total: None))


def test_a_render_decides_no_seed_region_or_adapter_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = repaint(tmp_path)
    assert done.region == Region(1.0, 2.0, 2.0)
    assert [(one.adapter.path.name, one.strength) for one in done.adapters] == [("one.safetensors", 0.5)]
    assert done.text_seed == done.seed == 2**32 - 1

    def again(*_: Any, **__: Any) -> None:
        raise AssertionError("decided again")

    for owner, name in ((adapter_file, "read_adapter"), (Region, "of"), (inputs, "survey_recordings")):
        monkeypatch.setattr(owner, name, again)
    takes = render(done)
    assert [take.request.seed for take in takes] == [2**32 - 1, 0]
    assert {take.request.text_seed for take in takes} == {2**32 - 1}
    assert [one.name for one in takes[0].applied] == ["one.safetensors"]
    assert all(take.splice.untouched == ((0, 48_000 - 1200),) for take in takes)  # up to the crossfade of 25 ms


def test_an_existing_take_sets_the_seeds_of_the_others(tmp_path: Path) -> None:
    found = take_parts.with_take_seed(repaint(tmp_path), 2, 0)
    assert [take_parts.take_request(found, number).seed for number in (1, 2)] == [2**32 - 1, 0]
    assert take_parts.with_take_seed(found, 1, 7).text_seed == 7
    asked = complete.complete(Request(caption="x", seed=3, songwriter_seed=5), POCKET)
    assert take_parts.with_take_seed(asked, 1, 9).text_seed == asked.text_seed == 5


def test_what_changed_after_completion_is_refused(tmp_path: Path) -> None:
    done = repaint(tmp_path)
    write_source(tmp_path, 3.0)
    with pytest.raises(SourceError, match=r"3\.00 s long now, and was 2\.00 s"):
        render(done)
    write_source(tmp_path, 2.0)
    adapter_files.comfyui(tmp_path / "one.safetensors", adapter_files.pairs(POCKET.config, rank=3))
    with pytest.raises(AdapterError, match="has changed since this run began"):
        render(done)
    (tmp_path / "one.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"one\.safetensors"):
        render(done)


@pytest.mark.parametrize(
    ("decision", "place"),
    [
        (r"% *\(?(seeds\.)?SEEDS", "seeds"),
        (r"randbelow\(", "seeds"),
        (r"Region\.of\(", "inputs"),
        (r"(?<!def )song_length\(", "inputs"),
    ],
)
def test_only_one_place_decides(decision: str, place: str) -> None:
    places = [file.relative_to(SOURCE).as_posix() for file in SOURCE.rglob("*.py")
              if re.search(decision, file.read_text(encoding="utf-8"))]  # fmt: skip
    assert places == [f"song/{place}.py"]
