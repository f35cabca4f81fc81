#!/bin/sh
# First process on the disk: at the first boot it lets dpkg configure what was only unpacked, then and ever after the
# real init takes over.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive LC_ALL=C
mount -o remount,rw /
if [ ! -e /var/lib/dpkg/first-boot-done ]; then
    echo "workbench: dpkg configures the packages"
    [ -e /usr/bin/awk ] || ln -s mawk /usr/bin/awk
    dpkg --configure -a && touch /var/lib/dpkg/first-boot-done
    echo "workbench: dpkg ended with $?"
fi
exec /sbin/init "$@"
