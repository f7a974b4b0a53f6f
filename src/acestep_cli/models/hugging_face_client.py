"""The web client of the Hugging Face hub: the environment it needs, bounds on its answers, its errors as sentences."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from acestep_cli import __version__, disk
from acestep_cli.errors import AceStepError, NetworkError
from acestep_cli.models import checkpoints, hub
from acestep_cli.models.hub import GO_ON
from acestep_cli.progress import Say

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

LIBRARY: dict[str, Any] = {"library_name": "acestep-cli", "library_version": __version__}
SIGN_IN = "Is that the right HF_ENDPOINT? Some networks answer everything with a page to sign in."
#: The longest pause that the hub may ask for without the pull being given up.
LONGEST_PAUSE = timedelta(minutes=1)
#: Pauses longer than this are reported as "more than a year".
ENDLESS_SECONDS = 366 * 86_400
#: Of an answer of the hub that is no file: far more than its list of the files of any repository here.
MOST_ANSWER_BYTES = 16 << 20
#: Of a request for a file, which alone may be answered at length. Compressed on its way, it could not be resumed.
FILE_HEADERS = {"accept-encoding": "identity"}
#: Variables with the certificates to trust; a bad value, like a bad proxy, makes the web client fail.
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def require_online() -> None:
    """Raise `NetworkError` where the environment forbids network access (HF_HUB_OFFLINE)."""
    require_endpoint()
    if checkpoints.hub_constants().HF_HUB_OFFLINE:
        raise offline_error()


def offline_error() -> NetworkError:
    return NetworkError("HF_HUB_OFFLINE is set, so the hub is not asked.", "Unset it to pull.")


def require_endpoint() -> None:
    """Raise `NetworkError` where HF_ENDPOINT is not an address, with which the library cannot be imported."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        _ = urlsplit(endpoint).port
    except ValueError as error:
        raise NetworkError(
            f"HF_ENDPOINT is {endpoint!r}, which is not an address: {error}.", "Correct it, or unset it."
        ) from error


def web_module() -> Any:
    """Return the module of the library's web client, which differs between versions of the library."""
    from huggingface_hub import errors

    return sys.modules[errors.HfHubHTTPError.__mro__[1].__module__]


def require_client() -> None:
    """Raise `NetworkError` where the environment names a proxy or certificates that the web client cannot use."""
    from huggingface_hub import get_session

    try:
        get_session()
    except ImportError as error:
        raise _socks_error() from error
    except OSError as error:
        raise _certificate_error(error) from error
    except (ValueError, web_module().InvalidURL) as error:
        named = [name for name, value in _proxies().items() if not _is_proxy(value)]
        raise NetworkError(
            f"{_listed(named or list(_proxies()))} names a proxy that cannot be used: {error}.",
            "Write it as http://HOST:PORT, or unset the variable.",
        ) from error


def _socks_error() -> NetworkError:
    named = [name for name, value in _proxies().items() if value.lower().startswith("socks")]
    return NetworkError(
        f"{_listed(named or list(_proxies()))} names a SOCKS proxy, for which the package socksio is needed.",
        "Install it beside this program (pip install socksio), or unset the variable.",
    )


def _certificate_error(error: OSError) -> NetworkError:
    named = [name for name in CERTIFICATES if os.environ.get(name)]
    missing = [name for name in named if not Path(os.environ[name]).exists()]
    return NetworkError(
        f"The certificates that {_listed(missing or named)} names cannot be read: {error.strerror or error}.",
        "Correct the variable, or unset it.",
    )


def _proxies() -> dict[str, str]:
    """Return the variables of the environment that name a proxy."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.lower().endswith("_proxy") and name.lower() != "no_proxy" and value
    }


def _is_proxy(address: str) -> bool:
    """Return True where the web client accepts an address as that of a proxy."""
    web = web_module()
    try:
        web.Proxy(address if "://" in address else f"http://{address}")
    except (ValueError, web.InvalidURL):
        return False
    return True


def _listed(names: Sequence[str]) -> str:
    """Return names of environment variables as a list in words."""
    return " or ".join(names) or "the environment"


@contextmanager
def bounded_answers() -> Iterator[None]:
    """Raise `NetworkError` in the body where the hub asks for a pause of more than a minute, or answers at greater
    length than any list of files has; the library would sleep for as long as it is told, and read to the end.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def refuse(response: Any) -> None:
        asked = _pause(response) if response.status_code >= 400 else None
        if asked is not None and asked > LONGEST_PAUSE.total_seconds():
            raise _paused(response, asked)
        asks_for_file = FILE_HEADERS.items() <= response.request.headers.items()
        if response.status_code >= 300 or not asks_for_file:
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
            raise hub_error(f"its answer is longer than {disk.format_size(MOST_ANSWER_BYTES)}")
        yield data


def _pause(response: Any) -> float | None:
    """Return the seconds that a response asks to wait before the next request; None where it does not say."""
    from huggingface_hub.utils import parse_ratelimit_headers

    limit = parse_ratelimit_headers(response.headers) if response.status_code == 429 else None
    if limit is not None and limit.remaining == 0:
        return float(min(limit.reset_in_seconds, 2 * ENDLESS_SECONDS))  # a number may have any number of digits
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


def hub_error(why: str) -> NetworkError:
    from huggingface_hub import constants

    return NetworkError(f"{constants.ENDPOINT} does not answer as a hub does: {why}.", SIGN_IN)


def restarting_error() -> NetworkError:
    """Return the error for a hub, or a proxy before it, whose connections break and which sends no rest of a file."""
    from huggingface_hub import constants

    return NetworkError(
        f"{constants.ENDPOINT} breaks off again and again, and begins each time with the first byte of the file.",
        "Try again later, or without a mirror or proxy in between.",
    )


@contextmanager
def reporting_retries(say: Say) -> Iterator[None]:
    """Report the library's warnings about broken connections and waits in one short line each."""
    import huggingface_hub.utils.logging  # noqa: F401  # as it is imported it begins to print them itself

    def handle(text: str) -> None:
        if "resume" in text:
            say("The connection broke; going on from there.")
        elif text.startswith(("Rate limited", "Retrying in")):
            say(f"The hub wants a pause. {text}")

    with hub.handling_warnings("huggingface_hub", handle):
        yield


@contextmanager
def translating_errors(place: Path) -> Iterator[None]:
    """Turn exceptions of the library and the system into errors of this program."""
    from huggingface_hub import constants, errors

    web = web_module()
    try:
        yield
    except AceStepError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise offline_error() from error
    except errors.HfHubHTTPError as error:
        raise http_error(error) from error
    except (web.HTTPError, web.InvalidURL) as error:
        raise NetworkError(
            f"{constants.ENDPOINT} cannot be reached: {hub.first_line(error)}.", f"Check the network and proxy. {GO_ON}"
        ) from error
    except OSError as error:
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise http_error(error.__cause__) from error
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
            raise NetworkError(f"The download broke off: {hub.first_line(error)}.", GO_ON) from error
        raise hub.unwritable_error(error, place) from error


def http_error(error: HfHubHTTPError) -> NetworkError:
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
