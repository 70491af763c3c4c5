"""Every name and path of the on-disk layout, in one place. Pure: nothing here touches a file system.

    ROOT/ddmq-checkup.json                           what was found about the file system when the root was made
    ROOT/ddmq.yaml                                   global settings, layout version
    ROOT/QUEUE/ddmq.yaml                             queue settings
    ROOT/QUEUE/ready/<priority>/<bucket>/<entry>     may be taken
    ROOT/QUEUE/leased/<priority>.<entry>~<deadline>+<duration>@<owner>[!split]
    ROOT/QUEUE/delayed/<window>/<due>.<priority>.<entry>
    ROOT/QUEUE/delayed/after.<group>[+<group>...]/<due>.<priority>.<entry>
    ROOT/QUEUE/dead/<priority>.<entry>~<reason>      dead letters
    ROOT/QUEUE/{tmp,damaged,keys,journal,workers,locks}/
    ROOT/QUEUE/reports/<who waits>/<message id>.<exit code>
    ROOT/QUEUE/groups/<group>/<pack>                 a link to each pack of a group that is not finished
    ROOT/QUEUE/groups/<group>/open.<token>           somebody publishes to it
    ROOT/QUEUE/done/<window>/<ended>.<priority>.<entry>
    ROOT/QUEUE/drop/<due>.<priority>.<pack>          published by those who may do nothing else

`entries` has what stands for messages, `paths` the directories and what is where in them, `clients` what clients write
for one another beside messages. All of it is imported from here; `clients` is loaded once something of it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddmq_hpc.names.entries import (
    LOSS_LIMIT,
    LOST,
    MAX_PACK,
    MAX_PRIORITY,
    NO_PACK,
    NO_REQUEUE,
    PACK_LENGTH,
    REASONS,
    REJECTED,
    REQUEUE_LIMIT,
    SHORTEST_ID,
    SPLIT,
    TOO_LARGE,
    Dead,
    Delayed,
    Done,
    Dropped,
    Entry,
    Lease,
    any_divided,
    entry_order,
    is_id_or_beginning,
    is_pack,
    is_priority,
    lease_name,
    make_receipt,
    message_id,
    message_range,
    new_entry_name,
    pack_name,
    parse_dead,
    parse_delayed,
    parse_done,
    parse_dropped,
    parse_entry,
    parse_lease,
    parse_leases,
    parse_message_id,
    parse_message_range,
    parse_receipt,
    published_ns,
)
from ddmq_hpc.names.paths import (
    CHECKUP,
    DAMAGED,
    DEAD,
    DELAYED,
    DIRECTORIES,
    DONE,
    DROP,
    GRAVE,
    GROUPS,
    JOURNAL,
    JOURNAL_END,
    KEYS,
    LATER_DIRECTORIES,
    LAYOUT_KEY,
    LEASED,
    LEGACY_WORK,
    LISTED,
    LOCKS,
    LOGS,
    READY,
    REPORTS,
    SETTINGS,
    STANDING,
    STATE,
    STATES,
    TMP,
    WINDOWS,
    WORKERS,
    LockPaths,
    PackedJournal,
    QueuePaths,
    after_directory,
    bucket_at,
    bucket_end_ns,
    bucket_of,
    bucket_start,
    check_group_name,
    check_queue_name,
    delay_window,
    directory_leftover,
    done_window,
    done_window_end_ms,
    group_leftover,
    is_bucket,
    is_delay_directory,
    is_delay_window,
    is_done_window,
    is_group_name,
    is_journal,
    is_leftover,
    is_open_name,
    is_queue_name,
    journal_day,
    journal_name,
    key_name,
    open_name,
    parse_after,
    parse_packed_journal,
    retired_from,
    retired_journal_name,
)

if TYPE_CHECKING:
    from ddmq_hpc.names.clients import (
        HOOK_ARMED,
        LOCK_END,
        Lock,
        Ticket,
        chain_failed_name,
        chain_name,
        evicted_name,
        hook_fired_name,
        is_chain_of,
        is_probe,
        is_report_directory,
        is_worker_id,
        lock_directory,
        lock_name,
        minute_stamp,
        parse_lock,
        parse_report,
        parse_submission,
        parse_ticket,
        parse_worker_file,
        probe_in_tmp,
        probe_name,
        report_directory,
        report_name,
        stamped_minute,
        submission_name,
    )
else:

    def __getattr__(name: str) -> Any:
        import ddmq_hpc.names.clients as clients  # "from" would look for it here first, and so on

        return getattr(clients, name)
