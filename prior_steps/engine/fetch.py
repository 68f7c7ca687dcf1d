"""Downloads of rows' pictures: many hosts at once, few requests to each, and no URL twice.

How failures are treated:

- Tried again, after a pause that doubles or that the server asks for: 429, 5xx, broken connections.
- Not cached, so that a run with --retry asks again: the above, unknown host names, timeouts, bad certificates,
  forbidden addresses, and 401 and 403, which may depend on who asks.
- Cached for good: any other 4xx, files that are too large or no image, and pictures whose server forbids the use for
  AI (X-Robots-Tag: noai or noimageai).
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from audioldm import __version__
from audioldm.errors import InputError
from audioldm.inputs.images import check_header
from audioldm.inputs.web import LIMITS, DownloadError, Limits, download
from translator.files import label

from ..readers.rows import NOAI, OK, Row
from .cache import Answer, Cache
from .embed import picture_status

# Statuses: NOAI, DownloadError's and picture_status's.
FINAL = (NOAI, "not_an_image", "unusable_image", "damaged_image", "too_large", "redirects")  # and http_4xx, but for
NOT_FINAL = ("http_401", "http_403", "http_408", "http_425", "http_429")
PASSING = ("unreachable", "timeout", "incomplete", "damaged", "tls", "forbidden_address")  # and http_, if not final
AGAIN = ("incomplete", "http_408", "http_425", "http_429")  # and http_5xx
OVERLOADED = ("http_429", "http_503")  # after these, the whole host is left alone
# foundation.wikimedia.org/wiki/Policy:Wikimedia_Foundation_User-Agent_Policy
WIKIMEDIA = ("wikimedia.org", "wikipedia.org")
TICK = 0.5  # seconds; the longest that the end of the program waits for a pause

_ENDING = threading.Event()
# atexit would run only after all threads have ended; concurrent.futures ends its threads in this way, too.
threading._register_atexit(_ENDING.set)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Settings:
    """Settings of the downloads.

    Raises InputError if the contact is neither an e-mail address nor a web page.
    """

    cache: str | Path  # folder
    contact: str | None = None  # e-mail address or web page for the servers' operators; Wikimedia requires one
    workers: int = 16  # simultaneous downloads
    per_host: int = 2  # simultaneous downloads from one host, per process
    tries: int = 4  # of one URL in a run
    backoff_s: float = 1.0  # pause before the second try; doubled each time, and randomly shortened by up to half
    patience_s: float = 120.0  # longest pause that a server may ask for; beyond it, the URL is left to the next run
    honour_noai: bool = True
    limits: Limits = LIMITS
    allow_private: bool | None = None  # None: decided by the environment, see audioldm.inputs.web.download

    def __post_init__(self) -> None:
        if self.contact is not None and not re.fullmatch(r"[!-~]+@[!-~]+|https?://[!-~]+", self.contact):
            raise InputError("the contact must be an e-mail address or the address of a web page")

    @property
    def user_agent(self) -> str:
        about = f"{self.contact}; " if self.contact else ""
        return f"audioldm-vision/{__version__} ({about}embeds images with their captions)"


class WebFetcher:
    """Downloads the pictures of rows. May be called from several threads, which share its workers."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.cache = settings, Cache(settings.cache)
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="fetch")

    @property
    def ignores_noai(self) -> bool:
        """Whether pictures are used whose server forbids the use for AI."""
        return not self.settings.honour_noai

    def fetch_all(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows in the same order, each with its picture's file as ``content`` or with a failed status.

        Rows that have failed, have no URL or have their picture are unchanged. A URL is downloaded once.

        Raises InputError: a URL of Wikimedia without a contact; the cache cannot be written.
        """
        by_host: dict[str, deque[str]] = defaultdict(deque)
        for url in dict.fromkeys(url for row in rows if (url := _missing_url(row)) is not None):
            by_host[_host_of(url)].append(url)
        answers: dict[str, Answer] = {}
        stop = threading.Event()
        lanes = [
            self._pool.submit(self._lane, host, urls, answers, stop)
            for host, urls in by_host.items()
            for _ in range(min(self.settings.per_host, len(urls)))
        ]
        try:
            for lane in wait(lanes, return_when=FIRST_EXCEPTION).done:
                lane.result()
        finally:
            stop.set()  # if one lane failed, the others can stop
        return [_answered(row, answers[url]) if (url := _missing_url(row)) is not None else row for row in rows]

    def _lane(self, host: str, urls: deque[str], answers: dict[str, Answer], stop: threading.Event) -> None:
        """Download the rest of ``urls``, all of one host, one after the other."""
        with self._lock:
            place = self._hosts.setdefault(host, _Host(self.settings.per_host))
        while not stop.is_set():
            try:
                url = urls.popleft()
            except IndexError:  # taken by another lane
                return
            answers[url] = self._known(url) or self._fetch(url, place, host, stop)

    def _known(self, url: str) -> Answer | None:
        """The cached answer, if it is valid under the current settings."""
        answer, settings = self.cache.get(url), self.settings
        if answer is None:
            return None
        if answer.noai and settings.honour_noai:
            return _noai(url)
        outgrown = answer.status == "too_large" and answer.max_bytes < settings.limits.max_bytes
        return None if answer.status == NOAI or outgrown else answer

    def _fetch(self, url: str, place: _Host, host: str, stop: threading.Event) -> Answer:
        if not self.settings.contact and any(host == name or host.endswith(f".{name}") for name in WIKIMEDIA):
            raise InputError(f"{host} requires a contact: give your e-mail address or web page with --contact")
        with place.slots:
            # another thread or process may have been faster
            return self._known(url) or self._ask_repeatedly(url, place, stop)

    def _ask_repeatedly(self, url: str, place: _Host, stop: threading.Event) -> Answer:
        pause, own = self.settings.backoff_s, 0.0
        answer: Answer | None = None
        for _ in range(self.settings.tries):
            left = max(own, place.until - time.monotonic())
            if left > self.settings.patience_s:
                why = f"{label(url)} was not requested: its server asks for a long pause"
                return answer or Answer(place.status, why)
            _sleep(left, stop)
            answer, asked_for = self._ask(url)
            if answer.status == OK or _is_final(answer.status):
                self.cache.put(url, answer)
            if not _is_worth_another_try(answer.status):
                break
            own = random.uniform(pause / 2, pause) if asked_for is None else asked_for
            if asked_for is not None or answer.status in OVERLOADED:
                place.hold(own, answer.status)
            pause *= 2
        assert answer is not None  # tries is at least 1
        return answer

    def _ask(self, url: str) -> tuple[Answer, float | None]:
        """Send one request; returns also the pause in seconds that the server asked for, if any."""
        settings, noai = self.settings, False

        def look(headers: Mapping[str, str]) -> None:
            nonlocal noai
            noai = noai or bool(re.search(r"\bno(image)?ai\b", headers.get("X-Robots-Tag", ""), re.I))
            if noai and settings.honour_noai:
                raise DownloadError("", NOAI)  # before the body is read

        def answer(*args: str, content: bytes | None = None) -> Answer:
            return Answer(*args, content=content, noai=noai, max_bytes=settings.limits.max_bytes)

        try:
            content = download(
                url,
                allow_private=settings.allow_private,
                limits=settings.limits,
                headers={"User-Agent": settings.user_agent},
                on_answer=look,
            )
            check_header(content, label(url), settings.limits)
        except DownloadError as error:
            if error.kind == NOAI:
                return _noai(url), None
            return answer(error.kind, str(error)), error.retry_after
        except InputError as error:
            return answer(picture_status(error), str(error)), None
        return answer(content=content), None


class _Host:
    """The state of a host: free slots for requests, and until when to leave it alone."""

    def __init__(self, slots: int) -> None:
        self.slots = threading.BoundedSemaphore(slots)
        self.until = 0.0  # of time.monotonic
        self.status = OK  # the reason for the pause

    def hold(self, seconds: float, status: str) -> None:
        """Leave the whole host alone: a server that is overloaded by one request is overloaded for all."""
        self.until, self.status = max(self.until, time.monotonic() + seconds), status


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # not a URL
        return ""


def _noai(url: str) -> Answer:
    return Answer(NOAI, f"the server of {label(url)} forbids its use for AI (X-Robots-Tag)", noai=True)


def _missing_url(row: Row) -> str | None:
    """The URL of the picture that ``row`` lacks; None if it lacks none."""
    return row.url if row.status == OK and row.content is None else None


def _answered(row: Row, answer: Answer) -> Row:
    if answer.status != OK:
        return row.failed(answer.status, answer.error or answer.status)
    return replace(row, content=answer.content)


def _is_final(status: str) -> bool:
    return status in FINAL or status.startswith("http_4") and status not in NOT_FINAL


def is_temporary(status: str) -> bool:
    """Whether a row with this status may succeed in another run."""
    return status in PASSING or status.startswith("http_") and not _is_final(status)


def _is_worth_another_try(status: str) -> bool:
    return status in AGAIN or status.startswith("http_5")


def _sleep(seconds: float, stop: threading.Event) -> None:
    """Pause. Raises RuntimeError if the answer is no longer needed, or the program ends."""
    end = time.monotonic() + seconds
    while not _stopped(stop) and (left := end - time.monotonic()) > 0:
        stop.wait(min(left, TICK))
    if _stopped(stop):
        raise RuntimeError("stopped")


def _stopped(stop: threading.Event) -> bool:
    return stop.is_set() or _ENDING.is_set()
