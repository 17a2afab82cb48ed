#!/usr/bin/env python3
"""Rents a C compiler for one file, over plain HTTP, with nothing but the standard library.

    export ORIEN_GATEWAY=http://127.0.0.1:8402 ORIEN_TOKEN=$(cat orien-data/gateway/door.token)
    python3 agent.py hello.c hello
"""

import json
import os
import sys
import urllib.error
import urllib.request
import uuid

GATEWAY = os.environ.get("ORIEN_GATEWAY", "http://127.0.0.1:8402")
TOKEN = os.environ["ORIEN_TOKEN"]


def ask(method, path, body=None, data=None, **headers):
    """One request. Whatever acts carries a key: sent again under the same key, it is done once."""
    headers["Authorization"] = f"Bearer {TOKEN}"
    if method == "POST":
        headers["Idempotency-Key"] = str(uuid.uuid4())
    if body is not None:
        data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    request = urllib.request.Request(GATEWAY + path, data=data, method=method, headers=headers)
    try:
        return urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        missing = f", missing {problem['missing']} USDC" if "missing" in problem else ""
        sys.exit(f"{problem['code']}: {problem.get('detail', problem['title'])}{missing}")


def follow(run):
    """The output of a run as it comes: server-sent events, each a line of JSON. Returns the last one."""
    event = None
    with ask("GET", f"/logs/{run}") as log:
        for line in log:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                event = value
            elif name == "data" and event in ("stdout", "stderr"):
                print(json.loads(value)["line"], file=getattr(sys, event))
            elif name == "data" and event == "gap":
                print("(some output is missing here)", file=sys.stderr)
            elif name == "data" and event == "end":
                return json.loads(value)


def main(source, program):
    order = {"providerId": "auto", "tools": ["compile_file"], "budgetAllowance": "0.5", "mission": "compile one file"}
    session = json.load(ask("POST", "/api/sessions", order))["id"]
    files = f"/api/sessions/{session}/files"
    try:
        with open(source, "rb") as file:
            ask("PUT", f"{files}/main.c", data=file.read())
        args = {"source_file": "main.c", "output_path": "program"}
        run = json.load(ask("POST", "/tools/run", {"sessionId": session, "toolId": "compile_file", "args": args}))["executionId"]
        end = follow(run)
        if end["exitCode"] == 0:
            with ask("GET", f"{files}/program") as made, open(program, "wb") as file:
                while block := made.read(1 << 20):
                    file.write(block)
            os.chmod(program, 0o755)
    finally:
        ended = json.load(ask("POST", f"/api/sessions/{session}/end"))
        print(f"{ended['status']}: {ended['budgetConsumed']} of {ended['budgetAllowance']} USDC", file=sys.stderr)
    return end["exitCode"] if end["exitCode"] is not None else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
