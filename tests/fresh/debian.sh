#!/bin/sh
# README's commands on a fresh Debian 12, by an ordinary user with sudo: a base tree, and in it
# nothing but what README asks for (git, python3, make) and sudo. Run it as root from anywhere;
# it takes as long as its commands, and leaves nothing behind.
#
#   debian.sh           both commands
#   debian.sh lab       `make lab`, until JupyterLab answers
#   debian.sh test      `make test`
#
# The tree is a machine's but for the kernel and the numbers of processes, which are this one's: a
# kernel tells its probes no other numbers. It is entered by pivot_root: in a chroot, no user may
# make the namespaces that the guest is built in.
set -eu

repository=$(cd "$(dirname "$0")/../.." && pwd)
goals=${*:-lab test}
tree=$(mktemp -d --tmpdir="${TMPDIR:-/var/tmp}" fresh-debian.XXXXXX)
trap 'rm -rf --one-file-system "$tree"' EXIT

chmod 755 "$tree"
mmdebstrap --variant=minbase --include=git,python3,make,sudo,ca-certificates bookworm "$tree"
cp -L /etc/resolv.conf "$tree/etc/resolv.conf"
# Where a machine trusts more authorities than Debian does (a proxy's), so must a fresh one behind it.
cp -L /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/of-the-host.crt"
printf '[global]\ncert = /etc/ssl/certs/of-the-host.crt\n' >"$tree/etc/pip.conf"
git clone --quiet "$repository" "$tree/opt/ebpflab"

cat >"$tree/opt/inside.sh" <<'INSIDE'
set -eu
useradd --create-home --shell /bin/bash learner
echo 'learner ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/learner
mv /opt/ebpflab /home/learner/ebpflab
chown -R learner:learner /home/learner

lab() {
    # In a session of its own: sudo passes no signal on that comes from its command's own group.
    setsid sudo -u learner -H sh -c 'cd ~/ebpflab && exec make lab' >/tmp/lab.log 2>&1 &
    trap 'kill $!' EXIT
    until grep -q 'token=' /tmp/lab.log; do
        kill -0 $! 2>/dev/null || { cat /tmp/lab.log; exit 1; }
        sleep 1
    done
    cat /tmp/lab.log
    address=$(grep -o 'http://127[^ ]*token=[0-9a-f]*' /tmp/lab.log | head -n 1)
    python3 -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).status)' "$address"
    trap - EXIT
    kill $! && wait $! || true # what ends by a signal says so
}

for goal in "$@"; do
    echo "== make $goal, as $(sudo -u learner id -un)"
    started=$(date +%s)
    case $goal in lab) lab ;; *) sudo -u learner -H make -C /home/learner/ebpflab "$goal" ;; esac
    echo "== make $goal: $(($(date +%s) - started)) s"
done
INSIDE

unshare --mount sh -euc '
    tree=$1
    shift
    mount --bind "$tree" "$tree"
    for name in dev sys; do mount --rbind "/$name" "$tree/$name"; done
    mount -t proc proc "$tree/proc"
    mount -t tmpfs -o mode=1777 tmp "$tree/tmp"
    cd "$tree"
    pivot_root . mnt
    umount -l /mnt
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 sh /opt/inside.sh "$@"
' sh "$tree" $goals
