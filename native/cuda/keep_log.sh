#!/bin/sh
# keep_log.sh OBJECT COMMAND...: compiles, and keeps what ptxas said of registers and spills in OBJECT.ptxas, so that it is there
# for objects too that were up to date. Everything else goes on to standard error.
object=$1
shift
"$@" 2>"$object.stderr"
status=$?
if [ -e "$object.stderr" ]; then
  grep -E '^ptxas info|^ +[0-9]+ bytes stack frame|^ *Compile time' "$object.stderr" >"$object.ptxas"
  grep -vE '^ptxas info|^ +[0-9]+ bytes stack frame|^ *Compile time' "$object.stderr" >&2
  [ -s "$object.ptxas" ] || rm -f "$object.ptxas"
  rm -f "$object.stderr"
fi
exit $status
