"""Links reach public addresses alone, whatever way an attacker writes them, and bring back no more than asked for."""

import contextlib
import socket
import threading
import time

import pytest

from chestxray.serve.errors import RequestProblem
from chestxray.serve.public_hosts import is_public, public_address
from chestxray.serve.url_fetch import LOOK_UPS, Links, _within
from loopback import serving
from serve.fakes import image_bytes, post

#: Hosts that lead, or may lead, into the machine or its network.
ATTACKS = [
    # loopback, in the forms that inet_aton and browsers take
    "127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "2130706433",
    "017700000001", "127.0.0.1.", "0", "0.0.0.0", "127.000.000.001", "00000177.0.0.1",
    # private networks, carrier, link-local, cloud metadata
    "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "169.254.169.254", "2852039166",
    "0xa9fea9fe", "0251.0376.0251.0376", "168.63.129.16", "100.100.100.200", "192.0.0.192", "169.254.170.2",
    # reserved, documentation, benchmark, multicast, broadcast, relays
    "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "192.88.99.1",
    # public, but not written as an address is
    "134744072", "0x08080808", "8.8.2056", "010.8.8.8",
    # IPv6: loopback, unspecified, local, link-local, multicast, documentation, site-local, metadata
    "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[fc00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fe80::1%25eth0]", "[ff02::1]",
    "[2001:db8::1]", "[fec0::1]", "[3fff::1]", "[100::1]",
    # IPv6 around IPv4: mapped, compatible, translated, NAT64, 6to4, Teredo
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:169.254.169.254]", "[::ffff:8.8.8.8]", "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]",
    # names of the machine itself, and names of no domain
    "localhost", "LOCALHOST", "localhost.", "ip6-localhost", "intranet", "metadata", "foo.localhost",
    # what parsers disagree on
    "127.0.0.1%00.example.com", "example.com%2f@127.0.0.1", "user@127.0.0.1", "example.com@127.0.0.1",
    "a:b@127.0.0.1", "example.com\\@127.0.0.1", "127.0.0.1\t", "127.0.0.1 ", "①②⑦.⓪.⓪.①", "127。0。0。1", "ⓛocalhost",
    "[127.0.0.1]", "[::1", "-example.com", "exa mple.com", "", ".", "..", "%31%32%37.0.0.1",
    # ports of other services
    "example.com:22", "example.com:6379", "8.8.8.8:8080", "[2001:4860:4860::8888]:25", "example.com:0",
    "example.com:99999",
]  # fmt: skip

SCHEMES = [
    "file:///etc/passwd", "ftp://example.com/a.png", "gopher://127.0.0.1:6379/_INFO", "data:image/png;base64,AAAA",
    "javascript:alert(1)", "//127.0.0.1/a.png", "/etc/passwd", "http:127.0.0.1", "http:///a.png", "jar:http://a!/b",
    "HTTP://127.0.0.1/", "http://127.0.0.1/" + "a" * 3000, "http://8.8.8.8/\r\nHost: 127.0.0.1", "dict://8.8.8.8:11211/",
]  # fmt: skip


@pytest.fixture
def no_connection(monkeypatch):
    """Nothing is connected to, and names have no address but those of this machine."""
    tried = []
    look_up = socket.getaddrinfo

    def local(host, *arguments, **options):
        tried.append(("look up", host))
        if host in ("foo.localhost",):
            host = "localhost"
        return look_up(host, *arguments, **{**options, "flags": 0}) if "localhost" in host else _unknown(host)

    def connect(address, **_):
        tried.append(("connect", address))
        raise AssertionError(f"connected to {address}")

    monkeypatch.setattr(socket, "getaddrinfo", local)
    monkeypatch.setattr(socket, "create_connection", connect)
    return tried


def _unknown(host):
    raise socket.gaierror(f"{host} is unknown")


def test_there_are_many_attacks():
    assert len(set(ATTACKS)) + len(set(SCHEMES)) >= 100


@pytest.mark.parametrize("url", [*(f"http://{host}/a.png" for host in ATTACKS), *SCHEMES])
def test_attacks_are_refused_before_anything_is_connected_to(make_client, no_connection, url):
    client = make_client(allow_links=True)
    response = client.post("/api/predict", json={"url": url})
    assert response.status_code == 422
    assert response.get_json()["error"]["code"] == "link_refused"
    assert not [what for what, _ in no_connection if what == "connect"]


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001::200e"]
)
def test_public_addresses(address):
    assert is_public(address)
    assert public_address(address, 443) == address


@pytest.mark.parametrize(
    "address", ["", "example.com", "8.8.8.8/32", "8.8.8", "fe80::1%eth0", "2606:4700:4700::1111%eth0"]
)
def test_what_is_no_public_address(address):
    assert not is_public(address)


def test_a_name_with_one_private_address_is_refused_whole(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(RequestProblem, match="not public"):
        public_address("example.com", 443)


def test_a_name_that_changes_its_mind_is_resolved_once_and_that_address_is_connected_to(monkeypatch):
    answers = iter(["8.8.8.8", "127.0.0.1", "127.0.0.1"])
    connected = []

    def connect(address, timeout):
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, **_: [(socket.AF_INET, 1, 6, "", (next(answers), port))]
    )
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(RequestProblem, match="cannot be reached"):
        Links(1000).fetch("http://rebinding.example.com/a.png")
    assert connected == [("8.8.8.8", 80)]
    assert next(answers) == "127.0.0.1"


@contextlib.contextmanager
def linked(answer, **limits):
    """A loopback server, Links that reach nothing else, and its address."""
    with serving(answer) as server:
        port = server.server_address[1]

        def resolve(host, asked):
            if (host, asked) != ("films.example.com", port):
                raise RequestProblem(422, "link_refused", "The link leads to an address that is not public.")
            return "127.0.0.1"

        yield (
            Links(**{"max_bytes": 100_000, "seconds": 5.0, "resolve": resolve, **limits}),
            f"http://films.example.com:{port}",
            server,
        )


def fails(links, url, status=422):
    with pytest.raises(RequestProblem) as problem:
        links.fetch(url)
    assert problem.value.status == status
    return problem.value.message


def test_an_image_by_its_link(make_client):
    content = image_bytes()
    with linked(lambda service: service.send(content, kind="text/plain")) as (links, root, server):
        client = make_client(links=links, allow_links=True)
        response = client.post("/api/predict?maps=true", json={"url": f"{root}/a.png?x=1#part"})
        assert response.status_code == 200
        assert response.get_json()["answers"][0]["decision"] == "bright"
        assert server.asked == [("GET", "/a.png?x=1")]
        assert links.fetch(root) == content


def test_what_a_link_leads_to_is_checked_as_an_upload(make_client):
    with linked(lambda service: service.send(b"<html>", kind="image/png")) as (links, root, _):
        client = make_client(links=links, allow_links=True)
        assert client.post("/api/predict", json={"url": root}).status_code == 415


def test_links_are_off_unless_allowed(client, no_connection):
    response = client.post("/api/predict", json={"url": "https://example.com/a.png"})
    assert (response.status_code, response.get_json()["error"]["code"]) == (403, "links_off")
    assert not no_connection


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"url": 7}', b'"http://8.8.8.8/"', b"null", b'{"url": null}'])
def test_bodies_without_a_link(make_client, body):
    assert post(make_client(allow_links=True), body, "application/json").status_code == 422


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 16_000, b'{"a":' * 3_000, b"{\0}", b"1" * 5_000])
def test_bodies_that_are_no_json(make_client, body):
    response = post(make_client(allow_links=True), body, "application/json")
    assert (response.status_code, response.get_json()["error"]["code"]) == (400, "json")


def test_a_body_with_a_link_is_short(make_client):
    client = make_client(allow_links=True)
    for body in (b"[" * 20_000, b'{"url": "' + b"a" * 20_000 + b'"}'):
        assert post(client, body, "application/json").status_code == 413


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_checked_as_links_are(status):
    def answer(service):
        if service.path == "/there":
            service.send(b"found")
        else:
            service.send(b"", status=status, Location=service.path.partition("?to=")[2])

    with linked(answer) as (links, root, server):
        assert links.fetch(f"{root}/?to=/there") == b"found"
        assert links.fetch(f"{root}/?to={root}/there") == b"found"
        port = server.server_address[1]
        for target in (f"http://127.0.0.1:{port}/there", "http://[::1]/", "http://localhost/", "file:///etc/passwd"):
            server.asked.clear()
            assert "link" in fails(links, f"{root}/?to={target}").lower()
            assert len(server.asked) == 1


def test_redirects_without_end():
    with linked(lambda service: service.send(b"", status=302, Location=service.path)) as (links, root, server):
        assert "more than 3 times" in fails(links, f"{root}/again")
        assert len(server.asked) == 4


@pytest.mark.parametrize("said", [True, False], ids=["length told", "length not told"])
def test_too_many_bytes(said):
    def answer(service):
        service.send_response(200)
        if said:
            service.send_header("Content-Length", str(10**9))
        service.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(100):
                service.wfile.write(bytes(10_000))
        service.close_connection = True

    with linked(answer) as (links, root, _):
        assert "more than 100,000 bytes" in fails(links, root, 413)


@pytest.mark.parametrize("where", ["header", "body"])
def test_too_many_seconds_though_every_byte_comes_in_time(where):
    stop = threading.Event()

    def answer(service):
        with contextlib.suppress(OSError):
            service.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"" if where == "header" else b"\r\n"))
            while not stop.wait(0.05):
                service.wfile.write(b"a")
        service.close_connection = True

    with linked(answer, seconds=0.5) as (links, root, _):
        begun = time.monotonic()
        assert "takes too long" in fails(links, root)
        assert time.monotonic() - begun < 30
        stop.set()


@contextlib.contextmanager
def dripping(first):
    """The port of a host that sends `first`, and then a byte now and then, without end."""
    stop = threading.Event()

    def drip(connection):
        with connection, contextlib.suppress(OSError):
            connection.sendall(first)
            while not stop.wait(0.05):
                connection.sendall(b"a")

    def serve():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        stop.set()


def test_a_handshake_that_never_ends():
    # The head of a TLS record of 16,000 bytes, which then come one by one.
    with dripping(b"\x16\x03\x03\x3e\x80") as port:
        links = Links(1000, seconds=0.5, resolve=lambda host, asked: "127.0.0.1")
        begun = time.monotonic()
        assert "takes too long" in fails(links, f"https://films.example.com:{port}/a.png")
        assert time.monotonic() - begun < 30


def test_a_name_that_is_looked_up_without_end():
    stop = threading.Event()

    def resolve(host, port):
        stop.wait(20)
        return "127.0.0.1"

    begun = time.monotonic()
    # More than may be looked up at once: those wait no longer than the others.
    for _ in range(LOOK_UPS + 2):
        assert "takes too long" in fails(Links(1000, seconds=0.1, resolve=resolve), "http://films.example.com/")
    assert time.monotonic() - begun < 10
    stop.set()


def test_a_socket_that_is_watched_too_late_is_shut():
    ours, theirs = socket.socketpair()
    with theirs:
        with pytest.raises(RequestProblem, match="takes too long"), _within(time.monotonic() + 0.1) as (_, watch):
            time.sleep(0.5)
            watch(ours)
        assert ours.fileno() == -1


def test_hosts_that_answer_badly():
    def answer(service):
        if service.path == "/404":
            service.send(b"secret of the host", status=404)
        elif service.path == "/packed":
            service.send(b"x", Content_Encoding="gzip")
        elif service.path == "/cut":
            service.send(bytes(5000), cut=1000)
        else:
            service.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
            service.close_connection = True

    with linked(answer) as (links, root, _):
        assert fails(links, f"{root}/404") == "The link's host answers 404."
        assert "compressed" in fails(links, f"{root}/packed")
        assert "hung up" in fails(links, f"{root}/cut")
        assert "understood" in fails(links, f"{root}/ssh")
        assert "cannot be reached" in fails(links, root.replace("http:", "https:"))


def test_a_link_that_leads_out_of_https():
    class Told(Links):
        def _once(self, parts, ends):
            return "http://films.example.com/a.png"

    with pytest.raises(RequestProblem, match="from https"):
        Told(1000).fetch("https://films.example.com/a.png")
