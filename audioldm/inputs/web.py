"""Bytes from a stranger's web server, within limits of size, time and address.

Why connections are guarded the way they are: checking the addresses of a name and then handing the name to an
HTTP library resolves it twice, and a hostile name server answers differently the second time (DNS rebinding).
Here the connection class resolves the name once, checks every answer and connects to a checked address; since
only the making of the socket is replaced, the Host header, SNI and the certificate check still see the name.

Proxies and .netrc of the environment are not used: behind a proxy it is the proxy that resolves the name, and
nothing could be promised about the address reached. Only a CA bundle, REQUESTS_CA_BUNDLE, is taken from it.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import HTTPAdapter

from translator.files import label

from ..errors import InputError

ALLOW_PRIVATE_VARIABLE = "AUDIOLDM_ALLOW_PRIVATE_URLS"  # "1" allows private and local addresses
HEADERS = {
    "User-Agent": f"audioldm (image to sound, fetches one image) python-requests/{metadata.version('requests')}",
    "Accept": "image/*",
    "Accept-Encoding": "identity",  # a body that comes compressed all the same is decoded, and counted then
}
CHUNK = 64 * 1024  # bytes
REDIRECTS = (301, 302, 303, 307, 308)  # HTTP status codes


@dataclass(frozen=True)
class Limits:
    """How much is accepted from a stranger."""

    max_bytes: int = 20_000_000  # bytes of a file, of a data URI's data, of the decoded body of a response
    max_pixels: int = 40_000_000  # pixels, width × height
    max_redirects: int = 5
    connect_s: float = 10.0  # seconds to connect to one address, and again for the TLS handshake
    read_s: float = 15.0  # seconds without a single byte
    total_s: float = 60.0  # seconds for a download with its redirects (a name look-up is not cut short)


LIMITS = Limits()


class DownloadError(InputError):
    """Why a download failed: a sentence, and a word for tables of many downloads.

    ``kind``: bad_url, unreachable, forbidden_address, tls, timeout, incomplete, damaged, too_large, redirects, or
    http_ and the status code; ``retry_after``: the pause in seconds that the server asks for, if it does.
    """

    def __init__(self, message: str, kind: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.retry_after = kind, retry_after


def download(
    url: str,
    *,
    allow_private: bool | None = None,
    limits: Limits = LIMITS,
    headers: Mapping[str, str] = {},
    on_answer: Callable[[Mapping[str, str]], object] = lambda headers: None,
) -> bytes:
    """The body behind `url`; at most `limits.max_redirects` redirects are followed, each checked like `url`.

    Args:
        url: http or https; credentials in it are sent to its host and never shown.
        allow_private: whether addresses that are not public may be reached;
            None: only if the environment says AUDIOLDM_ALLOW_PRIVATE_URLS=1.
        limits: sizes and times.
        headers: of the request, beside or instead of HEADERS.
        on_answer: shown the headers of every answer, redirects included, before its body is read; may raise InputError.

    Raises:
        DownloadError: the URL is malformed, unreachable or forbidden; the answer is an error, too large or slow.
    """
    if allow_private is None:
        allow_private = os.environ.get(ALLOW_PRIVATE_VARIABLE) == "1"
    options = {
        "stream": True,
        "timeout": (limits.connect_s, limits.read_s),
        "verify": os.environ.get("REQUESTS_CA_BUNDLE") or True,
    }
    # The adapter is used without a Session, which would add proxies, .netrc and cookies, and would read the
    # body of a redirect without limit.
    with contextlib.closing(HTTPAdapter()) as adapter, _Guard(allow_private, limits) as guard:
        adapter.poolmanager.pool_classes_by_scheme = guard.pool_classes()
        for _ in range(limits.max_redirects + 1):
            request = _prepare(url, headers)
            with guard.explaining(url), adapter.send(request, **options) as response:
                on_answer(response.headers)
                location = response.headers.get("Location")
                if response.status_code not in REDIRECTS or not location:
                    return _body(response, label(url), limits)
            url = _redirect_target(request.url or url, location)
    raise DownloadError(f"{label(url)} is behind more than {limits.max_redirects} redirects", "redirects")


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """The pause in seconds that a Retry-After header asks for; None if there is none or it makes no sense."""
    value = headers.get("Retry-After")
    with contextlib.suppress(urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None if value is None else float(urllib3.Retry().parse_retry_after(value))
    return None


def too_many_bytes(name: str, limits: Limits) -> DownloadError:
    return DownloadError(f"{name} is larger than {limits.max_bytes / 1e6:g} MB", "too_large")


def _prepare(url: str, headers: Mapping[str, str]) -> requests.PreparedRequest:
    if url.partition(":")[0].lower() not in ("http", "https"):
        raise DownloadError(f"{label(url)} is not an http or https address", "bad_url")
    try:
        return requests.Request("GET", url, headers={**HEADERS, **headers}).prepare()
    except ValueError as error:  # requests' own errors about URLs are ValueErrors too
        raise DownloadError(f"{label(url)} is not a valid URL", "bad_url") from error


def _redirect_target(url: str, location: str) -> str:
    try:
        return urljoin(url, location.encode("latin-1").decode("utf-8", "replace"))
    except ValueError as error:
        raise DownloadError(f"{label(url)} redirects to something that is not a valid URL", "redirects") from error


def _body(response: requests.Response, name: str, limits: Limits) -> bytes:
    if response.status_code // 100 != 2:
        # The phrase is ours: the server's own may hold anything.
        answer = f"{response.status_code} {http.client.responses.get(response.status_code, '')}".strip()
        message = f"{name} cannot be downloaded: the server answered {answer}"
        raise DownloadError(message, f"http_{response.status_code}", read_retry_after(response.headers))
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced[:20]) > limits.max_bytes:
        raise too_many_bytes(name, limits)
    data = bytearray()
    for chunk in response.iter_content(CHUNK):  # urllib3 compares the end with Content-Length
        data += chunk
        if len(data) > limits.max_bytes:
            raise too_many_bytes(name, limits)
    return bytes(data)


_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address in the last 32 bits
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # beyond it Python may take fec0::1 and others for global
# Metadata services of clouds at addresses that Python takes for global.
_CLOUD_INTERNAL = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("168.63.129.16/32"))


def is_public(address: str) -> bool:
    """Whether an IP address is public; IPv4 inside IPv6 (mapped, 6to4, NAT64) is unwrapped."""
    ip = ipaddress.ip_address(address)
    if ip.version == 4:
        return ip.is_global and not ip.is_multicast and not any(ip in network for network in _CLOUD_INTERNAL)
    inner = ip.ipv4_mapped or ip.sixtofour
    if ip in _NAT64:
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return is_public(str(inner)) if inner else ip.is_global and ip in _GLOBAL_UNICAST


class _Guard:
    """Watches over one download: which addresses it may reach, and until when."""

    def __init__(self, allow_private: bool, limits: Limits) -> None:
        self._allow_private, self._limits = allow_private, limits
        self._deadline = time.monotonic() + limits.total_s
        self._expired = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(limits.total_s, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> _Guard:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        """Wake the thread that reads the socket: read timeouts alone would let a server send one byte at a time."""
        self._expired = True
        if self._socket:
            with contextlib.suppress(OSError):
                # not SSLSocket.shutdown, which pulls the TLS object from under the reading thread
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def pool_classes(self) -> dict[str, Any]:
        """urllib3's connection pools by URL scheme, their sockets made and watched by this guard."""
        pools = {"http": urllib3.HTTPConnectionPool, "https": urllib3.HTTPSConnectionPool}
        return {scheme: self._guarded(pool) for scheme, pool in pools.items()}

    def _guarded(self, pool: Any) -> Any:
        guard = self

        class Connection(pool.ConnectionCls):
            def _new_conn(self) -> socket.socket:
                return guard._connect(self.host, self.port)

            def connect(self) -> None:
                super().connect()
                guard._watch(self.host, self.sock)

        return type("Pool", (pool,), {"ConnectionCls": Connection})

    def _connect(self, host: str, port: int) -> socket.socket:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise _unreachable(host, "no address is known for this name") from error
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        for address in addresses:
            self._check(host, address)
        failure = None
        for address in addresses:
            seconds = min(self._limits.connect_s, max(0.01, self._deadline - time.monotonic()))
            try:
                return socket.create_connection((address, port), timeout=seconds)
            except OSError as error:
                failure = error
        why = "it does not answer" if isinstance(failure, TimeoutError) else "the connection was refused"
        raise _unreachable(host, why) from failure

    def _check(self, host: str, address: str) -> None:
        if not self._allow_private and not is_public(address):
            allowed = f"{ALLOW_PRIVATE_VARIABLE}=1 in the environment allows such addresses"
            message = f"{host} has the address {address}, which is not public; {allowed}"
            raise DownloadError(message, "forbidden_address")

    def _watch(self, host: str, connected: socket.socket) -> None:
        self._check(host, connected.getpeername()[0])  # should a future urllib3 make its sockets elsewhere
        self._socket = connected
        if self._expired:
            self._expire()

    @contextlib.contextmanager
    def explaining(self, url: str) -> Iterator[None]:
        """Turn whatever goes wrong in an exchange with `url` into one sentence."""
        name, failure = label(url), None
        try:
            yield
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            failure = error
        # First, because a cut-off answer can look like other faults, such as a redirect without a target.
        if self._expired:
            raise DownloadError(f"{name} took longer than {self._limits.total_s:g} seconds", "timeout") from failure
        if isinstance(failure, InputError):
            raise failure
        if failure:
            kind, reason = self._reason(failure)
            raise DownloadError(f"{name} cannot be downloaded: {reason}", kind) from failure

    def _reason(self, error: Exception) -> tuple[str, str]:
        cause = error.args[0] if error.args else None
        if isinstance(error, requests.exceptions.SSLError):
            return "tls", "its certificate cannot be verified or the TLS connection failed"
        if isinstance(error, requests.Timeout) or isinstance(cause, urllib3.exceptions.ReadTimeoutError):
            return "timeout", f"the server sent nothing for {self._limits.read_s:g} seconds"
        if isinstance(error, requests.exceptions.ContentDecodingError):
            return "damaged", "its compressed body is damaged"
        return "incomplete", "the connection ended before everything had arrived"


def _unreachable(host: str, why: str) -> DownloadError:
    proxies = urllib.request.getproxies_environment()
    hint = " (the proxy that the environment names is not used)" if proxies else ""
    return DownloadError(f"{host} cannot be reached: {why}{hint}", "unreachable")
