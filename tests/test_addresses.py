"""Addresses are shown without users and passwords."""

import pytest

from pipelines.addresses import without_userinfo


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:secret@host:5000/path?a=b", "http://host:5000/path?a=b"),
        ("https://me@host", "https://host"),
        ("HTTP://me:secret@host", "HTTP://host"),
        ("http://:secret@host", "http://host"),
        ("http://me:se@cret@host", "http://host"),
        ("http://me:se/cret@host", "http://host"),
        ("http://me:se?c#ret@host/a", "http://host/a"),
        ("http://me:'secret\"@host", "http://host"),
        ("http://me:s%20e%40t@[::1]:80/", "http://[::1]:80/"),
        ("postgresql+psycopg://me:secret@host/db", "postgresql+psycopg://host/db"),
        ("no answer from 'http://me:secret@a/x' (http://b), http://you:other@c.", None),
        ("http://host:5000/path", "http://host:5000/path"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("models:/muomni@champion", "models:/muomni@champion"),
        ("http://host:5000 is away; write to me@work", "http://host:5000 is away; write to me@work"),
        ("", ""),
    ],
)
def test_users_and_passwords_go_and_the_rest_stays(address: str, shown: str | None) -> None:
    assert without_userinfo(address) == (
        shown if shown is not None else "no answer from 'http://a/x' (http://b), http://c."
    )
    assert without_userinfo(without_userinfo(address)) == without_userinfo(address)
