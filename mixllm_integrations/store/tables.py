"""The tables of the log, as the newest migration leaves them."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

__all__ = ["DETAIL_LENGTH", "EVENTS", "LOG", "METADATA", "SNAPSHOTS"]

DETAIL_LENGTH = 64

METADATA = MetaData()

_SEQUENCE = BigInteger().with_variant(Integer(), "sqlite")

# The unique constraint is the index by which all events of a decision are found;
# the primary key is that by which the log is read on.
EVENTS = Table(
    "mixllm_events",
    METADATA,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("decision_id", String(), nullable=False),
    Column("detail", String(DETAIL_LENGTH), nullable=False, server_default=""),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("payload", JSON(), nullable=False),
    UniqueConstraint("decision_id", "kind", "detail", name="mixllm_events_once"),
    sqlite_autoincrement=True,
)

SNAPSHOTS = Table(
    "mixllm_snapshots",
    METADATA,
    Column("id", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("sequence", BigInteger(), nullable=False, index=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("content", LargeBinary(), nullable=False),
    sqlite_autoincrement=True,
)

# One row: what this log is called, wherever it is moved to.
LOG = Table("mixllm_log", METADATA, Column("identity", String(32), primary_key=True))
