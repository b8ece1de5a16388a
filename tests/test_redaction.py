"""Secrets in text: what is replaced, what stays, and at which cost."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.redaction import PLACEHOLDERS, RULES, is_card_number, is_iban, is_jwt, redact, redact_and_cut

JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

SECRETS = {
    "password=hunter2": "password=<secret>",
    "password = hunter2, user=bob": "password = <secret>, user=bob",
    "{'api_key': 'abc', \"DB_PASSWORD\": \"x y\"}": "{'api_key': '<secret>', \"DB_PASSWORD\": \"<secret>\"}",
    "client_secret=>abc": "client_secret=><secret>",
    "?token=abcdef12&page=2": "?token=<secret>&page=2",
    "login(passphrase='correct horse')": "login(passphrase='<secret>')",
    "Authorization: Bearer abc.def": "Authorization: <secret>",
    "headers={'authorization': 'Basic dXNlcjpwYXNz', 'x': 1}": "headers={'authorization': '<secret>', 'x': 1}",
    "Cookie: sid=1; theme=dark\nHost: x": "Cookie: <secret>\nHost: x",
    "got Bearer abcdef123456 from it": "got Bearer <secret> from it",
    "postgres://bob:s3cr@t@db:5432/x failed": "postgres://<secret>@db:5432/x failed",
    "https://ghp_abc@github.com/x": "https://<secret>@github.com/x",
    "key sk-ant-api03-abcdefghijklmnop!": "key <secret>!",
    "sk_live_4eC39HqLyjWDarjtT1zdp7dc": "<secret>",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a": "<secret>",
    "xoxb-17653672481-19874698323": "<secret>",
    "AKIAIOSFODNN7EXAMPLE": "<secret>",
    "AIzaSyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe": "<secret>",
    f"the token {JWT} has expired": "the token <jwt> has expired",
    f"signed with {AWS_SECRET}.": "signed with <secret>.",
    "write to bob.x+y@mail.example.com.": "write to <email>.",
    "card 4111 1111 1111 1111 declined": "card <card> declined",
    "5500-0000-0000-0004": "<card>",
    "pay DE89 3704 0044 0532 0130 00 now": "pay <iban> now",
    "GB82WEST12345698765432": "<iban>",
    # values in quotation marks of every kind
    '{"password": "ab\\"cd", "b": 1}': '{"password": "<secret>", "b": 1}',
    '"{\\"password\\": \\"x y\\", \\"b\\": 1}"': '"{\\"password\\": \\"<secret>\\", \\"b\\": 1}"',
    '{\\\\\\"token\\\\\\": \\\\\\"abcdefg\\\\\\"}': '{\\\\\\"token\\\\\\": \\\\\\"<secret>\\\\\\"}',
    "password='it\\'s mine'": "password='<secret>'",
    "password='the text is cut he": "password='<secret>",
    "password=b'abc', x=f'y'": "password=b'<secret>', x=f'y'",
    "DSN(password=SecretStr('abc'))": "DSN(password=SecretStr('<secret>'))",
    'password = """abc"""': 'password = """<secret>"""',
    "passwords=['a b', 'c']": "passwords=<secret>",
    "[('password', 'abc'), ('x', 'y')]": "[('password', '<secret>'), ('x', 'y')]",
    # source lines
    'password: str = "abc"': 'password: str = "<secret>"',
    'if password == "abc":': 'if password == "<secret>":',
    "os.environ['DB_PASSWORD'] = 'abc'": "os.environ['DB_PASSWORD'] = '<secret>'",
    "get(url, auth=('bob', 'abc'))": "get(url, auth=<secret>)",
    # command lines and other forms
    "mysql --db-password abc -h db": "mysql --db-password <secret> -h db",
    "['mysql', '--password', 'abc']": "['mysql', '--password', '<secret>']",
    "curl -u bob:abc https://x.org": "curl -u bob:<secret> https://x.org",
    "<password>abc</password>": "<password><secret></password>",
    "password%3Dabc": "password%3D<secret>",
    "password is hunter2": "password is <secret>",
    "wrong password 'abc' of bob": "wrong password '<secret>' of bob",
    "[('Cookie', 'sid=abc')]": "[('Cookie', '<secret>')]",
    '{\\"Authorization\\": \\"Token abc\\"}': '{\\"Authorization\\": \\"<secret>\\"}',
    'Authorization: Digest username="bob", response="0a"': "Authorization: <secret>",
    "AccountKey=abc/+==;EndpointSuffix=x": "AccountKey=<secret>;EndpointSuffix=x",
    "amqp://bob:ab/c@host/v": "amqp://<secret>@host/v",
    "https://x.org/c?sv=2022&sig=abcdefgh%3D&se=1": "https://x.org/c?sv=2022&sig=<secret>&se=1",
    "https://hooks.slack.com/services/T0AB/B0AB/abcd1234": "https://hooks.slack.com/services/<secret>",
    "https://api.telegram.org/bot123:abcdefgh/getMe": "https://api.telegram.org/bot<secret>",
    "whsec_" + "abcd" * 6: "<secret>",
    "GOCSPX-" + "abcd" * 6: "<secret>",
    "shpat_" + "0123456789abcdef" * 2: "<secret>",
    "hvs.CAES" + "abcd" * 6: "<secret>",
    "write to j\u00fcrgen@m\u00fcller.de": "write to <email>",
    "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----\nb": "a\n<private-key>\nb",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz": "<private-key>",
}


@pytest.mark.parametrize(("text", "redacted"), SECRETS.items(), ids=range(len(SECRETS)))
def test_secrets_are_replaced(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "unexpected token: ;",
        "max_tokens=4096, total_tokens: 17",
        "token_type=bearer, token_count: 17, password_file=/run/secrets/db",
        "token = self.get_token(user)",
        "secret = secrets[name]",
        "invalid token: expired",
        "cannot read secret: permission denied",
        "cannot read secret: [Errno 2] No such file",
        "password is required, and password is too short",
        "missing keys ['password', 'user']",
        "def f(password: str, token: int = 3) -> None:",
        "Unexpected token '<', \"<!DOCTYPE \"... is not valid JSON",
        "GET http://host:8080/a?key=name&code=404",
        "authorized: true, author: Bob, cookiecutter: template",
        "tokenizer: bert-base-uncased",
        "password: None",
        "Basic authentication failed",
        "Bearer scheme expected",
        "order 4111 1111 1111 1112",  # no card number: its checksum is wrong
        "at 1700000000123456789 ns",
        "DE88 3704 0044 0532 0130 00 is no account, for its checksum is wrong",
        "eyJub3QganNvbg.abc.def",
        "d41d8cd98f00b204e9800998ecf8427e is not 6fa459ea-ee8a-3ca4-894e-db77e160355e",
        "connect to 10.0.0.7:5432 and [::1]:80 failed",
        "/home/user/projects/MyProject2/src/main/java/org/Example3/AbstractSingletonProxyFactoryBean",
        "test_something_with_digits_123_and_UpperCaseWordsInASnakeCaseName",
        "https://example.com/a@b",
        "@decorator on a.b",
        "ValueError: invalid literal for int() with base 10: 'x'",
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_checks_agree_with_known_numbers() -> None:
    assert all(map(is_card_number, ["378282246310005", "6011 1111 1111 1117", "30569309025904"]))
    assert not any(map(is_card_number, ["0000000000000000", "4111111111111", "1234567890123"]))
    assert all(map(is_iban, ["FR1420041010050500013M02606", "CH93 0076 2011 6238 5295 7"]))
    assert is_jwt(JWT)
    assert not is_jwt("eyJhbGciOiJI.x")


def test_rules_can_be_chosen() -> None:
    only_mail = [rule for rule in RULES if rule.name == "e-mail address"]
    assert redact("password=x for a@b.org", only_mail) == "password=x for <email>"


SPLIT = ["password", "=", ":", '"', "'", "@", "://", " ", "\n", "-", ".", "<", ">", "eyJ", "sk-", "a", "4"]
PIECES = st.sampled_from([*SECRETS, *PLACEHOLDERS, *SPLIT])
HOSTILE = st.lists(PIECES | st.text(max_size=8), max_size=12).map("".join)


@given(HOSTILE)
def test_redacting_again_changes_nothing_and_the_text_hardly_grows(text: str) -> None:
    once = redact(text)
    assert redact(once) == once
    assert len(once) <= 8 * len(text)


@given(HOSTILE, st.integers(1, 200))
def test_a_cut_text_is_no_longer_than_asked_for(text: str, limit: int) -> None:
    assert len(redact_and_cut(text, limit)) <= limit


@pytest.mark.parametrize("at", range(0, 60, 7))
def test_no_part_of_a_secret_is_left_where_a_text_is_cut(at: int) -> None:
    text = "x " * at + f"{JWT} " + "y " * 500
    for limit in range(2 * at, 2 * at + 60, 5):
        assert "eyJ" not in redact_and_cut(text, limit)


REPEATED = [
    "a", "a@", "a.", "A1", "4", "4 ", "password", "password=", "password='", 'pwd="', "://a@", "://", "eyJ", "eyJa.",
    "sk-", "-----BEGIN PRIVATE KEY-----", "Bearer ", "authorization:", "DE89", "DE89 ", "aB3/", "<", "'", "key=", "\n",
    "_-", "basic a", "--", "--a-", "--password ", "('password', '", "password=f(", "password=[", "password='\\",
    '\\"password\\": \\"', "://a:b/", "?code=", "-u a:", "password is ", 'cookie: a="', "password>", "password:str=",
    "a_auth", "123456789:AA",
]  # fmt: skip


@pytest.mark.parametrize("piece", REPEATED)
def test_time_is_in_proportion_to_the_length(piece: str) -> None:
    def cost(length: int) -> float:
        text = (piece * length)[:length]
        best = 9e9
        for _ in range(3):
            began = time.process_time()
            redact(text)
            best = min(best, time.process_time() - began)
        return best

    # A quadratic rule takes 64 times as long for eight times the text.
    assert cost(40_000) < 24 * max(cost(5_000), 1e-4)
