#!/bin/sh
# Turns a Debian tree with the packages of packages.txt into a guest of ebpflab. Where nobody
# has installed them yet (@ARCH@ is what `dpkg --print-architecture` prints):
#
#   sed -e 's/#.*//' -e "s/@ARCH@/amd64/" packages.txt | xargs apt-get install --yes
#
#   customize.sh STAGE            on any machine: the built labs, tracefs, a quiet console
#   customize.sh STAGE appliance  also: boots by itself, fast, into the agent's service
#
# Runs as root inside the tree (a chroot, or a running box). STAGE holds `provision/` and
# `labs/`; a checkout of the repository does. May be run again: it replaces what it made before.
set -eu

stage=$1
kind=${2:-box}
recipe=$stage/provision

build_labs() {
    # A lab is a directory with a Makefile; it is built where it is traced, so that symbols,
    # probes and the libc are the guest's own. There is no network: modules must be vendored.
    rm -rf /opt/ebpflab/labs
    mkdir -p /opt/ebpflab/labs
    # Go's cache stays: in an emulated guest the standard library takes minutes to compile.
    export HOME=/root GOTOOLCHAIN=local GOPROXY=off
    for makefile in "$stage"/labs/*/Makefile; do
        [ -e "$makefile" ] || continue
        lab=$(basename "$(dirname "$makefile")")
        cp -r "$(dirname "$makefile")" /opt/ebpflab/labs/
        echo "ebpflab: building the lab $lab"
        make --always-make -C "/opt/ebpflab/labs/$lab" # STAGE may hold what a host had built
    done
    chmod -R a+rX /opt/ebpflab/labs # whatever the umask that they were copied with
}

mount_tracing() {
    # tracefs appears by itself only once something touches debugfs; tracers expect both.
    for name in sys-kernel-debug.mount sys-kernel-tracing.mount; do
        mkdir -p /etc/systemd/system/sysinit.target.wants
        ln -sf "/usr/lib/systemd/system/$name" "/etc/systemd/system/sysinit.target.wants/$name"
    done
    # Warnings of the kernel stay in dmesg; errors, the OOM killer and panics reach the console.
    mkdir -p /etc/sysctl.d
    echo 'kernel.printk = 4 4 1 7' >/etc/sysctl.d/50-ebpflab.conf
}

take_kernel() {
    # From 7.2 on, Debian's vmlinuz is in /usr/lib/modules/VERSION/ and no longer in /boot.
    kernel=$(ls /lib/modules | sort -V | tail -n 1)
    for vmlinuz in "/boot/vmlinuz-$kernel" "/usr/lib/modules/$kernel/vmlinuz" ""; do
        [ -e "$vmlinuz" ] && break
    done
    if [ ! -e "$vmlinuz" ] || [ ! -e "/boot/initrd.img-$kernel" ]; then
        echo "ebpflab: error: kernel $kernel has no vmlinuz or no initrd" >&2
        exit 1
    fi
    if [ ! -e "/lib/modules/$kernel/build/include" ]; then
        echo "ebpflab: error: the headers of kernel $kernel are not installed, only those of:" \
            "$(cd /usr/src && echo linux-headers-*)" >&2
        exit 1
    fi
    mkdir -p /boot/ebpflab
    mv "$vmlinuz" /boot/ebpflab/vmlinuz
    mv "/boot/initrd.img-$kernel" /boot/ebpflab/initrd
    bcc=$(dpkg-query --show --showformat='${source:Upstream-Version}' python3-bpfcc)
    bcc=${bcc%%+*} # without Debian's mark of a repacked source
    printf '{"kernel": "%s", "bcc": "%s"}\n' "$kernel" "$bcc" >/boot/ebpflab/about.json
}

precompile_headers() {
    # What clang makes of the headers that programs begin with takes seconds to make in an emulated
    # guest, and a tenth of one here.
    install -D -m 644 "$recipe/precompiled.py" /opt/ebpflab/precompiled.py
    python3 /opt/ebpflab/precompiled.py "$kernel" <"$recipe/prefixes.txt"
}

install_agent_service() {
    install -D -m 755 "$recipe/bootstrap.py" /opt/ebpflab/bootstrap.py
    install -D -m 644 "$recipe/ebpflab-agent.service" \
        /etc/systemd/system/ebpflab-agent.service
    # Without the tag systemd has no unit for the port, and nothing starts the service.
    echo 'SUBSYSTEM=="virtio-ports", ATTR{name}=="ebpflab", TAG+="systemd"' \
        >/etc/udev/rules.d/99-ebpflab.rules
    systemctl enable ebpflab-agent.service
}

boot_fast() {
    # A guest lives for one lab, without a network and without a yesterday: nothing that tidies,
    # updates, waits for a link or writes a log is of use, and each costs seconds under TCG.
    echo ebpflab >/etc/hostname
    echo '127.0.0.1 localhost ebpflab' >/etc/hosts
    echo '/dev/vda / ext4 noatime 0 0' >/etc/fstab
    mkdir -p /etc/systemd/journald.conf.d
    printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n' \
        >/etc/systemd/journald.conf.d/ebpflab.conf
    for timer in /usr/lib/systemd/system/*.timer; do
        systemctl mask "$(basename "$timer")"
    done
    systemctl mask getty@tty1.service getty-static.service systemd-networkd.service \
        systemd-networkd.socket systemd-networkd-wait-online.service networking.service \
        systemd-timesyncd.service systemd-random-seed.service systemd-hwdb-update.service \
        systemd-update-utmp.service systemd-pcrlock-make-policy.service \
        systemd-journal-flush.service e2scrub_reap.service systemd-binfmt.service \
        ssh.service ssh.socket
    passwd -d root
    console=$(case $(uname -m) in aarch64) echo ttyAMA0 ;; *) echo ttyS0 ;; esac)
    mkdir -p "/etc/systemd/system/serial-getty@$console.service.d"
    printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear %%I linux\n' \
        >"/etc/systemd/system/serial-getty@$console.service.d/autologin.conf"
    systemctl set-default multi-user.target
}

build_labs
mount_tracing
if [ "$kind" = appliance ]; then
    take_kernel
    precompile_headers
    install_agent_service
    boot_fast
fi
