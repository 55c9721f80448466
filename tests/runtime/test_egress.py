"""What a function may reach: the truth table of the policy."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping, Sequence

import pytest

from amba_runtime import limits
from amba_runtime.egress import (
    DENIED_NETWORKS,
    AddressTable,
    Denied,
    DeniedReason,
    EgressPolicy,
    External,
    Own,
    OwnAddresses,
    ResolveError,
    TargetError,
    canonical_host,
    parse_target,
    printable,
)
from amba_runtime.egress_rules import EgressRules
from amba_runtime.errors import UserCode, UserError

PUBLIC = "93.184.215.14"
NAMES: Mapping[str, Sequence[str]] = {
    "example.com.": (PUBLIC, "2606:2800:21f:cb07:6820:80da:af6b:8b2c"),
    "private.example.com.": ("10.1.2.3",),
    "mixed.example.com.": (PUBLIC, "127.0.0.1"),
    "mixed6.example.com.": (PUBLIC, "fd00:ec2::254"),
    "mapped.example.com.": ("::ffff:93.184.215.14", PUBLIC),
    "mapped-private.example.com.": ("::ffff:192.168.0.1",),
    "zone.example.com.": ("fe80::1%1",),
    "none.example.com.": (),
    "many.example.com.": tuple(f"93.184.{i // 256}.{i % 256}" for i in range(257)),
    "full.example.com.": tuple(f"93.184.{i // 256}.{i % 256}" for i in range(256)),
    "db": ("172.20.0.2",),
}


class Resolver:
    """Answers from a table and counts what it was asked."""

    def __init__(self, names: Mapping[str, Sequence[str]] = NAMES) -> None:
        self.names = names
        self.asked: list[str] = []

    async def resolve(self, name: str) -> Sequence[str]:
        """A row of the table. Raises ResolveError for a name that is not in it."""
        self.asked.append(name)
        if name not in self.names:
            raise ResolveError(f"{name} does not resolve")
        return self.names[name]


DEV = OwnAddresses(port=8787)
HOSTED = OwnAddresses(
    port=443,
    scheme="https",
    suffix="fn.amba.example.com",
    cdn_suffix="cdn.amba.example.com",
    api_hosts=frozenset({"api.example.com"}),
)


def decide(
    target: str | bytes,
    *,
    own: OwnAddresses = DEV,
    allow: Iterable[str] = (),
    table: AddressTable | None = None,
    resolver: Resolver | None = None,
) -> Own | External | Denied:
    """One decision of a new policy."""
    policy = EgressPolicy(own, resolver=resolver or Resolver(), allow=allow, table=table)
    raw = target if isinstance(target, bytes) else target.encode()
    return asyncio.run(policy.decide(raw))


def verdict(decision: Own | External | Denied) -> str:
    """A decision in a word."""
    if isinstance(decision, Own):
        return "platform" if decision.platform else "function"
    return "external" if isinstance(decision, External) else decision.reason.value


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        # our own, by host and port, before any rule of denial
        ("http://127.0.0.1:8787", "platform"),
        ("http://127.0.0.1:8787/v1/admin/projects?x=1", "platform"),
        ("http://127.0.0.1:8787/ai/anthropic/messages", "platform"),
        ("http://localhost:8787/", "platform"),
        ("http://LOCALHOST.:8787/", "platform"),
        ("http://[::1]:8787/", "platform"),
        ("http://[0:0:0:0:0:0:0:1]:8787/", "platform"),
        ("http://local.fn.localhost:8787/hello", "function"),
        ("http://LOCAL.FN.LOCALHOST:8787/hello", "function"),
        ("http://a.b.fn.localhost:8787/", "function"),
        ("http://fn.localhost:8787/", "function"),
        ("http://local.cdn.localhost:8787/key", "function"),
        # nearly ours
        ("https://127.0.0.1:8787/", "address"),
        ("http://127.0.0.1:8788/", "address"),
        ("http://127.0.0.1/", "address"),
        ("http://127.0.0.2:8787/", "address"),
        ("http://[::ffff:127.0.0.1]:8787/", "address"),
        ("http://0.0.0.0:8787/", "address"),
        ("http://local.fn.localhost/", "name"),
        ("https://local.fn.localhost:8787/", "name"),
        ("http://evilfn.localhost:8787/", "name"),
        ("http://fn.localhost.example.com:8787/", "port"),
        ("http://fn.localhost.example.com:8080/", "unresolved"),
        ("http://ip6-localhost:8787/", "name"),
        # external
        ("http://example.com/", "external"),
        ("https://example.com", "external"),
        ("https://EXAMPLE.com.:8443/a?b=c", "external"),
        ("http://93.184.215.14/", "external"),
        ("http://[2606:4700::1111]/", "external"),
        ("http://mapped.example.com/", "external"),
        ("http://full.example.com/", "external"),
        # names of the local network, refused without resolving
        ("http://localhost/", "name"),
        ("http://localhost:3000/", "name"),
        ("http://a.localhost/", "name"),
        ("http://printer.local/", "name"),
        ("http://metadata.google.internal/", "name"),
        ("http://nas.home.arpa/", "name"),
        ("http://home.arpa/", "name"),
        ("http://metadata/", "name"),
        ("http://instance-data/", "name"),
        ("http://intranet/", "name"),
        # names that resolve to what is denied: any answer is enough
        ("http://private.example.com/", "address"),
        ("http://mixed.example.com/", "address"),
        ("http://mixed6.example.com/", "address"),
        ("http://mapped-private.example.com/", "address"),
        ("http://zone.example.com/", "address"),
        ("http://none.example.com/", "unresolved"),
        ("http://many.example.com/", "unresolved"),
        ("http://nowhere.example.com/", "unresolved"),
        # ports
        ("http://example.com:25/", "port"),
        ("http://example.com:465/", "port"),
        ("https://example.com:587/", "port"),
        ("http://example.com:26/", "port"),
        ("http://93.184.215.14:3306/", "port"),
        ("http://10.0.0.1:3306/", "address"),
        ("http://example.com:8080/", "external"),
        ("https://example.com:8443/", "external"),
        # literals
        ("http://10.0.0.1/", "address"),
        ("http://169.254.169.254/latest/meta-data", "address"),
        ("http://169.254.170.2/", "address"),
        ("http://168.63.129.16/", "address"),
        ("http://100.100.100.200/", "address"),
        ("http://192.0.0.192/", "address"),
        ("http://[fd00:ec2::254]/", "address"),
        ("http://[fd20:ce::254]/", "address"),
        ("http://[::]/", "address"),
        ("http://[::7f00:1]/", "address"),
        ("http://[::ffff:a9fe:a9fe]/", "address"),
        ("http://[64:ff9b::7f00:1]/", "address"),
        ("http://[2002:7f00:1::]/", "address"),
        ("http://[2001:0:7f00:1::]/", "address"),
        ("http://[2606:4700::5efe:7f00:1]/", "address"),
        ("http://[2606:4700::200:5efe:7f00:1]/", "address"),
        # spellings that an engine normalises; here they are refused, never repaired
        ("http://2130706433/", "malformed"),
        ("http://017700000001/", "malformed"),
        ("http://0x7f.1/", "malformed"),
        ("http://0x7f000001/", "malformed"),
        ("http://127.1/", "malformed"),
        ("http://127.0.0.01/", "malformed"),
        ("http://1.2.3.4.5/", "malformed"),
        ("http://example.0x/", "malformed"),
        ("http://127.0.0.1./", "address"),
        ("http://%31%32%37.0.0.1/", "malformed"),
        ("http://[fe80::1%25eth0]/", "malformed"),
        ("http://[fe80::1%eth0]/", "malformed"),
        ("http://[::1/", "malformed"),
        ("http://[1.2.3.4]/", "malformed"),
        ("http://[12345::]/", "malformed"),
        ("http://１２７.0.0.1/", "malformed"),
        ("http://user:pw@example.com/", "malformed"),
        ("http://example.com#@127.0.0.1/", "malformed"),
        ("http://example.com/#f", "malformed"),
        ("http://example.com /", "malformed"),
        ("http://example.com/a b", "malformed"),
        ("http://example.com/\x00", "malformed"),
        ("http://example.com/\r\nhost: x", "malformed"),
        ("http://example.com\\@127.0.0.1/", "malformed"),
        ("http:/example.com/", "malformed"),
        ("http:\\\\example.com", "malformed"),
        ("http://", "malformed"),
        ("http:///", "malformed"),
        ("http://./", "malformed"),
        ("http://a..example.com/", "malformed"),
        ("http://example.com../", "malformed"),
        ("http://-a.example.com/", "malformed"),
        ("http://example.com:0/", "malformed"),
        ("http://example.com:65536/", "malformed"),
        ("http://example.com:/", "malformed"),
        ("http://example.com:+80/", "malformed"),
        ("/path", "malformed"),
        ("example.com:443", "malformed"),
        ("*", "malformed"),
        ("", "malformed"),
        ("ftp://example.com/", "malformed"),
        ("ws://example.com/", "malformed"),
        ("file:///etc/passwd", "malformed"),
        ("HTTP://example.com/", "malformed"),
        (f"http://{'a' * 64}.com/", "malformed"),
        (f"http://{'a.' * 127}com/", "malformed"),
    ],
)
def test_every_target_gets_its_verdict(target: str, expected: str) -> None:
    """Own, external or denied, for each shape of target (reliability.md 3.G rows G1 to G3, G7 to
    G9; interface.md 1)."""
    assert verdict(decide(target)) == expected


WEB = {80, 8080, 8880, 2052, 2082, 2086, 2095, 443, 8443, 2053, 2083, 2087, 2096}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_only_the_ports_of_web_servers_are_open(scheme: str) -> None:
    """The thirteen and not one beside them; nor the ports of mail, shells and stores (G8)."""
    near = {port + step for port in WEB for step in (-1, 0, 1)}
    ports = near | {1, 22, 25, 53, 465, 587, 3306, 5432, 6379, 9200, 11211, 27017, 65535}
    told = {port: verdict(decide(f"{scheme}://93.184.215.14:{port}/")) for port in ports}
    assert {port for port, word in told.items() if word == "external"} == WEB
    assert {word for port, word in told.items() if port not in WEB} == {"port"}


@pytest.mark.parametrize(("network", "kind"), DENIED_NETWORKS)
def test_each_denied_network_is_denied_from_first_to_last(network: str, kind: str) -> None:
    """Both ends of every network of the table are denied (reliability.md 3.G, deny table)."""
    block = ipaddress.ip_network(network)
    table = AddressTable()
    assert table.objection(block[0]) is not None
    assert table.objection(block[-1]) is not None
    assert AddressTable([(network, kind)]).objection(block[0]) == f"{kind} ({network})"


@pytest.mark.parametrize(
    "address",
    [
        *("1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"),
        *("126.255.255.255", "128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255"),
        *("169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0"),
        *("192.0.3.0", "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0"),
        *("198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255"),
        *("203.0.114.0", "223.255.255.255"),
        *("64:ff9a:ffff:ffff::", "64:ff9b:2::", "100:0:0:2::", "2000:ffff::1", "2001:200::"),
        *("2001:db7:ffff::", "2001:db9::", "2001:ffff::", "2003::", "2620:4f:7fff::"),
        *("2620:4f:8001::", "3ffe:ffff::", "3fff:1000::", "fbff::1", "fe00::", "::1:0:0:0:0"),
    ],
)
def test_the_neighbours_of_denied_networks_are_not_denied(address: str) -> None:
    """One outside each network is reachable: the table denies no more than it says
    (reliability.md 3.G, deny table, first/last/±1)."""
    assert AddressTable().objection(ipaddress.ip_address(address)) is None


def test_what_the_standard_library_calls_global_is_still_denied() -> None:
    """The addresses that pass `is_global` are denied here (reliability.md B9)."""
    passed = [
        *("192.0.0.8", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.175.48.1"),
        *("224.0.0.1", "239.1.1.1", "168.63.129.16", "::ffff:0:127.0.0.1", "::127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:7f00:1::"),
        *("2002:a9fe:a9fe::", "3fff::1", "5f00::1", "fec0::1", "ff02::1", "2620:4f:8000::1"),
        *("100.64.0.1", "100.100.100.200"),
    ]
    passed += [f"::ffff:{a}" for a in passed if ":" not in a]
    table = AddressTable()
    assert [a for a in passed if table.objection(ipaddress.ip_address(a)) is None] == []


def test_an_external_host_is_pinned_to_its_addresses_by_one_question() -> None:
    """One resolution, absolute, whose answers alone are connected to (reliability.md 5, 1)."""
    resolver = Resolver()
    decision = decide("https://Example.com/a?b=%2F", resolver=resolver)
    assert isinstance(decision, External)
    assert decision.addresses == NAMES["example.com."]
    assert resolver.asked == ["example.com."]
    target = decision.target
    assert (target.scheme, target.host, target.port) == ("https", "example.com", 443)
    assert (target.path, target.authority) == (b"/a?b=%2F", "example.com")


def test_an_ipv4_mapped_answer_is_pinned_as_the_address_inside() -> None:
    """A mapped address is judged and used as IPv4, once (reliability.md 5, 4)."""
    decision = decide("http://mapped.example.com/")
    assert isinstance(decision, External)
    assert decision.addresses == (PUBLIC,)


@pytest.mark.parametrize(
    "target",
    [
        "http://printer.local/",
        "http://metadata/",
        "http://10.0.0.1/",
        "http://x.com:25/",
        "http://!",
    ],
)
def test_what_is_denied_by_its_text_is_never_resolved(target: str) -> None:
    """No DNS question leaves for a name that is refused anyway (reliability.md 5, 15)."""
    resolver = Resolver()
    assert isinstance(decide(target, resolver=resolver), Denied)
    assert resolver.asked == []


@pytest.mark.parametrize(
    ("target", "allow", "addresses"),
    [
        ("http://localhost:3000/", "localhost:3000", ("127.0.0.1", "::1")),
        ("http://app.localhost:3000/", "APP.localhost.:3000", ("127.0.0.1", "::1")),
        ("http://127.0.0.1:3000/", "127.0.0.1:3000", ("127.0.0.1",)),
        ("http://[::1]:3000/", "[0:0::1]:3000", ("::1",)),
        ("https://private.example.com/", "private.example.com:443", None),
        ("http://db:5432/", "db:5432", ("172.20.0.2",)),
        ("http://93.184.215.14:25/", "93.184.215.14:25", (PUBLIC,)),
        ("http://93.184.215.14:1/", "93.184.215.14:1", (PUBLIC,)),
        ("http://93.184.215.14:65535/", "93.184.215.14:65535", (PUBLIC,)),
    ],
)
def test_an_allowed_host_and_port_passes_every_rule_of_denial(
    target: str, allow: str, addresses: tuple[str, ...] | None
) -> None:
    """`[egress] allow` opens exactly what it names (interface.md 2 and 4; issue 4 item 4)."""
    resolver = Resolver({**NAMES, "private.example.com": ("10.1.2.3",)})
    decision = decide(target, allow=[allow], resolver=resolver)
    assert isinstance(decision, External)
    assert decision.addresses == (addresses or ("10.1.2.3",))


@pytest.mark.parametrize(
    ("target", "allow"),
    [
        ("http://127.0.0.1:3000/", "localhost:3000"),
        ("http://localhost:3001/", "localhost:3000"),
        ("http://a.localhost:3000/", "localhost:3000"),
        ("http://10.0.0.2/", "10.0.0.1:80"),
    ],
)
def test_what_is_not_named_stays_denied(target: str, allow: str) -> None:
    """An entry opens one host at one port, by name (reliability.md 3.G row G13)."""
    assert isinstance(decide(target, allow=[allow]), Denied)


@pytest.mark.parametrize(
    "entry",
    [
        *("", "localhost", ":3000", "localhost:", "localhost:0", "localhost:65536", "localhost:x"),
        *("::1:3000", "[::1:3000", "::1]:3000", "http://localhost:3000", "*.example.com:80"),
        *("127.1:80", "[fe80::1%eth0]:80", "localhost:３"),
    ],
)
def test_an_allow_entry_that_is_not_host_and_port_is_refused_by_name(entry: str) -> None:
    """A typing error in `allow` stops the start and says what to write (architecture.md 6)."""
    with pytest.raises(UserError) as caught:
        EgressPolicy(DEV, resolver=Resolver(), allow=["example.com:443", entry])
    assert caught.value.code is UserCode.INVALID_CONFIG
    assert repr(entry) in caught.value.message
    assert "localhost:3000" in caught.value.hint


def test_a_denial_says_what_to_allow() -> None:
    """The hint is pasteable and opens exactly this host and port (issue 4 item 4)."""
    decision = decide("http://localhost:3000/secret?token=1")
    assert isinstance(decision, Denied)
    assert decision.origin == "http://localhost:3000"
    assert '[egress] allow = ["localhost:3000"]' in decision.hint
    assert "--allow-egress localhost:3000" in decision.hint
    entry = decision.hint.rpartition(" ")[2]
    assert verdict(decide("http://localhost:3000/", allow=[entry])) == "external"


def test_a_denied_answer_names_the_address_and_its_class() -> None:
    """The log says why: name, address, class, network (reliability.md 5, 22)."""
    decision = decide("http://mixed.example.com/")
    assert isinstance(decision, Denied)
    expected = "mixed.example.com resolves to 127.0.0.1, which is loopback (127.0.0.0/8)"
    assert decision.message == expected


def test_a_function_host_at_the_wrong_port_is_told_the_right_one() -> None:
    """A forgotten port is the likely mistake in dev, and the hint says so (interface.md 1)."""
    decision = decide("http://local.fn.localhost/hello")
    assert isinstance(decision, Denied)
    assert "port 8787" in decision.hint


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("https://api.example.com/v1/x", "platform"),
        ("https://acme.fn.amba.example.com/hello", "function"),
        ("https://acme.cdn.amba.example.com/key", "function"),
        ("http://api.example.com/", "name"),
        ("https://127.0.0.1/", "address"),
        ("https://localhost/", "name"),
        ("http://acme.fn.amba.example.com/", "name"),
        ("https://93.184.215.14/", "address"),
        ("https://93.184.215.15/", "external"),
        ("https://example.com/", "address"),
    ],
)
def test_a_node_knows_its_public_addresses(target: str, expected: str) -> None:
    """Hosted: the public URL and suffixes are ours, the node's own IPs are denied
    (interface.md 1; reliability.md 5, 13)."""
    table = AddressTable(own=[f"{PUBLIC}/32"])
    assert verdict(decide(target, own=HOSTED, table=table)) == expected


def test_a_target_knows_its_authority_and_origin() -> None:
    """The Host header leaves a default port out, as URLs do (reliability.md 5, 7)."""
    assert parse_target(b"http://a.example:80/x").authority == "a.example"
    assert parse_target(b"https://a.example:80/x").origin == "https://a.example:80"
    assert parse_target(b"http://[::0:1]:81?q").authority == "[::1]:81"
    assert parse_target(b"http://[::0:1]:81?q").path == b"/?q"


def test_hosts_are_told_from_numbers_as_urls_do() -> None:
    """A last label that is a number makes an IPv4 address or nothing (reliability.md 5, 2)."""
    assert canonical_host("a.1b") == "a.1b"
    assert canonical_host("1.2.3.4") == "1.2.3.4"
    assert canonical_host("_dmarc.Example.com.") == "_dmarc.example.com"
    with pytest.raises(TargetError, match="usual form"):
        canonical_host("a.0x1f")


def test_the_number_of_answers_is_bounded_at_the_limit() -> None:
    """All answers are checked, so there is a most (reliability.md 3.G row G3)."""
    most = limits.EGRESS_ANSWERS.value
    decision = decide("http://full.example.com/")
    assert isinstance(decision, External)
    assert len(decision.addresses) == most
    denied = decide("http://many.example.com/")
    assert isinstance(denied, Denied)
    assert denied.reason is DeniedReason.UNRESOLVED


def test_a_malformed_target_is_shown_escaped_and_cut() -> None:
    """What is logged of a hostile target is short, plain ASCII (issue 4 item 5)."""
    decision = decide(b"http://\x1b[31m\xff?token=1")
    assert isinstance(decision, Denied)
    assert decision.origin == r"http://\x1b[31m\xff"
    assert len(printable(b"a" * 1000)) == 200


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"http://user:canary@10.0.0.1/", "http://10.0.0.1"),
        (b"http://a@canary@10.0.0.1\\canary", "http://10.0.0.1"),
        (b"http://a b/canary?canary#canary", "http://a b"),
        (b"http://a#canary", "http://a"),
        (b"file:///etc/canary", "file://"),
        (b"//a/canary", "//a"),
        (b"data:text/plain,canary", "data:..."),
        (b"javascript:canary()", "javascript:..."),
        (b"/canary", "..."),
        (b"canary@x:443", "..."),
        (b"example.com:443", "example.com:443"),
        (b"[::1]", "[::1]"),
    ],
)
def test_a_log_line_shows_where_and_nothing_more(raw: bytes, shown: str) -> None:
    """User names, paths, queries and fragments may carry secrets (row M2)."""
    assert printable(raw) == shown


def test_a_functions_own_list_is_asked_before_any_resolver() -> None:
    """What is not listed is refused without a question to the world; our own addresses stay
    open, and no list opens what is denied (row G13)."""
    asked: list[str] = []

    class Recording(Resolver):
        async def resolve(self, name: str) -> Sequence[str]:
            asked.append(name)
            return await super().resolve(name)

    rules = EgressRules.of({"only": ["example.com", "127.0.0.1", "private.example.com"]})
    policy = EgressPolicy(DEV, resolver=Recording(), allow=["other.example.com:443"])

    def told(url: str) -> Own | External | Denied:
        return asyncio.run(policy.decide(url.encode(), rules))

    refused = told("https://other.example.com/")
    assert isinstance(refused, Denied)
    assert refused.reason is DeniedReason.NOT_LISTED
    assert 'add "other.example.com" to only' in refused.hint
    assert asked == []
    assert isinstance(told("https://example.com/"), External)
    assert asked == ["example.com."]
    assert isinstance(told("http://127.0.0.1:8787/v1"), Own)
    for url in ("http://127.0.0.1/", "https://private.example.com/"):
        denied = told(url)
        assert isinstance(denied, Denied)
        assert denied.reason is DeniedReason.ADDRESS


@pytest.mark.parametrize(
    ("url", "function"),
    [
        ("http://local.fn.localhost:8787/hello", True),
        ("http://127.0.0.1:8787/fn/local/hello", True),
        ("http://127.0.0.1:8787/fnx", False),
        ("http://127.0.0.1:8787/v1/projects", False),
        ("http://local.cdn.localhost:8787/key", False),
    ],
)
def test_a_request_to_a_function_of_ours_is_known_as_one(url: str, function: bool) -> None:
    """It continues the trace of whoever asks; the API and the CDN begin nothing (row E29)."""
    decision = decide(url)
    assert isinstance(decision, Own)
    assert decision.function is function


def test_what_an_allow_entry_let_through_says_so() -> None:
    """Secrets go in clear to a server of this machine alone, and only where it was opened."""
    policy = EgressPolicy(DEV, resolver=Resolver(), allow=["localhost:3000", "93.184.215.14:80"])

    def external(url: str) -> External:
        decision = asyncio.run(policy.decide(url.encode()))
        assert isinstance(decision, External)
        return decision

    local, public = external("http://localhost:3000/"), external("http://93.184.215.14/")
    assert (local.opened, local.loopback) == (True, True)
    assert (public.opened, public.loopback) == (True, False)
    assert not external("https://example.com/").opened


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("http://a.example/", "a.example"),
        ("https://a.example/", "a.example"),
        ("http://a.example:443/", "a.example:443"),
        ("http://a.example:80/", "a.example"),
        ("https://a.example:443/", "a.example"),
        ("https://a.example:80/", "a.example:80"),
        ("https://a.example:8443/", "a.example:8443"),
        ("http://a.example:79/", "a.example:79"),
    ],
)
def test_a_host_that_is_not_listed_is_told_as_it_would_be_listed(url: str, entry: str) -> None:
    """The entry of the hint, put into the list, lets this request through (row G13)."""
    policy = EgressPolicy(DEV, resolver=Resolver())
    rules = EgressRules.of({"only": ["b.example"]})
    denied = asyncio.run(policy.decide(url.encode(), rules))
    assert isinstance(denied, Denied)
    assert denied.message == f"{entry} is not on this function's own allowlist"
    assert f'add "{entry}" to only' in denied.hint
    assert EgressRules.of({"only": [entry]}).permit(parse_target(url.encode()))


def test_nothing_is_open_or_a_functions_unless_it_is_said() -> None:
    """The defaults are the careful ones (T12; row E29)."""
    target = parse_target(b"http://localhost:3000/")
    assert not External(target, ("127.0.0.1",)).opened
    assert not Own(target, platform=False).function


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "127.9.9.9"])
def test_loopback_is_this_machine_and_nothing_else(text: str) -> None:
    """One address that is another's is enough not to be (row G14)."""
    target = parse_target(b"http://localhost:3000/")
    assert External(target, (text, "::1")).loopback
    assert not External(target, (text, PUBLIC)).loopback
    assert not External(target, (PUBLIC, text)).loopback


@pytest.mark.parametrize("entry", ["::1:3000", "fe80::1:3000", "1::2:80", "[::1:3000", "a]:3000"])
def test_an_allow_entry_without_its_brackets_is_told_so(entry: str) -> None:
    """The likely mistake with IPv6 has words of its own (architecture.md 6)."""
    with pytest.raises(UserError, match="stands in brackets"):
        EgressPolicy(DEV, resolver=Resolver(), allow=[entry])


@pytest.mark.parametrize("own", [DEV, HOSTED], ids=["dev", "hosted"])
def test_localhost_is_anybodys_and_another_name_is_ours(own: OwnAddresses) -> None:
    """Who forgot the port of this server is told so; `localhost` may be any program's (G13)."""
    denied = decide("http://localhost:4000/", own=own)
    assert isinstance(denied, Denied)
    assert denied.message == "localhost is a name of the local network"
    denied = decide("http://api.example.com:8080/", own=HOSTED)
    assert isinstance(denied, Denied)
    assert denied.message.endswith("is this server's name, at another scheme or port")
