"""A function's own allowlist, and which hosts are given its secrets (rows G13, G14)."""

from __future__ import annotations

from typing import Any

import pytest

from amba_runtime import limits
from amba_runtime.egress import parse_target
from amba_runtime.egress_rules import NO_RULES, EgressRules, HostRule, RuleError


def matches(rule: str, url: str) -> bool:
    """Whether a rule means a URL."""
    return HostRule.parse(rule).matches(parse_target(url.encode()))


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        (
            "api.stripe.com",
            ["https://api.stripe.com/", "http://api.stripe.com/v1", "https://API.Stripe.com./"],
            [
                *("https://stripe.com/", "https://a.api.stripe.com/", "https://xapi.stripe.com/"),
                *("https://api.stripe.com:8443/", "http://api.stripe.com:443/"),
                *("https://api.stripe.com.evil.example/", "https://api-stripe.com/"),
            ],
        ),
        (
            "*.example.com",
            ["https://a.example.com/", "http://a.b.example.com/"],
            [
                *("https://example.com/", "https://aexample.com/", "https://example.com.evil/"),
                "https://a.example.com:8080/",
            ],
        ),
        (
            "API.example.com.:8443",
            ["https://api.example.com:8443/", "http://api.example.com:8443/"],
            ["https://api.example.com/", "https://api.example.com:8444/"],
        ),
        ("*.example.com:8080", ["http://a.example.com:8080/"], ["http://a.example.com/"]),
        ("xn--bcher-kva.example", ["https://xn--bcher-kva.example/"], ["https://bucher.example/"]),
        ("93.184.215.14", ["https://93.184.215.14/"], ["https://93.184.215.15/"]),
        (
            "[2606:2800:0220:1::1]:443",
            ["https://[2606:2800:220:1:0:0:0:1]/"],
            ["https://[2606:2800:220:1::2]/"],
        ),
        ("*.15", [], ["https://93.184.215.15/"]),
        ("localhost:3000", ["http://localhost:3000/"], ["http://127.0.0.1:3000/"]),
    ],
)
def test_a_rule_means_exactly_what_it_says(
    rule: str, inside: list[str], outside: list[str]
) -> None:
    """Exact host, names below it, port: nothing near it (row G13)."""
    if rule == "*.15":  # an address is never a name below a number
        with pytest.raises(ValueError, match="IP address"):
            HostRule.parse(rule)
        return
    assert [url for url in inside if not matches(rule, url)] == []
    assert [url for url in outside if matches(rule, url)] == []


@pytest.mark.parametrize(
    "rule",
    [
        *("", " ", "*", "*.", "*.*.example.com", "a.*.example.com", "https://a.example", "a/b"),
        *("a.example:", "a.example:0", "a.example:65536", "a.example:x", "a.example:80:80"),
        *("user@a.example", "a..example", ".a.example", "-a.example", "a b", "a.example ", "a\n"),
        *("*.1.2.3.4", "*.[::1]", "[::1", "::1", "[fe80::1%25eth0]", "0x7f.1", "127.1"),
        *("b\u00fccher.example", "\uff45xample.com", "x" * 64 + ".example", "a.example?q", "a#b"),
    ],
)
def test_what_is_no_rule_is_refused(rule: str) -> None:
    """Parsed, not patched: whatever is not exactly right (row G13)."""
    with pytest.raises(RuleError) as caught:
        EgressRules.of({"only": ["a.example", rule]})
    assert caught.value.path == ("only", 1)
    assert "api.stripe.com" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([], ()),
        (None, ()),
        ({"allow": []}, ("allow",)),
        ({"only": "a.example"}, ("only",)),
        ({"only": [1]}, ("only", 0)),
        ({"only": ["a.example"] * (limits.EGRESS_RULES.value + 1)}, ("only",)),
        ({"secrets": []}, ("secrets",)),
        ({"secrets": {"key": ["a.example"]}}, ("secrets", "key")),
        ({"secrets": {"AMBA_INTERNAL_TOKEN": ["a.example"]}}, ("secrets", "AMBA_INTERNAL_TOKEN")),
        ({"secrets": {"STORAGE": ["a.example"]}}, ("secrets", "STORAGE")),
        ({"secrets": {"KEY": []}}, ("secrets", "KEY")),
        ({"secrets": {"KEY": "a.example"}}, ("secrets", "KEY")),
        ({"secrets": {"KEY": ["a.example", "*"]}}, ("secrets", "KEY", 1)),
        (
            {"secrets": {f"K{i}": ["a.example"] for i in range(limits.EGRESS_SECRETS.value + 1)}},
            ("secrets",),
        ),
    ],
    ids=str,
)
def test_a_table_that_is_wrong_says_where(value: Any, path: tuple[str | int, ...]) -> None:
    """The first thing that is wrong, by its path (rows G13, G14)."""
    with pytest.raises(RuleError) as caught:
        EgressRules.of(value)
    assert caught.value.path == path


def test_rules_are_read_as_they_were_written_out() -> None:
    """One spelling each; what rules nothing is the same as no rules."""
    written = {
        "only": ["A.Example.", "a.example", "*.B.example:80"],
        "secrets": {"KEY": ["a.example"], "OTHER": ["[::1]:1"]},
    }
    rules = EgressRules.of(written)
    assert rules.wire() == {
        "only": ["a.example", "*.b.example:80"],
        "secrets": {"KEY": ["a.example"], "OTHER": ["[::1]:1"]},
    }
    assert EgressRules.of(rules.wire()) == rules
    assert EgressRules.of({}) == NO_RULES
    assert EgressRules.of({"only": []}).wire() == {"only": []}


def test_an_empty_list_permits_nothing_and_none_permits_all() -> None:
    """`only = []` is a function that reaches the platform and nobody else."""
    target = parse_target(b"https://example.com/")
    assert NO_RULES.permit(target)
    assert not EgressRules.of({"only": []}).permit(target)


def test_lists_of_the_longest_length_are_read() -> None:
    """The bounds themselves are still good (limits)."""
    hosts = [f"h{i}.example" for i in range(limits.EGRESS_RULES.value)]
    names = [f"K{i}" for i in range(limits.EGRESS_SECRETS.value)]
    rules = EgressRules.of({"only": hosts, "secrets": dict.fromkeys(names, hosts)})
    assert rules.wire() == {"only": hosts, "secrets": dict.fromkeys(names, hosts)}


@pytest.mark.parametrize("port", [1, 2, 79, 81, 65534, 65535])
def test_every_port_can_be_named(port: int) -> None:
    """From the first to the last, and it means no other (row G13)."""
    rule = f"a.example:{port}"
    assert str(HostRule.parse(rule)) == rule
    assert matches(rule, f"https://a.example:{port}/")
    assert matches(rule, f"http://a.example:{port}/")
    for other in (port - 1, port + 1, 443, 80):
        assert not 1 <= other <= 65535 or not matches(rule, f"https://a.example:{other}/")


def test_a_rule_without_more_is_one_host_at_its_schemes_port() -> None:
    """Nothing below it, no other port (row G13)."""
    rule = HostRule("a.example")
    assert rule == HostRule.parse("a.example")
    assert rule.matches(parse_target(b"https://a.example/"))
    assert not rule.matches(parse_target(b"https://b.a.example/"))


def test_what_is_wrong_is_shown_short_and_plain() -> None:
    """A stranger's text neither floods nor steers a terminal (row C6)."""
    with pytest.raises(RuleError) as caught:
        EgressRules.of({"only": ["\u202e" + "x" * 1000]})
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 300
    with pytest.raises(RuleError) as caught:
        EgressRules.of({"y" * 1000: []})
    assert caught.value.path == ("y" * 64,)
    with pytest.raises(RuleError) as caught:
        EgressRules.of({"secrets": {"z" * 1000: []}})
    assert caught.value.path == ("secrets", "z" * 64)
