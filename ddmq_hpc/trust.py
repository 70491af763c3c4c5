"""Whose commands run: a worker runs text from a directory, so nobody else may have been able to write there.

The rules are those of ssh for its keys, see docs/security.md: directories, settings and packs must belong to this user,
to root or to somebody who is trusted by name, and nobody else may be able to write them. In a sticky directory such as
/tmp that holds for what is in it. A group is harmless when all its members are trusted, as a user's private group is.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from stat import S_ISDIR, S_ISLNK, S_ISREG, S_ISVTX, S_IWGRP, S_IWOTH
from typing import Any

from ddmq_hpc import settings as _settings
from ddmq_hpc.errors import LeaseLost, SettingsError, Untrusted, UsageError
from ddmq_hpc.fs import GONE
from ddmq_hpc.identity import group_id, group_name, user_id, user_name
from ddmq_hpc.messages import Message
from ddmq_hpc.names import DIRECTORIES, SETTINGS
from ddmq_hpc.party import Party, unmapped_user, writers
from ddmq_hpc.queue import Queue
from ddmq_hpc.settings import Settings
from ddmq_hpc.sharing import is_shared

_MOST_LINKS = 40
#: Packs that are remembered to be good.
_MOST_PACKS = 4096


class Trust:
    """Judges one queue for the user who runs this. `users` are names, or ids, of others to trust.

    With `shell` messages are command lines themselves: then no group is trusted, and packs of root are not run either.
    Raises `UsageError` for users that this host does not know.
    """

    def __init__(self, queue: Queue, shell: bool = False, users: Iterable[str] = ()) -> None:
        self._queue = queue
        self._shell = shell
        self._named = frozenset({os.geteuid(), *map(user_id, users)})
        self._party: Party | None = None
        self._closed = False  # nobody else can enter the queue's directory, whatever the modes of what is in it
        self._good: set[str] = set()

    def check_place(self) -> None:
        """Root, queue and all that leads there. Raises `Untrusted`, `SettingsError`, `StorageError`."""
        try:
            self._check_place()
        except OSError as error:
            raise self._queue.trouble(error, f"look who can write to queue {self._queue.name!r}") from error

    def check_pack(self, message: Message) -> None:
        """The file that a leased message came in. Raises `Untrusted`, and `LeaseLost` when it is held no more.

        By its inode: a lease or a hard link changes nothing about whose it is. Threads may share this.
        """
        pack = message.id.rpartition(".")[0]
        if pack in self._good:
            return
        if self._party is None:
            self.check_place()
        if self._is_signed(message.settings):
            return  # or it would not have been taken: who has the key may, whosever file it is in
        try:
            self._check_pack(message)
        except OSError as error:
            if error.errno in GONE:
                raise LeaseLost([message.id]) from None
            raise self._queue.trouble(error, f"look whose message {message.id} is") from error
        if len(self._good) >= _MOST_PACKS:
            self._good.clear()
        self._good.add(pack)

    def check_file(self, path: str) -> None:
        """The file of messages that wait, where it stands; nothing when it is gone. Raises `Untrusted`,
        `StorageError`."""
        if self._party is None:
            self.check_place()
        try:
            if self._party is not None and not self._is_signed(self._queue.settings):
                self._check_messages(self._party, path, self._queue.fs.lstat(path))
        except OSError as error:
            if error.errno not in GONE:
                raise self._queue.trouble(error, f"look whose messages {path} has") from error

    def _is_signed(self, settings: Settings) -> bool:
        """Whether nothing is taken but what was signed, and messages are no command lines themselves."""
        return settings.sign is not None and not self._shell

    # -- places

    def _check_place(self) -> None:
        paths, fs = self._queue.paths, self._queue.fs
        found = fs.lstat(paths.top)
        # With an access control list the group's bits are the most that it permits to anybody.
        self._closed = S_ISDIR(found.st_mode) and not found.st_mode & 0o011
        self._party = party = self._trusted(found)
        self._check_parents(party, os.path.dirname(paths.root))
        self._check_directory(party, paths.root, sticky=True)
        self._check_file(party, f"{paths.root}/{SETTINGS}")
        self._check_directory(party, paths.top)
        for name in DIRECTORIES:
            self._check_directory(party, f"{paths.top}/{name}", closed=self._closed)
        self._check_file(party, paths.settings, self._closed)

    def _check_parents(self, party: Party, path: str) -> None:
        """Every directory on the way to `path`, by every symbolic link on it: whoever can write to one of them can lead
        the way elsewhere. `path` may have `..` and links."""
        at, left, links = "/", path.split("/"), 0
        self._check_directory(party, at, sticky=True, parent=True)
        while left:
            name = left.pop(0)
            if name in ("", "."):
                continue
            if name == "..":
                at = os.path.dirname(at)
                continue
            here = os.path.join(at, name)
            found = self._queue.fs.lstat(here)
            if not S_ISLNK(found.st_mode):
                self._check_directory(party, here, sticky=True, parent=True)
                at = here
                continue
            self._check_owner(party, here, found, parent=True)
            links += 1
            if links > _MOST_LINKS:
                raise Untrusted(path, "has too many symbolic links in it", "give the directory itself")
            target = os.readlink(here)
            if target.startswith("/"):
                at = "/"
            left = target.split("/") + left

    def _check_directory(
        self, party: Party, path: str, sticky: bool = False, closed: bool = False, parent: bool = False
    ) -> None:
        found = self._queue.fs.lstat(path)
        if S_ISLNK(found.st_mode):
            raise Untrusted(path, "is a symbolic link", f"give the directory itself, {os.path.realpath(path)}")
        if not S_ISDIR(found.st_mode):
            raise Untrusted(path, "is no directory", "move it away")
        self._check_owner(party, path, found, parent)
        if not closed and not (sticky and found.st_mode & S_ISVTX):
            self._check_writers(party, path, found)

    def _check_file(self, party: Party, path: str, closed: bool = False) -> None:
        try:
            found = self._queue.fs.lstat(path)
        except OSError as error:
            if error.errno in GONE:
                return
            raise
        self._check_stat(party, path, found, closed)

    def _check_stat(self, party: Party, path: str, found: os.stat_result, closed: bool) -> None:
        if not S_ISREG(found.st_mode):
            raise Untrusted(path, "is no regular file", "move it away")
        self._check_owner(party, path, found)
        if not closed:
            self._check_writers(party, path, found)

    def _check_pack(self, message: Message) -> None:
        held = message.held
        if held is None or self._party is None:
            raise LeaseLost([message.id])
        with held.lock:  # a heartbeat renames
            lease = held.run_of(message.index)
            if lease is None:
                raise LeaseLost([message.id])
            path = self._queue.paths.in_leased(lease)
            found = self._queue.fs.lstat(path)
        self._check_messages(self._party, path, found)

    def _check_messages(self, party: Party, path: str, found: os.stat_result) -> None:
        if self._shell and found.st_uid not in party.named:
            raise self._belongs(path, found.st_uid)
        self._check_stat(party, path, found, self._closed)

    # -- one file

    def _check_owner(self, party: Party, path: str, found: os.stat_result, parent: bool = False) -> None:
        if party.has(found.st_uid) or (parent and found.st_uid == unmapped_user()):
            return
        raise self._belongs(path, found.st_uid)

    def _belongs(self, path: str, uid: int) -> Untrusted:
        name = user_name(uid)
        trust = f"to run commands of {name} say --trust {name}{self._setting(f'trusted_users: [{name}]')}"
        return Untrusted(path, f"belongs to user {name}", trust)

    def _check_writers(self, party: Party, path: str, found: os.stat_result) -> None:
        quoted = shlex.quote(path)
        if found.st_mode & S_IWOTH:
            raise Untrusted(path, "can be written by everybody", f"chmod o-w {quoted}", f"chmod o-w {quoted}")
        if not found.st_mode & S_IWGRP:
            return
        users, groups = writers(self._queue.fs.acl(path), found.st_gid)
        for gid in groups:
            if not party.covers(gid):
                raise self._written_by_group(path, gid)
        for uid in users:
            if not party.has(uid):
                name = user_name(uid)
                close = f"setfacl -x u:{name} {quoted}"
                trust = self._setting(f"trusted_users: [{name}]")
                raise Untrusted(path, f"can be written by user {name}", f"{close}{trust}", close)

    def _written_by_group(self, path: str, gid: int) -> Untrusted:
        name, close = group_name(gid), f"chmod g-w {shlex.quote(path)}"
        why = f"can be written by group {name}"
        queue = self._queue.fs.lstat(self._queue.paths.top)
        if is_shared(queue.st_mode) and queue.st_uid not in self._named and not self._shell:
            owner = user_name(queue.st_uid)
            return Untrusted(
                path, why, f"to run commands of that group say --trust {owner}, who shares the queue with it"
            )
        trust = ", --shell trusts no group" if self._shell else self._setting(f"trusted_group: {name}")
        return Untrusted(path, why, f"{close}{trust}", close)

    def _setting(self, line: str) -> str:
        """The end of an advice: what may be written into a file that counts, if this user can."""
        path = self._queue.paths.settings
        return f", or write `{line}` into {path}" if self._is_own(path) else ""

    def _is_own(self, path: str) -> bool:
        try:
            return self._queue.fs.lstat(path).st_uid == os.geteuid()
        except OSError:
            return False

    # -- whom to trust

    def _trusted(self, queue: os.stat_result) -> Party:
        """From the command line, and from the settings if they are to be believed: the queue's before the root's. Else
        the group with which somebody who is named shares the `queue`: only its owner can have set that mode."""
        paths = self._queue.paths
        values = {**self._names_in(f"{paths.root}/{SETTINGS}", False), **self._names_in(paths.settings, self._closed)}
        named = self._named.union(map(user_id, values.get("trusted_users", ())))
        group = values.get("trusted_group")
        if self._shell:
            return Party(named, None)
        if group is not None:
            return Party(named, group_id(group))
        is_said = is_shared(queue.st_mode) and queue.st_uid in named | {0}
        return Party(named, queue.st_gid if is_said else None)

    def _names_in(self, path: str, closed: bool) -> dict[str, Any]:
        """Whom a settings file names. One that somebody else could have written must name nobody."""
        try:
            found, data = self._queue.fs.read_some(path, _settings.MOST_BYTES)
        except OSError as error:
            if error.errno in GONE:
                return {}
            raise
        text = data.decode("utf-8", "replace")
        values = {}
        for key, value in _settings.parse(text, path).items():
            if key in ("trusted_users", "trusted_group") and value not in (None, []):
                try:
                    values[key] = _settings.FIELDS[key].metadata["check"](value)
                    (_user_ids if key == "trusted_users" else group_id)(values[key])
                except UsageError as error:
                    raise SettingsError(path, f"{key}: {error}") from None
        if values:
            if found.st_nlink != 1:  # a link to settings of another queue trusts for this one whom those trust
                raise Untrusted(path, "names whom to trust but has several hard links", "write it anew")
            self._check_stat(Party(self._named, None), path, found, closed)
        return values


def _user_ids(names: Iterable[str]) -> list[int]:
    return list(map(user_id, names))
