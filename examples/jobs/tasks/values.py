#!/usr/bin/env python3
"""Prints each of $.items[*].value of input.json."""

import json

with open("input.json") as file:
    document = json.load(file)
for item in document["items"]:
    if "value" in item:
        print(item["value"])
