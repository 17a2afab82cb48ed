#!/bin/sh
# RUSTC_WRAPPER: adds coverage counters to our own crates and to the parsers they rest on, and to nothing that runs at build time.
rustc=$1
shift
name= target=
last=
for word in "$@"; do
    [ "$last" = --crate-name ] && name=$word
    [ "$word" = --target ] && target=yes
    last=$word
done
case "$target:$name" in
yes:orien_* | yes:bincode | yes:serde_json | yes:jsonc_parser | yes:toml* | yes:shlex | yes:ulid)
    exec "$rustc" "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1
    ;;
*) exec "$rustc" "$@" ;;
esac
