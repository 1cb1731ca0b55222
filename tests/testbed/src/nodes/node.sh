# Makes a node of the namespaces that it runs in, and becomes the node's first process.
# $1: the node's directory; $2: its name; $3: the program that does nothing but wait for orphans;
# then the hierarchies of control groups.
set -eu
directory=$1 name=$2 pause=$3
shift 3

# Still the machine's /proc, so this is the machine's number for this process.
read -r pid rest </proc/self/stat
printf '%s\n' "$name" >/proc/sys/kernel/hostname
mount -t proc proc /proc

# The kubelet sets these, and they belong to the whole machine: let it find what it wants.
pretend() {
    file=$directory/sysctl.$(basename "$1")
    printf '%s\n' "$2" >"$file"
    mount --bind "$file" "/proc/sys/$1"
}
pretend vm/overcommit_memory 1
pretend kernel/panic 10
pretend kernel/panic_on_oops 1

# Devices and control groups as this node's namespaces have them.
umount -l /sys
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
for hierarchy; do
    case $hierarchy in
    name=*) options=none,$hierarchy ;;
    *) options=$hierarchy ;;
    esac
    mkdir "/sys/fs/cgroup/${hierarchy#name=}"
    mount -t cgroup -o "$options" cgroup "/sys/fs/cgroup/${hierarchy#name=}"
done

# What a node writes is its own, or is nowhere: the rest of the machine's files are read-only.
mkdir -p "$directory/etc" "$directory/etc.work" "$directory/var/cache" "$directory/var/lib" "$directory/var/log" "$directory/var/tmp"
ln -sfn /run "$directory/var/run"
mount --bind "$directory" "$directory"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$directory/etc,workdir=$directory/etc.work" /etc
mount --bind "$directory/var" /var
mount -t tmpfs -o mode=755 tmpfs /run
mount -o remount,bind,ro /
rm -f /etc/resolv.conf
cp "$directory/resolv.conf" "$directory/hosts" /etc
printf '%s\n' "$name" >/etc/hostname
# Containers see what is mounted for them later.
mount --make-rshared /

echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables

printf '%s\n' "$pid" >"$directory/pid.unfinished"
mv "$directory/pid.unfinished" "$directory/pid"
exec "$pause"
