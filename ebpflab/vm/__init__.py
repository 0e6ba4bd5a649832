"""The guest: a small Debian with a kernel, its headers and BCC, run by QEMU.

provision/ --recipe--> image ------> saved guest ------> Guest ---wire---> agent
             hash      mmdebstrap,   booted once, bcc    resumed from it
                       mke2fs        imported            for each lab

lifecycle.py  what can be done: build, list, remove, start
recipe.py     the files that an image is made from; their hash is its name
image.py      mmdebstrap and mke2fs, as root or not   (logged.py, steps.py: told as it goes)
cache.py      where images live; locks; nothing half-made is ever trusted
accel.py      KVM if a trial boot came up, else TCG
warm.py       boots once, saves the guest, resumes it any number of times
guest.py      a running QEMU and its streams          (qemu.py: its command lines,
                                                       qmp.py: its monitor)
keeper.py     ends what its owner had started when the owner ends   (process.py)
box.py        a Vagrant box from the same recipe
terminal.py   a shell in a guest
"""

from ebpflab.vm.box import build as build_box
from ebpflab.vm.cache import remove
from ebpflab.vm.lifecycle import ImageInfo, build, images, ready, start, unavailable
from ebpflab.vm.terminal import shell

__all__ = [
    "ImageInfo",
    "build",
    "build_box",
    "images",
    "ready",
    "remove",
    "shell",
    "start",
    "unavailable",
]
