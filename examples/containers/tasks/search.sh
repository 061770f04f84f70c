#!/bin/sh
if [ ! -f data.txt ]; then
    echo "data.txt is missing" >&2
    exit 1
fi
grep important data.txt
