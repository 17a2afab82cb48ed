// Rents a C compiler for one file, over plain HTTP, with nothing but fetch. Node.js 22.18 or newer runs it as it is:
//
//   export ORIEN_GATEWAY=http://127.0.0.1:8402 ORIEN_TOKEN=$(cat orien-data/gateway/door.token)
//   node agent.ts hello.c hello

import { readFile, writeFile } from "node:fs/promises";

const gateway = process.env.ORIEN_GATEWAY ?? "http://127.0.0.1:8402";

type Session = { id: string; status: string; budgetConsumed: number; budgetAllowance: number };
type End = { executionId: string; status: string; exitCode: number | null; endReason: string | null };

/** One request. Whatever acts carries a key: sent again under the same key, it is done once. */
async function ask(method: string, path: string, body?: object | Uint8Array): Promise<Response> {
  const headers: Record<string, string> = { Authorization: `Bearer ${process.env.ORIEN_TOKEN}` };
  if (method === "POST") headers["Idempotency-Key"] = crypto.randomUUID();
  const isBytes = body instanceof Uint8Array;
  if (body && !isBytes) headers["Content-Type"] = "application/json";
  const response = await fetch(gateway + path, { method, headers, body: isBytes || !body ? body : JSON.stringify(body) });
  if (response.ok) return response;
  const problem = await response.json();
  const missing = problem.missing ? `, missing ${problem.missing} USDC` : "";
  throw new Error(`${problem.code}: ${problem.detail ?? problem.title}${missing}`);
}

/** The output of a run as it comes: server-sent events, each a line of JSON. Returns the last one. */
async function follow(run: string): Promise<End> {
  const log = await ask("GET", `/logs/${run}`);
  let event = "";
  let rest = "";
  for await (const piece of log.body!.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + piece).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      if (line.startsWith("event: ")) event = line.slice(7);
      if (!line.startsWith("data: ")) continue;
      const data = JSON.parse(line.slice(6));
      if (event === "stdout") console.log(data.line);
      if (event === "stderr") console.error(data.line);
      if (event === "gap") console.error("(some output is missing here)");
      if (event === "end") return data;
    }
  }
  throw new Error("the log broke off; ask again with Last-Event-ID to go on");
}

const [source, program] = process.argv.slice(2);
const order = { providerId: "auto", tools: ["compile_file"], budgetAllowance: "0.5", mission: "compile one file" };
const session: Session = await (await ask("POST", "/api/sessions", order)).json();
const files = `/api/sessions/${session.id}/files`;
try {
  await ask("PUT", `${files}/main.c`, await readFile(source));
  const args = { source_file: "main.c", output_path: "program" };
  const started = await (await ask("POST", "/tools/run", { sessionId: session.id, toolId: "compile_file", args })).json();
  const end = await follow(started.executionId);
  process.exitCode = end.exitCode ?? 1;
  if (end.exitCode === 0) {
    const made = await ask("GET", `${files}/program`);
    await writeFile(program, made.body!, { mode: 0o755 });
  }
} finally {
  const ended: Session = await (await ask("POST", `/api/sessions/${session.id}/end`)).json();
  console.error(`${ended.status}: ${ended.budgetConsumed} of ${ended.budgetAllowance} USDC`);
}
