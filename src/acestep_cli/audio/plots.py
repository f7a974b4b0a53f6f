"""Pictures of audio: its waveform and its spectrogram."""

from __future__ import annotations

import io
import math
from itertools import pairwise
from typing import TYPE_CHECKING

from acestep_cli.audio.sound import Audio

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Of a spectrogram: samples in a window, lowest and highest frequency in Hz, and decibels from black to white.
WINDOW = 4096
LOWEST, HIGHEST = 40.0, 16_000.0
DECIBELS = 80.0
#: A recording quieter than this throughout stays black, in decibels.
SILENT = -60.0
#: From quiet to loud, as red, green and blue; colours between them are mixed.
COLOURS = ((8, 6, 20), (48, 18, 90), (122, 28, 110), (200, 58, 80), (246, 130, 50), (252, 210, 110), (255, 250, 220))


def outline(sound: Audio, columns: int) -> NDArray[np.float32]:
    """Return the lowest and highest sample of both channels in each column, [2, columns]."""
    import numpy as np

    edges = np.linspace(0, sound.samples.shape[1], columns + 1).astype(int)
    found = np.zeros((2, columns), np.float32)
    for column, (start, end) in enumerate(pairwise(edges)):
        stretch = sound.samples[:, start : max(end, start + 1)]
        if stretch.size:
            found[:, column] = stretch.min(), stretch.max()
    return found


def spectrogram(sound: Audio, columns: int, rows: int) -> bytes:
    """Return a mel spectrogram as a PNG: time to the right, pitch to the top, the loudest lightest."""
    import numpy as np
    from PIL import Image

    mono = np.pad(sound.samples.mean(axis=0), WINDOW // 2)
    starts = np.linspace(0, max(len(mono) - WINDOW, 0), columns).astype(int)
    window = np.hanning(WINDOW).astype(np.float32)
    power = np.stack([np.abs(np.fft.rfft(mono[start : start + WINDOW] * window)) ** 2 for start in starts], axis=1)
    mel = 10 * np.log10(np.maximum(mel_filters(sound.sample_rate, rows) @ power, 1e-20))
    shades = np.clip((mel - max(mel.max(), SILENT)) / DECIBELS + 1, 0, 1)
    picture = Image.fromarray((255 * shades[::-1]).astype(np.uint8), "P")
    picture.putpalette(palette())
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def mel_filters(rate: int, rows: int) -> NDArray[np.float64]:
    """Return triangular filters of equal area, evenly spaced in mel, [rows, WINDOW // 2 + 1]."""
    import numpy as np

    low, high = (2595 * math.log10(1 + pitch / 700) for pitch in (LOWEST, min(HIGHEST, rate / 2)))
    centres = 700 * (10 ** (np.linspace(low, high, rows + 2) / 2595) - 1)
    left, middle, right = (centres[start : start + rows, None] for start in range(3))
    pitches = np.fft.rfftfreq(WINDOW, 1 / rate)
    rising, falling = (pitches - left) / (middle - left), (right - pitches) / (right - middle)
    triangles: NDArray[np.float64] = np.maximum(np.minimum(rising, falling), 0) / (right - left)
    return triangles


def palette() -> list[int]:
    """Return 256 colours as a flat list of red, green and blue."""
    import numpy as np

    anchors = np.linspace(0, 255, len(COLOURS))
    mixed = [np.interp(range(256), anchors, channel) for channel in zip(*COLOURS, strict=True)]
    return [round(value) for colour in zip(*mixed, strict=True) for value in colour]
