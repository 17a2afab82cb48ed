"""Spending above the threshold, with the Python client: asked, refused, agreed to; and a host that cannot ask.

    approve.py MODE URL TOKEN_FILE
"""

import asyncio
import json
import sys
from pathlib import Path

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


def server(url, token_file):
    headers = {"Authorization": "Bearer " + Path(token_file).read_text().strip()}
    return streamable_http_client(url, http_client=httpx2.AsyncClient(headers=headers, timeout=60))


async def main(mode, url, token_file):
    asked = []
    answers = []

    async def ask(context, question):
        asked.append(question.message)
        return answers.pop(0)

    order = {"budget_usdc": 2, "tools": ["wait"]}
    async with Client(server(url, token_file), mode=mode, elicitation_callback=ask) as client:
        for _ in range(100):
            if (await client.call_tool("find_providers", {"tool": "wait"})).structured_content["providers"]:
                break
            await asyncio.sleep(0.1)
        answers.append(types.ElicitResult(action="decline"))
        declined = await client.call_tool("open_session", order)
        assert declined.is_error and declined.structured_content["code"] == "approval_declined", declined
        answers.append(types.ElicitResult(action="accept", content={"approve": False}))
        declined = await client.call_tool("open_session", order)
        assert declined.is_error and declined.structured_content["code"] == "approval_declined", declined
        answers.append(types.ElicitResult(action="accept", content={"approve": True}))
        opened = await client.call_tool("open_session", order)
        assert not opened.is_error, opened
        assert len(asked) == 3 and "2 USDC" in asked[0], asked
        small = await client.call_tool("open_session", {"budget_usdc": 0.5, "tools": ["wait"]})
        assert not small.is_error and len(asked) == 3, small
        session = small.structured_content["session_id"]
        answers.append(types.ElicitResult(action="accept", content={"approve": True}))
        raised = await client.call_tool("top_up_session", {"session_id": session, "budget_usdc": 1.5})
        assert not raised.is_error and raised.structured_content["budget_usdc"] == "1.5" and len(asked) == 4, raised
        for one in (session, opened.structured_content["session_id"]):
            await client.call_tool("end_session", {"session_id": one})
    async with Client(server(url, token_file), mode=mode) as client:
        refused = await client.call_tool("open_session", order)
        assert refused.is_error and refused.structured_content["code"] == "approval_required", refused
        assert refused.structured_content["limit_usdc"] == "1", refused
    print(json.dumps({"asked": asked}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
