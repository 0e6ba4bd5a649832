#!/bin/sh
# Makes a running Debian or Ubuntu box a machine to trace, with JupyterLab on it; the Vagrantfile
# calls it as root. May be run again: what is there is left alone.
#
#   box.sh set-up         packages, labs, headers, the repository in ~/ebpflab, JupyterLab
#   box.sh headers        the running kernel's headers, if they are missing; runs at each boot
#   box.sh address PORT   waits for JupyterLab and prints where it is reached
set -eu
export DEBIAN_FRONTEND=noninteractive

source=/vagrant
user=vagrant
home=/home/$user
token=/etc/ebpflab/jupyter.env # JUPYTER_TOKEN=..., for root and, through systemd, the service

install_packages() {
    apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$@"
}

wanted_packages() {
    # A box keeps the kernel that it came with, so the kernel of packages.txt is left out.
    cat "$source/provision/packages.txt" "$source/provision/box-packages.txt" |
        sed -e 's/#.*//' -e "s/@ARCH@/$(dpkg --print-architecture)/" -e '/^linux-/d'
}

follow_kernel_upgrades() {
    # linux-image-amd64 brings each new kernel; linux-headers-amd64 brings its headers along.
    dpkg-query --show --showformat='${Package} ${db:Status-Status}\n' 'linux-image-*' |
        sed -n 's/^linux-image-\([a-z].*\) installed$/linux-headers-\1/p' |
        while read -r headers; do
            if apt-cache show "$headers" >/dev/null 2>&1; then
                install_packages "$headers" </dev/null
            fi
        done
    # Whatever else is booted (an older kernel, one installed by hand) is seen to at boot.
    install -m 755 "$source/provision/box.sh" /usr/local/sbin/ebpflab-box
    cat >/etc/systemd/system/ebpflab-headers.service <<UNIT
[Unit]
Description=Headers of the running kernel, for BCC
ConditionPathExists=!/lib/modules/%v/build/include
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/ebpflab-box headers

[Install]
WantedBy=multi-user.target
UNIT
    systemctl daemon-reload
    systemctl enable --quiet ebpflab-headers.service
}

match_headers() {
    [ -e "/lib/modules/$(uname -r)/build/include" ] && return
    apt-get update
    install_packages "linux-headers-$(uname -r)" && return
    echo "ebpflab: no headers are packaged for the running kernel $(uname -r); upgrade to one" >&2
    echo "that has them: sudo apt-get dist-upgrade, then: vagrant reload" >&2
    exit 1
}

use_kvm() {
    # Guests of this VM's own, where it is given virtualization; doctor says whether it is.
    usermod --append --groups kvm "$user"
}

copy_repository() {
    # --update keeps what was changed here after it was changed there: a reader's notebooks.
    sudo -u "$user" mkdir -p "$home/ebpflab"
    sudo -u "$user" cp -r --preserve=mode,timestamps,links --update "$source/." "$home/ebpflab/"
    sudo -u "$user" -H make -C "$home/ebpflab" setup
}

start_jupyterlab() {
    if [ ! -e "$token" ]; then
        install -d -m 700 "$(dirname "$token")"
        (umask 077 && echo "JUPYTER_TOKEN=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >"$token")
    fi
    # VirtualBox and QEMU give a guest 10.0.2.15, which nobody reaches but through a forwarded
    # port, and they forward to that address. Elsewhere (libvirt) loopback is forwarded.
    address=127.0.0.1
    case $(ip -4 route show default) in *"via 10.0.2.2 "*) address=10.0.2.15 ;; esac
    cat >/etc/systemd/system/ebpflab-jupyter.service <<UNIT
[Unit]
Description=JupyterLab on the notebooks of ebpflab
After=network-online.target ebpflab-headers.service
Wants=network-online.target

[Service]
User=$user
WorkingDirectory=$home/ebpflab
EnvironmentFile=$token
ExecStart=$home/ebpflab/.venv/bin/jupyter-lab --no-browser --ServerApp.ip=$address \\
    --ServerApp.port=8888 --ServerApp.port_retries=0 --ServerApp.root_dir=$home/ebpflab/notebooks
Restart=on-failure

[Install]
WantedBy=multi-user.target
UNIT
    systemctl daemon-reload
    systemctl enable --quiet ebpflab-jupyter.service
    systemctl restart ebpflab-jupyter.service
}

print_address() {
    tries=150 # two seconds each: an emulated guest takes its time
    until ss --no-header --listening --tcp --numeric 'sport = 8888' | grep -q .; do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ]; then
            echo "ebpflab: JupyterLab does not answer; its words:" >&2
            journalctl --no-pager --lines 20 --unit ebpflab-jupyter.service >&2
            exit 1
        fi
        sleep 2
    done
    . "$token"
    echo "JupyterLab: http://127.0.0.1:$1/lab?token=$JUPYTER_TOKEN"
}

case ${1:-} in
set-up)
    apt-get update
    install_packages $(wanted_packages)
    match_headers
    follow_kernel_upgrades
    sh "$source/provision/customize.sh" "$source" box
    use_kvm
    copy_repository
    start_jupyterlab
    ;;
headers) match_headers ;;
address) print_address "$2" ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
