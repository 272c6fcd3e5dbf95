"""Databases of each kind, one per test."""

import os
import uuid

import pytest
import sqlalchemy as sa

from mixllm_integrations.store.sql import SQLStore

POSTGRES = os.environ.get("MIXLLM_TEST_POSTGRES")


@pytest.fixture(autouse=True)
def spool(tmp_path, monkeypatch):
    """A folder for what waits while a database is away."""
    folder = tmp_path / "spool"
    monkeypatch.setenv("MIXLLM_SPOOL", str(folder))
    return folder


@pytest.fixture
def postgres_url():
    """A schema of its own in the real database, dropped afterwards."""
    if not POSTGRES:
        pytest.skip("MIXLLM_TEST_POSTGRES names no PostgreSQL server")
    schema = f"mixllm_{uuid.uuid4().hex}"
    engine = sa.create_engine(POSTGRES)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    options = {"options": f"-csearch_path={schema}"}
    url = sa.make_url(POSTGRES).update_query_dict(options)
    yield url.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.network)]
)
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def store(url):
    with SQLStore(url) as opened:
        yield opened
