"""What Alembic runs to find its database."""

from alembic import context

__all__: list[str] = []


def _run() -> None:
    context.configure(**context.config.attributes)
    context.run_migrations()


if __name__ == "env_py":  # so Alembic calls it
    _run()
