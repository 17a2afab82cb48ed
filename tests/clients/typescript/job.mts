// The whole job of an agent over MCP, with the TypeScript client: find, open, upload, run, follow, download, run out of budget, cancel, end.
//
//     job.mts MODE http URL TOKEN_FILE        MODE is auto or legacy
//     job.mts MODE stdio PROGRAM ARGUMENT...
//
// Prints what happened as JSON; ends with an error at the first thing that is not as promised.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

type Content = Record<string, any>;

const MAKEFILE = "all:\n\t@for i in 1 2 3 4 5 6; do echo step $$i; sleep 0.3; done; printf 'made by a tool\\n' > made.txt\n";

const [mode, kind, ...rest] = process.argv.slice(2);
const client = new Client({ name: 'orien-job', version: '1' }, { versionNegotiation: { mode: mode as 'auto' | 'legacy' } });

function transport() {
    if (kind === 'stdio') {
        const [command, ...args] = rest;
        return new StdioClientTransport({ command: command!, args });
    }
    const [url, tokenFile] = rest;
    const headers = { Authorization: `Bearer ${readFileSync(tokenFile!, 'utf8').trim()}` };
    return new StreamableHTTPClientTransport(new URL(url!), { requestInit: { headers } });
}

async function good(name: string, args: Content, options = {}): Promise<Content> {
    const result = await client.callTool({ name, arguments: args }, options);
    assert(!result.isError && result.structuredContent, `${name}: ${JSON.stringify(result)}`);
    return result.structuredContent as Content;
}

async function bad(code: string, name: string, args: Content): Promise<Content> {
    const result = await client.callTool({ name, arguments: args });
    const told = result.structuredContent as Content;
    assert(result.isError && told.code === code && told.next.length > 0, `${name}: ${JSON.stringify(result)}`);
    return told;
}

async function until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
    const begun = Date.now();
    for (;;) {
        const found = await look();
        if (found !== undefined) return found;
        assert(Date.now() - begun < 20_000, `${what} did not come`);
        await sleep(100);
    }
}

async function build(session: string): Promise<number> {
    await good('put_file', { session_id: session, path: 'Makefile', text: MAKEFILE });
    const told: { progress: number; message?: string }[] = [];
    const run = await good('run_tool', { session_id: session, tool_id: 'run_build' }, { onprogress: (progress: any) => told.push(progress) });
    assert(run.status === 'completed' && run.exit_code === 0, JSON.stringify(run));
    assert.deepEqual(run.output.trim().split('\n'), [1, 2, 3, 4, 5, 6].map((i) => `step ${i}`));
    assert(told.length > 0 && told.length <= 6 && told.some(({ message }) => message?.startsWith('step ')), JSON.stringify(told));
    assert(told.every((one, i) => i === 0 || one.progress > told[i - 1]!.progress), JSON.stringify(told));
    assert.equal((await good('get_file', { session_id: session, path: 'made.txt' })).text, 'made by a tool\n');
    const files = (await good('list_files', { session_id: session })).files.map((file: Content) => file.path);
    assert(files.includes('Makefile') && files.includes('made.txt'), files);
    return told.length;
}

async function runOutOfBudget(): Promise<string> {
    const { session_id: session } = await good('open_session', { budget_usdc: 0.007, tools: ['wait'] });
    const stopped = await bad('budget_exhausted', 'run_tool', { session_id: session, tool_id: 'wait', args: { seconds: 60 } });
    assert(stopped.end_reason === 'budget_reached' && stopped.session_id === session, JSON.stringify(stopped));
    const refused = await bad('budget_exhausted', 'run_tool', { session_id: session, tool_id: 'wait', args: { seconds: 1 } });
    assert(Number(refused.missing_usdc) > 0 && refused.next[0] === 'top_up_session', JSON.stringify(refused));
    await good('end_session', { session_id: session });
    return session;
}

async function cancel(session: string): Promise<Content> {
    const stop = new AbortController();
    const args = { session_id: session, tool_id: 'wait', args: { seconds: 120 } };
    const call = client.callTool({ name: 'run_tool', arguments: args }, { signal: stop.signal }).then(
        () => 'answered',
        () => 'given up',
    );
    await sleep(2000);
    stop.abort();
    assert.equal(await call, 'given up');
    const ended = await until('the end of a run that was given up', async () => {
        const { runs } = await good('session_status', { session_id: session });
        return runs.find((run: Content) => run.tool_id === 'wait' && run.status === 'failed');
    });
    const run = await good('get_run', { run_id: ended.run_id });
    const seconds = Number(run.effective_seconds);
    assert(run.end_reason === 'cancelled' && seconds > 1 && seconds < 8, JSON.stringify(run));
    return { seconds, cost: run.cost_so_far_usdc };
}

async function detach(session: string): Promise<void> {
    const run = await good('run_tool', { session_id: session, tool_id: 'wait', args: { seconds: 60 }, detach: true });
    assert(['pending', 'running'].includes(run.status) && run.hint, JSON.stringify(run));
    assert.equal((await good('get_run', { run_id: run.run_id, wait_s: 1 })).status, 'running');
    assert.equal((await good('cancel_run', { run_id: run.run_id })).end_reason, 'cancelled');
}

await client.connect(transport());
const told: Content = { protocol: client.getNegotiatedProtocolVersion?.(), server: client.getServerVersion()?.name };
const names = (await client.listTools()).tools.map((tool) => tool.name);
assert.deepEqual(names, [...names].sort());
const provider = await until('a provider', async () => (await good('find_providers', { tool: 'run_build' })).providers[0]);
const { session_id: session } = await good('open_session', { budget_usdc: 0.5, provider_id: provider.provider_id });
const rented = (await good('list_tools_in_session', { session_id: session })).tools.map((tool: Content) => tool.tool_id);
assert(rented.includes('run_build') && rented.includes('wait'), rented);
told.progress = await build(session);
await bad('bad_arguments', 'run_tool', { session_id: session, tool_id: 'wait', args: { seconds: -1 } });
told.cancelled = await cancel(session);
await detach(session);
told.session = session;
told.broke = await runOutOfBudget();
const ended = await good('end_session', { session_id: session });
assert(ended.status === 'completed' && Number(ended.settlement.total_usdc) > 0, JSON.stringify(ended));
told.cost = ended.settlement.total_usdc;
await client.close();
console.log(JSON.stringify(told));
