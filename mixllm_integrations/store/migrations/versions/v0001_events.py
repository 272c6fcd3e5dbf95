"""The log of events, as the first releases made it without migrations."""

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the log, unless an older release has."""
    if sa.inspect(op.get_bind()).has_table("mixllm_events"):
        return
    op.create_table(
        "mixllm_events",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.UniqueConstraint("decision_id", "kind", name="mixllm_events_once"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Drop the log."""
    op.drop_table("mixllm_events")
