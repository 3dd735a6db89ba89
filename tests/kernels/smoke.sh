# The smoke test of one machine: `sh smoke.sh ROOT PYTHON`, as root, best in a machine of its own (run.py).
# A daemon, nginx and curl in both kinds of network, by address and by name, refusal by label, UDP, and
# kill -9 of the daemon.  Prints "ok …" or "FAIL …" for each check; the status is the number of failures.
# With a third word it is the short form: without UDP and the second daemon.
# In sh, and not one of the Python tests: emulation starts a Python in seconds.
root=$1 python=$2 short=$3 ax=$1/.venv/bin/ax failures=0
work=$(mktemp -d) && cd "$work" && chmod 755 . || exit 99
export AX_RUN_DIR=$work/run

seconds() { cut -d. -f1 /proc/uptime; }
check() { # NAME COMMAND…: until it succeeds, at most three minutes (emulation is slow)
    name=$1 end=$(($(seconds) + 180)); shift
    until "$@" >last 2>&1; do
        kill -0 $daemon && [ "$(seconds)" -lt $end ] || { echo "FAIL $name: $*"; cat last; failures=$((failures + 1)); return; }
        sleep 0.2
    done
    echo "ok $name ($(seconds) s)"
}
daemon() {
    "$ax" daemon --node-name host0 >>daemon.log 2>&1 &
    daemon=$!
    check "$1" "$ax" run true # the holder is there, too
    [ $failures = 0 ] || { cat daemon.log; exit 98; }
}
page() { "$ax" run "$@" >page 2>&1 && grep -q "^$want$" page || { cat page; false; }; }
refused() { ! "$ax" run "$@" >page 2>&1 && grep -q "Permission denied" page || { cat page; false; }; }
server() { # NAME: writes the configuration of an nginx that answers with its name, on port 80
    mkdir -p "$1" && echo "$1" >"$1/index.html"
    echo "user root; worker_processes 1; daemon off; pid $work/$1/pid; error_log $work/$1/error.log;
        events {} http { access_log $work/$1/access.log; client_body_temp_path $work/$1/t; proxy_temp_path $work/$1/t;
        fastcgi_temp_path $work/$1/t; uwsgi_temp_path $work/$1/t; scgi_temp_path $work/$1/t;
        server { listen 80; listen [::]:80; location / { root $work/$1; } } }" >"$1/conf"
}
nginx="nginx -e $work/error.log -c"

ip link add br0 type bridge && ip addr add 10.0.2.15/24 dev br0 && ip link set br0 up
daemon "the daemon starts"
number=0
for network in "" --new-netns=false; do
    number=$((number + 1)) web=1.1.1.$number late=1.1.2.$number form=${network:-empty namespace}
    prod="$network --labels role=prod" want=web$number
    server "web$number"; server "late$number"
    # shellcheck disable=SC2086 # words are meant to be split
    {
        "$ax" run $prod --ip $web --name "web$number" $nginx "$work/web$number/conf" &
        check "$form: nginx by address" page $prod --ip 2.2.2.2 curl -sS "http://$web/"
        check "$form: it sees the client's address" grep -q '^2.2.2.2 ' "web$number/access.log"
        check "$form: by name" page $prod curl -sS "http://web$number/"
        check "$form: refused by label" refused $network --labels role=test curl -v "http://$web/"
        [ "$short" ] && continue
        "$ax" run $network --ip 3.3.3.$number "$python" "$root/tests/e2e/programs/udp.py" server 9000 &
        want='.*"answer": "2.2.2.2 question 4".*'
        for kind in unconnected connected; do
            check "$form: UDP, $kind" page $network --ip 2.2.2.2 \
                "$python" "$root/tests/e2e/programs/udp.py" $kind 3.3.3.$number 9000
        done
        # both are started now; they bind and dial when there is no daemon any more
        "$ax" run $prod --ip $late sh -c "until [ -e $work/dead ]; do sleep 0.2; done; exec $nginx $work/late$number/conf" &
        "$ax" run $prod sh -c "echo >$work/ready$number; until curl -s http://$late/ >$work/got$number; do sleep 0.2; done" &
        check "$form: a client waits" test -e ready$number
    }
done
[ "$short" ] && { echo "$failures failed"; exit $failures; }
kill -9 $daemon && daemon=$$ && touch dead
for number in 1 2; do
    check "kill -9: a new server, a new connection ($number)" grep -q "^late$number$" got$number
done
daemon "the daemon starts again"
for network in "" --new-netns=false; do
    want=late2
    # shellcheck disable=SC2086
    check "${network:-empty namespace}: after that" page $network --labels role=prod curl -sS http://1.1.2.2/
done
check "it knows the apps" sh -c "'$ax' get servers | grep -q '1.1.2.1:80'"
echo "$failures failed"
[ $failures = 0 ] || cat daemon.log
exit $failures
