"""Download published folders from the Hugging Face hub; no other module asks the network.

`huggingface_hub` talks to the hub and moves the bytes, and with it what it takes from the environment: HF_HOME,
HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, proxies. Since its version 2 it throws away what a cut download has brought, so
an unfinished file is kept here and `http_get` told to go on behind it.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol
from urllib.parse import urlsplit

from acestep_cli import __version__, disk
from acestep_cli.errors import AceStepError, CheckpointError, NetworkError, OutputError, reason_of
from acestep_cli.models import checkpoints, local
from acestep_cli.models.checkpoints import ModelPart
from acestep_cli.models.local import LockFile, ModelStore, RemoteFile
from acestep_cli.progress import ProgressCallback

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from huggingface_hub.errors import HfHubHTTPError

LIBRARY: dict[str, Any] = {"library_name": "acestep-cli", "library_version": __version__}
HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
GO_ON = "The same command goes on from where this one stopped."
SIGN_IN = "Is that the right HF_ENDPOINT? Some networks answer everything with a page to sign in."
#: The longest pause that the hub may ask for without the pull being given up.
LONGEST_PAUSE = timedelta(minutes=1)
#: Pauses longer than this are reported as "more than a year".
ENDLESS_SECONDS = 366 * 86_400
#: Of an answer of the hub that is no file: far more than its list of the files of any repository here.
MOST_ANSWER_BYTES = 16 << 20
#: Variables with the certificates to trust; a bad value, like a bad proxy, makes the web client fail.
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class PullReporter(Protocol):
    """The output of a pull: lines of text, and the bytes of each file."""

    def say(self, line: str) -> None: ...

    def transfers(self, total: int) -> AbstractContextManager[ProgressCallback]: ...


@dataclass(frozen=True)
class PublishedPart:
    """A part as it stands at one commit of the hub."""

    part: ModelPart
    lock: LockFile


@dataclass(frozen=True)
class PulledPart:
    """A complete part. `fetched` is the number of bytes downloaded for it."""

    part: ModelPart
    folder: Path
    lock: LockFile
    fetched: int


def pull(
    parts: Sequence[ModelPart], store: ModelStore, revision: str | None, teller: PullReporter, *, again: bool = False
) -> list[PulledPart]:
    """Download and verify parts into `store`, each with its lock file.

    Complete files are not downloaded again, and hashed again only with `again`. Raises `NetworkError`,
    `CheckpointError` where content has the wrong hash, and `OutputError` where it cannot be written or does not fit on
    the disk.
    """
    _require_endpoint()
    with _translating_errors(store.root), _reporting_retries(teller), _bounded_answers():
        try:
            with _translating_errors(store.root):
                _require_client()
                wanted = _published(parts, revision)
        except NetworkError as error:
            if revision is None and not again and (kept := _installed(parts, store)):
                teller.say(f"{error.message} What is installed stays as it is.")
                return kept
            raise
        fetched: dict[ModelPart, int] = {}
        if again or not all(_is_settled(one, store) and not _missing(one, store, teller) for one in wanted):
            with local.lock_store(parts, store, teller.say):
                missing = {one.part: _missing(one, store, teller, again=again) for one in wanted}
                _require_room(missing, store)
                fetched = _download_parts(wanted, missing, store, teller)
    return [
        PulledPart(one.part, store.folder(one.part, one.lock.commit), one.lock, fetched.get(one.part, 0))
        for one in wanted
    ]


def require_online() -> None:
    """Raise `NetworkError` where the environment forbids network access (HF_HUB_OFFLINE)."""
    _require_endpoint()
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _offline()


def _offline() -> NetworkError:
    return NetworkError("HF_HUB_OFFLINE is set, so the hub is not asked.", "Unset it to pull.")


def _require_endpoint() -> None:
    """Raise `NetworkError` where HF_ENDPOINT is not an address, with which the library cannot be imported."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        _ = urlsplit(endpoint).port
    except ValueError as error:
        raise NetworkError(
            f"HF_ENDPOINT is {endpoint!r}, which is not an address: {error}.", "Correct it, or unset it."
        ) from error


def _web() -> Any:
    """Return the module of the library's web client, which differs between versions of the library."""
    from huggingface_hub import errors

    return sys.modules[errors.HfHubHTTPError.__mro__[1].__module__]


def _require_client() -> None:
    """Raise `NetworkError` where the environment names a proxy or certificates that the web client cannot use."""
    from huggingface_hub import get_session

    try:
        get_session()
    except (ImportError, OSError, ValueError, _web().InvalidURL) as error:
        proxies = {
            name: value for name, value in sorted(os.environ.items())
            if name.lower().endswith("_proxy") and name.lower() != "no_proxy" and value
        }  # fmt: skip
        if isinstance(error, ImportError):
            named = [name for name, value in proxies.items() if value.lower().startswith("socks")]
            raise NetworkError(
                f"{_listed(named or list(proxies))} names a SOCKS proxy, for which the package socksio is needed.",
                "Install it beside this program (pip install socksio), or unset the variable.",
            ) from error
        if isinstance(error, OSError):
            named = [name for name in CERTIFICATES if os.environ.get(name)]
            missing = [name for name in named if not Path(os.environ[name]).exists()]
            raise NetworkError(
                f"The certificates that {_listed(missing or named)} names cannot be read: {error.strerror or error}.",
                "Correct the variable, or unset it.",
            ) from error
        named = [name for name, value in proxies.items() if not _is_proxy(value)]
        raise NetworkError(
            f"{_listed(named or list(proxies))} names a proxy that cannot be used: {error}.",
            "Write it as http://HOST:PORT, or unset the variable.",
        ) from error


def _is_proxy(address: str) -> bool:
    """Return True where the web client accepts an address as that of a proxy."""
    web = _web()
    try:
        web.Proxy(address if "://" in address else f"http://{address}")
    except (ValueError, web.InvalidURL):
        return False
    return True


def _listed(names: Sequence[str]) -> str:
    """Return names of environment variables as a list in words."""
    return " or ".join(names) or "the environment"


@contextmanager
def _bounded_answers() -> Iterator[None]:
    """Raise `NetworkError` in the body where the hub asks for a pause of more than a minute, or answers at greater
    length than any list of files has; the library would sleep for as long as it is told, and read to the end.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def refuse(response: Any) -> None:
        asked = _pause(response) if response.status_code >= 400 else None
        if asked is not None and asked > LONGEST_PAUSE.total_seconds():
            raise _paused(response, asked)
        if response.status_code >= 300 or "/api/models/" in response.request.url.path:
            response.iter_bytes = partial(_bounded_bytes, response.iter_bytes)  # which is what reads it into memory

    def make() -> Any:
        client = default_client_factory()
        client.event_hooks = {**client.event_hooks, "response": [*client.event_hooks["response"], refuse]}
        return client

    set_client_factory(make)
    try:
        yield
    finally:
        set_client_factory(default_client_factory)


def _bounded_bytes(read: Callable[..., Iterator[bytes]], *args: Any, **options: Any) -> Iterator[bytes]:
    """Read an answer that is no file. `NetworkError` as soon as it is too long, decompressed."""
    length = 0
    for data in read(*args, **options):
        length += len(data)
        if length > MOST_ANSWER_BYTES:
            raise _hub_error(f"its answer is longer than {disk.format_size(MOST_ANSWER_BYTES)}")
        yield data


def _pause(response: Any) -> float | None:
    """Return the seconds that a response asks to wait before the next request; None where it does not say."""
    from huggingface_hub.utils._http import parse_ratelimit_headers

    limit = parse_ratelimit_headers(response.headers) if response.status_code == 429 else None
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    after: str = response.headers.get("retry-after", "").strip()
    if re.fullmatch("[0-9]+", after):
        return float(after)
    try:
        then = parsedate_to_datetime(after)
    except ValueError:
        return None
    return (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def _paused(response: Any, seconds: float) -> NetworkError:
    """Return the error for a pause, with the time after which to try again."""
    from huggingface_hub import constants

    what = f"{constants.ENDPOINT} ({response.status_code})"
    if seconds > ENDLESS_SECONDS:
        return NetworkError(f"{what} asks for a pause of more than a year.", f"Another HF_ENDPOINT may do. {GO_ON}")
    minutes = -(-seconds // 60)
    words = f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"
    then = datetime.now().astimezone() + timedelta(seconds=seconds)
    return NetworkError(
        f"{what} asks for a pause of {words}.",
        f"Try again after {then:%Y-%m-%d %H:%M}; a token in HF_TOKEN may help. {GO_ON}",
    )


def _published(parts: Sequence[ModelPart], revision: str | None) -> list[PublishedPart]:
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
                raise _hub_error(str(error)) from error
            commit = repos[part.repo].sha
            if not isinstance(commit, str) or not HASH.fullmatch(commit):
                raise _hub_error(f"no commit of {part.repo} is named")
    try:
        return [PublishedPart(part, _lock(part, repos[part.repo], revision or "main")) for part in parts]
    except (AttributeError, TypeError) as error:
        raise _hub_error(f"it sends no list of files ({error})") from error


def _hub_error(why: str) -> NetworkError:
    from huggingface_hub import constants

    return NetworkError(f"{constants.ENDPOINT} does not answer as a hub does: {why}.", SIGN_IN)


def _lock(part: ModelPart, info: Any, revision: str) -> LockFile:
    """Return the lock file of a part as published. Raises `CheckpointError` where a file that it needs is missing."""
    files = []
    for sibling in info.siblings or []:
        name = sibling.rfilename.removeprefix(part.inside)
        inside = sibling.rfilename.startswith(part.inside) and "/" not in name
        if inside and any(fnmatch(name, pattern) for pattern in checkpoints.FETCHED):
            if not local.is_plain(name):
                raise _hub_error(
                    f"{part.repo} has a file {sibling.rfilename!r:.200}, which is not allowed as a file name here"
                )
            sha256 = sibling.lfs.sha256 if sibling.lfs else None
            file = RemoteFile(name, sibling.size, sha256, None if sha256 else sibling.blob_id)
            is_size = type(file.size) is int and file.size >= 0
            if not is_size or not isinstance(file.hash, str) or not HASH.fullmatch(file.hash):  # which names a file
                raise _hub_error(f"size or hash of {sibling.rfilename!r:.200} is missing")
            files.append(file)
    names = {file.name for file in files}
    lacking = [name for name in part.needs if name not in names]
    if lacking or not any(name.endswith(".safetensors") for name in names):
        raise CheckpointError(
            f"{part.repo} has no {part.inside}{lacking[0] if lacking else '*.safetensors'} at its revision {revision}.",
            "Leave --revision out, or name one that has it.",
        )
    return LockFile(part.repo, revision, info.sha, tuple(sorted(files, key=lambda file: file.size)))


def _installed(parts: Sequence[ModelPart], store: ModelStore) -> list[PulledPart]:
    """Return the parts on disk if all of them are complete by their lock files, else an empty list."""
    kept = []
    for part in parts:
        folder = checkpoints.part_folder(part, None if isinstance(store, local.HubCache) else store.root)
        lock = local.read_lock(folder) if folder else None
        if folder is None or lock is None:
            return []
        if any(not (folder / f.name).is_file() or (folder / f.name).stat().st_size != f.size for f in lock.files):
            return []
        kept.append(PulledPart(part, folder, lock, 0))
    return kept


def _missing(one: PublishedPart, store: ModelStore, teller: PullReporter, *, again: bool = False) -> list[RemoteFile]:
    """Return the files that are missing or have another hash than on the hub.

    Files that match the lock file are not hashed, unless `again` is True.
    """
    folder = store.folder(one.part, one.lock.commit)
    try:
        known = None if again else local.read_lock(folder)
    except CheckpointError:
        known = None
    vouched = {file.name: file.hash for file in known.files} if known else {}
    there = [
        file for file in one.lock.files if (path := folder / file.name).is_file() and path.stat().st_size == file.size
    ]
    unread = [file for file in there if vouched.get(file.name) != file.hash]
    if unread:
        size = disk.format_size(sum(file.size for file in unread))
        teller.say(f"{one.part.folder}: comparing {size} on disk with the hashes on the hub")
    wrong = [file for file in unread if not file.matches(folder / file.name)]
    return [file for file in one.lock.files if file not in there or file in wrong]


def _is_settled(one: PublishedPart, store: ModelStore) -> bool:
    """Return True where the lock file and the reference of a part are up to date."""
    folder = store.folder(one.part, one.lock.commit)
    try:
        known = local.read_lock(folder)
    except CheckpointError:
        return False
    same = known is not None and known.commit == one.lock.commit and set(known.files) == set(one.lock.files)
    return same and store.is_published(one.part, one.lock.commit)


def _require_room(missing: dict[ModelPart, list[RemoteFile]], store: ModelStore) -> None:
    """Raise `OutputError` where the disk has no room for the remaining downloads."""
    needed = 0
    for part, files in missing.items():
        for file in files:
            unfinished = store.unfinished(part, file)
            is_begun = unfinished.is_file() and not unfinished.is_symlink()
            needed += max(0, file.size - (unfinished.stat().st_size if is_begun else 0))
    free = local.free_bytes(store.root)
    if needed > free:
        raise OutputError(
            f"{disk.format_size(needed)} are still to be fetched, and the disk of {store.root} has "
            f"{disk.format_size(free)} free.",
            "Make room (`acestep models prune` lists what is left over), or name another disk with --models-dir or "
            "HF_HOME.",
        )


def _download_parts(
    wanted: list[PublishedPart], missing: dict[ModelPart, list[RemoteFile]], store: ModelStore, teller: PullReporter
) -> dict[ModelPart, int]:
    """Download the missing files, part by part, small files first. A complete part gets its lock file at once.

    Returns the downloaded bytes of each part.
    """
    fetched = dict.fromkeys(missing, 0)
    with teller.transfers(sum(file.size for files in missing.values() for file in files)) as report:
        for one in wanted:
            for file in missing[one.part]:
                content = _find_stored(one, file, store)
                if content is None:
                    content = _download_file(one, file, store, report)
                    fetched[one.part] += file.size
                report(f"{one.part.folder}/{file.name}", file.size, file.size)
                store.place(one.part, one.lock.commit, file, content)
            if not _is_settled(one, store):
                one.lock.write(store.folder(one.part, one.lock.commit))
                store.publish(one.part, one.lock.commit)
    return fetched


def _find_stored(one: PublishedPart, file: RemoteFile, store: ModelStore) -> Path | None:
    """Return verified content that is on disk already, from another commit or an interrupted pull, else None."""
    path = store.stored(one.part, file)
    return path if path is not None and path.is_file() and file.matches(path) else None


def _download_file(one: PublishedPart, file: RemoteFile, store: ModelStore, report: ProgressCallback) -> Path:
    """Download a file, resuming an unfinished one, and verify it. Where it is wrong, start over once.

    Raises `NetworkError` where more bytes come than the file has, twice, and `CheckpointError` where the hash differs
    twice.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    url = hf_hub_url(one.part.repo, f"{one.part.inside}{file.name}", revision=one.lock.commit)
    # Compressed on its way, a file could not be resumed.
    headers = {**build_hf_headers(**LIBRARY), "accept-encoding": "identity"}
    path = store.unfinished(one.part, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    label = f"{one.part.folder}/{file.name}"
    too_long: _TooLongError | None = None
    for _ in range(2):
        with _unfinished(path, file.size) as stream:
            try:
                http_get(
                    url,
                    stream,  # type: ignore[arg-type]  # all that it calls is there
                    resume_size=stream.tell(),
                    headers=headers,
                    expected_size=file.size,
                    tqdm_class=_progress_class(lambda done: report(label, min(done, file.size), file.size)),
                )
            except _TooLongError as error:
                too_long = error
                stream.cut()
                continue
            except ValueError as error:  # lengths that are no numbers, or over what the library takes
                raise _hub_error(str(error)) from error
        too_long = None
        if file.matches(path):
            return path
        path.unlink()
        report(label, 0, file.size)
    if too_long is not None:
        raise NetworkError(
            f"What {one.part.repo} sends for {one.part.inside}{file.name} is longer than the {file.size:,} bytes that "
            "it names, twice. The rest was not fetched.",
            SIGN_IN,
        )
    raise CheckpointError(
        f"What {one.part.repo} sends for {one.part.inside}{file.name} has another hash than it names, twice. "
        "It was not kept.",
        "Try again later, or without a mirror or proxy in between.",
    )


class _TooLongError(Exception):
    """Raised where more bytes come for a file than the hub named."""


class _Bounded:
    """An unfinished file that never grows beyond `size` bytes."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size
        #: The bytes before this position are from earlier downloads.
        self.start = stream.tell()

    def tell(self) -> int:
        return self.stream.tell()

    def seek(self, place: int) -> int:
        return self.stream.seek(place)

    def truncate(self) -> int:
        """Cut the file at its position. The library does so before it starts over."""
        self.start = min(self.start, self.stream.tell())
        return self.stream.truncate()

    def write(self, data: bytes) -> int:
        if self.stream.tell() + len(data) > self.size:
            raise _TooLongError
        return self.stream.write(data)

    def cut(self) -> None:
        """Remove the bytes of this download."""
        self.seek(self.start)
        self.truncate()


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

    class Meter:
        def __init__(self, *, initial: int = 0, **_: Any) -> None:
            self.done = initial

        def __enter__(self) -> Meter:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, count: int) -> None:
            self.done += count
            report(self.done)

    return Meter


@contextmanager
def _reporting_retries(teller: PullReporter) -> Iterator[None]:
    """Report the library's warnings about broken connections and waits in one short line each."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if "resume" in text:
                teller.say("The connection broke; going on from there.")
            elif text.startswith(("Rate limited", "Retrying in")):
                teller.say(f"The hub wants a pause. {text}")

    logger, lines = logging.getLogger("huggingface_hub"), Lines(logging.WARNING)
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [lines], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before


@contextmanager
def _translating_errors(place: Path) -> Iterator[None]:
    """Turn exceptions of the library and the system into errors of this program."""
    from huggingface_hub import constants, errors

    web = _web()
    try:
        yield
    except AceStepError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise _offline() from error
    except errors.HfHubHTTPError as error:
        raise _http_error(error) from error
    except (web.HTTPError, web.InvalidURL) as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise NetworkError(
            f"{constants.ENDPOINT} cannot be reached: {said[0]}.", f"Check the network and proxy. {GO_ON}"
        ) from error
    except OSError as error:
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise _http_error(error.__cause__) from error
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
            said = str(error).splitlines() or [type(error).__name__]
            raise NetworkError(f"The download broke off: {said[0]}", GO_ON) from error
        reason = reason_of(error)
        raise OutputError(
            f"{error.filename or place} cannot be written: {reason}.",
            "Name a folder on another disk, or one you may write to, with --models-dir or HF_HOME. What was fetched "
            "is kept.",
        ) from error


def _http_error(error: HfHubHTTPError) -> NetworkError:
    """Return the error for a refused request, with the reason and a remedy."""
    from huggingface_hub import constants, errors

    response = error.response
    what = f"{constants.ENDPOINT} ({response.status_code})"
    if isinstance(error, errors.RevisionNotFoundError):
        return NetworkError(
            f"{what} knows no such revision of {_repository_of(response)}.",
            "--revision takes a branch, tag or commit of it.",
        )
    match response.status_code:
        case 401 | 403:
            return NetworkError(
                f"{what} refuses access to {_repository_of(response)}.",
                "Is the token right? It is read from HF_TOKEN, or from `hf auth login`; public models need none.",
            )
        case 404:
            return NetworkError(
                f"{what} has no {response.request.url.path.lstrip('/').removeprefix('api/models/')}.",
                "Is that the right HF_ENDPOINT, and the right --revision? Models that are not public need a token.",
            )
        case 429:
            after = _pause(response)
            pause = "some minutes" if after is None else f"{max(after, 0):.0f} s"
            return NetworkError(f"{what} has had too many requests.", f"Wait {pause}; a token in HF_TOKEN helps.")
        case _:
            return NetworkError(f"{what} failed: {response.reason_phrase or 'no reason given'}.", f"Wait. {GO_ON}")


def _repository_of(response: Any) -> str:
    """Return the repository that a request was about."""
    words: list[str] = response.request.url.path.strip("/").removeprefix("api/models/").split("/")
    return "/".join(words[:2])
