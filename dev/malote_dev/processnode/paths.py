"""Mount paths in a pod's command, arguments and variables, rewritten to the local folders behind them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path


def rewriter(mounts: Mapping[str, Path], folders: Mapping[str, Path] | None = None) -> Callable[[str], str]:
    """A function that replaces each mount path (or path below one) in a text by its local folder.

    A mount path counts only as a whole: with ``/etc/malote`` mounted, ``--config=/etc/malote``, ``/etc/malote/x``
    and ``file:///etc/malote`` change, ``/etc/malote-old`` and ``/opt/etc/malote`` do not. Of nested mounts the
    longest wins. Of the *folders* that only enclose mounts the path itself changes, but not what else lies below it.
    """
    mounted = {path.rstrip("/"): str(folder) for path, folder in mounts.items() if path.rstrip("/")}
    exact = {path: str(folder) for path, folder in (folders or {}).items() if path not in mounted}
    local = exact | mounted
    if not local:
        return lambda text: text
    alternatives = (
        re.escape(path) + (r"(?![\w.-])" if path in mounted else r"(?!/?[\w.-])")
        for path in sorted(local, key=len, reverse=True)
    )
    whole = re.compile(rf"(?:(?<=://)|(?<![\w./-]))(?:{'|'.join(alternatives)})")
    return lambda text: whole.sub(lambda found: local[found.group()], text)


def enclosing(mounts: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
    """For the folder that each mount lies in: what is mounted in it, by name.

    A program may be given ``/etc/malote`` where only ``/etc/malote/config`` and ``/etc/malote/keys`` are mounts.
    Top-level folders (``/etc``) are the machine's own and left out, and so are folders that are mounts themselves.
    """
    folders: dict[str, dict[str, Path]] = {}
    for path, local in mounts.items():
        above, _, name = path.rstrip("/").rpartition("/")
        if above.count("/") >= 2 and above not in mounts:
            folders.setdefault(above, {})[name] = local
    return folders
