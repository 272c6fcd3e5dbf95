"""One feedback of each kind, each signal once, snapshots, and a name for the log."""

import os

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ONCE = "mixllm_events_once"
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Tell feedback of one decision apart by its kind; add the other tables."""
    if op.get_bind().dialect.name == "sqlite":
        _rebuild_on_sqlite()
    else:
        _alter_on_postgresql()
    op.create_table(
        "mixllm_snapshots",
        sa.Column("id", _SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_mixllm_snapshots_sequence", "mixllm_snapshots", ["sequence"])
    log = op.create_table(
        "mixllm_log", sa.Column("identity", sa.String(32), primary_key=True)
    )
    op.bulk_insert(log, [{"identity": os.urandom(16).hex()}])


def downgrade() -> None:
    """Refuse: of several feedbacks of one decision, only one could be kept."""
    raise NotImplementedError("events would be lost: keep the database as it is")


def _alter_on_postgresql() -> None:
    op.add_column(
        "mixllm_events",
        sa.Column("detail", sa.String(64), nullable=False, server_default=""),
    )
    # Without what it escapes: PostgreSQL looks into no JSON that holds \u0000.
    without = (
        r"CAST(regexp_replace(CAST(payload AS text), '\\\\|\\u', '_', 'g') AS json)"
    )
    op.execute(
        f"UPDATE mixllm_events SET detail = {without} ->> 'kind' "  # noqa: S608
        f"WHERE kind = 'feedback' AND {without} ->> 'kind' IN ('refined', 'binary')"
    )
    op.drop_constraint(_ONCE, "mixllm_events", type_="unique")
    columns = ["decision_id", "kind", "detail"]
    op.create_unique_constraint(_ONCE, "mixllm_events", columns)


def _rebuild_on_sqlite() -> None:
    op.create_table(
        "mixllm_events_new",
        sa.Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("detail", sa.String(64), nullable=False, server_default=""),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.UniqueConstraint("decision_id", "kind", "detail", name=_ONCE),
        sqlite_autoincrement=True,
    )
    op.execute(
        "INSERT INTO mixllm_events_new "
        "(sequence, kind, decision_id, detail, at, payload) "
        "SELECT sequence, kind, decision_id, CASE "
        "WHEN kind = 'feedback' AND typeof(payload) = 'text' AND json_valid(payload) "
        "AND json_extract(payload, '$.kind') IN ('refined', 'binary') "
        "THEN json_extract(payload, '$.kind') ELSE '' END, at, payload "
        "FROM mixllm_events ORDER BY sequence"
    )
    # No sequence is given twice, even if the newest events were deleted.
    op.execute(
        "INSERT INTO sqlite_sequence (name, seq) SELECT 'mixllm_events_new', 0 "
        "WHERE NOT EXISTS "
        "(SELECT 1 FROM sqlite_sequence WHERE name = 'mixllm_events_new')"
    )
    op.execute(
        "UPDATE sqlite_sequence SET seq = coalesce("
        "(SELECT seq FROM sqlite_sequence WHERE name = 'mixllm_events'), 0) "
        "WHERE name = 'mixllm_events_new'"
    )
    op.drop_table("mixllm_events")
    op.rename_table("mixllm_events_new", "mixllm_events")
