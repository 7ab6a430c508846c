# A relay and two NATs on one network, and a node behind each NAT; all of it in namespaces that end with this script.
# Its arguments are a program to run as relay, target and initiator, and what goes in front of the role.
set -eu
mount -t tmpfs tmpfs /run
ip link set lo up
ip link add net type bridge
ip link set net up

public() { # name address
  ip netns add "$1"
  ip -n "$1" link set lo up
  ip link add "$1" type veth peer name eth0 netns "$1"
  ip link set "$1" master net up
  ip -n "$1" address add "$2/24" dev eth0
  ip -n "$1" link set eth0 up
}

behind() { # router name network
  ip netns add "$2"
  ip -n "$2" link set lo up
  ip -n "$1" link add home type veth peer name eth0 netns "$2"
  ip -n "$1" address add "$3.1/24" dev home
  ip -n "$1" link set home up
  ip -n "$2" address add "$3.2/24" dev eth0
  ip -n "$2" link set eth0 up
  ip -n "$2" route add default via "$3.1"
  ip netns exec "$1" sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
  ip netns exec "$1" nft -f - <<'RULES'
table ip nat {
  chain out { type nat hook postrouting priority 100; oifname "eth0" masquerade; }
}
table ip guard {
  chain in { type filter hook input priority 0; iifname "eth0" ct state new drop; }
  chain through { type filter hook forward priority 0; iifname "eth0" ct state new drop; }
}
RULES
}

public relay 203.0.113.1
public east 203.0.113.2
public west 203.0.113.3
behind east target 192.168.11
behind west initiator 192.168.12
echo ready
for role in relay target; do
  KITH_TEST_NAT=$role ip netns exec "$role" "$@" > /dev/null &
done
KITH_TEST_NAT=initiator ip netns exec initiator "$@"
