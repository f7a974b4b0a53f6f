"""ModelScope, where the models are published under the same names, by its own library, `modelscope_hub`."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from acestep_cli.errors import AceStepError, CheckpointError, NetworkError, reason_of
from acestep_cli.models import hub
from acestep_cli.models.checkpoint_table import ModelPart
from acestep_cli.models.hub import GO_ON, PublishedFile, PublishedPart
from acestep_cli.models.manifest import RemoteFile
from acestep_cli.models.model_store import ModelStore
from acestep_cli.progress import Say

LIBRARY = "modelscope_hub"
INSTALL = "pip install 'acestep-cli[modelscope]'"
NEWEST = "master"
SIGN_IN = "Is that the right MODELSCOPE_ENDPOINT? Some networks answer everything with a page to sign in."


class ModelScope:
    """The hub of ModelScope. MODELSCOPE_ENDPOINT and MODELSCOPE_API_TOKEN are honoured."""

    sign_in = SIGN_IN

    def __init__(self) -> None:
        """Raise `NetworkError` where the library is not installed."""
        if importlib.util.find_spec(LIBRARY) is None:
            raise NetworkError(f"ModelScope is asked by the package {LIBRARY}, which is not installed.", INSTALL)

    @cached_property
    def _api(self) -> Any:
        from modelscope_hub import HubApi, HubConfig

        return HubApi(HubConfig())  # of the environment as it is now

    @contextmanager
    def session(self, store: ModelStore, say: Say) -> Iterator[None]:
        """Translate the errors of the library, and report its warnings with `say`."""
        with _reporting_warnings(say), translating_errors(store.root):
            yield

    def translating_errors(self, place: Path) -> AbstractContextManager[None]:
        return translating_errors(place)

    def require_client(self) -> None:
        """Do nothing: the library reads the environment when it is asked."""

    def published(self, parts: Sequence[ModelPart], revision: str | None) -> list[PublishedPart]:
        """Return parts with their files. The commit of a list, which the hub does not tell, is a hash of it."""
        revision, lists = revision or NEWEST, {}
        for part in parts:
            if part.repo not in lists:
                lists[part.repo] = [
                    PublishedFile(file.path, file.size, file.sha256, None)
                    for file in self._api.list_repo_files(part.repo, "model", revision=revision)
                    if not file.is_dir
                ]
        return [
            PublishedPart(
                part, hub.part_manifest(part, lists[part.repo], _commit(lists[part.repo]), revision, hub_error)
            )
            for part in parts
        ]

    def fetch(self, one: PublishedPart, file: RemoteFile, path: Path, report: Callable[[int], None]) -> None:
        """Download a file by way of a folder beside `path`, in which the library keeps an unfinished one."""
        from modelscope_hub.errors import FileSizeMismatchError

        folder, name = path.with_name(f"{path.name}.d"), f"{one.part.inside}{file.name}"
        try:
            made = self._api.downloader.download_file(
                one.part.repo,
                "model",
                name,
                revision=one.manifest.revision,
                local_dir=folder,
                file_size=file.size,
                progress_callbacks=[_progress_class(report)],
            )
        except FileSizeMismatchError as error:
            raise hub.TooLongError from error
        Path(made).replace(path)
        shutil.rmtree(folder, ignore_errors=True)


def _commit(files: Sequence[PublishedFile]) -> str:
    """Return a hash, as long as that of a commit, of a list of files with their hashes."""
    lines = sorted(f"{file.sha256} {file.path}\n" for file in files)
    return hashlib.sha1("".join(lines).encode(errors="replace"), usedforsecurity=False).hexdigest()


def _progress_class(report: Callable[[int], None]) -> Any:
    """Return a class that the library uses as a progress bar."""

    class ByteCounter:
        def __init__(self, filename: str, file_size: int) -> None:
            self.done = 0

        def update(self, size: int) -> None:
            self.done += size
            report(self.done)

        def end(self) -> None: ...

    return ByteCounter


@contextmanager
def _reporting_warnings(say: Say) -> Iterator[None]:
    """Report the warnings of the library in a line each."""
    with hub.handling_warnings(LIBRARY, lambda text: say(f"ModelScope: {text.splitlines()[0]}")):
        yield


def hub_error(why: str) -> NetworkError:
    return NetworkError(f"ModelScope does not answer as a hub does: {why}.", SIGN_IN)


@contextmanager
def translating_errors(place: Path) -> Iterator[None]:
    """Turn exceptions of the library and the system into errors of this program."""
    from modelscope_hub import errors
    from requests.exceptions import RequestException

    try:
        yield
    except AceStepError:
        raise
    except errors.NotExistError as error:
        raise NetworkError(
            f"ModelScope has no such thing: {hub.first_line(error)}.",
            "Is that the right MODELSCOPE_ENDPOINT, and the right --revision?",
        ) from error
    except (errors.AuthenticationError, errors.PermissionDeniedError) as error:
        raise NetworkError(
            f"ModelScope refuses access: {hub.first_line(error)}.",
            "Is the token right? It is read from MODELSCOPE_API_TOKEN; public models need none.",
        ) from error
    except errors.FileIntegrityError as error:
        raise CheckpointError(
            f"ModelScope sends another file than it names: {hub.first_line(error)}.", "Try again."
        ) from error
    except (errors.HubError, RequestException) as error:
        raise NetworkError(
            f"ModelScope cannot be reached: {_root_reason(error)}.", f"Check the network and proxy. {GO_ON}"
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise hub_error(hub.first_line(error)) from error
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
            raise NetworkError(f"The download broke off: {hub.first_line(error)}.", GO_ON) from error
        raise hub.unwritable_error(error, place) from error


def _root_reason(error: Exception) -> str:
    """Return what the system says of a failed connection; what the library says, where it was not the system."""
    root: BaseException = error
    while (cause := root.__cause__ or root.__context__) is not None:
        root = cause
    return reason_of(root) if isinstance(root, OSError) and root.errno is not None else hub.first_line(error)
