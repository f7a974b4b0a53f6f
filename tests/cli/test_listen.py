"""`acestep listen`: what its page says, and in a browser what its keys and buttons do."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile
from PIL import Image

from acestep_cli.cli import listen
from acestep_cli.cli.console import Console
from acestep_cli.render.take_file import TakeFile
from support import tiny
from support.command import Run, finish
from support.places import RESULT_SCHEMA

LYRICS = "[Verse]\nla\nlo\n[Chorus]\nhey\nho"
NASTY = "</script><img src=x onerror=alert(1)> 'q' \"d\" & ]]>"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_b: tiny.Oracle) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))


def takes(acestep: Run, count: int = 3, *words: str) -> None:
    """Takes with seeds from 7 on in the folder `takes`."""
    song = ["-c", "folk", "--lyrics", LYRICS, "-d", "10", "--seed", "7", "-n", str(count), "-o", "takes/"]
    result = acestep("generate", *song, *words)
    assert result.exit_code == 0, result.stderr


def said(page: Path = Path("takes/listen.html")) -> dict[str, Any]:
    """The data of the page."""
    found = listen.DATA.search(page.read_bytes())
    assert found is not None
    content: dict[str, Any] = json.loads(found[1])
    return content


# What is on the page


def test_a_page_has_everything_of_every_take(acestep: Run) -> None:
    takes(acestep)
    result = acestep("listen", "takes")
    assert (result.exit_code, result.stdout) == (0, f"{Path('takes/listen.html')}\n"), result.stderr
    content = said()
    assert content["folder"] == "takes"
    assert [take["file"] for take in content["takes"]] == ["folk-1.flac", "folk-2.flac", "folk-3.flac"]
    take = content["takes"][1]
    assert (take["src"], take["again"], take["caption"], take["lyrics"]) == (
        *("folk-2.flac", "folk-2.flac.yaml", "folk", LYRICS),
    )
    assert take["facts"][:3] == ["seed 8", "turbo", "10.00 s"]
    assert take["sections"] == [
        {"name": "Verse", "seconds": 0.0, "sure": False},
        {"name": "Chorus", "seconds": 5.0, "sure": False},
    ]
    assert take["steps"] == 16
    assert "seed: 8\n" in take["spec"]
    assert "render:" not in take["spec"]
    low, high = np.array(take["outline"])
    assert low.shape == high.shape == (listen.COLUMNS,)
    assert (low.min(), high.max()) == (-89, 89)  # a sine brought to -1 dBFS
    mime, data = take["spectrogram"].split(",")
    assert mime == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (listen.WIDTH, listen.HEIGHT)


def test_a_page_asks_no_network(acestep: Run) -> None:
    takes(acestep, 1)
    acestep("listen", "takes")
    page = Path("takes/listen.html").read_text()
    assert not re.search(
        r"(?:src|href)\s*=|https?:|url\(|import\b|fetch\(|XMLHttp", re.sub(r"\.(src|href) = ", "", page)
    )
    assert "default-src 'none'" in page


def test_no_text_of_a_song_can_be_markup(acestep: Run) -> None:
    Path("odd").mkdir()
    result = acestep("generate", "-c", NASTY, "--lyrics", f"[{NASTY[:40]}]\n{NASTY}", "--title", "a <b>", "-d", "10",
                     "-o", "odd/50% <i>#1?.wav")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert acestep("listen", "odd").exit_code == 0
    page = Path("odd/listen.html").read_bytes()
    [take] = said(Path("odd/listen.html"))["takes"]
    assert take["caption"] == NASTY
    assert take["src"] == "50%25%20%3Ci%3E%231%3F.wav"
    assert page.count(b"</script>") == 2
    assert b"<img src=x" not in page


def test_any_audio_is_played_and_without_a_recipe_there_is_nothing_to_go_on_with(acestep: Run) -> None:
    Path("mix").mkdir()
    for name in ("10.wav", "9.wav", ".hidden.wav", "notes.txt"):
        soundfile.write(f"mix/{name}", np.full((48_000, 2), 0.5), 48_000, format="WAV")
    soundfile.write("mix/silent.ogg", np.zeros((48_000, 1)), 48_000)
    Path("mix/broken.mp3").write_text("no")
    result = acestep("listen", "mix", "--json")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    assert content["listen"] == {"path": str(Path("mix/listen.html")), "takes": ["9.wav", "10.wav", "silent.ogg"]}
    assert re.match(r"mix.broken\.mp3 is not audio .*[^.]\. It is left out\.$", content["warnings"][0])
    take = said(Path("mix/listen.html"))["takes"][0]
    assert (take["again"], take["spec"], take["steps"], take["sections"]) == (None, None, None, [])


def test_embedded_sound_is_opus_of_the_same_length(acestep: Run) -> None:
    takes(acestep, 1, "--sample-rate", "44100")
    soundfile.write("takes/silent.wav", np.zeros((48_000, 2)), 48_000)
    assert acestep("listen", "takes", "--embed", "-o", "one.html").exit_code == 0
    take, silent = said(Path("one.html"))["takes"]
    mime, data = take["src"].split(",")
    assert mime == "data:audio/ogg;base64"
    info = soundfile.info(io.BytesIO(base64.b64decode(data)))
    assert (info.subtype, info.samplerate, round(info.duration, 2)) == ("OPUS", 48_000, 10.0)
    assert silent["src"] == "takes/silent.wav"
    assert take["file"] == "takes/folk-1.flac"  # where commands find it


def test_a_page_elsewhere_names_takes_from_where_it_lies(acestep: Run) -> None:
    takes(acestep, 1)
    Path("pages/new").mkdir(parents=True)
    assert acestep("listen", "takes", "-o", "pages/new/a.html").exit_code == 0
    Path("linked").symlink_to("pages/new", target_is_directory=True)
    assert acestep("listen", str(Path("takes").absolute()), "-o", "linked/b.html").exit_code == 0
    for page in ("a.html", "b.html"):
        [take] = said(Path("pages/new") / page)["takes"]
        assert (take["src"], take["file"]) == ("../../takes/folk-1.flac",) * 2
        assert take["again"] == "../../takes/folk-1.flac.yaml"


def test_a_page_is_made_anew_from_what_it_knows(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    takes(acestep, 2)
    acestep("listen", "takes")
    before = said()
    heard = []
    at = TakeFile.read.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(
        TakeFile, "read", classmethod(lambda cls, path, warn: heard.append(path.name) or at(cls, path, warn))
    )
    acestep("listen", "takes")
    assert (said(), heard) == (before, [])
    sidecar = Path("takes/folk-2.flac.yaml")
    sidecar.write_text(sidecar.read_text() + "\n")
    acestep("generate", "-c", "third", "-d", "10", "-o", "takes/third.wav")
    acestep("listen", "takes")
    assert heard == ["folk-2.flac", "third.wav"]
    Path("takes/folk-1.flac").unlink()
    acestep("listen", "takes")
    assert [take["file"] for take in said()["takes"]] == ["folk-2.flac", "third.wav"]
    heard.clear()
    acestep("listen", "takes", "--embed")
    assert len(heard) == 2
    Path("takes/listen.html").write_bytes(listen.OURS + b'<script type="application/json" id="data">{</script>')
    assert acestep("listen", "takes").exit_code == 0  # a page that was cut off


def test_takes_that_somebody_kept_are_told(acestep: Run) -> None:
    takes(acestep, 2)
    Path("takes/kept.txt").write_text("folk-2.flac\n\nfolk-2.flac\n")
    acestep("listen", "takes", "-o", "a.html")
    assert said(Path("a.html"))["kept"] == ["takes/folk-2.flac"]


def test_a_page_that_grows_has_its_news_beside_it_until_it_is_done(acestep: Run) -> None:
    takes(acestep, 2)
    page = Path("takes/listen.html")
    grow(acestep)
    assert said()["scripts"] == {"news": ".listen.html.news.js", "all": ".listen.html.takes.js"}
    assert "script-src 'unsafe-inline' 'self' file:" in page.read_text()
    news = Path("takes/.listen.html.news.js").read_text()
    assert news == 'news({"files": ["folk-1.flac", "folk-2.flac"], "kept": []});\n'
    assert "</" not in Path("takes/.listen.html.takes.js").read_text()
    assert acestep("listen", "takes").exit_code == 0
    assert said()["scripts"] is None
    assert "'self' file:" not in page.read_text().partition("media-src")[2].partition("script-src")[2]
    assert not list(Path("takes").glob(".listen*"))


def grow(acestep: Run, *more: str) -> None:
    """Make the page anew, as one that more takes will come to; with `more`, after one more take."""
    if more:
        assert acestep("generate", *more).exit_code == 0
    listen.make_page(Path("takes"), Path("takes/listen.html"), Console(quiet=True), growing=True)


def test_the_page_may_be_opened_at_once(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    takes(acestep, 1)
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or len(opened) == 1)
    shown = acestep("listen", "takes", "--open")
    assert shown.exit_code == 0
    assert "browser" not in shown.output
    assert opened == [Path("takes/listen.html").absolute().as_uri()]
    assert "No browser could be started" in acestep("listen", "takes", "--open").output


def test_of_a_file_its_folder_is_named(acestep: Run) -> None:
    takes(acestep, 1)
    [take] = Path("takes").glob("*.flac")
    refused = acestep("listen", str(take))
    assert refused.exit_code == 5
    assert "acestep listen takes" in refused.output


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["nowhere"], 5, "nowhere cannot be read: no such file or directory."),
        (["nowhere", "-o", "a.html"], 5, "nowhere cannot be read: no such file or directory."),
        (["empty"], 5, "empty holds no audio files (wav, flac, mp3, ogg, opus, m4a)."),
        (["broken"], 5, "Nothing in broken can be read."),
        (["empty", "-o", "a.pdf"], 2, "--output a.pdf: a page is an .html file."),
        (["empty", "-o", "mine.html"], 9, "mine.html exists already and is not a page of takes."),
        (["empty", "-o", "folder.html"], 9, "folder.html exists already"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refusals(acestep: Run, words: list[str], code: int, sentence: str) -> None:
    for folder in ("empty", "broken", "folder.html"):
        Path(folder).mkdir()
    Path("broken/a.wav").write_text("no")
    Path("mine.html").write_text("<p>mine")
    result = acestep("listen", *words)
    assert result.exit_code == code
    assert sentence in " ".join(result.stderr.split())
    assert Path("mine.html").read_text() == "<p>mine"


# In a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("there is no Chromium with its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


class Page:
    """A page in the browser, and what its script knows."""

    def __init__(self, browser: Any, file: Path) -> None:
        self.browser = browser
        browser.get(file.absolute().as_uri())
        self.until("current.audio.readyState > 0")

    def js(self, expression: str) -> Any:
        return self.browser.execute_script(f"return {expression}")

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def click(self, selector: str, number: int = 0) -> None:
        element = self.browser.find_elements("css selector", selector)[number]
        self.browser.execute_script(
            "arguments[0].scrollIntoView({block: 'center'})", element
        )  # the header hides the top
        element.click()

    def until(self, expression: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not self.js(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.05)


@pytest.fixture
def page(acestep: Run, chromium: Any) -> Page:
    takes(acestep, 3, "--loudness", "lufs:-20")
    Path("takes/folk-1.flac.yaml").write_text(Path("takes/folk-1.flac.yaml").read_text())
    acestep(
        "generate", "-c", "it's folk", "--lyrics", LYRICS, "-d", "10", "--loudness", "lufs:-14", "-o", "takes/z's.wav"
    )
    assert acestep("listen", "takes").exit_code == 0
    return Page(chromium, Path("takes/listen.html"))


@pytest.mark.slow
def test_takes_play_and_are_switched_at_the_same_second(page: Page) -> None:
    assert page.js("[current.index, current.audio.paused]") == [0, True]
    page.press(" ")
    page.until("current.audio.currentTime > 1")
    before = page.js("current.audio.currentTime")
    page.press("3")
    assert page.js("takes.filter((take) => !take.audio.paused).map((take) => take.index)") == [2]
    page.until("current.audio.currentTime > 1.2")
    assert before <= page.js("current.audio.currentTime") < before + 3
    page.press("a")
    assert page.js("[current.index, current.audio.paused, takes[2].audio.paused]") == [0, False, True]
    page.press(" ", "\ue015", "\ue014")  # pause; down; right
    assert page.js("[current.index, current.audio.paused]") == [1, True]
    assert page.js("current.audio.currentTime") == pytest.approx(page.js("takes[0].audio.currentTime") + 5, abs=0.2)
    page.press("[")
    assert page.js("current.audio.currentTime") == pytest.approx(5, abs=0.1)  # the chorus
    page.press("[", "[")
    assert page.js("current.audio.currentTime") == pytest.approx(0, abs=0.1)
    page.press("]")
    assert page.js("document.querySelector('#clock').textContent") == "0:05 / 0:10"
    assert page.browser.get_log("browser") == []


@pytest.mark.slow
def test_louder_takes_are_turned_down_until_that_is_off(page: Page) -> None:
    volumes = page.js("takes.map((take) => take.audio.volume)")
    assert volumes == pytest.approx([1, 1, 1, 10 ** (-6 / 20)], abs=0.01)
    page.press("l")
    assert page.js("takes.map((take) => take.audio.volume)") == [1, 1, 1, 1]


@pytest.mark.slow
def test_a_click_on_the_waveform_goes_there(page: Page) -> None:
    page.click(".wave", 1)  # in its middle
    assert page.js("current.index") == 1
    page.until("Math.abs(current.audio.currentTime - 5) < 0.2")
    page.click(".sections span", 3)  # the chorus of the second take
    page.until("Math.abs(current.audio.currentTime - 5) < 0.05")


def words_in_bash(text: str) -> list[list[str]]:
    """The words of each `acestep` command in `text`, as bash reads them."""
    told = finish(["bash", "-c", "acestep() { printf '%s\\0' \"$@\" '//'; }\n" + text], text=True)
    assert told.returncode == 0, told.stderr
    return [command.strip("\0").split("\0") for command in told.stdout.split("//\0")[:-1]]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_picks_outlive_a_reload_and_are_exported_with_commands_that_run(page: Page, acestep: Run) -> None:
    page.press("2", "p", "4", "p", "i", "\ue014", "o")
    page.browser.refresh()
    page.until("current.audio.readyState > 0")
    assert page.js("takes.filter((take) => take.picked).map((take) => take.file)") == ["folk-2.flac", "z's.wav"]
    page.click(".star", 3)
    page.click(".star", 3)
    assert page.js("document.querySelector('#count').textContent") == "2"
    page.press("4", "\ue014", "i", "\ue014", "o", "e")  # from 5 to 10 s
    text = page.js("document.querySelector('#picks textarea').value")
    assert "# folk-2.flac\n# z's.wav\n" in text
    commands = words_in_bash(text)
    assert [words[0] for words in commands] == ["repaint", "generate", "render", "render"] * 2
    asked = ["z's.wav", "--start", "5.00", "--end", "9.99", "-c", "it's folk", "--lyrics", LYRICS]
    assert commands[4][1:] == asked
    assert commands[1][1:] == ["folk-2.flac.yaml", "--variation", "15%", "-n", "4"]
    assert commands[2][1:] == ["folk-2.flac.yaml", "--steps", "16", "-o", "folk-2-16-steps.flac"]
    with pytest.MonkeyPatch.context() as inside:
        inside.chdir("takes")
        for words in commands:
            result = acestep(*words)
            assert result.exit_code == 0, result.stderr


@pytest.mark.slow
def test_it_is_dark_or_light_by_the_system_and_by_key(page: Page) -> None:
    def paper() -> str:
        return str(page.js("getComputedStyle(document.body).backgroundColor"))

    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        assert paper() == {"light": "rgb(250, 248, 244)", "dark": "rgb(19, 17, 24)"}[scheme]
    page.press("d")
    assert paper() == "rgb(250, 248, 244)"
    page.press("d")
    assert paper() == "rgb(19, 17, 24)"


@pytest.mark.slow
def test_a_phone_shows_it_without_scrolling_sideways(page: Page) -> None:
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.js("document.documentElement.scrollWidth") <= 360
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_an_embedded_page_plays_far_from_its_takes(acestep: Run, chromium: Any, tmp_path: Path) -> None:
    takes(acestep, 2)
    away = tmp_path / "away"
    away.mkdir()
    assert acestep("listen", "takes", "--embed", "-o", str(away / "a.html")).exit_code == 0
    shutil.rmtree("takes")
    page = Page(chromium, away / "a.html")
    page.press("2", " ")
    page.until("current.audio.currentTime > 0.5")


@pytest.mark.slow
def test_nasty_texts_are_shown_as_they_are(acestep: Run, chromium: Any) -> None:
    Path("odd").mkdir()
    acestep("generate", "-c", NASTY, "--lyrics", NASTY, "-d", "10", "-o", "odd/50% <i>#1?.wav")
    acestep("listen", "odd")
    page = Page(chromium, Path("odd/listen.html"))
    assert page.js("document.querySelector('.words pre').textContent") == NASTY
    assert page.js("document.querySelector('h2').textContent") == "50% <i>#1?.wav"
    assert page.js("document.querySelectorAll('main img').length") == 1
    assert page.browser.get_log("browser") == []


@pytest.mark.slow
def test_a_page_takes_in_new_takes_and_picks_what_was_kept(acestep: Run, chromium: Any) -> None:
    takes(acestep, 3)
    grow(acestep)
    page = Page(chromium, Path("takes/listen.html"))
    assert page.js("document.querySelector('#growing').hidden") is False
    page.press("2", "p", " ")
    page.browser.execute_script("current.audio.loop = true")  # whatever else this machine does meanwhile
    page.until("current.audio.currentTime > 0.5")
    grow(acestep, "-c", "folk", "-d", "10", "-o", "takes/folk-2b.flac")
    page.until("takes.length === 4")
    assert page.js("document.querySelectorAll('article').length") == 4
    assert page.js("[takes[3].file, takes[3].index, current.index]") == ["folk-2b.flac", 3, 1]
    assert page.js("[current.audio.paused, current.picked]") == [False, True]
    page.until("takes[3].audio.readyState > 0")
    page.press("4")
    assert page.js("[current.file, current.audio.paused]") == ["folk-2b.flac", False]
    kept = ["folk-2b.flac", "folk-3.flac"]
    listen.write_growing(Path("takes/listen.html"), page.js("takes.map((take) => take.file)"), kept)
    page.until("takes.filter((take) => take.picked).length === 3")
    page.press("p")  # who was kept may be unpicked
    time.sleep(2.5)
    picks = "takes.filter((take) => take.picked).map((take) => take.file)"
    assert page.js(picks) == ["folk-2.flac", "folk-3.flac"]
    Path("takes/kept.txt").write_text("\n".join(kept))
    grow(acestep)
    page.browser.refresh()
    page.until("current.audio.readyState > 0")
    assert page.js("takes.map((take) => take.file)") == ["folk-1.flac", "folk-2.flac", "folk-2b.flac", "folk-3.flac"]
    assert page.js(picks) == ["folk-2.flac", "folk-3.flac"]
    assert page.browser.get_log("browser") == []
    assert acestep("listen", "takes").exit_code == 0  # that was all
    page.until("document.querySelector('#growing').hidden")
