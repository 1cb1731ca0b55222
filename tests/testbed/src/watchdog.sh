# Outlives the testbed's owner, however that one dies, and cleans up after it.
# $1: where the testbed's directory is made; $2: not empty if the directory is to be kept.
# stdout: the directory's path, once. stdin: "watch GROUP" and "forget GROUP" lines about process groups,
# "cgroup DIRECTORY" lines about control groups to remove; its end means that the owner is gone.
trap '' HUP INT TERM
directory=$(mktemp -d "$1/tw-XXXXXX") || exit 1
printf '%s\n' "$directory"
exec >/dev/null 2>&1

groups=' ' cgroups=
while read -r verb group; do
    case $verb in
    watch) groups="$groups$group " ;;
    forget)
        case $groups in
        *" $group "*) groups="${groups%%" $group "*} ${groups#*" $group "}" ;;
        esac
        ;;
    cgroup) cgroups="$cgroups$group
" ;;
    esac
done

kill_all() {
    for group in $groups; do kill -s KILL -- "-$group"; done
}

# Whether a process of a watched group still runs; the dead that nobody has waited for do not count.
alive() {
    for file in /proc/[0-9]*/stat; do
        read -r line <"$file" || continue
        # After the name in parentheses: state, parent, process group.
        set -- ${line##*) }
        case $1 in Z | X) continue ;; esac
        case $groups in *" $3 "*) return 0 ;; esac
    done
    return 1
}

keep=$2
kill_all
rounds=0
while alive && [ "$rounds" -lt 500 ]; do
    sleep 0.02
    kill_all
    rounds=$((rounds + 1))
done
# The kernel removes a control group only when it has no process and no group below it.
printf '%s' "$cgroups" | while read -r cgroup; do
    rounds=0
    until find "$cgroup" -depth -type d -exec rmdir -- {} + || [ "$rounds" -ge 250 ] || [ ! -d "$cgroup" ]; do
        sleep 0.02
        rounds=$((rounds + 1))
    done
done
[ -z "$keep" ] || exit 0
rounds=0
until rm -rf -- "$directory" || [ "$rounds" -ge 50 ]; do
    sleep 0.02
    rounds=$((rounds + 1))
done
