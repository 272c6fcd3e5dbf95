"""How the tables came to be what they are, one step per file, run by Alembic.

The steps run when a store is opened. To run them by hand, for example before a
deployment by a user who may create tables, open the store once:
``open_store(url).close()``.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

__all__ = ["upgrade"]


def upgrade(connection: Connection, *, version_table: str) -> None:
    """Run the steps that a database has not seen.

    Parameters
    ----------
    connection
        In a transaction, which is left open: all steps are kept, or none.
    version_table
        Where the last step stands that the database has seen.
    """
    config = Config()
    folder = str(Path(__file__).parent).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.attributes["connection"] = connection
    config.attributes["version_table"] = version_table
    command.upgrade(config, "head")
