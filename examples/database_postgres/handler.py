"""Notes in PostgreSQL: a pool of connections, made before the first call and closed after the last one."""

from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from watchdog_app import HTTPError

PATIENCE = 10.0  # seconds that the start waits for the database
pool = None


def startup(context):
    """Open the pool and make the schema; the function does not start without its database."""
    global pool
    url = context.secret("database-url").strip()  # such as postgresql://user:password@host/database
    pool = ConnectionPool(url, min_size=1, max_size=8, kwargs={"row_factory": dict_row}, open=True)
    pool.wait(PATIENCE)
    with pool.connection() as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS notes (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL)"
        )


def shutdown(context):
    pool.close()


def ready():
    """Not ready, and so without calls, while the database cannot be reached."""
    with pool.connection(timeout=1) as connection:
        return connection.execute("SELECT 1").fetchone()


def handle(event, context):
    with pool.connection(timeout=5) as connection:  # commits at the end, and rolls back when it fails
        if event.method != "POST":
            return connection.execute("SELECT id, text FROM notes ORDER BY id").fetchall()
        if not event.text:
            raise HTTPError(400, {"error": "the body is the note's text"})
        return connection.execute(
            "INSERT INTO notes (text) VALUES (%s) RETURNING id, text", (event.text,)
        ).fetchone(), 201
