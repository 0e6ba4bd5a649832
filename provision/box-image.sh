#!/bin/sh
# Makes a Debian tree with packages.txt, box-packages.txt and image-packages.txt a Vagrant box that
# needs no registry: it boots by itself, has a network, and lets Vagrant in. `vagrant up` then does
# in it what it does in any other box (box.sh).
#
#   box-image.sh PUBLIC_KEY   runs as root inside the tree (a chroot)
set -eu

public_key=$1

let_vagrant_in() {
    useradd --create-home --shell /bin/bash vagrant
    install -d -m 700 -o vagrant -g vagrant /home/vagrant/.ssh
    install -m 600 -o vagrant -g vagrant "$public_key" /home/vagrant/.ssh/authorized_keys
    echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/vagrant
    chmod 440 /etc/sudoers.d/vagrant
    visudo -c -q
    echo 'UseDNS no' >/etc/ssh/sshd_config.d/vagrant.conf # what looks a name up may wait for it
}

join_network() {
    echo ebpflab >/etc/hostname
    printf '127.0.0.1 localhost\n127.0.1.1 ebpflab\n' >/etc/hosts
    printf '[Match]\nName=e*\n\n[Network]\nDHCP=yes\n' >/etc/systemd/network/20-wired.network
    systemctl enable systemd-networkd.service systemd-resolved.service ssh.service
    ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
}

boot_by_itself() {
    echo 'LABEL=ebpflab / ext4 noatime 0 1' >/etc/fstab
    # /vmlinuz and /initrd.img are links that Debian keeps at the newest kernel, so the boot
    # loader has nothing to be told when there is another.
    if [ ! -e /vmlinuz ] || [ ! -e /initrd.img ]; then
        echo "ebpflab: error: the kernel's package made no links /vmlinuz and /initrd.img" >&2
        exit 1
    fi
    cat >/tmp/grub.cfg <<'CONFIG'
set root=(hd0,msdos1)
linux /vmlinuz root=LABEL=ebpflab ro quiet console=tty0 console=ttyS0
initrd /initrd.img
boot
CONFIG
    mkdir -p /boot/ebpflab
    grub-mkimage --format=i386-pc --prefix='(hd0,msdos1)/boot/grub' --config=/tmp/grub.cfg \
        --output=/boot/ebpflab/core.img biosdisk part_msdos ext2 linux
    cp /usr/lib/grub/i386-pc/boot.img /boot/ebpflab/boot.img
    rm /tmp/grub.cfg
}

let_vagrant_in
join_network
boot_by_itself
