#!/bin/sh
# Turns a fresh Debian root into the appliance's: runs outside of it, with its path as the only argument.
# Leaves two trees: the root itself, and /bennu-parts, which the builder takes out before the root is packed.
set -eu
root=$1
parts=$root/bennu-parts
mkdir "$parts"

# --- kernel and boot programs -----------------------------------------------------------------------------
# They are unpacked, not installed: their dependencies are initrd generators that the appliance has no use for.
# Downloading needs apt's view of the target's suites, not of this machine's.
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
mkdir "$root/bennu-debs"
chmod 0755 "$root/bennu-debs"
cd "$root/bennu-debs"
image=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-\)/\1/p' | head -n 1)
apt-get -o APT::Sandbox::User=root download "$image" systemd-boot-efi systemd-ukify
kernel=${image#linux-image-}
# What there is, of which version, and from which source: for the list of all that an image is made of.
listed='${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n'
for package in *.deb; do
    dpkg-deb --show --showformat="$listed" "$package"
done > "$parts/packages"
mkdir kernel
dpkg-deb -x "$image"_*.deb kernel
dpkg-deb -x systemd-boot-efi_*.deb "$parts"
dpkg-deb -x systemd-ukify_*.deb "$parts"
cp "kernel/boot/vmlinuz-$kernel" "$parts/vmlinuz"
echo "$kernel" > "$parts/kernel-release"
mkdir -p "$root/usr/lib/modules"
mv "kernel/usr/lib/modules/$kernel" "$root/usr/lib/modules/$kernel"
cd /
rm -rf "$root/bennu-debs"

# --- kernel modules ---------------------------------------------------------------------------------------
# A server that runs containers has no use for these; they are two thirds of all modules, and those among them that
# udev would load for some device cost time at each boot.
modules=$root/usr/lib/modules/$kernel
for unused in sound arch/x86/kvm virt/kvm lib/test_bpf.ko.xz samples \
    drivers/gpu drivers/media drivers/iio drivers/staging drivers/comedi drivers/accel drivers/bluetooth drivers/isdn \
    drivers/atm drivers/video drivers/nfc drivers/mtd drivers/infiniband drivers/input/mouse drivers/input/joystick \
    drivers/input/tablet drivers/input/touchscreen drivers/input/misc drivers/usb/serial drivers/usb/gadget \
    drivers/usb/misc drivers/usb/atm drivers/net/wireless drivers/net/usb drivers/net/can drivers/net/hamradio \
    drivers/net/ieee802154 drivers/net/wwan drivers/net/arcnet drivers/net/fddi drivers/parport drivers/pcmcia \
    drivers/w1 drivers/leds drivers/ssb drivers/bcma drivers/firewire drivers/macintosh drivers/platform/x86 \
    drivers/platform/chrome drivers/platform/surface drivers/greybus drivers/gnss drivers/most drivers/memstick \
    net/bluetooth net/wireless net/mac80211 net/nfc net/atm net/ax25 net/can net/ieee802154 net/6lowpan net/tipc \
    net/rxrpc net/ceph net/batman-adv net/rose net/netrom net/appletalk net/smc net/rds \
    fs/ocfs2 fs/gfs2 fs/ubifs fs/jffs2 fs/afs fs/bcachefs fs/ceph fs/smb fs/nfsd fs/f2fs fs/jfs fs/nilfs2 fs/hfs \
    fs/hfsplus fs/minix fs/ufs fs/affs fs/befs fs/bfs fs/coda fs/omfs fs/qnx4 fs/qnx6 fs/sysv fs/orangefs fs/dlm \
    fs/reiserfs fs/ntfs3 fs/adfs fs/efs fs/freevxfs fs/hpfs fs/romfs; do
    rm -rf "$modules/kernel/${unused:?}"
done
# Uncompressed, so that two versions of the image share the blocks of what did not change, and loading is quick.
find "$modules" -name '*.ko.xz' -print0 | xargs -0 -r -n 64 xz -d
chroot "$root" depmod "$kernel"

# What the initrd must have to find, check and mount the root. A line says when modules are loaded, `always` or the
# pattern of a device's modalias, and then which, in the order of loading. Built-in ones drop out by themselves.
modules_of() {
    chroot "$root" modprobe -S "$kernel" --show-depends "$1" | sed -n 's/^insmod \([^ ]*\).*$/\1/p' | tr '\n' ' '
}
for needed in crc32c_intel sha256_ssse3 btrfs erofs overlay efivarfs; do
    echo "always $(modules_of "$needed")"
done > "$parts/modules"
# Buses first, since devices on them appear only behind them. Of a driver with many patterns, those are taken that name a
# class of devices or one device, not those for quirks of single products, which carry a range in brackets.
for driver in xhci_pci ehci_pci usb_storage uas ahci ata_piix sd_mod nvme virtio_blk virtio_scsi sdhci_pci mmc_block \
    megaraid_sas mpt3sas smartpqi hpsa aacraid vmw_pvscsi hv_storvsc xen_blkfront; do
    chroot "$root" modinfo -k "$kernel" -F alias "$driver" | grep -v '[[?]' | while read -r pattern; do
        echo "$pattern $(modules_of "$driver")"
    done
done | awk '$2' >> "$parts/modules"
cut -d ' ' -f 2- "$parts/modules" | tr ' ' '\n' | sort -u | while read -r module; do
    [ -n "$module" ] || continue
    mkdir -p "$parts/tree$(dirname "$module")"
    cp "$root$module" "$parts/tree$module"
done

# --- what an appliance does not have ----------------------------------------------------------------------
cd "$root"
mkdir -p usr/share/bennu state
chroot . dpkg-query --show --showformat="$listed" >> "$parts/packages"
rm -rf var/lib/dpkg var/lib/apt var/lib/pam var/lib/ucf var/cache/* var/log/* var/backups/* \
    etc/dpkg etc/rc*.d etc/init.d etc/cron.* etc/logrotate.d etc/update-motd.d etc/kernel \
    etc/debconf.conf etc/skel etc/ssh etc/xdg/autostart etc/machine-id.* \
    etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/.pwd.lock etc/.resolv.conf* \
    etc/fstab etc/motd etc/issue etc/issue.net etc/hostname etc/hosts etc/os-release usr/lib/os-release \
    usr/share/doc usr/share/doc-base usr/share/info usr/share/man usr/share/locale usr/share/lintian \
    usr/share/bug usr/share/menu usr/share/pixmaps usr/share/dpkg usr/share/debconf usr/share/perl5 \
    usr/share/bash-completion usr/share/fish usr/share/zsh usr/share/common-licenses usr/share/initramfs-tools \
    usr/share/ca-certificates usr/lib/x86_64-linux-gnu/perl-base usr/lib/x86_64-linux-gnu/gconv \
    usr/lib/udev/hwdb.d usr/lib/udev/hwdb.bin usr/lib/podman/netavark-dhcp-proxy-client usr/lib/mime usr/lib/init usr/lib/kernel usr/games usr/src \
    usr/lib/systemd/boot usr/lib/kernel
rm -f usr/bin/perl* usr/bin/dpkg* usr/bin/deb* usr/bin/apt* usr/sbin/dpkg* usr/sbin/debconf* usr/bin/ucf* \
    usr/bin/update-alternatives usr/sbin/update-rc.d usr/sbin/invoke-rc.d usr/lib/x86_64-linux-gnu/*.a \
    usr/sbin/pam-auth-update usr/sbin/update-ca-certificates
# One file here is mmdebstrap's own, which it takes away itself.
find etc/apt -type f ! -name 00mmdebstrap -delete
# A machine gets its own; an empty file tells systemd to make one.
: > etc/machine-id
# Programs read the one file of all authorities; the links point to what is gone.
find etc/ssl/certs etc/alternatives -xtype l -delete
# Nobody logs in.
sed -i 's/^root:[^:]*:/root:!*:/' etc/shadow

# Units of a general-purpose system that have nothing to do here. Removed rather than masked: a mask in the image
# could not be told from one that an operator needs.
cd usr/lib/systemd/system
rm -f dpkg-db-backup.* fstrim.timer sysinit.target.wants/systemd-hwdb-update.service \
    sysinit.target.wants/ldconfig.service sysinit.target.wants/systemd-update-done.service \
    sysinit.target.wants/systemd-journal-catalog-update.service sysinit.target.wants/systemd-firstboot.service \
    sysinit.target.wants/systemd-pcr* sysinit.target.wants/systemd-tpm2-setup* \
    sysinit.target.wants/systemd-ask-password-console.path sysinit.target.wants/systemd-hibernate-clear.service \
    sysinit.target.wants/systemd-machine-id-commit.service sysinit.target.wants/sys-kernel-tracing.mount \
    sysinit.target.wants/sys-kernel-debug.mount sysinit.target.wants/proc-sys-fs-binfmt_misc.automount \
    sysinit.target.wants/cryptsetup.target sysinit.target.wants/veritysetup.target \
    sysinit.target.wants/integritysetup.target sysinit.target.wants/systemd-binfmt.service \
    sysinit.target.wants/systemd-random-seed.service sysinit.target.wants/systemd-boot-random-seed.service \
    sysinit.target.wants/dev-hugepages.mount \
    multi-user.target.wants/getty.target multi-user.target.wants/systemd-ask-password-wall.path \
    multi-user.target.wants/systemd-user-sessions.service multi-user.target.wants/systemd-logind.service \
    timers.target.wants/systemd-tmpfiles-clean.timer getty.target.wants/*
rm -rf "$root/etc/systemd/system"/*
rm -f dbus-org.freedesktop.login1.service
ln -sf multi-user.target default.target
rm -f "$root"/usr/lib/systemd/network/80-* "$root"/etc/resolv.conf
cd ../system-generators
rm -f systemd-getty-generator systemd-gpt-auto-generator systemd-hibernate-resume-generator \
    systemd-rc-local-generator systemd-ssh-generator systemd-system-update-generator systemd-sysv-generator \
    systemd-tpm2-generator systemd-fstab-generator systemd-cryptsetup-generator systemd-veritysetup-generator \
    systemd-integritysetup-generator
