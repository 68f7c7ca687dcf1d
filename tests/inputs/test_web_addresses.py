"""Which machines a download may reach, and how it knows them: addresses, rebinding, proxies, certificates."""

import itertools
import shutil
import socket
import subprocess
import time

import pytest
from pictures import JPEG, SILENT, SLOW, refused
from server import Server

from audioldm.inputs import web as fetch
from audioldm.inputs.images import load_image
from audioldm.inputs.web import is_public


@pytest.fixture
def elsewhere(server):
    """A second server: same port, another address."""
    try:
        other = Server("127.0.0.2", server.port)
    except OSError:
        pytest.skip("127.0.0.2 is no address of this machine")
    with other:
        other.answer("/dog.jpg", JPEG)
        yield other


@pytest.fixture
def only_server_is_public(monkeypatch):
    """As if 127.0.0.1 were a public address; for all others the true check decides."""
    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.1" or is_public(address))


def resolve(monkeypatch, name, *answers):
    """Let `name` resolve to `answers` in turn (the last one for good); returns the list of look-ups."""
    true_resolver, lookups = socket.getaddrinfo, []

    def resolver(host, port, *args, **options):
        if host != name:
            return true_resolver(host, port, *args, **options)
        lookups.append(host)
        addresses = answers[min(len(lookups), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    return lookups


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    """0.0.0.0 0.1.2.3 10.1.2.3 100.64.0.1 100.100.100.200 127.0.0.1 127.9.9.9 168.63.129.16 169.254.169.254
    172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.168.0.1 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255
    :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:0:7f00:1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe
    64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1:: 2002:c0a8:1::1 fc00::1 fd00:ec2::254 fe80::1
    fe80::1%1 fec0::1 ff02::1 ff0e::1 4000::1""".split(),
)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
    ],
)
def test_no_spelling_of_this_machine_gets_through(server, host):
    server.answer("/dog.jpg", JPEG)
    # Some systems do not take 0x7f000001 and its like for addresses at all.
    refused(server.url("/dog.jpg", host=host), "not public|no address is known", allow_private=False)
    assert server.connections == 0


def test_the_checked_address_is_the_one_connected_to(server, elsewhere, only_server_is_public, monkeypatch):
    """DNS rebinding: the name is public when first asked for, and inside ever after."""
    lookups = resolve(monkeypatch, "rebinding.test", ["127.0.0.1"], ["127.0.0.2"])
    server.answer("/dog.jpg", JPEG)
    url = server.url("/dog.jpg", host="rebinding.test")
    assert load_image(url, allow_private=False).size == (64, 64)
    assert lookups == ["rebinding.test"] and elsewhere.connections == 0
    assert server.requests[0][1]["Host"] == f"rebinding.test:{server.port}"
    refused(url, "rebinding.test has the address 127.0.0.2", allow_private=False)
    assert elsewhere.connections == 0


def test_one_private_address_among_several_is_enough(server, elsewhere, only_server_is_public, monkeypatch):
    resolve(monkeypatch, "mixed.test", ["127.0.0.1", "127.0.0.2"])
    server.answer("/dog.jpg", JPEG)
    refused(server.url("/dog.jpg", host="mixed.test"), "127.0.0.2, which is not public", allow_private=False)
    assert server.connections == elsewhere.connections == 0


def test_the_next_address_is_tried(server, monkeypatch):
    resolve(monkeypatch, "two.test", ["127.0.0.3", "127.0.0.1"])  # nobody listens at the first
    server.answer("/dog.jpg", JPEG)
    assert load_image(server.url("/dog.jpg", host="two.test"), allow_private=True).size == (64, 64)


def test_a_connection_made_without_the_guard_is_dropped_before_anything_is_sent(server, monkeypatch):
    """Should urllib3 one day make its sockets elsewhere, the address reached is still checked."""
    monkeypatch.setattr(
        fetch._Guard, "_connect", lambda self, host, port: socket.create_connection((host, port))
    )
    refused(server.answer("/dog.jpg", JPEG), "not public", allow_private=False)
    assert server.requests == []


def test_proxies_and_netrc_of_the_environment_are_not_used(server, elsewhere, monkeypatch, tmp_path):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, elsewhere.url(""))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    assert load_image(server.answer("/dog.jpg", JPEG), allow_private=True).size == (64, 64)
    assert elsewhere.connections == 0 and "Authorization" not in server.requests[0][1]
    refused("http://no-such-host.invalid/", "proxy that the environment names is not used")


def test_the_environment_allows_private_addresses(server, monkeypatch):
    url = server.answer("/dog.jpg", JPEG)
    monkeypatch.setenv("AUDIOLDM_ALLOW_PRIVATE_URLS", "0")
    refused(url, "not public", allow_private=None)
    monkeypatch.setenv("AUDIOLDM_ALLOW_PRIVATE_URLS", "1")
    assert load_image(url).size == (64, 64)
    refused(url, "not public", allow_private=False)


def test_a_redirect_to_a_private_address(server, elsewhere, only_server_is_public):
    url = server.redirect("/dog.jpg", elsewhere.url("/dog.jpg"))
    refused(url, "127.0.0.2 has the address 127.0.0.2, which is not public", allow_private=False)
    assert server.paths == ["/dog.jpg"] and elsewhere.connections == 0
    assert load_image(url, allow_private=True).size == (64, 64)
    assert elsewhere.paths == ["/dog.jpg"]


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[::1]/"]
)
def test_redirects_to_the_inside(server, only_server_is_public, target):
    refused(server.redirect("/dog.jpg", target), "not public", allow_private=False)


# TLS


@pytest.fixture
def private_addresses_allowed(monkeypatch):
    monkeypatch.setenv("AUDIOLDM_ALLOW_PRIVATE_URLS", "1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for "localhost" that nobody has signed but itself, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("the openssl command is not here")
    folder = tmp_path_factory.mktemp("certificate")
    command = """openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2
        -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out certificate.pem"""
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "certificate.pem").read_bytes())
    return str(both)


@pytest.fixture
def tls_server(certificate, private_addresses_allowed):
    with Server(certificate=certificate) as server:
        server.answer("/dog.jpg", JPEG)
        yield server


def test_an_unknown_certificate_is_refused(tls_server):
    refused(tls_server.url("/dog.jpg", host="localhost"), "certificate cannot be verified")
    assert tls_server.requests == []


def test_the_certificate_is_checked_against_the_name_not_the_address(tls_server, certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    assert load_image(tls_server.url("/dog.jpg", host="localhost"), allow_private=True).size == (64, 64)
    refused(tls_server.url("/dog.jpg"), "certificate cannot be verified")
    resolve(monkeypatch, "other.test", ["127.0.0.1"])
    refused(tls_server.url("/dog.jpg", host="other.test"), "certificate cannot be verified")
    assert len(tls_server.requests) == 1


def test_slow_bytes_inside_tls(tls_server, certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    tls_server.raw("/slow", itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(b"1")), pause=0.05)
    refused(tls_server.url("/slow", host="localhost"), "took longer than 0.3 seconds", limits=SLOW)


def test_tls_with_a_server_that_speaks_none(server, private_addresses_allowed):
    refused(server.url("/dog.jpg").replace("http:", "https:"), "TLS connection failed")


def test_tls_with_a_server_that_says_nothing(private_addresses_allowed):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.perf_counter()
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        refused(url, "the server sent nothing for 0.2 seconds", limits=SILENT)
        assert time.perf_counter() - start < 3
