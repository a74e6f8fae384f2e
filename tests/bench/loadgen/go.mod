module malote.dev/bench/loadgen

go 1.22
