"""The schema of a manifest as it is stored, in a file of its own because importing pydantic takes a while."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt


class ManifestFile(BaseModel):
    """The entry of a file in a manifest."""

    model_config = ConfigDict(strict=True)

    size: NonNegativeInt
    sha256: str | None = None
    blob_id: str | None = None


class ManifestContent(BaseModel):
    """The content of a manifest."""

    model_config = ConfigDict(strict=True)

    version: Literal["acestep-lock/1"] = Field(alias="schema")
    repo: str
    revision: str
    commit: str
    files: dict[str, ManifestFile]
