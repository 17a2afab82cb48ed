"""The whole job of an agent over MCP, with the Python client: find, open, upload, run, follow, download, run out of budget, cancel, end.

    job.py MODE http URL TOKEN_FILE        MODE is auto or legacy
    job.py MODE stdio PROGRAM ARGUMENT...

Prints what happened as JSON; ends with an error at the first thing that is not as promised.
"""

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

MAKEFILE = "all:\n\t@for i in 1 2 3 4 5 6; do echo step $$i; sleep 0.3; done; printf 'made by a tool\\n' > made.txt\n"


def server(arguments):
    kind, *rest = arguments
    if kind == "http":
        url, token_file = rest
        headers = {"Authorization": "Bearer " + Path(token_file).read_text().strip()}
        client = httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30, read=120))
        return streamable_http_client(url, http_client=client)
    return StdioServerParameters(command=rest[0], args=rest[1:])


def good(result):
    assert not result.is_error, result
    assert result.structured_content, result
    return result.structured_content


def bad(result, code):
    assert result.is_error, result
    assert result.structured_content["code"] == code, result.structured_content
    assert result.structured_content["next"], result.structured_content
    return result.structured_content


async def find(client):
    for _ in range(100):
        found = good(await client.call_tool("find_providers", {"tool": "run_build"}))
        if found["providers"]:
            return found["providers"][0]
        await asyncio.sleep(0.1)
    raise AssertionError("no provider came")


async def build(client, session):
    """Runs a tool that writes a line now and then, and looks at what it made."""
    await client.call_tool("put_file", {"session_id": session, "path": "Makefile", "text": MAKEFILE})
    told = []

    async def progress(value, total, message):
        told.append((value, message))

    run = good(await client.call_tool("run_tool", {"session_id": session, "tool_id": "run_build"}, progress_callback=progress))
    assert run["status"] == "completed" and run["exit_code"] == 0, run
    assert [f"step {i}" for i in range(1, 7)] == run["output"].splitlines(), run
    assert told and all(a[0] < b[0] for a, b in zip(told, told[1:])), told
    assert any(message.startswith("step ") for _, message in told), told
    assert len(told) <= 6, told
    after = good(await client.call_tool("get_run", {"run_id": run["run_id"], "log_cursor": 4}))
    assert after["output"].splitlines() == ["step 5", "step 6"] and after["log_cursor"] == 6, after
    piece = good(await client.call_tool("get_file", {"session_id": session, "path": "made.txt"}))
    assert piece["text"] == "made by a tool\n" and not piece["truncated"], piece
    part = await client.call_tool("get_file", {"session_id": session, "path": "made.txt", "offset": 5, "max_bytes": 2})
    assert good(part)["text"] == "by" and good(part)["truncated"], part
    link = next(block for block in part.content if block.type == "resource_link")
    read = await client.read_resource(link.uri)
    assert read.contents[0].text == "made by a tool\n", read
    listed = good(await client.call_tool("list_files", {"session_id": session}))
    assert {"Makefile", "made.txt"} <= {file["path"] for file in listed["files"]}, listed
    bad(await client.call_tool("get_file", {"session_id": session, "path": "absent"}), "no_such_file")
    return len(told)


async def run_out_of_budget(client):
    """A small budget stops a run in its middle, and refuses the next one."""
    opened = good(await client.call_tool("open_session", {"budget_usdc": 0.007, "tools": ["wait"]}))
    session = opened["session_id"]
    stopped = bad(await client.call_tool("run_tool", {"session_id": session, "tool_id": "wait", "args": {"seconds": 60}}), "budget_exhausted")
    assert stopped["session_id"] == session and stopped["end_reason"] == "budget_reached", stopped
    refused = bad(await client.call_tool("run_tool", {"session_id": session, "tool_id": "wait", "args": {"seconds": 1}}), "budget_exhausted")
    assert float(refused["missing_usdc"]) > 0 and refused["next"][0] == "top_up_session" and "remaining_usdc" in refused, refused
    more = good(await client.call_tool("top_up_session", {"session_id": session, "budget_usdc": "0.05"}))
    assert float(more["budget_usdc"]) == 0.05, more
    good(await client.call_tool("run_tool", {"session_id": session, "tool_id": "wait", "args": {"seconds": 0}}))
    return good(await client.call_tool("end_session", {"session_id": session}))


async def cancel(client, session):
    """A call that is given up stops its tool, and only the time until then is charged."""
    before = good(await client.call_tool("session_status", {"session_id": session}))
    call = asyncio.create_task(client.call_tool("run_tool", {"session_id": session, "tool_id": "wait", "args": {"seconds": 120}}))
    await asyncio.sleep(2)
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    begun = time.monotonic()
    while True:
        now = good(await client.call_tool("session_status", {"session_id": session}))
        newest = next(run for run in now["runs"] if run["tool_id"] == "wait")
        if newest["status"] == "failed":
            break
        assert time.monotonic() - begun < 15, now
        await asyncio.sleep(0.1)
    run = good(await client.call_tool("get_run", {"run_id": newest["run_id"]}))
    assert run["end_reason"] == "cancelled", run
    seconds = float(run["effective_seconds"])
    assert 1 < seconds < 8, run
    return {"seconds": seconds, "cost": run["cost_so_far_usdc"], "spentBefore": before["spent_usdc"]}


async def detach(client, session):
    """A detached run goes on, is found by its handle, and is stopped by it."""
    begun = time.monotonic()
    order = {"session_id": session, "tool_id": "wait", "args": {"seconds": 60}, "detach": True, "request_id": "one"}
    run = good(await client.call_tool("run_tool", order))
    assert run["status"] in ("pending", "running") and run["hint"] and time.monotonic() - begun < 10, run
    again = good(await client.call_tool("run_tool", order))
    assert again["run_id"] == run["run_id"], (run, again)
    short = good(await client.call_tool("get_run", {"run_id": run["run_id"], "wait_s": 1}))
    assert short["status"] == "running", short
    stopped = good(await client.call_tool("cancel_run", {"run_id": run["run_id"]}))
    assert stopped["status"] == "failed" and stopped["end_reason"] == "cancelled", stopped


async def job(mode, arguments):
    async with Client(server(arguments), mode=mode) as client:
        told = {"protocol": client.protocol_version, "server": client.server_info.name}
        tools = (await client.list_tools()).tools
        names = [tool.name for tool in tools]
        assert names == sorted(names) and "run_tool" in names and all(tool.output_schema for tool in tools), names
        provider = await find(client)
        asked = {"budget_usdc": 0.5, "provider_id": provider["provider_id"], "mission": "try everything", "request_id": f"open-{mode}-{time.time()}"}
        opened = good(await client.call_tool("open_session", asked))
        assert good(await client.call_tool("open_session", asked))["session_id"] == opened["session_id"]
        session = opened["session_id"]
        rented = good(await client.call_tool("list_tools_in_session", {"session_id": session}))["tools"]
        assert {"run_build", "wait"} <= {tool["tool_id"] for tool in rented}, rented
        told["progress"] = await build(client, session)
        bad(await client.call_tool("run_tool", {"session_id": session, "tool_id": "wait", "args": {"seconds": -1}}), "bad_arguments")
        bad(await client.call_tool("run_tool", {"session_id": session, "tool_id": "nothing"}), "unknown_tool")
        bad(await client.call_tool("session_status", {"session_id": "nothing"}), "session_not_found")
        with contextlib.suppress(Exception):
            await client.call_tool("no_such_tool", {})
            raise SystemExit("an unknown tool was not refused")
        told["cancelled"] = await cancel(client, session)
        await detach(client, session)
        told["session"] = session
        told["broke"] = (await run_out_of_budget(client))["session_id"]
        ended = good(await client.call_tool("end_session", {"session_id": session}))
        assert ended["status"] == "completed", ended
        shares = ended["settlement"]
        parts = sum(round(float(shares[name]) * 1e6) for name in ("provider_usdc", "platform_usdc", "reserve_usdc"))
        assert parts == round(float(shares["total_usdc"]) * 1e6), shares
        assert good(await client.call_tool("end_session", {"session_id": session}))["status"] == "completed"
        told["cost"] = shares["total_usdc"]
        print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(job(sys.argv[1], sys.argv[2:]))
