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
# Which packages the archive has now, of each suite: address of its folder, path of the index there, and the index's digest, which the
# suite's signed release file says. A later build asks whether that has changed.
apt-get indextargets --format '$(BASE_URI) $(METAKEY) $(FILENAME)' 'Created-By: Packages' | sort | while read -r suite index file; do
    release=${file%%_"$(echo "$index" | tr / _)"*}_InRelease
    awk -v suite="$suite" -v index_path="$index" \
        'length($1) == 64 && $3 == index_path { print suite, index_path, $1; found = 1 } END { exit !found }' "$release"
done > "$parts/archive"
[ -s "$parts/archive" ] || { echo "apt does not say which archive it installs from" >&2; exit 1; }
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
# A server that runs containers has no use for these: no person sits at it; its disks are those that the initrd has drivers for (below), and
# hold btrfs and FAT; nothing here mounts or exports anything else. Those among them that udev would load for some device cost time at
# each boot. An entry stands for all paths that begin with it. What something that stays depends on stays, too: drivers of network
# cards need some that look as if nobody did.
unused="sound arch/x86/kvm virt/kvm samples lib/test_
    drivers/gpu drivers/media drivers/iio drivers/staging drivers/comedi drivers/accel drivers/accessibility drivers/android
    drivers/atm drivers/bcma drivers/bluetooth drivers/bus/mhi drivers/extcon drivers/firewire drivers/gnss drivers/greybus
    drivers/hwtracing drivers/infiniband drivers/isdn drivers/leds drivers/macintosh drivers/memstick drivers/most drivers/mtd
    drivers/nfc drivers/parport drivers/pcmcia drivers/platform/chrome drivers/platform/surface drivers/platform/x86
    drivers/power/supply drivers/soundwire drivers/ssb drivers/thunderbolt drivers/ufs drivers/video drivers/w1
    drivers/char/agp drivers/char/applicom drivers/char/lp drivers/char/mwave drivers/char/ppdev drivers/char/tlclk
    drivers/input/joystick drivers/input/misc drivers/input/mouse drivers/input/tablet drivers/input/touchscreen
    drivers/usb/atm drivers/usb/chipidea drivers/usb/dwc drivers/usb/gadget drivers/usb/image drivers/usb/misc drivers/usb/musb
    drivers/usb/serial drivers/usb/typec drivers/usb/usbip
    drivers/ata/pata_ drivers/ata/sata_ drivers/block/aoe drivers/block/drbd drivers/block/floppy drivers/block/mtip32xx
    drivers/block/null_blk drivers/block/rbd drivers/md/bcache drivers/md/dm-vdo drivers/message drivers/nvme/target
    drivers/scsi/aic7xxx drivers/scsi/aic94xx drivers/scsi/arcmsr drivers/scsi/be2iscsi drivers/scsi/bfa drivers/scsi/bnx2fc
    drivers/scsi/bnx2i drivers/scsi/csiostor drivers/scsi/cxgbi drivers/scsi/elx drivers/scsi/esas2r drivers/scsi/fcoe
    drivers/scsi/fnic drivers/scsi/isci drivers/scsi/libfc drivers/scsi/lpfc drivers/scsi/mvsas drivers/scsi/pm8001
    drivers/scsi/qedf drivers/scsi/qedi drivers/scsi/qla2xxx drivers/scsi/qla4xxx drivers/scsi/snic drivers/scsi/sym53c8xx_2
    drivers/target
    drivers/net/arcnet drivers/net/can drivers/net/fddi drivers/net/fjes drivers/net/hamradio drivers/net/hippi
    drivers/net/ieee802154 drivers/net/thunderbolt drivers/net/usb drivers/net/wan drivers/net/wireless drivers/net/wwan
    drivers/net/ethernet/marvell/prestera drivers/net/ethernet/mellanox/mlxsw
    net/6lowpan net/9p net/appletalk net/atm net/ax25 net/batman-adv net/bluetooth net/can net/ceph net/dccp net/ieee802154
    net/mac80211 net/mac802154 net/netrom net/nfc net/openvswitch net/rds net/rose net/rxrpc net/smc net/sunrpc net/tipc
    net/wireless
    fs/9p fs/adfs fs/affs fs/afs fs/bcachefs fs/befs fs/bfs fs/cachefiles fs/ceph fs/coda fs/dlm fs/ecryptfs fs/efs fs/exfat
    fs/f2fs fs/freevxfs fs/gfs2 fs/hfs fs/hpfs fs/jffs2 fs/jfs fs/lockd fs/minix fs/netfs fs/nfs fs/nilfs2 fs/nls/mac-
    fs/nls/nls_cp9 fs/ntfs3 fs/ocfs2 fs/omfs fs/orangefs fs/qnx fs/reiserfs fs/romfs fs/smb fs/sysv fs/ubifs fs/udf fs/ufs
    fs/xfs"
modules=$root/usr/lib/modules/$kernel
chroot "$root" depmod "$kernel"
awk -v unused="$unused" '
    BEGIN { count = split(unused, prefixes) }
    {
        module = substr($1, 1, length($1) - 1)
        stays = 1
        for (i = 1; i <= count; i++) if (index(module, "kernel/" prefixes[i]) == 1) stays = 0
        if (!stays) { useless[module] = 1; next }
        for (i = 2; i <= NF; i++) needed[$i] = 1
    }
    END { for (module in useless) if (!(module in needed)) print module }
' "$modules/modules.dep" | (cd "$modules" && xargs rm)
find "$modules/kernel" -type d -empty -delete
# They stay compressed, as they come: a quarter of the size, for a machine that loads some twenty of them. Another kernel has other
# modules, byte for byte, so two versions of the image would share no blocks of them either way.
chroot "$root" depmod "$kernel"

# What the initrd must have to find, check and mount the root, uncompressed: it is compressed as a whole. A line says when modules are
# loaded, `always` or the pattern of a device's modalias, and then which, in the order of loading. Built-in ones drop out by
# themselves.
modules_of() {
    chroot "$root" modprobe -S "$kernel" --show-depends "$1" | sed -n 's/^insmod \([^ ]*\)\.xz.*$/\1/p' | tr '\n' ' '
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
grep -q '^always .*/btrfs\.ko ' "$parts/modules" || { echo "the initrd would have no driver of btrfs" >&2; exit 1; }
cut -d ' ' -f 2- "$parts/modules" | tr ' ' '\n' | sort -u | while read -r module; do
    [ -n "$module" ] || continue
    mkdir -p "$parts/tree$(dirname "$module")"
    xz -dc "$root$module.xz" > "$parts/tree$module"
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
    usr/lib/udev/hwdb.d usr/lib/udev/hwdb.bin usr/lib/mime usr/lib/init usr/lib/kernel usr/games usr/src \
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
    sysinit.target.wants/systemd-pcrmachine* sysinit.target.wants/systemd-pcrfs* sysinit.target.wants/systemd-pcrlock* \
    sysinit.target.wants/systemd-tpm2-setup* sockets.target.wants/systemd-pcr* \
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
# Each container has one end of a pair on the host, which is the daemon's alone: what udev would find out about it, and do for it, is
# work at each start that nobody has a use for. Asking for its driver is worse: it may come before the kernel knows the interface by
# its name, and has the kernel run modprobe for it then (Linux, `net/core/dev_ioctl.c`, `dev_load`).
rules=$root/usr/lib/udev/rules.d
sed -i '/IMPORT{builtin}="net_driver"/s/SUBSYSTEM=="net"/&, KERNEL!="veth*"/' "$rules/50-udev-default.rules"
sed -i '1i SUBSYSTEM=="net", KERNEL=="veth*", GOTO="net_end"' "$rules/75-net-description.rules"
sed -i '1i SUBSYSTEM=="net", KERNEL=="veth*", GOTO="net_setup_link_end"' "$rules/80-net-setup-link.rules"
sed -i '/SUBSYSTEM=="net"/s/KERNEL!="lo"/KERNEL!="lo|veth*"/' "$rules/99-systemd.rules"
for changed in 75-net-description:LABEL=.net_end 80-net-setup-link:LABEL=.net_setup_link_end 99-systemd:lo.veth \
    50-udev-default:net.*veth.*net_driver; do
    grep -q "${changed#*:}" "$rules/${changed%:*}.rules" || { echo "udev has other rules: ${changed%:*}" >&2; exit 1; }
done
cd ../system-generators
rm -f systemd-getty-generator systemd-gpt-auto-generator systemd-hibernate-resume-generator \
    systemd-rc-local-generator systemd-ssh-generator systemd-system-update-generator systemd-sysv-generator \
    systemd-tpm2-generator systemd-fstab-generator systemd-cryptsetup-generator systemd-veritysetup-generator \
    systemd-integritysetup-generator
