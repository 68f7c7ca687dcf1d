"""Pictures of rows from the web: many hosts at once, each one gently, and nothing twice.

How a failure is treated:

- Tried again, after a pause that doubles or that the server asked for: 429, 5xx, a connection that broke.
- Not remembered, so that a run with --retry asks again: those, and a name that is unknown, no answer in time, a bad
  certificate, an address that is forbidden here, 401 and 403 (which may be about who asks).
- Remembered for good: any other 4xx, what is no image or too large, and what its server does not want to be used
  (X-Robots-Tag: noai or noimageai).
"""

from __future__ import annotations

import email.utils
import random
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import timezone
from pathlib import Path
from urllib.parse import urlsplit

from audioldm import __version__
from audioldm.errors import InputError
from audioldm.inputs.images import check_header
from audioldm.inputs.web import LIMITS, DownloadError, Limits, download, label

from ..readers.rows import OK, Row
from .cache import Answer, Cache
from .embed import picture_status

NOAI = "noai"  # a status; the others are DownloadError's and picture_status's
FINAL = (NOAI, "not_an_image", "unusable_image", "damaged_image", "too_large", "redirects")  # and http_4xx, but for
NOT_FINAL = ("http_401", "http_403", "http_408", "http_425", "http_429")
PASSING = ("unreachable", "timeout", "incomplete", "damaged", "tls", "forbidden_address")  # and http_, if not final
AGAIN = ("incomplete", "http_408", "http_425", "http_429")  # and http_5xx
OVERLOADED = ("http_429", "http_503")  # with these, the pause is for the whole host
# foundation.wikimedia.org/wiki/Policy:Wikimedia_Foundation_User-Agent_Policy
WIKIMEDIA = ("wikimedia.org", "wikipedia.org")
TICK = 0.5  # seconds; how soon a pause sees that the program ends

_ENDING = threading.Event()
# What atexit calls, it calls when all threads have ended. This is how concurrent.futures ends its own.
threading._register_atexit(_ENDING.set)


@dataclass(frozen=True)
class Settings:
    """How to fetch.

    Raises InputError: a contact that is neither an address of mail nor of a page.
    """

    cache: str | Path  # folder
    contact: str | None = None  # an e-mail address or a web page, for who runs the servers; Wikimedia insists
    workers: int = 16  # downloads at once
    per_host: int = 2  # of them, from one host; of its own for each process
    tries: int = 4  # of one URL in a run
    backoff_s: float = 1.0  # seconds before the second try; doubled each time, and shortened by chance to half of it
    patience_s: float = 120.0  # the longest pause that a server may ask for; then it is left for the next run
    honour_noai: bool = True
    limits: Limits = LIMITS
    allow_private: bool | None = None  # None: as the environment says, see audioldm.inputs.web.download

    def __post_init__(self) -> None:
        if self.contact is not None and not re.fullmatch(r"[!-~]+@[!-~]+|https?://[!-~]+", self.contact):
            raise InputError("the contact must be an e-mail address or the address of a web page")

    @property
    def user_agent(self) -> str:
        about = f"{self.contact}; " if self.contact else ""
        return f"audioldm-vision/{__version__} ({about}embeds images with their captions)"


class Fetcher:
    """Fetches the pictures of rows. Its threads are shared by all who call it, from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.cache = settings, Cache(settings.cache)
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="fetch")

    @property
    def ignores_noai(self) -> bool:
        """Whether pictures are taken whose server says that they are not for AI."""
        return not self.settings.honour_noai

    def fetch_all(self, rows: Sequence[Row]) -> list[Row]:
        """The same rows in the same order, each with its picture's file as ``content`` or with a failed status.

        Rows that failed already, have no URL or have their picture pass as they are. A URL is fetched once.

        Raises InputError: a URL of Wikimedia, and no contact; the cache cannot be written.
        """
        by_host: dict[str, deque[str]] = defaultdict(deque)
        for url in dict.fromkeys(row.url for row in rows if _lacks_picture(row)):
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
            stop.set()  # where one lane failed, the others need not go on
        return [_answered(row, answers[row.url]) if _lacks_picture(row) else row for row in rows]

    def _lane(self, host: str, urls: deque[str], answers: dict[str, Answer], stop: threading.Event) -> None:
        """Fetch one after the other what is left of ``urls``, all of one host, until there is none."""
        with self._lock:
            place = self._hosts.setdefault(host, _Host(self.settings.per_host))
        while not stop.is_set():
            try:
                url = urls.popleft()
            except IndexError:  # the other lanes were quicker
                return
            answers[url] = self._known(url) or self._fetch(url, place, host, stop)

    def _known(self, url: str) -> Answer | None:
        """What the cache has, if it answers what is asked now."""
        answer, settings = self.cache.get(url), self.settings
        if answer is None:
            return None
        if answer.noai and settings.honour_noai:
            return _noai(url)
        outgrown = answer.status == "too_large" and answer.max_bytes < settings.limits.max_bytes
        return None if answer.status == NOAI or outgrown else answer

    def _fetch(self, url: str, place: _Host, host: str, stop: threading.Event) -> Answer:
        if not self.settings.contact and any(host == name or host.endswith(f".{name}") for name in WIKIMEDIA):
            raise InputError(f"{host} asks for a contact in the User-Agent: say an e-mail address or web page of yours")
        with place.slots:
            # another thread or process may have been quicker
            answer = self._known(url) or self._ask_until_it_answers(url, place, stop)
        return answer

    def _ask_until_it_answers(self, url: str, place: _Host, stop: threading.Event) -> Answer:
        pause, own, answer = self.settings.backoff_s, 0.0, None
        for _ in range(self.settings.tries):
            left = max(own, place.until - time.monotonic())
            if left > self.settings.patience_s:
                return answer or Answer(place.status, f"{label(url)} was not asked for: its server wants a long pause")
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
        return answer

    def _ask(self, url: str) -> tuple[Answer, float | None]:
        """One request; with the pause in seconds that the server asked for, if it did."""
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
            return answer(error.kind, str(error)), _seconds(error.retry_after)
        except InputError as error:
            return answer(picture_status(error), str(error)), None
        return answer(content=content), None


class _Host:
    """What is known of a host: how many may ask it, and from when on."""

    def __init__(self, slots: int) -> None:
        self.slots = threading.BoundedSemaphore(slots)
        self.until = 0.0  # of time.monotonic
        self.status = OK  # why it is to be left alone

    def hold(self, seconds: float, status: str) -> None:
        """Leave the whole host alone for so long: who has had enough of one request has had enough of all."""
        self.until, self.status = max(self.until, time.monotonic() + seconds), status


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # what is no URL is no host's
        return ""


def _noai(url: str) -> Answer:
    return Answer(NOAI, f"the server of {label(url)} does not want it used for AI (X-Robots-Tag)", noai=True)


def _lacks_picture(row: Row) -> bool:
    return row.status == OK and row.url is not None and row.content is None


def _answered(row: Row, answer: Answer) -> Row:
    if answer.status != OK:
        return row.failed(answer.status, answer.error or answer.status)
    return replace(row, content=answer.content)


def _is_final(status: str) -> bool:
    return status in FINAL or status.startswith("http_4") and status not in NOT_FINAL


def may_pass(status: str) -> bool:
    """Whether a row with this status may be ok at another run."""
    return status in PASSING or status.startswith("http_") and not _is_final(status)


def _is_worth_another_try(status: str) -> bool:
    return status in AGAIN or status.startswith("http_5")


def _seconds(retry_after: str | None) -> float | None:
    """The pause that a Retry-After asks for, in seconds or with an HTTP date; None: it makes no sense."""
    text = (retry_after or "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, moment.timestamp() - time.time())


def _sleep(seconds: float, stop: threading.Event) -> None:
    """Pause; raises RuntimeError if nobody waits for the answer any more, or the program ends, as it cannot before."""
    end = time.monotonic() + seconds
    while not _stopped(stop) and (left := end - time.monotonic()) > 0:
        stop.wait(min(left, TICK))
    if _stopped(stop):
        raise RuntimeError("stopped")


def _stopped(stop: threading.Event) -> bool:
    return stop.is_set() or _ENDING.is_set()
