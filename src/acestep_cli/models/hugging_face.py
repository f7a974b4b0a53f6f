"""The Hugging Face hub, by its own library; only this module and `hugging_face_client` ask it.

`huggingface_hub` talks to the hub and moves the bytes, and with it what it takes from the environment: HF_HOME,
HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, proxies. Since its version 2 it throws away what a cut download has brought, so
an unfinished file is kept here and `http_get` told to go on behind it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from acestep_cli.errors import OutputError
from acestep_cli.models import hub, hugging_face_client
from acestep_cli.models.checkpoint_table import ModelPart
from acestep_cli.models.hub import PublishedFile, PublishedPart, TooLongError
from acestep_cli.models.hugging_face_client import LIBRARY
from acestep_cli.models.manifest import Manifest, RemoteFile
from acestep_cli.models.model_store import ModelStore
from acestep_cli.progress import Say

NEWEST = "main"
#: The times that one download of a file may start over because the hub does not go on where it broke off.
MOST_RESTARTS = 3


class HuggingFace:
    """The Hugging Face hub, or the mirror of it that HF_ENDPOINT names."""

    sign_in = hugging_face_client.SIGN_IN

    @contextmanager
    def session(self, store: ModelStore, say: Say) -> Iterator[None]:
        """Translate the errors of the library, report its retries, and bound the hub's answers."""
        hugging_face_client.require_endpoint()
        with (
            hugging_face_client.translating_errors(store.root),
            hugging_face_client.reporting_retries(say),
            hugging_face_client.bounded_answers(),
        ):
            yield

    def translating_errors(self, place: Path) -> AbstractContextManager[None]:
        return hugging_face_client.translating_errors(place)

    def require_client(self) -> None:
        hugging_face_client.require_client()

    def published(self, parts: Sequence[ModelPart], revision: str | None) -> list[PublishedPart]:
        """Ask the hub, once for each repository, for the commit of `revision` and its files."""
        from huggingface_hub import HfApi, constants

        api, repos = HfApi(**LIBRARY), {}
        for part in parts:
            if part.repo not in repos:
                try:
                    repos[part.repo] = api.model_info(
                        part.repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
                    )
                except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
                    raise hugging_face_client.hub_error(str(error)) from error
                commit = repos[part.repo].sha
                if not isinstance(commit, str) or not hub.HASH.fullmatch(commit):
                    raise hugging_face_client.hub_error(f"no commit of {part.repo} is named")
        try:
            return [PublishedPart(part, _manifest(part, repos[part.repo], revision or NEWEST)) for part in parts]
        except (AttributeError, TypeError) as error:
            raise hugging_face_client.hub_error(f"it sends no list of files ({error})") from error

    def fetch(self, one: PublishedPart, file: RemoteFile, path: Path, report: Callable[[int], None]) -> None:
        """Append to `path` the bytes that it lacks of a file.

        Raises `TooLongError` where more come than the file has; those of this download are then removed.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        with _unfinished(path, file.size) as stream:
            try:
                http_get(
                    hf_hub_url(one.part.repo, f"{one.part.inside}{file.name}", revision=one.manifest.commit),
                    stream,  # type: ignore[arg-type]  # all that it calls is there
                    resume_size=stream.tell(),
                    headers={**build_hf_headers(**LIBRARY), **hugging_face_client.FILE_HEADERS},
                    expected_size=file.size,
                    tqdm_class=_progress_class(report),
                )
            except TooLongError:
                stream.cut()
                raise
            except ValueError as error:  # lengths that are no numbers, or over what the library takes
                raise hugging_face_client.hub_error(str(error)) from error


def _manifest(part: ModelPart, info: Any, revision: str) -> Manifest:
    """Return the manifest of a part as published."""
    listed = [
        PublishedFile(
            sibling.rfilename,
            sibling.size,
            sibling.lfs.sha256 if sibling.lfs else None,
            None if sibling.lfs and sibling.lfs.sha256 else sibling.blob_id,
        )
        for sibling in info.siblings or []
    ]
    return hub.part_manifest(part, listed, info.sha, revision, hugging_face_client.hub_error)


class _Bounded:
    """An unfinished file that never grows beyond `size` bytes."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size
        #: The bytes before this position are from earlier downloads.
        self.start = stream.tell()
        self.restarts = 0

    def tell(self) -> int:
        return self.stream.tell()

    def seek(self, place: int) -> int:
        return self.stream.seek(place)

    def truncate(self) -> int:
        """Cut the file at its position. The library does so before it starts over, as often as data come.

        Raises `NetworkError` where that leads to nothing.
        """
        self.restarts += 1
        if self.restarts > MOST_RESTARTS:
            raise hugging_face_client.restarting_error()
        self.start = min(self.start, self.stream.tell())
        return self.stream.truncate()

    def write(self, data: bytes) -> int:
        if self.stream.tell() + len(data) > self.size:
            raise TooLongError
        return self.stream.write(data)

    def cut(self) -> None:
        """Remove the bytes of this download."""
        self.seek(self.start)
        self.stream.truncate()


@contextmanager
def _unfinished(path: Path, size: int) -> Iterator[_Bounded]:
    """Open an unfinished file at its end; one that is longer than `size` is emptied.

    A link in its place is removed, but not its target. Raises `OutputError` where it is not a regular file.
    """
    if path.is_symlink() or (path.is_file() and path.stat().st_nlink > 1):  # else it is somebody's file too
        path.unlink()
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OutputError(f"{path} is in the way of a download, and is not an ordinary file.", "Move it away.")
    with os.fdopen(descriptor, "r+b") as stream:
        if stream.seek(0, os.SEEK_END) > size:
            stream.seek(0)
            stream.truncate()
        yield _Bounded(stream, size)


def _progress_class(report: Callable[[int], None]) -> Any:
    """Return a class that `http_get` uses as a progress bar."""

    class ByteCounter:
        def __init__(self, *, initial: int = 0, **_: Any) -> None:
            self.done = initial

        def __enter__(self) -> ByteCounter:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, count: int) -> None:
            self.done += count
            report(self.done)

    return ByteCounter
