"""Fixtures that several test files share."""

from __future__ import annotations

import atexit
import os
import tempfile

import pytest
import tiny
import torch

# What renders teach goes into a book of the tests' own, never into the user's.
STATE = tempfile.TemporaryDirectory(prefix="acestep-state-")
atexit.register(STATE.cleanup)
os.environ["XDG_STATE_HOME"] = STATE.name


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Threads gain nothing on tiny tensors, and wait for each other where tests share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def two_b(tmp_path_factory: pytest.TempPathFactory) -> tiny.Oracle:
    """A tiny turbo checkpoint of the 2B shape, beside diffusers' modules with the same weights."""
    return tiny.build(tmp_path_factory.mktemp("2b") / "models", tiny.TWO_B)


@pytest.fixture(scope="session")
def xl(tmp_path_factory: pytest.TempPathFactory) -> tiny.Oracle:
    """The same of the XL shape: an encoder narrower than the decoder, timbre read from a prepended token."""
    return tiny.build(tmp_path_factory.mktemp("xl") / "models", tiny.XL)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> tiny.Oracle:
    """The same of the 2B shape, guided rather than distilled."""
    return tiny.build(tmp_path_factory.mktemp("base") / "models", tiny.BASE, name="acestep-v15-base")
