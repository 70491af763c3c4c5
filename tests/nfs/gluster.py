"""GlusterFS on the guests of a site: its clients stamp files with their own clocks, as those of Lustre and GPFS do."""

from __future__ import annotations

from guests import Site

MOUNT = "/gl"
#: Two replicas, as sites have; both on one host, which `force` allows.
_SERVE = """
modprobe fuse
mkdir -p /var/lib/glusterd /var/log/glusterfs /var/run/gluster /bricks
mount -t ext4 /dev/ubda /bricks
mkdir -p /bricks/1 /bricks/2
glusterd
for try in $(seq 100); do gluster --mode=script volume info >/dev/null 2>&1 && break; sleep 0.2; done
gluster --mode=script volume create v replica 2 bricks:/bricks/1 bricks:/bricks/2 force
gluster --mode=script volume start v
"""
_MOUNT = f"""
modprobe fuse
mkdir -p {MOUNT} /var/log/glusterfs /var/run/gluster
mount -t glusterfs bricks:/v {MOUNT} || {{ tail -5 /var/log/glusterfs/*.log; exit 1; }}
"""


def serve(site: Site) -> None:
    """Start a volume and mount it in the site's clients, now and whenever they boot."""
    site.boot(site.bricks)
    site.bricks.check("bash", "-ec", _SERVE)
    for mounting in [client.start("bash", "-ec", _MOUNT) for client in site.clients]:
        done = mounting.wait()
        assert done.returncode == 0, done.stdout + done.stderr
    site.mounts += _MOUNT
