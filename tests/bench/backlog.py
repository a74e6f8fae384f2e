"""A relay with a long queue: what a million messages that wait cost in memory and speed."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from malote_relay.store import schema
from malote_relay.store.layout import Layout

CONTENT = (
    b"From: Bench <bench@sender.example>\r\nTo: <someone@elsewhere.example>\r\nSubject: waits\r\n\r\n"
    + b"It waits for tomorrow.\r\n" * 20
)


def fill(spool: Path, messages: int) -> None:
    """Put messages into a spool that no relay uses: each was deferred once, and is due in one to four hours."""
    layout = Layout(spool)
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = time.time()
    with contextlib.closing(schema.connect(layout.database)) as database:
        schema.migrate(database)
        database.execute("BEGIN")
        database.execute(
            "WITH RECURSIVE n (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < ?1)"
            " INSERT INTO messages (seq, id, account, reverse_path, header_from, header_message_id, size, flags,"
            " received_at, content) SELECT seq, printf('backlog%012d', seq), 'app', 'bench@sender.example',"
            " 'bench@sender.example', '<waits@sender.example>', length(?2), 0, ?3, ?2 FROM n",
            (messages, CONTENT, now),
        )
        database.execute(
            "INSERT INTO recipients (id, address, domain, hour, released_at, next_attempt_at, attempts)"
            " SELECT seq << 16, 'someone@d' || seq % 1000 || '.example', 'd' || seq % 1000 || '.example',"
            " CAST(?1 / 3600 AS INTEGER) - 1, ?1, ?1 + 3600 + seq % 10000, 1 FROM messages",
            (now,),
        )
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
