#!/bin/busybox sh
# First process of the Debian guest: mounts what a shell needs, says that it runs, then does what the kernel
# command line asks for:
#   wb.poweroff      power off at once
#   wb.shell         a shell on the console (the default); power off when it ends
#   wb.modules=A,B   load these modules first, in this order; `all` loads every one in the image
#   wb.root=DEVICE   load every module, and go on with /usr/sbin/first-boot of the file system on this disk
#   wb.sh=COMMAND    run COMMAND, which reaches to the end of the line, then power off
export PATH=/bin HOME=/ TERM=${TERM:-vt100}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

read -r line </proc/cmdline
action=shell
command=
case " $line" in
*" wb.sh="*)
    action=command
    command=${line#*wb.sh=}
    line=${line%%wb.sh=*}
    ;;
esac
modules=
for word in $line; do
    case $word in
    wb.poweroff) action=poweroff ;;
    wb.shell) action=shell ;;
    wb.root=*) action=root root=${word#wb.root=} modules=$(cat /lib/modules/order) ;;
    wb.modules=all) modules=$(cat /lib/modules/order) ;;
    wb.modules=*) modules=$(echo "${word#wb.modules=}" | tr ',-' ' _') ;;
    esac
done
for name in $modules; do
    insmod "/lib/modules/$name.ko" || echo "workbench: cannot load module $name"
done

echo "workbench: init reached, $(uname -s -r -m)"
case $action in
shell) setsid cttyhack sh ;;
command) sh -c "$command" ;;
root)
    mount -t ext4 -o ro "$root" /mnt && for place in proc sys dev; do mount -o move /$place /mnt/$place; done
    exec switch_root /mnt /usr/sbin/first-boot
    ;;
esac
poweroff -f
